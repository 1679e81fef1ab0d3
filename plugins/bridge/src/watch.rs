//! A plugin that does not come back holds its thread, and every client of that thread waits. It is named in the log after some
//! seconds, again once a minute, and when it has come back. By a thread of the bridge's own: with `workers = 0` the host has no other.

use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use crate::calls::{self, Inside};
use crate::say::{Level, Line};

const TICK: Duration = Duration::from_secs(1);
/// Seconds until a call is told of for the first time.
const SLOW: u64 = 5;
/// Seconds until it is told of again.
const AGAIN: u64 = 60;
/// Bytes of the thread's stack: it does next to nothing.
const STACK: usize = 128 * 1024;

/// A call that was under way at the last look.
struct Seen {
    slot: usize,
    inside: Inside,
    since: Instant,
    /// Seconds after which it was told, or will be.
    next: u64,
}

/// From now on plugins that do not come back are named.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Without a thread there are no such lines.
        let _ = thread::Builder::new().name("pgdog-watch".into()).stack_size(STACK).spawn(|| {
            let mut seen = Vec::new();
            loop {
                thread::sleep(TICK);
                seen = look(seen, Instant::now());
            }
        });
    });
}

fn look(before: Vec<Seen>, now: Instant) -> Vec<Seen> {
    let mut seen: Vec<Seen> = Vec::new();
    for (slot, inside) in calls::all() {
        let known = before.iter().find(|known| known.slot == slot && known.inside.call == inside.call);
        let (since, next) = known.map_or((now, SLOW), |known| (known.since, known.next));
        seen.push(Seen { slot, inside, since, next });
    }
    for call in &mut seen {
        let seconds = now.duration_since(call.since).as_secs();
        if seconds >= call.next {
            call.next = if call.next < AGAIN { AGAIN } else { call.next + AGAIN };
            let mut line = Line::new(Level::Warn);
            line.add("plugin ").quoted(call.inside.name).add(" has not come back from ").add(call.inside.part.name());
            line.add(" for ").number(seconds).add(" s: its thread and all clients of that thread wait for it");
            line.write();
        }
    }
    for call in before.iter().filter(|call| call.next > SLOW) {
        if !seen.iter().any(|now| now.slot == call.slot && now.inside.call == call.inside.call) {
            let seconds = now.duration_since(call.since).as_secs();
            let mut line = Line::new(Level::Warn);
            line.add("plugin ").quoted(call.inside.name).add(" came back from ").add(call.inside.part.name());
            line.add(" after ").number(seconds).add(" s");
            line.write();
        }
    }
    seen
}
