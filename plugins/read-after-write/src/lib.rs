//! Reads go to the primary for five seconds after a write to the same table, so that a user sees what was just saved even when
//! the replicas are a little behind. Everything else is left to PgDog.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use pg_query::{Context as Place, NodeEnum, NodeRef, protobuf::ParseResult};
use pgdog_plugin::macros;
use pgdog_plugin::prelude::*;

macros::plugin!();

/// Longer than any replica should be behind.
const WINDOW: Duration = Duration::from_secs(5);
/// Beyond this, tables whose window is over are forgotten.
const MANY_TABLES: usize = 1000;

/// One map for all threads of PgDog: a write through one is seen by the reads of all.
static WRITES: LazyLock<Mutex<Writes>> = LazyLock::new(Mutex::default);

#[derive(Default)]
pub struct Writes {
    last: HashMap<String, Instant>,
}

/// Tables that a statement reads and writes, by bare name: without the search path we cannot know the schema, and one read too
/// many on the primary is harmless.
fn tables(ast: &ParseResult) -> (Vec<&str>, Vec<&str>) {
    let (mut read, mut written) = (Vec::new(), Vec::new());
    for (node, _, place, _) in ast.nodes() {
        if let NodeRef::RangeVar(table) = node {
            if matches!(place, Place::Select) { &mut read } else { &mut written }.push(table.relname.as_str());
        }
    }
    // pg_query's walk does not enter COPY FROM and MERGE.
    for statement in ast.stmts.iter().filter_map(|raw| raw.stmt.as_ref()?.node.as_ref()) {
        let relation = match statement {
            NodeEnum::CopyStmt(copy) if copy.is_from => copy.relation.as_ref(),
            NodeEnum::MergeStmt(merge) => merge.relation.as_ref(),
            _ => None,
        };
        written.extend(relation.map(|table| table.relname.as_str()));
    }
    (read, written)
}

impl Writes {
    pub fn route(&mut self, ast: &ParseResult, now: Instant) -> Route {
        let (read, written) = tables(ast);
        if !written.is_empty() {
            if self.last.len() > MANY_TABLES {
                self.last.retain(|_, at| now.duration_since(*at) < WINDOW);
            }
            for table in written {
                self.last.insert(table.to_owned(), now);
            }
            // PgDog sends writes to the primary without our help.
            return Route::unknown();
        }
        let fresh = |table: &&str| self.last.get(*table).is_some_and(|at| now.duration_since(*at) < WINDOW);
        if read.iter().any(fresh) {
            return Route::new(Shard::Unknown, ReadWrite::Write);
        }
        Route::unknown()
    }
}

#[route]
fn route(context: Context) -> Route {
    let statement = context.statement().protobuf();
    // A plugin must not panic: a lock that a panic left behind is as good as any.
    let mut writes = WRITES.lock().unwrap_or_else(|broken| broken.into_inner());
    writes.route(&statement, Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: (i64, u8) = (-2, 0);
    const UNKNOWN: (i64, u8) = (-2, 2);

    fn ask(writes: &mut Writes, sql: &str, now: Instant) -> (i64, u8) {
        let route = writes.route(&pg_query::parse(sql).unwrap().protobuf, now);
        (route.shard, route.read_write)
    }

    #[test]
    fn a_read_follows_a_write_to_the_primary_for_five_seconds() {
        for write in [
            "INSERT INTO users VALUES (1)",
            "UPDATE public.users SET name = 'a'",
            "DELETE FROM users",
            "WITH a AS (INSERT INTO users VALUES (1) RETURNING *) SELECT * FROM a",
            "COPY users FROM STDIN",
            "TRUNCATE users",
            "MERGE INTO users USING new ON users.id = new.id WHEN MATCHED THEN DELETE",
        ] {
            let (mut writes, start) = (Writes::default(), Instant::now());
            let read = "SELECT * FROM orders o JOIN users u ON u.id = o.user_id";
            assert_eq!(ask(&mut writes, read, start), UNKNOWN, "before {write}");
            assert_eq!(ask(&mut writes, write, start), UNKNOWN, "{write}");
            assert_eq!(ask(&mut writes, read, start), PRIMARY, "after {write}");
            assert_eq!(ask(&mut writes, read, start + Duration::from_millis(4999)), PRIMARY, "after {write}");
            assert_eq!(ask(&mut writes, read, start + WINDOW), UNKNOWN, "late after {write}");
            assert_eq!(ask(&mut writes, "SELECT * FROM orders", start), UNKNOWN, "{write}");
        }
    }

    #[test]
    fn a_read_inside_another_counts() {
        let (mut writes, now) = (Writes::default(), Instant::now());
        ask(&mut writes, "DELETE FROM users", now);
        for read in [
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM users)",
            "SELECT * FROM orders WHERE user_id IN (SELECT id FROM users)",
            "WITH u AS (SELECT * FROM users) SELECT * FROM u",
            "SELECT 1 FROM orders UNION SELECT 1 FROM users",
        ] {
            assert_eq!(ask(&mut writes, read, now), PRIMARY, "{read}");
        }
    }

    #[test]
    fn tables_that_were_written_long_ago_are_forgotten() {
        let (mut writes, start) = (Writes::default(), Instant::now());
        for table in 0..=MANY_TABLES {
            ask(&mut writes, &format!("DELETE FROM t{table}"), start);
        }
        ask(&mut writes, "DELETE FROM users", start + WINDOW);
        assert_eq!(writes.last.len(), 1);
    }
}
