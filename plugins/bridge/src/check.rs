//! Does this build understand itself? A bridge whose generated Rust does not fit the C library it is linked with gives empty
//! trees without any error, so the host asks at load, before any plugin.

use pgdog_plugin::pg_query::NodeEnum;
use pgdog_plugin::prelude::*;
use pgdog_plugin::{PdRoute, PdRouterContext};

use crate::parse::{Backslash, parse};
use crate::route::{HAS_PRIMARY, Plugin, WRITE_OVERRIDE, route};

const SQL: &[u8] = b"SELECT a, $1 FROM t WHERE b = 'x' AND c = $2";
/// Two format codes (text, binary), two values: 'é' and NULL.
const BIND: &[u8] = &[0, 2, 0, 0, 0, 1, 0, 2, 0, 0, 0, 2, 0xc3, 0xa9, 0xff, 0xff, 0xff, 0xff];

/// A plugin in miniature: shard 7 and read when it sees exactly what was sent.
unsafe extern "C" fn probe(context: PdRouterContext, output: *mut PdRoute) {
    let context: Context = context.into();
    let parameters = context.parameters();
    let seen = context.shards() == 9
        && context.has_primary()
        && !context.has_replicas()
        && context.write_override()
        && context.statement().protobuf().nodes().len() > 5
        && parameters.len() == 2
        && parameters[0].decode(parameters.parameter_format(0)) == Some(ParameterValue::Text("é"))
        && parameters.parameter_format(1) == ParameterFormat::Binary
        && parameters[1].null();
    let answer = if seen { Route::new(Shard::Direct(7), ReadWrite::Read) } else { Route::block() };
    unsafe { *output = answer.into() };
}

/// Parses, deparses and routes as the host would; `Err` says what was wrong.
pub fn check() -> Result<(), String> {
    let statement = parse(SQL, Backslash::Plain).map_err(|refused| format!("it does not parse a plain SELECT: {refused:?}"))?;
    let [only] = &statement.ast.stmts[..] else {
        return Err(format!("it sees {} statements instead of one", statement.ast.stmts.len()));
    };
    let Some(NodeEnum::SelectStmt(select)) = only.stmt.as_ref().and_then(|node| node.node.as_ref()) else {
        return Err("it does not see a SelectStmt".into());
    };
    let table = select.from_clause.first().and_then(|node| node.node.as_ref());
    if select.target_list.len() != 2 || !matches!(table, Some(NodeEnum::RangeVar(table)) if table.relname == "t") {
        return Err("it does not see the columns and the table".into());
    }
    if !matches!(select.where_clause.as_ref().and_then(|node| node.node.as_ref()), Some(NodeEnum::BoolExpr(both)) if both.args.len() == 2)
    {
        return Err("it does not see the condition".into());
    }
    match statement.ast.deparse() {
        Ok(text) if text.as_bytes() == SQL => {}
        other => return Err(format!("it writes the statement back as {other:?}")),
    }
    if parse(b"SELECT FROM WHERE", Backslash::Plain).is_ok() {
        return Err("it accepts a syntax error".into());
    }
    let probe = Plugin { function: probe, number: u32::MAX };
    match route(probe, &statement, 9, HAS_PRIMARY | WRITE_OVERRIDE, BIND) {
        Ok(29.0) => Ok(()),
        other => Err(format!("a plugin does not see what was sent ({other:?})")),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_build_understands_itself() {
        assert_eq!(super::check(), Ok(()));
    }
}
