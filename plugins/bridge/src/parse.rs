//! SQL text → the tree as plugins see it, or why there is none. Knows nothing of the host.

use std::ffi::{CStr, CString, c_char, c_int};

use pgdog_plugin::pg_query::protobuf::ParseResult;
use prost::Message;

use crate::levels::{depth, is_plain, tokens};
use crate::{deep, meter};

/// Stack that a parse may use on the thread of the caller; the host's worker threads have 4 MB.
pub const ORDINARY_STACK: usize = 2 << 20;
/// A tree whose decoding took more is walked and dropped on the big stack: plugins recurse too, in frames we do not know.
const ORDINARY_TREE: usize = 512 * 1024;
/// Most stack that one level of `levels.rs` costs, C and Rust together (a test below measures it for many shapes).
pub const STACK_PER_LEVEL: usize = 6144;

/// PostgreSQL gives up at fewer (its own stack is 2 MB by default). The rest of the big stack is for plugins: turning a tree into
/// JSON, say, takes much more of it than parsing.
const MOST_LEVELS: usize = 20_000;
const BIG_STACK_PER_LEVEL: usize = 32 * 1024;

/// A parsed text: one or more statements. The host holds it by address.
pub struct Statement {
    pub ast: ParseResult,
    /// Heap bytes that `ast` holds.
    pub bytes: usize,
    /// To be walked and dropped on the big stack only.
    pub deep: bool,
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
        pub fn pg_query_parse_protobuf(input: *const c_char) -> ProtobufParseResult;
        pub fn pg_query_free_protobuf_parse_result(result: ProtobufParseResult);
    }
}

/// Parses one text of one or more statements.
pub fn parse(sql: &[u8]) -> Result<Box<Statement>, Refused> {
    // A message of the protocol cannot hold a NUL inside a string, so this is a mistake of the host.
    let Ok(text) = CString::new(sql) else { return Err(Refused::Broken("NUL in the text".into())) };
    const ORDINARY: usize = ORDINARY_STACK / STACK_PER_LEVEL;
    if tokens(sql) <= ORDINARY {
        return parse_here(&text);
    }
    let depth = depth(sql);
    if depth <= ORDINARY && is_plain(sql) {
        return parse_here(&text);
    }
    // The other stack costs time, half as much again, but not the process should `depth` be wrong.
    if depth > MOST_LEVELS.min(deep::stack() / BIG_STACK_PER_LEVEL) {
        return Err(Refused::TooComplex);
    }
    deep::run(|| parse_here(&text)).unwrap_or(Err(Refused::TooComplex))
}

fn parse_here(text: &CStr) -> Result<Box<Statement>, Refused> {
    #[cfg(not(parser_leaves_stderr_alone))]
    let _one_at_a_time = {
        static PARSER: std::sync::Mutex<()> = std::sync::Mutex::new(());
        PARSER.lock().unwrap_or_else(|broken| broken.into_inner())
    };
    // SAFETY: the text ends in NUL; the result is freed once, after the last use.
    let result = unsafe { c::pg_query_parse_protobuf(text.as_ptr()) };
    let parsed = if let Some(error) = unsafe { result.error.as_ref() } {
        let message = unsafe { CStr::from_ptr(error.message) }.to_string_lossy().into_owned();
        Err(Refused::Syntax(message, error.cursor))
    } else {
        let data = unsafe { std::slice::from_raw_parts(result.data.cast::<u8>(), result.length) };
        let (decoded, bytes, stack) = meter::measured(|| ParseResult::decode(data));
        decoded.map_err(|error| Refused::Broken(error.to_string())).map(|ast| {
            let bytes = bytes + size_of::<Statement>();
            Box::new(Statement { ast, bytes, deep: stack > ORDINARY_TREE })
        })
    };
    unsafe { c::pg_query_free_protobuf_parse_result(result) };
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    /// Bytes of stack that parsing and dropping `sql` touch, on a fresh thread that nobody used before.
    fn stack_of(sql: &str) -> usize {
        let text = CString::new(sql).unwrap();
        std::thread::Builder::new()
            .stack_size(deep::LARGEST)
            .spawn(move || {
                let here = 0u8;
                let top = (&raw const here as usize) & !(PAGE - 1);
                drop(parse_here(&text));
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
            ("scalar select", format!("{}", nest("SELECT(", "SELECT 1", ")"))),
            ("exists", format!("{}", nest("SELECT EXISTS(", "SELECT 1", ")"))),
            ("from", format!("{}", nest("SELECT FROM(", "SELECT", ")"))),
            ("with", format!("{}", nest("WITH a AS(", "SELECT", ")SELECT"))),
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
            let statement = parse(sql.as_bytes()).unwrap();
            assert_eq!(statement.deep, terms >= 1_000, "{terms}");
            if statement.deep {
                deep::run(move || drop(statement)).unwrap();
            }
        }
    }

    #[test]
    fn what_no_stack_could_hold_is_refused() {
        let sql = format!("SELECT a{}", "+a".repeat(11_000));
        assert_eq!(parse(sql.as_bytes()).err(), Some(Refused::TooComplex));
    }

    #[test]
    fn ten_thousand_parentheses_are_an_answer() {
        let sql = format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000));
        match parse(sql.as_bytes()) {
            Err(Refused::Syntax(message, _)) => assert!(message.contains("memory exhausted"), "{message}"),
            other => panic!("{:?}", other.err()),
        }
    }

    #[test]
    fn a_syntax_error_has_its_message_and_place() {
        assert_eq!(
            parse(b"SELECT FROM WHERE").err(),
            Some(Refused::Syntax("syntax error at or near \"WHERE\"".into(), 13))
        );
    }

    #[test]
    fn many_threads_parse_at_once() {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                std::thread::spawn(move || {
                    for i in 0..500 {
                        let sql = format!("SELECT {i} FROM t{thread} WHERE b = 'x'");
                        assert_eq!(parse(sql.as_bytes()).unwrap().ast.deparse().unwrap(), sql);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
