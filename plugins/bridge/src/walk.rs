//! Every place and every constant of a tree, in an order of its own that depends on the tree's form only. Knows the statements
//! that are sent with constants, and what they are made of; each structure is taken apart whole, so that a field that another
//! version of pg_query adds is not forgotten. A tree with anything else in it is not walked to its end.

use pgdog_plugin::pg_query::NodeEnum;
use pgdog_plugin::pg_query::protobuf::*;

pub trait Visitor {
    /// Where something begins, or a statement ends, in bytes of the text; -1: nowhere.
    fn place(&mut self, place: &mut i32);
    /// A constant, whose place was told before. Returns whether the walk may go on.
    fn constant(&mut self, constant: &mut AConst) -> bool;
}

/// Returns whether all of the tree was walked.
pub fn walk(tree: &mut ParseResult, visitor: &mut impl Visitor) -> bool {
    let ParseResult { version: _, stmts } = tree;
    stmts.iter_mut().all(|RawStmt { stmt, stmt_location, stmt_len }| {
        let mut end = *stmt_location + *stmt_len;
        visitor.place(stmt_location);
        // A length of 0: to the end of the text.
        if *stmt_len != 0 {
            visitor.place(&mut end);
            *stmt_len = end - *stmt_location;
        }
        one(stmt, visitor)
    })
}

type Child = Option<Box<Node>>;

fn one(child: &mut Child, visitor: &mut impl Visitor) -> bool {
    child.as_deref_mut().is_none_or(|child| node(child, visitor))
}

fn all(nodes: &mut [Node], visitor: &mut impl Visitor) -> bool {
    nodes.iter_mut().all(|child| node(child, visitor))
}

fn node(Node { node }: &mut Node, v: &mut impl Visitor) -> bool {
    let Some(node) = node else { return true };
    match node {
        NodeEnum::AConst(constant) => {
            v.place(&mut constant.location);
            v.constant(constant)
        }
        NodeEnum::ColumnRef(ColumnRef { fields, location }) => {
            v.place(location);
            all(fields, v)
        }
        NodeEnum::AExpr(it) => {
            let AExpr { kind: _, name, lexpr, rexpr, location } = &mut **it;
            v.place(location);
            all(name, v) && one(lexpr, v) && one(rexpr, v)
        }
        // Names and numbers of the tree itself. When such a number was a constant of the text, `shapes.rs` finds that one unused.
        NodeEnum::String(_) | NodeEnum::Integer(_) | NodeEnum::AStar(_) => true,
        NodeEnum::SelectStmt(it) => select(it, v),
        NodeEnum::InsertStmt(it) => {
            let InsertStmt { relation, cols, select_stmt, on_conflict_clause, returning_list, with_clause, r#override: _ } =
                &mut **it;
            range_var(relation, v)
                && all(cols, v)
                && one(select_stmt, v)
                && on_conflict(on_conflict_clause, v)
                && all(returning_list, v)
                && with(with_clause, v)
        }
        NodeEnum::UpdateStmt(it) => {
            let UpdateStmt { relation, target_list, where_clause, from_clause, returning_list, with_clause } = &mut **it;
            range_var(relation, v)
                && all(target_list, v)
                && one(where_clause, v)
                && all(from_clause, v)
                && all(returning_list, v)
                && with(with_clause, v)
        }
        NodeEnum::DeleteStmt(it) => {
            let DeleteStmt { relation, using_clause, where_clause, returning_list, with_clause } = &mut **it;
            range_var(relation, v)
                && all(using_clause, v)
                && one(where_clause, v)
                && all(returning_list, v)
                && with(with_clause, v)
        }
        NodeEnum::ResTarget(it) => {
            let ResTarget { name: _, indirection, val, location } = &mut **it;
            v.place(location);
            all(indirection, v) && one(val, v)
        }
        NodeEnum::RangeVar(it) => range_var_here(it, v),
        NodeEnum::List(List { items }) => all(items, v),
        NodeEnum::ParamRef(ParamRef { number: _, location }) => {
            v.place(location);
            true
        }
        NodeEnum::SortBy(it) => {
            let SortBy { node, sortby_dir: _, sortby_nulls: _, use_op, location } = &mut **it;
            v.place(location);
            one(node, v) && all(use_op, v)
        }
        NodeEnum::LockingClause(LockingClause { locked_rels, strength: _, wait_policy: _ }) => all(locked_rels, v),
        NodeEnum::CommonTableExpr(it) => common_table(it, v),
        NodeEnum::JoinExpr(it) => {
            let JoinExpr {
                jointype: _,
                is_natural: _,
                larg,
                rarg,
                using_clause,
                join_using_alias,
                quals,
                alias: named,
                rtindex: _,
            } = &mut **it;
            one(larg, v) && one(rarg, v) && all(using_clause, v) && alias(join_using_alias, v) && one(quals, v) && alias(named, v)
        }
        NodeEnum::RangeSubselect(it) => {
            let RangeSubselect { lateral: _, subquery, alias: named } = &mut **it;
            one(subquery, v) && alias(named, v)
        }
        NodeEnum::RangeFunction(it) => {
            let RangeFunction { lateral: _, ordinality: _, is_rowsfrom: _, functions, alias: named, coldeflist } = it;
            all(functions, v) && alias(named, v) && all(coldeflist, v)
        }
        NodeEnum::WindowDef(it) => window(it, v),
        NodeEnum::MultiAssignRef(it) => {
            let MultiAssignRef { source, colno: _, ncolumns: _ } = &mut **it;
            one(source, v)
        }
        NodeEnum::IndexElem(it) => {
            let IndexElem { name: _, expr, indexcolname: _, collation, opclass, opclassopts, ordering: _, nulls_ordering: _ } =
                &mut **it;
            one(expr, v) && all(collation, v) && all(opclass, v) && all(opclassopts, v)
        }
        NodeEnum::GroupingSet(GroupingSet { kind: _, content, location }) => {
            v.place(location);
            all(content, v)
        }
        expression => self::expression(expression, v),
    }
}

fn expression(node: &mut NodeEnum, v: &mut impl Visitor) -> bool {
    match node {
        NodeEnum::BoolExpr(it) => {
            let BoolExpr { xpr, boolop: _, args, location } = &mut **it;
            v.place(location);
            one(xpr, v) && all(args, v)
        }
        NodeEnum::FuncCall(it) => {
            let FuncCall {
                funcname,
                args,
                agg_order,
                agg_filter,
                over,
                agg_within_group: _,
                agg_star: _,
                agg_distinct: _,
                func_variadic: _,
                funcformat: _,
                location,
            } = &mut **it;
            v.place(location);
            all(funcname, v)
                && all(args, v)
                && all(agg_order, v)
                && one(agg_filter, v)
                && over.as_deref_mut().is_none_or(|over| window(over, v))
        }
        NodeEnum::TypeCast(it) => {
            let TypeCast { arg, type_name, location } = &mut **it;
            v.place(location);
            one(arg, v) && type_name.as_mut().is_none_or(|name| self::type_name(name, v))
        }
        NodeEnum::TypeName(it) => type_name(it, v),
        NodeEnum::NullTest(it) => {
            let NullTest { xpr, arg, nulltesttype: _, argisrow: _, location } = &mut **it;
            v.place(location);
            one(xpr, v) && one(arg, v)
        }
        NodeEnum::BooleanTest(it) => {
            let BooleanTest { xpr, arg, booltesttype: _, location } = &mut **it;
            v.place(location);
            one(xpr, v) && one(arg, v)
        }
        NodeEnum::SubLink(it) => {
            let SubLink { xpr, sub_link_type: _, sub_link_id: _, testexpr, oper_name, subselect, location } = &mut **it;
            v.place(location);
            one(xpr, v) && one(testexpr, v) && all(oper_name, v) && one(subselect, v)
        }
        NodeEnum::AArrayExpr(AArrayExpr { elements, location }) => {
            v.place(location);
            all(elements, v)
        }
        NodeEnum::AIndirection(it) => {
            let AIndirection { arg, indirection } = &mut **it;
            one(arg, v) && all(indirection, v)
        }
        NodeEnum::AIndices(it) => {
            let AIndices { is_slice: _, lidx, uidx } = &mut **it;
            one(lidx, v) && one(uidx, v)
        }
        NodeEnum::CaseExpr(it) => {
            let CaseExpr { xpr, casetype: _, casecollid: _, arg, args, defresult, location } = &mut **it;
            v.place(location);
            one(xpr, v) && one(arg, v) && all(args, v) && one(defresult, v)
        }
        NodeEnum::CaseWhen(it) => {
            let CaseWhen { xpr, expr, result, location } = &mut **it;
            v.place(location);
            one(xpr, v) && one(expr, v) && one(result, v)
        }
        NodeEnum::CoalesceExpr(it) => {
            let CoalesceExpr { xpr, coalescetype: _, coalescecollid: _, args, location } = &mut **it;
            v.place(location);
            one(xpr, v) && all(args, v)
        }
        NodeEnum::MinMaxExpr(it) => {
            let MinMaxExpr { xpr, minmaxtype: _, minmaxcollid: _, inputcollid: _, op: _, args, location } = &mut **it;
            v.place(location);
            one(xpr, v) && all(args, v)
        }
        NodeEnum::RowExpr(it) => {
            let RowExpr { xpr, args, row_typeid: _, row_format: _, colnames, location } = &mut **it;
            v.place(location);
            one(xpr, v) && all(args, v) && all(colnames, v)
        }
        NodeEnum::SqlvalueFunction(it) => {
            let SqlValueFunction { xpr, op: _, r#type: _, typmod: _, location } = &mut **it;
            v.place(location);
            one(xpr, v)
        }
        NodeEnum::SetToDefault(it) => {
            let SetToDefault { xpr, type_id: _, type_mod: _, collation: _, location } = &mut **it;
            v.place(location);
            one(xpr, v)
        }
        NodeEnum::NamedArgExpr(it) => {
            let NamedArgExpr { xpr, arg, name: _, argnumber: _, location } = &mut **it;
            v.place(location);
            one(xpr, v) && one(arg, v)
        }
        NodeEnum::CollateClause(it) => {
            let CollateClause { arg, collname, location } = &mut **it;
            v.place(location);
            one(arg, v) && all(collname, v)
        }
        NodeEnum::GroupingFunc(it) => {
            let GroupingFunc { xpr, args, refs, agglevelsup: _, location } = &mut **it;
            v.place(location);
            one(xpr, v) && all(args, v) && all(refs, v)
        }
        _ => false,
    }
}

fn select(it: &mut SelectStmt, v: &mut impl Visitor) -> bool {
    let SelectStmt {
        distinct_clause,
        into_clause,
        target_list,
        from_clause,
        where_clause,
        group_clause,
        group_distinct: _,
        having_clause,
        window_clause,
        values_lists,
        sort_clause,
        limit_offset,
        limit_count,
        limit_option: _,
        locking_clause,
        with_clause,
        op: _,
        all: _,
        larg,
        rarg,
    } = it;
    into_clause.is_none()
        && all(distinct_clause, v)
        && all(target_list, v)
        && all(from_clause, v)
        && one(where_clause, v)
        && all(group_clause, v)
        && one(having_clause, v)
        && all(window_clause, v)
        && all(values_lists, v)
        && all(sort_clause, v)
        && one(limit_offset, v)
        && one(limit_count, v)
        && all(locking_clause, v)
        && with(with_clause, v)
        && larg.as_deref_mut().is_none_or(|larg| select(larg, v))
        && rarg.as_deref_mut().is_none_or(|rarg| select(rarg, v))
}

fn range_var(it: &mut Option<RangeVar>, v: &mut impl Visitor) -> bool {
    it.as_mut().is_none_or(|it| range_var_here(it, v))
}

fn range_var_here(it: &mut RangeVar, v: &mut impl Visitor) -> bool {
    let RangeVar { catalogname: _, schemaname: _, relname: _, inh: _, relpersistence: _, alias: named, location } = it;
    v.place(location);
    alias(named, v)
}

fn alias(it: &mut Option<Alias>, v: &mut impl Visitor) -> bool {
    it.as_mut().is_none_or(|Alias { aliasname: _, colnames }| all(colnames, v))
}

fn with(it: &mut Option<WithClause>, v: &mut impl Visitor) -> bool {
    it.as_mut().is_none_or(|WithClause { ctes, recursive: _, location }| {
        v.place(location);
        all(ctes, v)
    })
}

fn common_table(it: &mut CommonTableExpr, v: &mut impl Visitor) -> bool {
    let CommonTableExpr {
        ctename: _,
        aliascolnames,
        ctematerialized: _,
        ctequery,
        search_clause,
        cycle_clause,
        location,
        cterecursive: _,
        cterefcount: _,
        ctecolnames,
        ctecoltypes,
        ctecoltypmods,
        ctecolcollations,
    } = it;
    v.place(location);
    search_clause.is_none()
        && cycle_clause.is_none()
        && all(aliascolnames, v)
        && one(ctequery, v)
        && all(ctecolnames, v)
        && all(ctecoltypes, v)
        && all(ctecoltypmods, v)
        && all(ctecolcollations, v)
}

fn on_conflict(it: &mut Option<Box<OnConflictClause>>, v: &mut impl Visitor) -> bool {
    let Some(it) = it else { return true };
    let OnConflictClause { action: _, infer, target_list, where_clause, location } = &mut **it;
    v.place(location);
    let inferred = infer.as_deref_mut().is_none_or(|it| {
        let InferClause { index_elems, where_clause, conname: _, location } = it;
        v.place(location);
        all(index_elems, v) && one(where_clause, v)
    });
    inferred && all(target_list, v) && one(where_clause, v)
}

fn window(it: &mut WindowDef, v: &mut impl Visitor) -> bool {
    let WindowDef { name: _, refname: _, partition_clause, order_clause, frame_options: _, start_offset, end_offset, location } =
        it;
    v.place(location);
    all(partition_clause, v) && all(order_clause, v) && one(start_offset, v) && one(end_offset, v)
}

fn type_name(it: &mut TypeName, v: &mut impl Visitor) -> bool {
    let TypeName { names, type_oid: _, setof: _, pct_type: _, typmods, typemod: _, array_bounds, location } = it;
    v.place(location);
    all(names, v) && all(typmods, v) && all(array_bounds, v)
}
