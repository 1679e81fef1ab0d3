//! Blocks statements on tables of tenants that do not say which tenant they are for, so that a forgotten condition is an error
//! in a test and not a leak in production. What it cannot judge it blocks.
//!
//! Each table needs `tenant_id = …` (or IN) among the conditions that all rows must meet; in a join, `a.tenant_id = b.tenant_id`
//! passes the condition on. An INSERT must fill the column.

use std::collections::HashSet;
use std::env;
use std::sync::OnceLock;

use pg_query::protobuf::ParseResult;
use pgdog_plugin::macros;
use pgdog_plugin::prelude::*;
use serde_json::Value;

macros::plugin!();

const COLUMN: &str = "tenant_id";
/// Names the tables to guard, separated by commas; without it every table is guarded.
const VARIABLE: &str = "TENANT_TABLES";

static GUARD: OnceLock<Guard> = OnceLock::new();

/// pg_query's typed walk leaves out some corners of the grammar, and a guard must not have corners. So the tree is turned into
/// JSON, which has one shape everywhere: `{"node": {"RangeVar": {…}}}`.
#[derive(Default)]
pub struct Guard {
    tables: Option<HashSet<String>>,
}

impl Guard {
    pub fn new(tables: Option<&str>) -> Guard {
        let names = |list: &str| list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
        Guard { tables: tables.map(names) }
    }

    pub fn allows(&self, ast: &ParseResult) -> bool {
        let Ok(tree) = serde_json::to_value(&ast.stmts) else { return false };
        let mut found = Found::default();
        self.walk(&tree, &HashSet::new(), &mut found);
        // Every guarded table must have been vouched for; one that stands where we did not look (COPY, TRUNCATE …) was not.
        found.tables == found.vouched
    }

    fn guards(&self, table: &Value, ctes: &HashSet<String>) -> bool {
        let name = text(table, "relname");
        let schema = text(table, "schemaname");
        if schema.is_empty() && ctes.contains(name) {
            return false;
        }
        match &self.tables {
            Some(tables) => tables.contains(name),
            None => schema != "pg_catalog" && schema != "information_schema" && !(schema.is_empty() && name.starts_with("pg_")),
        }
    }

    /// Looks at every object of the tree. `ctes`: the names that WITH hides tables behind at this place; a query of a WITH sees only
    /// those before it, so that `WITH orders AS (SELECT * FROM orders)` reads the table.
    fn walk(&self, value: &Value, ctes: &HashSet<String>, found: &mut Found) {
        let Value::Object(fields) = value else {
            value.as_array().into_iter().flatten().for_each(|element| self.walk(element, ctes, found));
            return;
        };
        let mut ctes = ctes.clone();
        if let Some(with) = value.get("with_clause").filter(|with| with.is_object()) {
            let name = |cte: &Value| cte.pointer("/node/CommonTableExpr/ctename").and_then(Value::as_str).map(str::to_owned);
            if with.get("recursive").is_some_and(|recursive| recursive == true) {
                ctes.extend(items(with, "ctes").filter_map(name));
            }
            for cte in items(with, "ctes") {
                self.walk(cte, &ctes, found);
                ctes.extend(name(cte));
            }
        }
        self.inspect(value, &ctes, found);
        for (key, field) in fields {
            // Names behind FOR UPDATE OF are aliases.
            if key != "with_clause" && key != "locked_rels" {
                self.walk(field, &ctes, found);
            }
        }
    }

    fn inspect(&self, value: &Value, ctes: &HashSet<String>, found: &mut Found) {
        if value.get("relname").is_some() && self.guards(value, ctes) {
            found.tables += 1;
        }
        if value.get("target_list").is_some() && value.get("from_clause").is_some() && value.get("relation").is_none() {
            found.vouched += self.vouched(None, items(value, "from_clause"), value.get("where_clause"), ctes);
        } else if value.get("on_conflict_clause").is_some() && value.get("cols").is_some() {
            let fills =
                items(value, "cols").any(|column| column.pointer("/node/ResTarget/name").is_some_and(|name| name == COLUMN));
            let relation = value.get("relation").filter(|table| self.guards(table, ctes));
            found.vouched += usize::from(fills && relation.is_some());
        } else if value.get("relation").is_some_and(Value::is_object) && value.get("where_clause").is_some() {
            // UPDATE has from_clause, DELETE using_clause.
            let more = items(value, "from_clause").chain(items(value, "using_clause"));
            if value.get("returning_list").is_some() {
                found.vouched += self.vouched(value.get("relation"), more, value.get("where_clause"), ctes);
            }
        }
    }

    /// How many guarded tables of one FROM the conditions tie to a tenant.
    fn vouched<'a>(
        &self,
        target: Option<&'a Value>,
        from: impl Iterator<Item = &'a Value>,
        condition: Option<&'a Value>,
        ctes: &HashSet<String>,
    ) -> usize {
        let mut scope = Scope::default();
        if let Some(table) = target {
            scope.names.push((alias(table).to_owned(), self.guards(table, ctes)));
        }
        for item in from {
            scope.add(self, item, ctes);
        }
        if let Some(condition) = condition {
            scope.require(condition, None);
        }
        scope.tied()
    }
}

#[derive(Default)]
struct Found {
    tables: usize,
    vouched: usize,
}

/// The tables of one FROM clause and what is known of their tenants.
#[derive(Default)]
struct Scope {
    /// Alias, and whether the table is guarded.
    names: Vec<(String, bool)>,
    tied: HashSet<String>,
    equal: Vec<(String, String)>,
}

impl Scope {
    /// Adds the tables of a FROM item; returns their names.
    fn add(&mut self, guard: &Guard, item: &Value, ctes: &HashSet<String>) -> HashSet<String> {
        if let Some(table) = item.pointer("/node/RangeVar") {
            self.names.push((alias(table).to_owned(), guard.guards(table, ctes)));
            return HashSet::from([alias(table).to_owned()]);
        }
        if let Some(join) = item.pointer("/node/JoinExpr") {
            let left = join.get("larg").map_or_else(HashSet::new, |side| self.add(guard, side, ctes));
            let right = join.get("rarg").map_or_else(HashSet::new, |side| self.add(guard, side, ctes));
            // An outer join keeps rows that its condition does not meet.
            let binds: HashSet<String> = match join.get("jointype").and_then(Value::as_i64) {
                Some(1) => left.union(&right).cloned().collect(),
                Some(2) => right.clone(),
                Some(4) => left.clone(),
                _ => HashSet::new(),
            };
            if let Some(condition) = join.get("quals") {
                self.require(condition, Some(&binds));
            }
            return left.union(&right).cloned().collect();
        }
        // A subquery is looked at on its own; here it is a name whose tenant nobody vouches for.
        let name = item.pointer("/node/RangeSubselect/alias/aliasname").and_then(Value::as_str).unwrap_or_default();
        self.names.push((name.to_owned(), false));
        HashSet::from([name.to_owned()])
    }

    /// Takes in a condition that holds for all rows, or for those of the tables in `binds`.
    fn require(&mut self, condition: &Value, binds: Option<&HashSet<String>>) {
        if let Some(both) = condition.pointer("/node/BoolExpr") {
            if both.get("boolop").and_then(Value::as_i64) == Some(1) {
                items(both, "args").for_each(|each| self.require(each, binds));
            }
            return;
        }
        let Some(compared) = condition.pointer("/node/AExpr") else { return };
        let equals = items(compared, "name").any(|name| name.pointer("/node/String/sval").is_some_and(|sign| sign == "="));
        // AExpr kinds of pg_query: 1 is a = b, 7 is a IN (…).
        if !equals || !matches!(compared.get("kind").and_then(Value::as_i64), Some(1 | 7)) {
            return;
        }
        let side = |key: &str| compared.get(key).and_then(|expression| self.tenant_of(expression));
        let may = |name: &String| binds.is_none_or(|binds| binds.contains(name));
        match (side("lexpr"), side("rexpr")) {
            (Some(left), Some(right)) => {
                if may(&left) {
                    self.equal.push((right.clone(), left.clone()));
                }
                if may(&right) {
                    self.equal.push((left, right));
                }
            }
            (Some(name), None) if compared.get("rexpr").is_some_and(is_value) && may(&name) => {
                self.tied.insert(name);
            }
            (None, Some(name)) if compared.get("lexpr").is_some_and(is_value) && may(&name) => {
                self.tied.insert(name);
            }
            _ => {}
        }
    }

    /// The table whose tenant column an expression is.
    fn tenant_of(&self, expression: &Value) -> Option<String> {
        let fields: Vec<&str> = items(expression.pointer("/node/ColumnRef")?, "fields")
            .filter_map(|field| field.pointer("/node/String/sval")?.as_str())
            .collect();
        match fields[..] {
            [COLUMN] if self.names.len() == 1 => Some(self.names[0].0.clone()),
            [.., table, COLUMN] => Some(table.to_owned()),
            _ => None,
        }
    }

    fn tied(mut self) -> usize {
        loop {
            let before = self.tied.len();
            for (known, follows) in &self.equal {
                if self.tied.contains(known) {
                    self.tied.insert(follows.clone());
                }
            }
            if self.tied.len() == before {
                break;
            }
        }
        // Tables of two schemas may share a name; a condition then ties we do not know which.
        let once = |name: &String| self.names.iter().filter(|(other, _)| other == name).count() == 1;
        self.names.iter().filter(|(name, guarded)| *guarded && once(name) && self.tied.contains(name)).count()
    }
}

/// A literal, a parameter, a list or cast of them: nothing that depends on a row.
fn is_value(expression: &Value) -> bool {
    if let Some(list) = expression.pointer("/node/List") {
        return items(list, "items").all(is_value);
    }
    if let Some(cast) = expression.pointer("/node/TypeCast") {
        return cast.get("arg").is_some_and(is_value);
    }
    expression.pointer("/node/AConst").is_some() || expression.pointer("/node/ParamRef").is_some()
}

fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn alias(table: &Value) -> &str {
    table.pointer("/alias/aliasname").and_then(Value::as_str).unwrap_or_else(|| text(table, "relname"))
}

#[init]
fn init() {
    let _ = GUARD.set(Guard::new(env::var(VARIABLE).ok().as_deref()));
}

#[route]
fn route(context: Context) -> Route {
    let statement = context.statement().protobuf();
    match GUARD.get() {
        Some(guard) if guard.allows(&statement) => Route::unknown(),
        _ => Route::block(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(sql: &str) -> bool {
        Guard::new(Some("orders, users")).allows(&pg_query::parse(sql).unwrap().protobuf)
    }

    #[test]
    fn a_statement_that_names_its_tenant_passes() {
        for sql in [
            "SELECT * FROM orders WHERE tenant_id = 7",
            "SELECT * FROM orders o WHERE o.tenant_id = $1 AND o.id > 5",
            "SELECT * FROM orders WHERE tenant_id IN (1, 2)",
            "SELECT * FROM orders WHERE '7'::bigint = tenant_id",
            "SELECT * FROM orders o JOIN users u ON u.tenant_id = o.tenant_id AND u.id = o.user_id WHERE o.tenant_id = $1",
            "SELECT * FROM orders o LEFT JOIN users u ON u.tenant_id = o.tenant_id WHERE o.tenant_id = $1",
            "SELECT * FROM (SELECT * FROM orders WHERE tenant_id = 1) a WHERE a.id = 2",
            "WITH a AS (SELECT * FROM orders WHERE tenant_id = 1) SELECT * FROM a",
            "SELECT 1 FROM orders WHERE tenant_id = 1 UNION SELECT 1 FROM users WHERE tenant_id = 1",
            "INSERT INTO orders (id, tenant_id) VALUES (1, 2)",
            "INSERT INTO orders (id, tenant_id) SELECT id, tenant_id FROM users WHERE tenant_id = $1",
            "UPDATE orders SET total = 0 WHERE tenant_id = $1",
            "UPDATE orders SET total = 0 FROM users u WHERE orders.tenant_id = u.tenant_id AND u.tenant_id = $1",
            "DELETE FROM orders WHERE tenant_id = $1",
            "DELETE FROM orders o USING users u WHERE o.tenant_id = 1 AND u.tenant_id = 1",
            "WITH a AS (SELECT * FROM orders WHERE tenant_id = 1), b AS (SELECT * FROM a) SELECT * FROM b JOIN a USING (id)",
            "WITH orders AS (SELECT 1) SELECT * FROM orders",
            "SELECT * FROM orders WHERE tenant_id = 1 FOR UPDATE OF orders",
            "SELECT * FROM countries",
            "SELECT now()",
            "BEGIN",
        ] {
            assert!(allowed(sql), "{sql}");
        }
    }

    #[test]
    fn a_statement_that_does_not_is_blocked() {
        for sql in [
            "SELECT * FROM orders",
            "TABLE orders",
            "SELECT * FROM orders WHERE id = 1",
            "SELECT * FROM orders WHERE tenant_id = 7 OR true",
            "SELECT * FROM orders WHERE NOT tenant_id = 7",
            "SELECT * FROM orders WHERE tenant_id > 0",
            "SELECT * FROM orders WHERE tenant_id = tenant_id",
            "SELECT * FROM orders WHERE tenant_id = (SELECT 1)",
            "SELECT * FROM orders WHERE 'tenant_id' = 'tenant_id'",
            "SELECT tenant_id FROM orders",
            "SELECT * FROM orders o, users u WHERE o.tenant_id = 1",
            "SELECT * FROM orders o LEFT JOIN users u ON o.tenant_id = 1 AND u.tenant_id = 1",
            "SELECT * FROM orders o FULL JOIN users u ON u.tenant_id = o.tenant_id WHERE o.tenant_id = 1",
            "SELECT * FROM (SELECT * FROM orders) a WHERE tenant_id = 1",
            "WITH a AS (SELECT * FROM orders) SELECT * FROM a WHERE tenant_id = 1",
            "WITH orders AS (SELECT 1) SELECT * FROM public.orders",
            "SELECT 1 FROM orders WHERE tenant_id = 1 UNION SELECT 1 FROM users",
            "SELECT (SELECT max(id) FROM orders)",
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM orders)",
            "SELECT * FROM countries ORDER BY (SELECT id FROM orders LIMIT 1)",
            "SELECT 1 LIMIT (SELECT count(*) FROM orders)",
            "INSERT INTO orders VALUES (1)",
            "INSERT INTO orders (id) VALUES (1)",
            "INSERT INTO countries SELECT * FROM orders",
            "UPDATE orders SET tenant_id = 1",
            "DELETE FROM orders",
            "DELETE FROM orders USING users WHERE orders.tenant_id = 1",
            "MERGE INTO orders USING countries c ON orders.tenant_id = 1 WHEN MATCHED THEN DELETE",
            "COPY orders TO STDOUT",
            "COPY (SELECT * FROM orders) TO STDOUT",
            "TRUNCATE orders",
            "LOCK orders",
            "EXPLAIN SELECT * FROM orders",
            "PREPARE p AS SELECT * FROM orders",
            "DECLARE c CURSOR FOR SELECT * FROM orders",
            "CREATE TABLE copy AS SELECT * FROM orders",
            "CREATE VIEW v AS SELECT * FROM orders",
            "SELECT 1; SELECT * FROM orders",
            "WITH orders AS (SELECT * FROM orders) SELECT * FROM orders",
            "SELECT * FROM orders WHERE EXISTS (WITH orders AS (SELECT 1) SELECT 1)",
            "SELECT * FROM a.orders, b.orders WHERE a.orders.tenant_id = 1",
        ] {
            assert!(!allowed(sql), "{sql}");
        }
    }

    #[test]
    fn without_a_list_every_table_but_the_catalogs_is_guarded() {
        let guard = Guard::new(None);
        let allowed = |sql| guard.allows(&pg_query::parse(sql).unwrap().protobuf);
        assert!(!allowed("SELECT * FROM anything"));
        assert!(allowed("SELECT * FROM anything WHERE tenant_id = 1"));
        assert!(allowed("SELECT * FROM pg_class"));
        assert!(allowed("SELECT * FROM information_schema.tables"));
    }
}
