//! SQL text → the tree as plugins see it, or why there is none. Knows nothing of the host.

use std::ffi::{CStr, CString, c_char, c_int};

use pgdog_plugin::pg_query::NodeEnum;
use pgdog_plugin::pg_query::protobuf::ParseResult;
use prost::Message;

use crate::levels::{depth, is_plain, tokens};
use crate::{deep, meter};

/// Bytes of stack that a parse may use on the thread of the caller; the host's worker threads have 4 MB.
pub const ORDINARY_STACK: usize = 2 << 20;
/// Bytes of stack: a tree whose decoding took more is walked and dropped on the big stack, since plugins recurse, too.
const ORDINARY_TREE: usize = 512 * 1024;
/// Most bytes of stack that one level of `levels.rs` costs, C and Rust together (a test below measures it for many shapes).
pub const STACK_PER_LEVEL: usize = 6144;

/// Most levels that are parsed. PostgreSQL gives up at fewer (its own stack is 2 MB by default). The rest of the big stack is for
/// plugins: turning a tree into JSON, say, takes much more of it than parsing.
const MOST_LEVELS: usize = 20_000;
const BIG_STACK_PER_LEVEL: usize = 32 * 1024;

/// A parsed text: one or more statements. The host holds it by address.
pub struct Statement {
    pub ast: ParseResult,
    /// Heap bytes that `ast` holds.
    pub bytes: usize,
    /// To be walked and dropped on the big stack only.
    pub deep: bool,
    /// Names of the prepared statements that the text runs by EXECUTE, each with a NUL behind it: what those say is not in `ast`.
    pub executes: Vec<u8>,
}

/// How the session reads a backslash in '…'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backslash {
    /// As itself: standard_conforming_strings is on.
    Plain,
    /// As the beginning of an escape: it is off.
    Escapes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The parser's own error: its message, and where (counted in characters from 1, 0 when unknown).
    Syntax(String, i32),
    /// Longer or deeper than we take; PostgreSQL might still accept it.
    TooComplex,
    /// The tree could not be read back. Never seen; not the client's fault.
    Broken(String),
}

mod c {
    use super::{c_char, c_int};

    #[repr(C)]
    pub struct Error {
        pub message: *mut c_char,
        pub function: *mut c_char,
        pub file: *mut c_char,
        pub line: c_int,
        pub cursor: c_int,
        pub context: *mut c_char,
    }

    #[repr(C)]
    pub struct ProtobufParseResult {
        pub length: usize,
        pub data: *mut c_char,
        pub stderr_buffer: *mut c_char,
        pub error: *mut Error,
    }

    // libpg_query, as linked by the pg_query crate. Called directly because the crate's `parse` also collects tables,
    // functions and filter columns that nobody here reads, which doubles its time, and panics on some rare trees.
    unsafe extern "C" {
        pub fn pg_query_parse_protobuf_opts(input: *const c_char, options: c_int) -> ProtobufParseResult;
        pub fn pg_query_free_protobuf_parse_result(result: ProtobufParseResult);
    }

    /// PG_QUERY_DISABLE_STANDARD_CONFORMING_STRINGS and PG_QUERY_DISABLE_ESCAPE_STRING_WARNING of pg_query.h.
    pub const ESCAPES: c_int = 32 | 64;
}

/// Parses one text of one or more statements.
pub fn parse(sql: &[u8], backslash: Backslash) -> Result<Box<Statement>, Refused> {
    // A message of the protocol cannot hold a NUL inside a string, so this is a mistake of the host.
    let Ok(text) = CString::new(sql) else { return Err(Refused::Broken("NUL in the text".into())) };
    const ORDINARY: usize = ORDINARY_STACK / STACK_PER_LEVEL;
    let tokens = tokens(sql);
    if tokens <= ORDINARY {
        return parse_here(&text, backslash);
    }
    // `depth` reads backslashes as they stand. Of a text that is read otherwise only `tokens` is certain not to be too small.
    let depth = if backslash == Backslash::Plain { depth(sql) } else { tokens };
    if depth <= ORDINARY && is_plain(sql) {
        return parse_here(&text, backslash);
    }
    // The big stack costs time, half as much again, but not the process should `depth` be wrong.
    if depth > MOST_LEVELS.min(deep::stack() / BIG_STACK_PER_LEVEL) {
        return Err(Refused::TooComplex);
    }
    deep::run(|| parse_here(&text, backslash)).unwrap_or(Err(Refused::TooComplex))
}

fn parse_here(text: &CStr, backslash: Backslash) -> Result<Box<Statement>, Refused> {
    #[cfg(not(parser_leaves_stderr_alone))]
    let _one_at_a_time = {
        static PARSER: std::sync::Mutex<()> = std::sync::Mutex::new(());
        PARSER.lock().unwrap_or_else(|broken| broken.into_inner())
    };
    // SAFETY: the text ends in NUL; the result is freed once, after the last use.
    let options = if backslash == Backslash::Escapes { c::ESCAPES } else { 0 };
    let result = unsafe { c::pg_query_parse_protobuf_opts(text.as_ptr(), options) };
    let parsed = if let Some(error) = unsafe { result.error.as_ref() } {
        let message = unsafe { CStr::from_ptr(error.message) }.to_string_lossy().into_owned();
        Err(Refused::Syntax(message, error.cursor))
    } else {
        let data = unsafe { std::slice::from_raw_parts(result.data.cast::<u8>(), result.length) };
        let (decoded, bytes, stack) = meter::measured(|| ParseResult::decode(data));
        decoded.map_err(|error| Refused::Broken(error.to_string())).map(|ast| {
            let executes = executes(&ast);
            let bytes = bytes + size_of::<Statement>() + executes.len();
            Box::new(Statement { ast, bytes, deep: stack > ORDINARY_TREE, executes })
        })
    };
    unsafe { c::pg_query_free_protobuf_parse_result(result) };
    parsed
}

/// Names of statements that are EXECUTEd. EXECUTE stands alone, in EXPLAIN or in CREATE TABLE AS, nowhere else in the grammar.
fn executes(ast: &ParseResult) -> Vec<u8> {
    let mut names = Vec::new();
    for raw in &ast.stmts {
        let mut statement = raw.stmt.as_deref();
        while let Some(node) = statement {
            statement = match &node.node {
                Some(NodeEnum::ExplainStmt(explain)) => explain.query.as_deref(),
                Some(NodeEnum::CreateTableAsStmt(create)) => create.query.as_deref(),
                Some(NodeEnum::ExecuteStmt(execute)) => {
                    names.extend_from_slice(execute.name.as_bytes());
                    names.push(0);
                    None
                }
                _ => None,
            };
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use Backslash::{Escapes, Plain};

    const PAGE: usize = 4096;

    /// Bytes of stack that parsing and dropping `sql` touch, on a fresh thread that nobody used before.
    fn stack_of(sql: &str) -> usize {
        let text = CString::new(sql).unwrap();
        std::thread::Builder::new()
            .stack_size(deep::LARGEST)
            .spawn(move || {
                let here = 0u8;
                let top = (&raw const here as usize) & !(PAGE - 1);
                drop(parse_here(&text, Plain));
                let span = deep::LARGEST - (1 << 20);
                let mut resident = vec![0u8; span / PAGE];
                let start = (top - span) as *mut libc::c_void;
                assert_eq!(unsafe { libc::mincore(start, span, resident.as_mut_ptr()) }, 0);
                let lowest = resident.iter().position(|page| page & 1 == 1).unwrap_or(resident.len());
                (resident.len() - lowest) * PAGE
            })
            .unwrap()
            .join()
            .unwrap()
    }

    fn shapes(n: usize) -> Vec<(&'static str, String)> {
        let nest = |open: &str, middle: &str, close: &str| open.repeat(n) + middle + &close.repeat(n);
        vec![
            ("sum", format!("SELECT a{}", "+a".repeat(n))),
            ("power", format!("SELECT a{}", "^1".repeat(n))),
            ("cast", format!("SELECT 1{}", "::int".repeat(n))),
            ("is null", format!("SELECT a{}", " IS NULL".repeat(n))),
            ("collate", format!("SELECT a{}", " COLLATE b".repeat(n))),
            ("time zone", format!("SELECT a{}", " AT LOCAL".repeat(n))),
            ("qualified operator", format!("SELECT a{}", " OPERATOR(+)a".repeat(n))),
            ("in", format!("SELECT a{}", " IN (1)".repeat(n))),
            ("field", format!("SELECT {}", nest("(", "a", ").b"))),
            ("subscript", format!("SELECT {}", nest("(", "a", ")[1]"))),
            ("not", format!("SELECT {}a", "NOT ".repeat(n))),
            ("minus", format!("SELECT {}a", "- ".repeat(n))),
            ("parens", format!("SELECT {}", nest("(", "a", ")"))),
            ("call", format!("SELECT {}", nest("f(", "a", ")"))),
            ("array", format!("SELECT {}", nest("ARRAY[", "1", "]"))),
            ("row", format!("SELECT {}", nest("ROW(", "1", ")"))),
            ("case", format!("SELECT {}", nest("CASE WHEN a THEN ", "1", " END"))),
            ("scalar select", nest("SELECT(", "SELECT 1", ")")),
            ("exists", nest("SELECT EXISTS(", "SELECT 1", ")")),
            ("from", nest("SELECT FROM(", "SELECT", ")")),
            ("with", nest("WITH a AS(", "SELECT", ")SELECT")),
            ("union", format!("SELECT{}", " UNION SELECT".repeat(n))),
            ("join", format!("SELECT FROM a{}", " JOIN a ON b".repeat(n))),
            ("cross join", format!("SELECT FROM a{}", ",LATERAL(SELECT)".repeat(n))),
            ("natural join", format!("SELECT FROM a{}", " NATURAL JOIN a".repeat(n))),
            ("values", format!("INSERT INTO a VALUES(1){}", ",(1)".repeat(n))),
            ("or", format!("SELECT a{}", " OR a".repeat(n))),
            ("and or", format!("SELECT {}", nest("(a AND(b OR ", "a", "))"))),
            ("case else", format!("SELECT {}", nest("CASE WHEN a AND b THEN 1 ELSE ", "1", " END"))),
            ("join on", format!("SELECT FROM a{}", " JOIN a ON b AND c".repeat(n))),
            ("between", format!("SELECT {}", nest("(a BETWEEN ", "a", " AND b)"))),
            ("explain", format!("{}SELECT", "EXPLAIN ".repeat(n))),
            ("prepare", format!("{}SELECT", "PREPARE a AS ".repeat(n))),
        ]
    }

    #[test]
    fn no_shape_costs_more_stack_than_its_levels_allow() {
        for (name, sql) in shapes(3000).into_iter().chain(shapes(30)) {
            let used = stack_of(&sql);
            let levels = depth(sql.as_bytes()).min(tokens(sql.as_bytes()));
            let each = used / levels.max(1);
            println!("{name}: {used} bytes, {levels} levels, {each} each");
            // What any parse needs, whatever its text.
            let allowed = 128 * 1024 + levels * STACK_PER_LEVEL;
            assert!(used <= allowed, "{name}: {used} bytes of stack for {levels} levels");
        }
    }

    #[test]
    fn a_chain_of_many_terms_has_its_whole_tree() {
        for terms in [2, 60, 1_000, 9_900] {
            let sql = format!("SELECT * FROM t WHERE a{} = 1", "+a".repeat(terms));
            let statement = parse(sql.as_bytes(), Plain).unwrap();
            assert_eq!(statement.deep, terms >= 1_000, "{terms}");
            if statement.deep {
                deep::run(move || drop(statement)).unwrap();
            }
        }
    }

    #[test]
    fn what_no_stack_could_hold_is_refused() {
        let sql = format!("SELECT a{}", "+a".repeat(11_000));
        assert_eq!(parse(sql.as_bytes(), Plain).err(), Some(Refused::TooComplex));
    }

    #[test]
    fn ten_thousand_parentheses_are_an_answer() {
        let sql = format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000));
        match parse(sql.as_bytes(), Plain) {
            Err(Refused::Syntax(message, _)) => assert!(message.contains("memory exhausted"), "{message}"),
            other => panic!("{:?}", other.err()),
        }
    }

    #[test]
    fn a_syntax_error_has_its_message_and_place() {
        assert_eq!(
            parse(b"SELECT FROM WHERE", Plain).err(),
            Some(Refused::Syntax("syntax error at or near \"WHERE\"".into(), 13))
        );
    }

    #[test]
    fn strings_are_read_as_the_session_reads_them() {
        let sql = br"SELECT '\'', v FROM t --'";
        let targets = |backslash| {
            let statement = parse(sql, backslash).unwrap();
            let Some(NodeEnum::SelectStmt(select)) = statement.ast.stmts[0].stmt.as_ref().unwrap().node.clone() else { panic!() };
            (select.target_list.len(), select.from_clause.len())
        };
        assert_eq!(targets(Plain), (1, 0));
        assert_eq!(targets(Escapes), (2, 1));
        assert_eq!(targets(Plain), (1, 0), "the next text is not read like the one before");
    }

    /// What looks like the inside of a string with backslashes read as they stand may be a tower of operators.
    #[test]
    fn a_tower_behind_a_backslash_is_seen() {
        for prefix in ["", "B", "X", "N", "E", "U&"] {
            let sql = format!(r"SELECT {prefix}'\''{} --'", "+a".repeat(500_000));
            assert!(parse(sql.as_bytes(), Escapes).is_err(), "{prefix}");
            let _ = parse(sql.as_bytes(), Plain);
        }
    }

    #[test]
    fn what_it_runs_by_name_is_told() {
        let names = |sql: &str| String::from_utf8(parse(sql.as_bytes(), Plain).unwrap().executes).unwrap();
        assert_eq!(names("SELECT 'execute a'"), "");
        assert_eq!(names("EXECUTE a(1); execute \"B\""), "a\0B\0");
        assert_eq!(names("EXPLAIN ANALYZE EXECUTE a; CREATE TABLE t AS EXECUTE b"), "a\0b\0");
        assert_eq!(names("EXPLAIN CREATE TABLE t AS EXECUTE c"), "c\0");
    }

    #[test]
    fn many_threads_parse_at_once() {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                std::thread::spawn(move || {
                    for i in 0..500 {
                        let sql = format!("SELECT {i} FROM t{thread} WHERE b = 'x'");
                        assert_eq!(parse(sql.as_bytes(), Plain).unwrap().ast.deparse().unwrap(), sql);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
