//! Sends each statement to the shard of its customer: shard = customer_id modulo the number of shards. The customer is looked
//! for in the conditions and in the columns of an INSERT, as a literal or as a parameter. What names customers in a way that
//! cannot be read here goes to all shards; rows that would be stored where nobody looks for them are refused.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AExprKind, BoolExprType, CopyStmt, InsertStmt, Node, ParseResult, SelectStmt, SetOperation, a_const::Val,
};
use pgdog_plugin::macros;
use pgdog_plugin::prelude::*;
use serde_json::Value;

macros::plugin!();

const COLUMN: &str = "customer_id";

/// Where a value stands in a statement: found without parameters, so that the search can be tested without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Customer {
    Literal(i64),
    /// Counted from zero.
    Parameter(usize),
}

/// What a statement says about customers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The statement is about no rows: BEGIN, SET and their like.
    NoRows,
    /// Nothing about customers: PgDog decides.
    Unsaid,
    /// Nothing that could be read, or more than one customer's rows: every shard has to see it.
    Everywhere,
    /// All its rows are those of these customers.
    Of(Vec<Customer>),
    /// All rows that it stores are those of these customers: there must be one shard for them.
    Stores(Vec<Customer>),
    /// The statement stores rows of customers that are not known.
    Refused,
}

/// One place for each statement of the string.
pub fn places(ast: &ParseResult) -> Vec<Place> {
    ast.stmts.iter().filter_map(|raw| raw.stmt.as_deref()).map(place).collect()
}

fn place(statement: &Node) -> Place {
    match &statement.node {
        Some(NodeEnum::ExplainStmt(explain)) => explain.query.as_deref().map_or(Place::Unsaid, place),
        Some(NodeEnum::CopyStmt(copy)) => copied(copy),
        Some(NodeEnum::InsertStmt(insert)) => inserted(insert, statement),
        Some(NodeEnum::SelectStmt(select)) => {
            let one = select.op() == SetOperation::SetopNone && count(statement, "SelectStmt") == 1;
            read(statement, one, select.from_clause.iter().collect(), select.where_clause.as_deref())
        }
        Some(NodeEnum::DeleteStmt(delete)) => {
            let tables = delete.using_clause.iter().map(|node| node.node.as_ref()).collect::<Vec<_>>();
            let one = tables.is_empty() && count(statement, "SelectStmt") == 0;
            let Some(relation) = &delete.relation else { return Place::Everywhere };
            let table = Node { node: Some(NodeEnum::RangeVar(relation.clone())) };
            read(statement, one, vec![&table], delete.where_clause.as_deref())
        }
        Some(NodeEnum::UpdateStmt(update)) => {
            // The row would belong to another customer, and stay on the shard of the old one.
            if update.target_list.iter().any(is_target) {
                return Place::Refused;
            }
            let one = update.from_clause.is_empty() && count(statement, "SelectStmt") == 0;
            let Some(relation) = &update.relation else { return Place::Everywhere };
            let table = Node { node: Some(NodeEnum::RangeVar(relation.clone())) };
            read(statement, one, vec![&table], update.where_clause.as_deref())
        }
        Some(NodeEnum::MergeStmt(_)) if count(statement, "MergeWhenClause") > 0 && mentions(statement) => Place::Refused,
        Some(
            NodeEnum::TransactionStmt(_)
            | NodeEnum::VariableSetStmt(_)
            | NodeEnum::VariableShowStmt(_)
            | NodeEnum::DiscardStmt(_)
            | NodeEnum::DeallocateStmt(_),
        ) => Place::NoRows,
        _ => otherwise(statement),
    }
}

fn otherwise(statement: &Node) -> Place {
    if mentions(statement) { Place::Everywhere } else { Place::Unsaid }
}

/// `one`: no other query is inside, whose rows may be another customer's.
fn read(statement: &Node, one: bool, from: Vec<&Node>, condition: Option<&Node>) -> Place {
    // A query of WITH may write, too.
    let one = one && count(statement, "CommonTableExpr") == 0;
    // In a join each table has customers of its own.
    if !one || from.len() != 1 || table(from[0]).is_none() {
        return otherwise(statement);
    }
    let mut found = Vec::new();
    conditions(condition, &mut found);
    found.into_iter().flatten().next().map_or_else(|| otherwise(statement), Place::Of)
}

fn table(node: &Node) -> Option<&str> {
    match &node.node {
        Some(NodeEnum::RangeVar(table)) => Some(&table.relname),
        _ => None,
    }
}

/// The customers of each condition that every row must meet; None for one that cannot be read. `customer_id = 1 OR …` says nothing.
fn conditions(condition: Option<&Node>, found: &mut Vec<Option<Vec<Customer>>>) {
    match condition.and_then(|node| node.node.as_ref()) {
        Some(NodeEnum::BoolExpr(all)) if all.boolop() == BoolExprType::AndExpr => {
            all.args.iter().for_each(|each| conditions(Some(each), found));
        }
        Some(NodeEnum::AExpr(compared)) if matches!(compared.kind(), AExprKind::AexprOp | AExprKind::AexprIn) => {
            let [Node { node: Some(NodeEnum::String(sign)) }] = &compared.name[..] else { return };
            if sign.sval != "=" {
                return;
            }
            let (left, right) = (compared.lexpr.as_deref(), compared.rexpr.as_deref());
            if is_column(left) {
                found.push(values(right));
            } else if is_column(right) {
                found.push(values(left));
            }
        }
        _ => {}
    }
}

fn is_column(node: Option<&Node>) -> bool {
    let Some(NodeEnum::ColumnRef(column)) = node.and_then(|node| node.node.as_ref()) else { return false };
    let last = column.fields.last().and_then(|field| field.node.as_ref());
    matches!(last, Some(NodeEnum::String(name)) if name.sval == COLUMN)
}

fn is_target(node: &Node) -> bool {
    matches!(&node.node, Some(NodeEnum::ResTarget(target)) if target.name == COLUMN)
}

/// The value of an expression, or of each member of a list; None when one of them cannot be read.
fn values(node: Option<&Node>) -> Option<Vec<Customer>> {
    match node?.node.as_ref()? {
        NodeEnum::List(list) => {
            let each: Option<Vec<_>> = list.items.iter().map(|item| values(Some(item))).collect();
            Some(each?.concat())
        }
        NodeEnum::TypeCast(cast) => {
            // A cast to another type may make another number of the value.
            let name = cast.type_name.as_ref()?.names.last()?.node.as_ref()?;
            let integer = matches!(name, NodeEnum::String(name) if ["int2", "int4", "int8"].contains(&name.sval.as_str()));
            if integer { values(cast.arg.as_deref()) } else { None }
        }
        NodeEnum::ParamRef(parameter) => Some(vec![Customer::Parameter(usize::try_from(parameter.number - 1).ok()?)]),
        NodeEnum::AConst(constant) => {
            let number = match constant.val.as_ref()? {
                Val::Ival(integer) => Some(i64::from(integer.ival)),
                // Integers beyond 32 bits come as the text of a float.
                Val::Fval(float) => float.fval.parse().ok(),
                Val::Sval(text) => text.sval.trim().parse().ok(),
                _ => None,
            };
            Some(vec![Customer::Literal(number?)])
        }
        _ => None,
    }
}

fn inserted(insert: &InsertStmt, statement: &Node) -> Place {
    let conflict = insert.on_conflict_clause.as_ref();
    if conflict.is_some_and(|conflict| conflict.target_list.iter().any(is_target)) {
        return Place::Refused;
    }
    let Some(place) = insert.cols.iter().position(is_target) else { return otherwise(statement) };
    let Some(NodeEnum::SelectStmt(rows)) = insert.select_stmt.as_ref().and_then(|select| select.node.as_ref()) else {
        return Place::Refused;
    };
    // INSERT … SELECT: rows that a shard reads stay there. The customers of other queries, and of constants, are not known.
    if rows.values_lists.is_empty() {
        return if passes_on(rows, place) { Place::Everywhere } else { Place::Refused };
    }
    if count(statement, "SelectStmt") != 1 || count(statement, "CommonTableExpr") > 0 {
        return Place::Refused;
    }
    let each: Option<Vec<_>> = rows
        .values_lists
        .iter()
        .map(|row| match &row.node {
            Some(NodeEnum::List(row)) => values(row.items.get(place)),
            _ => None,
        })
        .collect();
    each.map_or(Place::Refused, |each| Place::Stores(each.concat()))
}

/// `INSERT … SELECT … customer_id … FROM t`: as it was read, so it is stored.
fn passes_on(rows: &SelectStmt, place: usize) -> bool {
    let target = rows.target_list.get(place).and_then(|target| target.node.as_ref());
    let Some(NodeEnum::ResTarget(target)) = target else { return false };
    rows.op() == SetOperation::SetopNone
        && is_column(target.val.as_deref())
        && rows.from_clause.len() == 1
        && table(&rows.from_clause[0]).is_some()
}

fn copied(copy: &CopyStmt) -> Place {
    if let Some(query) = copy.query.as_deref() {
        return place(query);
    }
    if !copy.is_from {
        return Place::Everywhere;
    }
    // Nothing is known of the data of COPY FROM. Without a list of columns it may have customers.
    let named = |column: &Node| matches!(&column.node, Some(NodeEnum::String(name)) if name.sval == COLUMN);
    if copy.attlist.is_empty() || copy.attlist.iter().any(named) { Place::Refused } else { Place::Unsaid }
}

/// How many nodes of this kind are anywhere in the statement. pg_query's typed walk leaves out some corners of the grammar; JSON
/// has one shape everywhere.
fn count(statement: &Node, kind: &str) -> usize {
    fn walk(value: &Value, kind: &str) -> usize {
        match value {
            Value::Object(fields) => fields.iter().map(|(key, field)| usize::from(key == kind) + walk(field, kind)).sum(),
            Value::Array(elements) => elements.iter().map(|element| walk(element, kind)).sum(),
            _ => 0,
        }
    }
    serde_json::to_value(statement).map_or(usize::MAX, |tree| walk(&tree, kind))
}

/// Whether the name of the column stands somewhere, as a name or as a text.
fn mentions(statement: &Node) -> bool {
    fn walk(value: &Value) -> bool {
        match value {
            Value::Object(fields) => fields.values().any(walk),
            Value::Array(elements) => elements.iter().any(walk),
            Value::String(text) => text == COLUMN,
            _ => false,
        }
    }
    serde_json::to_value(statement).map_or(true, |tree| walk(&tree))
}

/// The value of a parameter: text, or a binary int2, int4 or int8.
fn bound(parameters: &Parameters, index: usize) -> Option<i64> {
    match parameters.get(index)?.decode(parameters.parameter_format(index))? {
        ParameterValue::Text(text) => text.trim().parse().ok(),
        ParameterValue::Binary(bytes) => match bytes.len() {
            2 => bytes.try_into().ok().map(i16::from_be_bytes).map(i64::from),
            4 => bytes.try_into().ok().map(i32::from_be_bytes).map(i64::from),
            8 => bytes.try_into().ok().map(i64::from_be_bytes),
            _ => None,
        },
    }
}

/// The one shard where all these customers live.
fn one_shard(customers: &[Customer], parameters: &Parameters, shards: usize) -> Option<usize> {
    let mut chosen = None;
    for customer in customers {
        let number = match customer {
            Customer::Literal(number) => *number,
            Customer::Parameter(index) => bound(parameters, *index)?,
        };
        let shard = number.rem_euclid(shards.max(1) as i64) as usize;
        if *chosen.get_or_insert(shard) != shard {
            return None;
        }
    }
    chosen
}

/// Where all statements of a string go.
pub fn shard(places: &[Place], parameters: &Parameters, shards: usize) -> Shard {
    let mut all = None;
    for place in places {
        let here = match place {
            Place::NoRows => continue,
            Place::Refused => return Shard::Blocked,
            Place::Unsaid => Shard::Unknown,
            Place::Everywhere => Shard::All,
            Place::Of(customers) => one_shard(customers, parameters, shards).map_or(Shard::All, Shard::Direct),
            Place::Stores(customers) => one_shard(customers, parameters, shards).map_or(Shard::Blocked, Shard::Direct),
        };
        all = match (all, here) {
            (_, Shard::Blocked) => return Shard::Blocked,
            (None, here) => Some(here),
            (Some(before), here) if same(&before, &here) => Some(here),
            // Rows that one of them stores would be stored by every shard.
            _ if places.iter().any(|place| matches!(place, Place::Stores(_))) => return Shard::Blocked,
            _ => Some(Shard::All),
        };
    }
    all.unwrap_or(Shard::Unknown)
}

fn same(one: &Shard, other: &Shard) -> bool {
    match (one, other) {
        (Shard::Direct(one), Shard::Direct(other)) => one == other,
        (Shard::All, Shard::All) | (Shard::Unknown, Shard::Unknown) => true,
        _ => false,
    }
}

#[route]
fn route(context: Context) -> Route {
    if !context.sharded() {
        return Route::unknown();
    }
    let statement = context.statement().protobuf();
    let shard = shard(&places(&statement), &context.parameters(), context.shards());
    Route::new(shard, ReadWrite::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgdog_plugin::PdParameters;

    fn find(sql: &str) -> Place {
        let mut places = places(&pg_query::parse(sql).unwrap().protobuf);
        assert_eq!(places.len(), 1, "{sql}");
        places.remove(0)
    }

    fn with<T>(values: &[(&[u8], ParameterFormat)], look: impl FnOnce(&Parameters) -> T) -> T {
        let list: Vec<Parameter> =
            values.iter().map(|(data, _)| Parameter { len: data.len() as i32, data: data.to_vec() }).collect();
        let formats: Vec<ParameterFormat> = values.iter().map(|(_, format)| format.clone()).collect();
        // SAFETY: `Parameters` borrows what lives until the end of this function.
        look(&Parameters::from(PdParameters {
            num_params: list.len() as u64,
            params: list.as_ptr() as *mut _,
            num_format_codes: formats.len() as u64,
            format_codes: formats.as_ptr() as *mut _,
        }))
    }

    #[test]
    fn the_customer_is_found() {
        use Customer::*;
        for (sql, customers) in [
            ("SELECT * FROM orders WHERE customer_id = 7", vec![Literal(7)]),
            ("SELECT * FROM orders o WHERE o.customer_id = $2 AND id = $1", vec![Parameter(1)]),
            ("SELECT * FROM orders WHERE $1::bigint = customer_id", vec![Parameter(0)]),
            ("SELECT * FROM orders WHERE customer_id = 5000000000", vec![Literal(5_000_000_000)]),
            ("SELECT * FROM orders WHERE customer_id = '12'", vec![Literal(12)]),
            ("SELECT * FROM orders WHERE customer_id IN (1, $1)", vec![Literal(1), Parameter(0)]),
            ("SELECT * FROM orders WHERE customer_id IN (1, 1 + 1) AND customer_id = 1", vec![Literal(1)]),
            ("UPDATE orders SET a = 1 WHERE customer_id = 3", vec![Literal(3)]),
            ("DELETE FROM orders WHERE customer_id = 3 AND a > 1", vec![Literal(3)]),
            ("EXPLAIN SELECT * FROM orders WHERE customer_id = 7", vec![Literal(7)]),
            ("COPY (SELECT * FROM orders WHERE customer_id = 7) TO STDOUT", vec![Literal(7)]),
        ] {
            assert_eq!(find(sql), Place::Of(customers), "{sql}");
        }
        let insert = "INSERT INTO orders (id, customer_id) VALUES ($1, $2), (5, 6)";
        assert_eq!(find(insert), Place::Stores(vec![Parameter(1), Literal(6)]));
    }

    #[test]
    fn what_cannot_be_read_is_for_all_shards() {
        for sql in [
            "SELECT * FROM orders WHERE customer_id = 1 OR customer_id = 2",
            "SELECT * FROM orders WHERE NOT customer_id = 1",
            "SELECT * FROM orders WHERE customer_id > 1",
            "SELECT * FROM orders WHERE customer_id = 1 + 1",
            "SELECT * FROM orders WHERE customer_id IN (1, 1 + 1)",
            "SELECT * FROM orders WHERE customer_id IN (SELECT 1)",
            "SELECT * FROM orders WHERE customer_id NOT IN (1)",
            "SELECT * FROM orders WHERE customer_id = ANY($1)",
            "SELECT * FROM orders WHERE customer_id = NULL",
            "SELECT * FROM orders WHERE customer_id = '1.5'",
            "SELECT * FROM orders WHERE customer_id = 9::bit(3)::int",
            "SELECT * FROM orders WHERE customer_id OPERATOR(mine.=) 1",
            "SELECT * FROM orders JOIN users USING (id) WHERE customer_id = 1",
            "SELECT * FROM orders, users WHERE customer_id = 1",
            "SELECT * FROM (SELECT * FROM orders) o WHERE customer_id = 1",
            "SELECT (SELECT count(*) FROM orders) FROM orders WHERE customer_id = 1",
            "SELECT * FROM orders WHERE customer_id = 1 AND EXISTS (SELECT 1 FROM users)",
            "SELECT * FROM orders WHERE customer_id = 1 UNION SELECT * FROM orders WHERE customer_id = 2",
            "WITH a AS (SELECT * FROM orders) SELECT * FROM a WHERE customer_id = 1",
            "WITH a AS (DELETE FROM orders RETURNING *) UPDATE users SET a = 1 WHERE customer_id = 1",
            "DELETE FROM orders USING users WHERE orders.customer_id = 1",
            "UPDATE orders SET a = 1 FROM users WHERE orders.customer_id = 1",
            "INSERT INTO copies (id, customer_id) SELECT id, customer_id FROM orders",
            "COPY orders TO STDOUT",
        ] {
            assert_eq!(find(sql), Place::Everywhere, "{sql}");
        }
    }

    #[test]
    fn rows_that_would_lie_where_nobody_looks_are_refused() {
        for sql in [
            "INSERT INTO orders (customer_id) VALUES (7), (7 + 1)",
            "INSERT INTO orders (customer_id) VALUES (DEFAULT)",
            "INSERT INTO orders (id, customer_id) VALUES ((SELECT max(id) FROM orders), 7)",
            "INSERT INTO orders (customer_id) SELECT 7",
            "INSERT INTO orders (customer_id) SELECT id FROM users",
            "INSERT INTO orders (customer_id) SELECT a.customer_id FROM orders a JOIN users b USING (id)",
            "WITH a AS (DELETE FROM users RETURNING id) INSERT INTO orders (customer_id) VALUES (7)",
            "INSERT INTO orders (customer_id) VALUES (7) ON CONFLICT (id) DO UPDATE SET customer_id = 8",
            "UPDATE orders SET customer_id = 2 WHERE customer_id = 1",
            "MERGE INTO orders USING users u ON orders.customer_id = 1 WHEN NOT MATCHED THEN INSERT (customer_id) VALUES (2)",
            "COPY orders FROM STDIN",
            "COPY orders (id, customer_id) FROM STDIN",
        ] {
            assert_eq!(find(sql), Place::Refused, "{sql}");
        }
    }

    #[test]
    fn what_names_no_customer_is_left_to_pgdog() {
        for sql in [
            "SELECT * FROM orders",
            "INSERT INTO orders (id) VALUES (1)",
            "INSERT INTO countries VALUES (1, 'x')",
            "COPY countries (code, name) FROM STDIN",
            "SELECT 1",
        ] {
            assert_eq!(find(sql), Place::Unsaid, "{sql}");
        }
        assert_eq!(find("BEGIN"), Place::NoRows);
    }

    #[test]
    fn customers_become_shards() {
        use Customer::*;
        let go = |places: &[Place], bound: &Parameters| i64::from(shard(places, bound, 4));
        let (all, unknown, blocked) = (i64::from(Shard::All), i64::from(Shard::Unknown), i64::from(Shard::Blocked));
        let of = |customers: &[Customer]| Place::Of(customers.to_vec());
        let stores = |customers: &[Customer]| Place::Stores(customers.to_vec());
        with(&[], |none| {
            assert_eq!(go(&[], none), unknown);
            assert_eq!(go(&[Place::NoRows, Place::Unsaid], none), unknown);
            assert_eq!(go(&[of(&[Literal(6)])], none), 2);
            assert_eq!(go(&[of(&[Literal(-1)])], none), 3);
            assert_eq!(go(&[of(&[Literal(6), Literal(10)])], none), 2);
            assert_eq!(go(&[of(&[Literal(6), Literal(7)])], none), all);
            assert_eq!(go(&[of(&[Parameter(0)])], none), all, "not bound");
            assert_eq!(go(&[stores(&[Literal(6), Literal(7)])], none), blocked);
            assert_eq!(go(&[stores(&[Parameter(0)])], none), blocked);
            // Each statement of a string.
            assert_eq!(go(&[of(&[Literal(6)]), of(&[Literal(2)])], none), 2);
            assert_eq!(go(&[of(&[Literal(6)]), of(&[Literal(7)])], none), all);
            assert_eq!(go(&[of(&[Literal(6)]), Place::Unsaid], none), all);
            assert_eq!(go(&[Place::NoRows, stores(&[Literal(6)]), of(&[Literal(2)])], none), 2);
            assert_eq!(go(&[stores(&[Literal(6)]), Place::Everywhere], none), blocked);
            assert_eq!(go(&[of(&[Literal(6)]), stores(&[Literal(7)])], none), blocked);
            assert_eq!(go(&[of(&[Literal(6)]), Place::Refused], none), blocked);
        });
        let eight = 9i64.to_be_bytes();
        let values: &[(&[u8], ParameterFormat)] =
            &[(b"6", ParameterFormat::Text), (&eight, ParameterFormat::Binary), (b"x", ParameterFormat::Text)];
        with(values, |bound| {
            assert_eq!(go(&[of(&[Parameter(0)])], bound), 2);
            assert_eq!(go(&[of(&[Parameter(1)])], bound), 1);
            assert_eq!(go(&[of(&[Parameter(2)])], bound), all, "not a number");
        });
    }
}
