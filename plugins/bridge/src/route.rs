//! One call of a plugin's `pgdog_route`, its answer as one number.

use std::cell::Cell;

use pgdog_plugin::{PdRoute, PdRouterContext, PdStatement};

use crate::bind::Parameters;
use crate::calls::{self, Part};
use crate::deep;
use crate::parse::Statement;

pub type RouteFunction = unsafe extern "C" fn(PdRouterContext, *mut PdRoute);

pub const HAS_REPLICAS: u32 = 1;
pub const HAS_PRIMARY: u32 = 2;
pub const IN_TRANSACTION: u32 = 4;
pub const WRITE_OVERRIDE: u32 = 8;

const UNKNOWN_SHARD: i64 = -2;
const BLOCKED: i64 = -3;
const UNKNOWN_READ_WRITE: u8 = 2;
/// Higher shards are cut to this one: numbers of the host are exact far beyond it, and no cluster has that many shards.
const HIGHEST_SHARD: i64 = 1 << 48;

thread_local! {
    /// Kept between calls so that none allocates; taken while a call runs.
    static PARAMETERS: Cell<Parameters> = Cell::default();
}

/// Why a plugin was not asked.
#[derive(Debug, PartialEq, Eq)]
pub enum Unasked {
    /// The Bind message contradicts itself.
    Malformed,
    /// The statement needs a stack that is not to be had.
    NoThread,
}

/// A plugin, called by its `pgdog_route` and marked by its number.
#[derive(Clone, Copy)]
pub struct Plugin {
    pub function: RouteFunction,
    pub number: u32,
}

struct Call(Plugin, PdRouterContext);
// SAFETY: used by the deep thread while the caller waits; plugins are called from many threads anyway.
unsafe impl Send for Call {}

impl Call {
    fn run(self) -> PdRoute {
        let mut route = PdRoute { shard: UNKNOWN_SHARD, read_write: UNKNOWN_READ_WRITE };
        // SAFETY: the host checked that the plugin was built with our compiler and our pg_query.
        calls::marked(self.0.number, Part::Route, || unsafe { (self.0.function)(self.1, &mut route) });
        route
    }
}

/// `shard × 4 + read_write`, what is invalid replaced by unknown.
fn encode(route: PdRoute) -> f64 {
    let shard = if route.shard < BLOCKED { UNKNOWN_SHARD } else { route.shard.min(HIGHEST_SHARD) };
    let read_write = route.read_write.min(UNKNOWN_READ_WRITE);
    (shard * 4 + i64::from(read_write)) as f64
}

/// Asks one plugin, see `pgdog_bridge_route`. `message` is empty for the simple protocol.
pub fn route(plugin: Plugin, statement: &Statement, shards: u64, flags: u32, message: &[u8]) -> Result<f64, Unasked> {
    let mut parameters = PARAMETERS.take();
    if message.is_empty() {
        parameters.clear();
    } else if parameters.read(message).is_err() {
        PARAMETERS.set(parameters);
        return Err(Unasked::Malformed);
    }
    let bit = |flag: u32| u8::from(flags & flag != 0);
    let call = Call(
        plugin,
        PdRouterContext {
            shards,
            has_replicas: bit(HAS_REPLICAS),
            has_primary: bit(HAS_PRIMARY),
            in_transaction: bit(IN_TRANSACTION),
            write_override: bit(WRITE_OVERRIDE),
            // SAFETY: the statement outlives the call.
            query: unsafe { PdStatement::from_proto(&statement.ast) },
            params: parameters.ffi(),
        },
    );
    let route = if statement.deep { deep::run(move || call.run()) } else { Some(call.run()) };
    PARAMETERS.set(parameters);
    route.map(encode).ok_or(Unasked::NoThread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_one_number() {
        let number = |shard, read_write| encode(PdRoute { shard, read_write });
        assert_eq!(number(0, 0), 0.0);
        assert_eq!(number(3, 1), 13.0);
        assert_eq!(number(-1, 1), -3.0);
        assert_eq!(number(-2, 2), -6.0);
        assert_eq!(number(-3, 2), -10.0);
        assert_eq!(number(-7, 9), number(-2, 2), "invalid is unknown");
        assert_eq!(number(i64::MAX, 255), (HIGHEST_SHARD * 4 + 2) as f64);
    }
}
