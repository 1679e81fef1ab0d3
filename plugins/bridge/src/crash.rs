//! A plugin that ends the process (an abort, a panic, a wrong address, `exit`) is named on standard error, in a line of ours and
//! in place of the runtime's banner, which would call it a fault of the runtime. Only what happens on a thread that is inside
//! of a plugin is ours: everything else goes to whoever handled the signal before, the JavaScript engine among them, which
//! uses SIGSEGV for purposes of its own.

use std::mem;
use std::ptr;
use std::sync::Once;

use libc::{c_int, c_void, sigaction, siginfo_t};

use crate::calls;
use crate::say::{Level, Line};

const SIGNALS: [(c_int, &str); 7] = [
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGABRT, "SIGABRT"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGTRAP, "SIGTRAP"),
    (libc::SIGSYS, "SIGSYS"),
];

/// Who handled each signal before us. Written once, before our handlers are there to read it.
static mut BEFORE: [mem::MaybeUninit<sigaction>; SIGNALS.len()] = [const { mem::MaybeUninit::uninit() }; SIGNALS.len()];

/// From now on plugins that end the process are named.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (index, (signal, _)) in SIGNALS.iter().enumerate() {
            // SAFETY: nobody reads BEFORE[index] before the second call below.
            unsafe {
                let mut before: sigaction = mem::zeroed();
                if sigaction(*signal, ptr::null(), &mut before) != 0 {
                    continue;
                }
                (&raw mut BEFORE[index]).write(mem::MaybeUninit::new(before));
                let mut ours: sigaction = mem::zeroed();
                ours.sa_sigaction = on_signal as *const () as usize;
                ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | (before.sa_flags & libc::SA_RESTART);
                libc::sigemptyset(&mut ours.sa_mask);
                sigaction(*signal, &ours, ptr::null_mut());
            }
        }
        // SAFETY: a function that lives as long as the process: this library is never closed.
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        unsafe {
            at_quick_exit(on_quick_exit)
        };
    });
}

extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel calls this as `watch` has asked it to.
    unsafe {
        let errno = errno();
        let saved = *errno;
        let Some(index) = SIGNALS.iter().position(|(known, _)| *known == signal) else { return };
        let inside = if is_of_this_process(info) { calls::of_this_thread() } else { None };
        if let Some(inside) = inside {
            let mut line = Line::new(Level::Error);
            line.add("plugin ").quoted(inside.name).add(" crashed in ").add(inside.part.name()).add(" (").add(SIGNALS[index].1);
            line.add("): this ends the process. It is a fault of the plugin: take it out of [[plugins]], or ask its author.");
            line.write();
            end_by(signal);
        } else {
            pass_on(index, signal, info, context);
        }
        *errno = saved;
    }
}

/// A fault, or a signal that the process has sent itself (abort); not one that somebody else has sent it.
unsafe fn is_of_this_process(info: *const siginfo_t) -> bool {
    unsafe { (*info).si_code > 0 || (*info).si_pid() == libc::getpid() }
}

/// Ends the process as if nobody handled the signal: with a core dump, where those are made, and the exit status of the signal.
unsafe fn end_by(signal: c_int) {
    unsafe {
        let mut default: sigaction = mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        sigaction(signal, &default, ptr::null_mut());
        // The signal is blocked in here and comes when this returns, before the thread goes on.
        libc::raise(signal);
    }
}

unsafe fn pass_on(index: usize, signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    unsafe {
        let before = &raw const BEFORE[index];
        let before = (*before).assume_init_ref();
        match before.sa_sigaction {
            // Ignored or not, a fault that nobody handles comes again, and then ends the process.
            libc::SIG_DFL => end_by(signal),
            libc::SIG_IGN if (*info).si_code > 0 => end_by(signal),
            libc::SIG_IGN => {}
            handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
                mem::transmute::<usize, extern "C" fn(c_int, *mut siginfo_t, *mut c_void)>(handler)(signal, info, context);
            }
            handler => mem::transmute::<usize, extern "C" fn(c_int)>(handler)(signal),
        }
    }
}

/// Says that the plugin has called `exit`, or ends the thread that it was called on.
pub fn say_exit(inside: &calls::Inside) {
    let mut line = Line::new(Level::Error);
    line.add("plugin ").quoted(inside.name).add(" called exit in ").add(inside.part.name());
    line.add(": this ends the process. It is a fault of the plugin: take it out of [[plugins]], or ask its author.");
    line.write();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
unsafe extern "C" {
    fn at_quick_exit(function: extern "C" fn()) -> c_int;
}

/// `quick_exit` tells no thread that it ends, so that `calls.rs` does not see it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
extern "C" fn on_quick_exit() {
    if let Some(inside) = calls::of_this_thread() {
        say_exit(&inside);
    }
}

#[cfg(target_os = "linux")]
unsafe fn errno() -> *mut c_int {
    unsafe { libc::__errno_location() }
}

#[cfg(not(target_os = "linux"))]
unsafe fn errno() -> *mut c_int {
    unsafe { libc::__error() }
}

/// A stack for the handler on a thread that has none of its own, for the plugin that recurses until the thread's ends.
pub struct SignalStack {
    memory: *mut c_void,
}

const SIGNAL_STACK: usize = 64 * 1024;

impl SignalStack {
    pub fn of_this_thread() -> Option<SignalStack> {
        // SAFETY: asks for what is there, and gives memory that stays until `drop`, which takes it back first.
        unsafe {
            let mut before: libc::stack_t = mem::zeroed();
            if libc::sigaltstack(ptr::null(), &mut before) != 0 || before.ss_flags & libc::SS_DISABLE == 0 {
                return None;
            }
            let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let memory = libc::mmap(ptr::null_mut(), SIGNAL_STACK, access, kind, -1, 0);
            if memory == libc::MAP_FAILED {
                return None;
            }
            let stack = libc::stack_t { ss_sp: memory, ss_flags: 0, ss_size: SIGNAL_STACK };
            if libc::sigaltstack(&stack, ptr::null_mut()) != 0 {
                libc::munmap(memory, SIGNAL_STACK);
                return None;
            }
            Some(SignalStack { memory })
        }
    }
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        // SAFETY: on the thread that made it, when that ends; no handler runs on it now.
        unsafe {
            let mut now: libc::stack_t = mem::zeroed();
            // Somebody may have put another in its place.
            if libc::sigaltstack(ptr::null(), &mut now) == 0 && now.ss_sp == self.memory {
                let none = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: SIGNAL_STACK };
                libc::sigaltstack(&none, ptr::null_mut());
            }
            libc::munmap(self.memory, SIGNAL_STACK);
        }
    }
}
