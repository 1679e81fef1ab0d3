//! The allocator of the bridge: the system's, counting what one thread holds and how deep its stack was when it allocated.
//! `parse.rs` reads it around the decoding of a tree: the bytes bound the host's cache, the depth tells which trees are too
//! deep to be walked or dropped on an ordinary thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Bytes that malloc keeps per block, roughly.
const HEADER: isize = 16;

struct Counters {
    held: Cell<isize>,
    lowest: Cell<usize>,
}

thread_local! {
    // One variable, so that an allocation looks it up once.
    static COUNTERS: Counters = const { Counters { held: Cell::new(0), lowest: Cell::new(usize::MAX) } };
}

pub struct Meter;

/// Counts the bytes, and how deep the stack is. A thread that is torn down has no counters any more, and nobody asks for them.
fn note(bytes: isize) {
    let here = 0u8;
    let address = &raw const here as usize;
    let _ = COUNTERS.try_with(|counters| {
        counters.held.set(counters.held.get() + bytes);
        counters.lowest.set(counters.lowest.get().min(address));
    });
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as isize + HEADER);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(-(layout.size() as isize + HEADER));
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size as isize - layout.size() as isize);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Runs `work`; returns its result, the bytes it left allocated on this thread, and the bytes of stack it went down.
pub fn measured<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
    let here = 0u8;
    let top = &raw const here as usize;
    let before = COUNTERS.with(|counters| {
        counters.lowest.set(usize::MAX);
        counters.held.get()
    });
    let result = work();
    let (after, lowest) = COUNTERS.with(|counters| (counters.held.get(), counters.lowest.get()));
    let held = after - before;
    (result, held.max(0) as usize, top.saturating_sub(lowest))
}
