//! Sends each statement to the shard of its customer: shard = customer_id modulo the number of shards. The customer is looked
//! for in the conditions and in the columns of an INSERT, as a literal or as a parameter. A statement for several shards goes to
//! all of them; one that names no customer is left to PgDog.

use pgdog_plugin::macros;
use pgdog_plugin::prelude::*;
use pg_query::NodeEnum;
use pg_query::protobuf::{AExprKind, BoolExprType, InsertStmt, Node, ParseResult, a_const::Val};

macros::plugin!();

const COLUMN: &str = "customer_id";

/// Where a value stands in a statement: found without parameters, so that the search can be tested without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Customer {
    Literal(i64),
    /// Counted from zero.
    Parameter(usize),
}

/// The customers of the first statement. Only conditions that every row must meet count: `customer_id = 1 OR …` says nothing.
pub fn customers(ast: &ParseResult) -> Vec<Customer> {
    let mut found = Vec::new();
    let statement = ast.stmts.first().and_then(|raw| raw.stmt.as_ref()?.node.as_ref());
    match statement {
        Some(NodeEnum::SelectStmt(select)) => conditions(select.where_clause.as_deref(), &mut found),
        Some(NodeEnum::UpdateStmt(update)) => conditions(update.where_clause.as_deref(), &mut found),
        Some(NodeEnum::DeleteStmt(delete)) => conditions(delete.where_clause.as_deref(), &mut found),
        Some(NodeEnum::InsertStmt(insert)) => inserted(insert, &mut found),
        _ => {}
    }
    found
}

fn conditions(condition: Option<&Node>, found: &mut Vec<Customer>) {
    match condition.and_then(|node| node.node.as_ref()) {
        Some(NodeEnum::BoolExpr(all)) if all.boolop() == BoolExprType::AndExpr => {
            all.args.iter().for_each(|each| conditions(Some(each), found));
        }
        Some(NodeEnum::AExpr(compared)) if matches!(compared.kind(), AExprKind::AexprOp | AExprKind::AexprIn) => {
            let sign = compared.name.first().and_then(|name| name.node.as_ref());
            if !matches!(sign, Some(NodeEnum::String(sign)) if sign.sval == "=") {
                return;
            }
            let (left, right) = (compared.lexpr.as_deref(), compared.rexpr.as_deref());
            if is_column(left) {
                values(right, found);
            } else if is_column(right) {
                values(left, found);
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

/// The value of an expression, or of each member of a list.
fn values(node: Option<&Node>, found: &mut Vec<Customer>) {
    match node.and_then(|node| node.node.as_ref()) {
        Some(NodeEnum::List(list)) => list.items.iter().for_each(|item| values(Some(item), found)),
        Some(NodeEnum::TypeCast(cast)) => values(cast.arg.as_deref(), found),
        Some(NodeEnum::ParamRef(parameter)) => found.extend(usize::try_from(parameter.number - 1).ok().map(Customer::Parameter)),
        Some(NodeEnum::AConst(constant)) => {
            let number = match &constant.val {
                Some(Val::Ival(integer)) => Some(i64::from(integer.ival)),
                // Integers beyond 32 bits come as the text of a float.
                Some(Val::Fval(float)) => float.fval.parse().ok(),
                Some(Val::Sval(text)) => text.sval.trim().parse().ok(),
                _ => None,
            };
            found.extend(number.map(Customer::Literal));
        }
        _ => {}
    }
}

fn inserted(insert: &InsertStmt, found: &mut Vec<Customer>) {
    let place = insert
        .cols
        .iter()
        .position(|column| matches!(&column.node, Some(NodeEnum::ResTarget(target)) if target.name == COLUMN));
    let rows = insert.select_stmt.as_ref().and_then(|select| select.node.as_ref());
    if let (Some(place), Some(NodeEnum::SelectStmt(select))) = (place, rows) {
        for row in &select.values_lists {
            if let Some(NodeEnum::List(row)) = &row.node {
                values(row.items.get(place), found);
            }
        }
    }
}

/// Text, or a binary int2, int4 or int8.
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

/// One shard when all customers live there, all shards otherwise; nothing when a value cannot be read.
pub fn shard(customers: &[Customer], parameters: &Parameters, shards: usize) -> Shard {
    let mut chosen = None;
    for customer in customers {
        let number = match customer {
            Customer::Literal(number) => Some(*number),
            Customer::Parameter(index) => bound(parameters, *index),
        };
        let Some(number) = number else { return Shard::Unknown };
        let shard = number.rem_euclid(shards.max(1) as i64) as usize;
        if *chosen.get_or_insert(shard) != shard {
            return Shard::All;
        }
    }
    chosen.map_or(Shard::Unknown, Shard::Direct)
}

#[route]
fn route(context: Context) -> Route {
    if !context.sharded() {
        return Route::unknown();
    }
    let statement = context.statement().protobuf();
    let customers = customers(&statement);
    Route::new(shard(&customers, &context.parameters(), context.shards()), ReadWrite::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgdog_plugin::PdParameters;

    fn find(sql: &str) -> Vec<Customer> {
        customers(&pg_query::parse(sql).unwrap().protobuf)
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
        assert_eq!(find("SELECT * FROM orders WHERE customer_id = 7"), [Literal(7)]);
        assert_eq!(find("SELECT * FROM orders o WHERE o.customer_id = $2 AND id = $1"), [Parameter(1)]);
        assert_eq!(find("SELECT * FROM orders WHERE $1::bigint = customer_id"), [Parameter(0)]);
        assert_eq!(find("SELECT * FROM orders WHERE customer_id = 5000000000"), [Literal(5_000_000_000)]);
        assert_eq!(find("SELECT * FROM orders WHERE customer_id = '12'"), [Literal(12)]);
        assert_eq!(find("SELECT * FROM orders WHERE customer_id IN (1, $1)"), [Literal(1), Parameter(0)]);
        assert_eq!(find("UPDATE orders SET a = 1 WHERE customer_id = 3"), [Literal(3)]);
        assert_eq!(find("DELETE FROM orders WHERE customer_id = 3 AND a > 1"), [Literal(3)]);
        assert_eq!(find("INSERT INTO orders (id, customer_id) VALUES ($1, $2), (5, 6)"), [Parameter(1), Literal(6)]);
    }

    #[test]
    fn what_does_not_bind_every_row_is_no_customer() {
        for sql in [
            "SELECT * FROM orders",
            "SELECT * FROM orders WHERE customer_id = 1 OR true",
            "SELECT * FROM orders WHERE NOT customer_id = 1",
            "SELECT * FROM orders WHERE customer_id > 1",
            "SELECT * FROM orders WHERE customer_id NOT IN (1)",
            "INSERT INTO orders (id) VALUES (1)",
            "INSERT INTO orders VALUES (1, 2)",
            "BEGIN",
            "",
        ] {
            assert_eq!(find(sql), [], "{sql}");
        }
    }

    #[test]
    fn customers_become_shards() {
        use Customer::*;
        with(&[], |none| {
            assert_eq!(shard(&[], none, 4), Shard::Unknown);
            assert_eq!(shard(&[Literal(6)], none, 4), Shard::Direct(2));
            assert_eq!(shard(&[Literal(-1)], none, 4), Shard::Direct(3));
            assert_eq!(shard(&[Literal(6), Literal(10)], none, 4), Shard::Direct(2));
            assert_eq!(shard(&[Literal(6), Literal(7)], none, 4), Shard::All);
            assert_eq!(shard(&[Parameter(0)], none, 4), Shard::Unknown, "not bound");
        });
        let eight = 9i64.to_be_bytes();
        let values: &[(&[u8], ParameterFormat)] =
            &[(b"6", ParameterFormat::Text), (&eight, ParameterFormat::Binary), (b"x", ParameterFormat::Text)];
        with(values, |bound| {
            assert_eq!(shard(&[Parameter(0)], bound, 4), Shard::Direct(2));
            assert_eq!(shard(&[Parameter(1)], bound, 4), Shard::Direct(1));
            assert_eq!(shard(&[Parameter(2)], bound, 4), Shard::Unknown, "not a number");
        });
    }
}
