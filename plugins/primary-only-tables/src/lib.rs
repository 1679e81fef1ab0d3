//! Statements that name one of the tables listed in a file always go to the primary: tables that must never be read late, such
//! as locks, sessions or balances. Everything else is left to PgDog.

use std::collections::HashSet;
use std::sync::OnceLock;
use std::{env, fs};

use pg_query::{NodeRef, protobuf::ParseResult};
use pgdog_plugin::macros;
use pgdog_plugin::prelude::*;

macros::plugin!();

/// Environment variable that names the file.
const VARIABLE: &str = "PRIMARY_ONLY_TABLES";

static TABLES: OnceLock<Tables> = OnceLock::new();

/// Names as PostgreSQL keeps them: `table` for any schema, `schema.table` for one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tables(HashSet<String>);

impl Tables {
    /// One name per line; `#` starts a comment. Unquoted names are lower case in PostgreSQL, so write them so.
    pub fn parse(text: &str) -> Tables {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        Tables(lines.filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }

    pub fn route(&self, ast: &ParseResult) -> Route {
        let listed = ast.nodes().iter().any(|(node, ..)| {
            let NodeRef::RangeVar(table) = node else { return false };
            self.0.contains(&table.relname)
                || (!table.schemaname.is_empty() && self.0.contains(&format!("{}.{}", table.schemaname, table.relname)))
        });
        if listed { Route::new(Shard::Unknown, ReadWrite::Write) } else { Route::unknown() }
    }
}

/// A plugin cannot refuse to load, and must not panic: it says what is wrong and goes on without tables.
#[init]
fn init() {
    let tables = match env::var(VARIABLE).map(fs::read_to_string) {
        Ok(Ok(text)) => Tables::parse(&text),
        Ok(Err(error)) => {
            eprintln!("primary_only_tables: the file named by {VARIABLE} cannot be read: {error}");
            Tables::default()
        }
        Err(_) => {
            eprintln!("primary_only_tables: {VARIABLE} does not name a file");
            Tables::default()
        }
    };
    eprintln!("primary_only_tables: {} tables", tables.0.len());
    let _ = TABLES.set(tables);
}

#[route]
fn route(context: Context) -> Route {
    let statement = context.statement().protobuf();
    TABLES.get().map_or_else(Route::unknown, |tables| tables.route(&statement))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primary(sql: &str) -> bool {
        let tables = Tables::parse("# never read late\nbalances\n  audit.events  # one schema only\n\n");
        let route = tables.route(&pg_query::parse(sql).unwrap().protobuf);
        assert_eq!(route.shard, -2);
        route.read_write == 0
    }

    #[test]
    fn a_listed_table_is_found_wherever_it_is_named() {
        for sql in [
            "SELECT * FROM balances",
            "SELECT * FROM bank.balances WHERE id = $1",
            "SELECT * FROM users u JOIN balances b USING (id)",
            "SELECT * FROM users WHERE id IN (SELECT id FROM balances)",
            "WITH a AS (SELECT * FROM balances) SELECT * FROM a",
            "SELECT (SELECT max(amount) FROM balances)",
            "SELECT 1 UNION ALL SELECT id FROM balances",
            "EXPLAIN SELECT * FROM balances",
            "SELECT * FROM audit.events",
        ] {
            assert!(primary(sql), "{sql}");
        }
    }

    #[test]
    fn other_tables_are_left_alone() {
        for sql in ["SELECT 1", "SELECT * FROM users", "SELECT * FROM events", "SELECT * FROM web.events", "SELECT 'balances'"] {
            assert!(!primary(sql), "{sql}");
        }
    }
}
