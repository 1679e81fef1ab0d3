//! One thread with a huge stack, for the few statements whose tree is too deep for an ordinary thread: parsing, walking and
//! dropping a tree all recurse, and a stack that overflows takes the process with it.
//! One thread for ever rather than one per job: libpg_query leaves memory behind with every thread that used it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, OnceLock};
use std::thread;

use crate::meter;

/// Bytes of the largest stack. Address space only: pages are taken when touched, and given back after each job. A small machine
/// may refuse it.
pub const LARGEST: usize = 1 << 30;
const SIZES: [usize; 3] = [LARGEST, 256 << 20, 64 << 20];

/// Bytes of stack that are not worth a system call per job. The meter sees Rust's share only, which is most of it.
const KEPT_STACK: usize = 1 << 20;

type Outcome = Result<(), Box<dyn Any + Send>>;
type Job = Box<dyn FnOnce() + Send>;

struct Deep {
    stack: usize,
    jobs: Mutex<Sender<(Job, SyncSender<Outcome>)>>,
}

/// The deep thread. None: this machine gives none at this moment. It may later.
fn thread() -> Option<&'static Deep> {
    static THREAD: OnceLock<Deep> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    if let Some(deep) = THREAD.get() {
        return Some(deep);
    }
    let _alone = STARTING.lock().unwrap_or_else(|broken| broken.into_inner());
    if THREAD.get().is_none() {
        let _ = THREAD.set(SIZES.into_iter().find_map(start)?);
    }
    THREAD.get()
}

fn start(stack: usize) -> Option<Deep> {
    let (sender, receiver) = channel::<(Job, SyncSender<Outcome>)>();
    thread::Builder::new()
        .name("pgdog-deep".into())
        .stack_size(stack)
        .spawn(move || {
            for (job, done) in receiver {
                let (outcome, _, used) = meter::measured(|| catch_unwind(AssertUnwindSafe(job)));
                if used > KEPT_STACK {
                    give_back_stack(stack);
                }
                // A caller cannot have gone: it waits.
                let _ = done.send(outcome);
            }
        })
        .ok()?;
    Some(Deep { stack, jobs: Mutex::new(sender) })
}

/// Bytes of the big stack; 0 when this machine gives none.
pub fn stack() -> usize {
    thread().map_or(0, |deep| deep.stack)
}

/// Gives back what a deep job has touched of the stack, which would stay resident for ever.
#[inline(never)]
fn give_back_stack(stack: usize) {
    #[cfg(not(target_os = "linux"))]
    let _ = stack;
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 4096;
        const MARGIN: usize = 256 * 1024;
        let here = 0u8;
        let end = (&raw const here as usize - MARGIN) & !(PAGE - 1);
        // The guard page and the thread's own block are well within the last MARGIN of either end.
        let length = (stack - 4 * MARGIN) & !(PAGE - 1);
        // SAFETY: the range is below everything that is live on this stack and above its guard page.
        unsafe { libc::madvise((end - length) as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
}

/// Runs `work` on the big stack and waits for it. None: there is no such thread (no address space), or `work` panicked.
pub fn run<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    let deep = thread()?;
    let mut result: Option<T> = None;
    let (done, finished) = sync_channel(1);
    {
        let slot = &mut result;
        let job: Box<dyn FnOnce() + Send + '_> = Box::new(move || *slot = Some(work()));
        // SAFETY: this function does not return before the job has run, so what it borrows outlives it.
        let job: Job = unsafe { std::mem::transmute(job) };
        let sent = deep.jobs.lock().unwrap_or_else(|broken| broken.into_inner()).send((job, done));
        if sent.is_err() || !matches!(finished.recv(), Ok(Ok(()))) {
            return None;
        }
    }
    result
}
