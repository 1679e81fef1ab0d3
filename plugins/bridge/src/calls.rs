//! Which plugin each thread is inside of: for the line that is written when a plugin ends the process (crash.rs) and for the
//! one that is written when it does not come back (watch.rs). Read from signal handlers, so all of it is plain memory that is
//! there from the start and never given back.

use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::crash;

/// Plugins that have a name here; calls of further ones are not marked. A configuration has a handful.
const MOST_PLUGINS: usize = 256;
/// Threads inside of plugins; calls on further ones are not marked. One per worker, the main one and the deep one.
const MOST_THREADS: usize = 512;

/// What of a plugin is being run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Part {
    /// Constructors of the library, and the functions that tell its versions.
    Load = 0,
    Init = 1,
    Route = 2,
    Fini = 3,
}

impl Part {
    pub fn from(number: u32) -> Part {
        match number {
            0 => Part::Load,
            1 => Part::Init,
            2 => Part::Route,
            _ => Part::Fini,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Part::Load => "its constructors",
            Part::Init => "init",
            Part::Route => "route",
            Part::Fini => "fini",
        }
    }
}

/// A plugin's name as it stands in a line of text and in one of JSON. Lives for ever.
pub struct Name {
    pub text: Vec<u8>,
    pub json: Vec<u8>,
}

static NAMES: [AtomicPtr<Name>; MOST_PLUGINS] = [const { AtomicPtr::new(ptr::null_mut()) }; MOST_PLUGINS];
static NAMED: Mutex<usize> = Mutex::new(0);

/// The number by which calls of this plugin are marked; the same for the same name.
pub fn register(name: &str) -> u32 {
    let mut named = NAMED.lock().unwrap_or_else(|broken| broken.into_inner());
    for (number, slot) in NAMES.iter().enumerate().take(*named) {
        // SAFETY: what was stored is never freed.
        if unsafe { slot.load(Ordering::Acquire).as_ref() }.is_some_and(|known| known.text == name.as_bytes()) {
            return number as u32;
        }
    }
    if *named < MOST_PLUGINS {
        let name = Name { text: name.as_bytes().to_vec(), json: escaped(name) };
        NAMES[*named].store(Box::into_raw(Box::new(name)), Ordering::Release);
        *named += 1;
        return *named as u32 - 1;
    }
    MOST_PLUGINS as u32
}

fn escaped(name: &str) -> Vec<u8> {
    let mut json = String::new();
    for letter in name.chars() {
        match letter {
            '"' | '\\' => json.extend(['\\', letter]),
            _ if (letter as u32) < 32 => json.push_str(&format!("\\u{:04x}", letter as u32)),
            _ => json.push(letter),
        }
    }
    json.into_bytes()
}

pub struct Slot {
    /// The kernel's number of the thread whose slot this is; 0: nobody's.
    thread: AtomicI32,
    /// 0 outside of plugins, else one more than the plugin's number times four and the part.
    doing: AtomicU32,
    /// Raised by every call: the same number twice is the same call.
    calls: AtomicU64,
}

static SLOTS: [Slot; MOST_THREADS] =
    [const { Slot { thread: AtomicI32::new(0), doing: AtomicU32::new(0), calls: AtomicU64::new(0) } }; MOST_THREADS];
/// Slots from here on were never anybody's.
static USED: AtomicUsize = AtomicUsize::new(0);

/// One thread's slot, and the stack on which it can say that its own has overflowed.
struct Mine {
    slot: Option<&'static Slot>,
    _stack: Option<crash::SignalStack>,
}

impl Drop for Mine {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            // `exit` comes here before its handlers run; so does a plugin that ends the thread alone.
            if let Some(inside) = inside(slot) {
                crash::say_exit(&inside);
            }
            slot.doing.store(0, Ordering::Relaxed);
            slot.thread.store(0, Ordering::Release);
        }
    }
}

thread_local! {
    static MINE: Mine = Mine { slot: claim(), _stack: crash::SignalStack::of_this_thread() };
}

fn claim() -> Option<&'static Slot> {
    let thread = this_thread();
    for (index, slot) in SLOTS.iter().enumerate() {
        if slot.thread.compare_exchange(0, thread, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            USED.fetch_max(index + 1, Ordering::AcqRel);
            return Some(slot);
        }
    }
    None
}

#[cfg(target_os = "linux")]
fn this_thread() -> i32 {
    // SAFETY: has no arguments and cannot fail. The call by number, since musl and old glibc have no function for it.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

#[cfg(not(target_os = "linux"))]
fn this_thread() -> i32 {
    // SAFETY: as above. Truncated: two threads at once with the same lower half are beyond what this is for.
    unsafe { libc::pthread_self() as usize as i32 | 1 }
}

/// Runs `work`, which calls a plugin, with the mark that this thread is inside of it.
pub fn marked<T>(plugin: u32, part: Part, work: impl FnOnce() -> T) -> T {
    // No slot while the thread is being torn down.
    let slot = MINE.try_with(|mine| mine.slot).ok().flatten();
    let Some(slot) = slot.filter(|_| (plugin as usize) < MOST_PLUGINS) else { return work() };
    // Calls do not nest, but for a plugin that makes the host call another one.
    let before = slot.doing.load(Ordering::Relaxed);
    slot.calls.fetch_add(1, Ordering::Relaxed);
    slot.doing.store(plugin * 4 + part as u32 + 1, Ordering::Release);
    let result = work();
    slot.doing.store(before, Ordering::Release);
    result
}

/// A plugin that a thread is inside of.
pub struct Inside {
    pub name: &'static Name,
    pub part: Part,
    pub call: u64,
}

fn inside(slot: &Slot) -> Option<Inside> {
    let doing = slot.doing.load(Ordering::Acquire).checked_sub(1)?;
    // SAFETY: what was stored is never freed.
    let name = unsafe { NAMES.get(doing as usize / 4)?.load(Ordering::Acquire).as_ref() }?;
    Some(Inside { name, part: Part::from(doing % 4), call: slot.calls.load(Ordering::Relaxed) })
}

/// What the thread that asks is inside of. For signal handlers: takes no lock, allocates nothing, touches no thread-local.
pub fn of_this_thread() -> Option<Inside> {
    let thread = this_thread();
    let slot = SLOTS.iter().take(USED.load(Ordering::Acquire)).find(|slot| slot.thread.load(Ordering::Acquire) == thread)?;
    inside(slot)
}

/// All threads that are inside of a plugin, each with the number of its slot.
pub fn all() -> impl Iterator<Item = (usize, Inside)> {
    let used = USED.load(Ordering::Acquire);
    SLOTS.iter().take(used).enumerate().filter_map(|(index, slot)| Some((index, inside(slot)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_inside_of_one_plugin_while_it_is() {
        let plugin = register("inside \"one\"");
        assert_eq!(register("inside \"one\""), plugin);
        assert!(of_this_thread().is_none());
        marked(plugin, Part::Route, || {
            let seen = of_this_thread().unwrap();
            assert_eq!((&seen.name.text[..], &seen.name.json[..]), (&b"inside \"one\""[..], &br#"inside \"one\""#[..]));
            assert_eq!(seen.part, Part::Route);
            std::thread::spawn(|| assert!(of_this_thread().is_none())).join().unwrap();
            marked(plugin, Part::Fini, || assert_eq!(of_this_thread().unwrap().part, Part::Fini));
            assert_eq!(of_this_thread().unwrap().part, Part::Route);
        });
        assert!(of_this_thread().is_none());
    }

    #[test]
    fn slots_of_threads_that_ended_are_used_again() {
        let plugin = register("short lives");
        for _ in 0..2 * MOST_THREADS {
            std::thread::spawn(move || marked(plugin, Part::Init, || assert!(of_this_thread().is_some()))).join().unwrap();
        }
        assert!(USED.load(Ordering::Relaxed) < MOST_THREADS);
    }
}
