//! The tree of a text that differs from an earlier one in its constants only: that one's tree, with the constants and the places
//! of this text written into it. A parse costs ten times as much. Each thread keeps the trees of such texts, by their skeleton.
//!
//! Why the tree is that of a parse: texts of one skeleton have the same tokens but for the values of constants (`skeleton.rs`),
//! and the grammar asks for such a value in two places only. One is a number with a minus before it, which is followed here. The
//! other, `float(24)`, leaves no constant in the tree; a skeleton is only used when each of its constants was found in the tree,
//! with its value. And no skeleton is used before a text with other constants, parsed, was equal to what is made here.

use std::cell::RefCell;
use std::collections::HashMap;

use pgdog_plugin::pg_query::protobuf::{AConst, Float, Integer, String as Text, a_const::Val};

use crate::parse::{self, Backslash, Statement};
use crate::skeleton::{Kind, Skeleton, Slot};
use crate::walk::{Visitor, walk};

/// Longer texts are parsed: they are rarely alike.
const LONGEST: usize = 16 * 1024;
/// Bytes of trees that a thread keeps. Twice as much may be kept: what was not asked for lately goes when as much again has come.
const MOST_BYTES: usize = 2 << 20;
const MOST_TREES: usize = 1000;
/// Skeletons that are remembered as seen, or as of no use; of two that share a place the later one has it.
const MOST_SEEN: usize = 4096;

thread_local! {
    static SHAPES: RefCell<Shapes> = RefCell::default();
}

/// The tree of the text, read with standard_conforming_strings on; null when it has to be parsed. It is this thread's until the
/// next call.
pub fn shaped(sql: &[u8]) -> *const Statement {
    let Ok(sql) = std::str::from_utf8(sql) else { return std::ptr::null() };
    SHAPES.with_borrow_mut(|shapes| shapes.find(sql).map_or(std::ptr::null(), |statement| &raw const *statement))
}

/// Frees this thread's trees.
pub fn forget() {
    SHAPES.take();
}

#[derive(Default)]
struct Shapes {
    skeleton: Skeleton,
    shifts: Vec<i32>,
    young: HashMap<u64, Shape>,
    old: HashMap<u64, Shape>,
    /// Bytes of `young`.
    bytes: usize,
    seen: Vec<u64>,
}

/// The lowest bit of a hash in `Shapes::seen`: that skeleton is known to be of no use.
const UNFIT: u64 = 1;

impl Shapes {
    fn find(&mut self, sql: &str) -> Option<&Statement> {
        if sql.len() > LONGEST || !self.skeleton.read(sql.as_bytes()) || self.skeleton.slots.is_empty() {
            return None;
        }
        let hash = self.skeleton.hash;
        if !self.young.contains_key(&hash) {
            let shape = self.old.remove(&hash).or_else(|| self.learn(sql))?;
            self.keep(hash, shape);
        }
        let Shapes { skeleton, shifts, young, .. } = self;
        let shape = young.get_mut(&hash)?;
        // Else another text has the same hash, or there is not enough room for this one.
        (shape.skeleton == skeleton.bytes && sql.len() <= shape.room).then(|| {
            shape.write(sql, &skeleton.slots, shifts);
            &*shape.statement
        })
    }

    fn keep(&mut self, hash: u64, shape: Shape) {
        if self.bytes + shape.bytes > MOST_BYTES || self.young.len() >= MOST_TREES {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += shape.bytes;
        self.young.insert(hash, shape);
    }

    /// The shape of a skeleton that is seen for the second time; None for the first time, or when it is of no use.
    fn learn(&mut self, sql: &str) -> Option<Shape> {
        let Shapes { skeleton, shifts, seen, .. } = self;
        seen.resize(MOST_SEEN, 0);
        let mark = skeleton.hash & !UNFIT;
        let place = &mut seen[(skeleton.hash >> 32) as usize % MOST_SEEN];
        if *place & !UNFIT != mark {
            *place = mark;
            return None;
        }
        if *place & UNFIT != 0 {
            return None;
        }
        let shape = Shape::new(sql, skeleton, shifts);
        if shape.is_none() {
            *place = mark | UNFIT;
        }
        shape
    }
}

struct Shape {
    skeleton: Vec<u8>,
    /// The constants of the text that was parsed, which `places` are of.
    slots: Vec<Slot>,
    statement: Box<Statement>,
    /// In the order of `walk`, as `constants`.
    places: Vec<Place>,
    constants: Vec<Constant>,
    /// The longest text that is written into the tree, so that its size is known.
    room: usize,
    bytes: usize,
}

struct Place {
    at: i32,
    /// Constants that begin before it.
    behind: usize,
}

#[derive(Clone, Copy)]
enum Constant {
    /// NULL, true, false, or made up by the grammar: in every text of the skeleton.
    Fixed,
    Slot {
        number: usize,
        negative: bool,
    },
}

impl Shape {
    fn new(sql: &str, skeleton: &Skeleton, shifts: &mut Vec<i32>) -> Option<Shape> {
        let mut statement = parse::parse(sql.as_bytes(), Backslash::Plain).ok().filter(|statement| !statement.deep)?;
        let used = vec![false; skeleton.slots.len()];
        let mut learner = Learner { sql, slots: &skeleton.slots, used, places: Vec::new(), constants: Vec::new() };
        if !walk(&mut statement.ast, &mut learner) || learner.used.contains(&false) {
            return None;
        }
        let Learner { places, constants, .. } = learner;
        let room = 1024.max(2 * sql.len());
        let tables = places.len() * size_of::<Place>() + constants.len() * size_of::<Constant>() + size_of_val(&*skeleton.slots);
        // A string that grows may take twice what it holds.
        let bytes = size_of::<Shape>() + statement.bytes + skeleton.bytes.len() + tables + 2 * room;
        let slots = skeleton.slots.clone();
        let mut shape = Shape { skeleton: skeleton.bytes.clone(), slots, statement, places, constants, room, bytes };
        shape.is_proved(skeleton, shifts).then_some(shape)
    }

    /// Whether the tree of another text is written as it is parsed.
    fn is_proved(&mut self, skeleton: &Skeleton, shifts: &mut Vec<i32>) -> bool {
        let probe = skeleton.probe();
        let mut read = Skeleton::default();
        let Ok(parsed) = parse::parse(probe.as_bytes(), Backslash::Plain) else { return false };
        if !read.read(probe.as_bytes()) || read.bytes != skeleton.bytes || parsed.deep {
            return false;
        }
        self.write(&probe, &read.slots, shifts);
        self.statement.ast == parsed.ast
    }

    fn write(&mut self, sql: &str, slots: &[Slot], shifts: &mut Vec<i32>) {
        shifts.clear();
        shifts.push(0);
        shifts.extend(self.slots.iter().zip(slots).map(|(was, is)| is.end as i32 - was.end as i32));
        let Shape { statement, places, constants, .. } = self;
        let mut writer = Writer { sql, slots, shifts, places: places.iter(), constants: constants.iter() };
        walk(&mut statement.ast, &mut writer);
    }
}

/// Finds out what is where in a tree that was just parsed.
struct Learner<'a> {
    sql: &'a str,
    slots: &'a [Slot],
    used: Vec<bool>,
    places: Vec<Place>,
    constants: Vec<Constant>,
}

impl Visitor for Learner<'_> {
    fn place(&mut self, place: &mut i32) {
        let behind = self.slots.partition_point(|slot| (slot.start as i64) < i64::from(*place));
        self.places.push(Place { at: *place, behind });
    }

    fn constant(&mut self, constant: &mut AConst) -> bool {
        let AConst { isnull: _, location, val } = constant;
        let is_written = matches!(val, Some(Val::Ival(_) | Val::Fval(_) | Val::Sval(_)));
        let Ok(start) = usize::try_from(*location) else {
            self.constants.push(Constant::Fixed);
            return true;
        };
        // `interval '1' day` has a number for the word DAY.
        let is_of_word = self.sql.as_bytes().get(start).is_some_and(u8::is_ascii_alphabetic);
        if !is_written || is_of_word {
            self.constants.push(Constant::Fixed);
            return true;
        }
        let number = self.slots.partition_point(|slot| slot.start < start);
        let Some(&slot) = self.slots.get(number) else { return false };
        // The place of a negative number is that of the first minus before it.
        let before = &self.sql.as_bytes()[start..slot.start];
        let negative = before.iter().filter(|&&byte| byte == b'-').count() % 2 == 1;
        let is_clear = before.iter().all(|byte| b"-( \t\r\n".contains(byte));
        if !is_clear || *val != Some(value(self.sql, slot, negative)) {
            return false;
        }
        self.used[number] = true;
        self.constants.push(Constant::Slot { number, negative });
        true
    }
}

/// What the grammar makes of a constant.
fn value(sql: &str, slot: Slot, negative: bool) -> Val {
    match slot.kind {
        Kind::Integer => Val::Ival(Integer { ival: integer(sql, slot, negative) }),
        Kind::Number => {
            let mut fval = String::new();
            number(&mut fval, sql, slot, negative);
            Val::Fval(Float { fval })
        }
        Kind::String => {
            let mut sval = String::new();
            string(&mut sval, sql, slot);
            Val::Sval(Text { sval })
        }
    }
}

fn integer(sql: &str, Slot { start, end, .. }: Slot, negative: bool) -> i32 {
    let value = sql[start..end].bytes().fold(0_i32, |value, digit| value.wrapping_mul(10).wrapping_add(i32::from(digit - b'0')));
    if negative { -value } else { value }
}

fn number(to: &mut String, sql: &str, Slot { start, end, .. }: Slot, negative: bool) {
    to.clear();
    if negative {
        to.push('-');
    }
    to.push_str(&sql[start..end]);
}

fn string(to: &mut String, sql: &str, Slot { start, end, .. }: Slot) {
    to.clear();
    let mut rest = &sql[start + 1..end - 1];
    // A quote is doubled.
    while let Some(at) = rest.find('\'') {
        to.push_str(&rest[..=at]);
        rest = &rest[at + 2..];
    }
    to.push_str(rest);
}

/// Writes the constants and the places of another text.
struct Writer<'a> {
    sql: &'a str,
    slots: &'a [Slot],
    /// By how many bytes a place has moved, by the number of constants that begin before it.
    shifts: &'a [i32],
    places: std::slice::Iter<'a, Place>,
    constants: std::slice::Iter<'a, Constant>,
}

impl Visitor for Writer<'_> {
    fn place(&mut self, place: &mut i32) {
        let Some(&Place { at, behind }) = self.places.next() else { return };
        *place = if at < 0 { at } else { at + self.shifts[behind] };
    }

    fn constant(&mut self, constant: &mut AConst) -> bool {
        if let Some(&Constant::Slot { number: slot, negative }) = self.constants.next() {
            let slot = self.slots[slot];
            match &mut constant.val {
                Some(Val::Ival(Integer { ival })) => *ival = integer(self.sql, slot, negative),
                Some(Val::Fval(Float { fval })) => number(fval, self.sql, slot, negative),
                Some(Val::Sval(Text { sval })) => string(sval, self.sql, slot),
                _ => {}
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers at random, but the same in every run.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % limit
        }

        fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
            choices[self.below(choices.len())]
        }
    }

    const FORMS: &[&str] = &[
        "SELECT abalance FROM pgbench_accounts WHERE aid = ?",
        "SELECT abalance FROM pgbench_accounts WHERE aid = ?;",
        "  SELECT ? , -?, - ?, -(?), - - ?, -(-?), + ?, a-?, a - -?, ?::numeric(10, 2), CAST(? AS varchar(?)), $1, $2 + ?",
        "select ? as \"x ? ''\", b.* from s.t1 as b(c, d) where b.c in (?, ?, ?) and d not in (?) or b.x between ? and -? /* 1 '2 */ -- 3\n and e = ?",
        "SELECT count(*), sum(x + ?) FILTER (WHERE y > ?), f(a => ?, VARIADIC ARRAY[?, ?]) FROM t GROUP BY ?, ROLLUP (a, ?) HAVING max(b) < ? ORDER BY ? DESC NULLS LAST LIMIT ? OFFSET ?",
        "SELECT rank() OVER (PARTITION BY a, ? ORDER BY b ROWS BETWEEN ? PRECEDING AND ? FOLLOWING), sum(x) OVER w FROM t WINDOW w AS (ORDER BY ?)",
        "INSERT INTO t (a, b[?], c.d) VALUES (?, ?, DEFAULT), (?, NULL, ?) ON CONFLICT (a, (b + ?)) WHERE x > ? DO UPDATE SET b = excluded.b + ?, c = ? WHERE t.a <> ? RETURNING a, ?",
        "UPDATE ONLY t AS u SET a = ?, (b, c) = (?, ?), d = ROW(?, ?) FROM v JOIN w USING (k) LEFT JOIN z ON z.i = ? WHERE u.id = ? AND v.x IS NOT NULL RETURNING *",
        "DELETE FROM t USING u WHERE t.id = u.id AND u.name LIKE ? ESCAPE ? AND NOT (t.b IS TRUE) RETURNING ?",
        "WITH a AS (SELECT ? AS x), b(y) AS MATERIALIZED (SELECT ?) SELECT * FROM a, b WHERE EXISTS (SELECT ? FROM c WHERE c.i = ANY (?)) UNION ALL SELECT ?, ? EXCEPT (SELECT ? LIMIT ?)",
        "SELECT CASE WHEN a = ? THEN ? WHEN b THEN NULL ELSE ? END, COALESCE(a, ?), GREATEST(?, ?), NULLIF(a, ?), a COLLATE \"C\" < ?, ARRAY[?, ?]::int[], a[?], a[? : ?], (r).f",
        "SELECT date §, interval §, interval § day, numeric(10, 2) §, timestamp § AT TIME ZONE ?, CURRENT_TIMESTAMP, extract(year from x), extract('y' from ?), substring(a from ? for ?), position(? in ?), trim(both ? from ?), overlay(a placing ? from ?)",
        "SELECT ?; SELECT ?, ?; UPDATE t SET a = ?",
        "SELECT ? FROM t FOR UPDATE OF t SKIP LOCKED",
        "SELECT * FROM generate_series(?, ?) WITH ORDINALITY AS g(a, b), LATERAL (SELECT ?) x, ROWS FROM (f(?), g(?)) AS y",
        "SELECT a OPERATOR(pg_catalog.+) ?, a || ?, a ->> ?, a @> ?, a #- ?, @ -?, !! ?, a <= -?, GROUPING(a), a IS DISTINCT FROM ?, a SIMILAR TO ?, ?::bit, bit § = ?",
        "VALUES (?, ?), (?, ?) ORDER BY ?",
        "SELECT DISTINCT ON (a, ?) ? FROM t é WHERE ü = ? AND \"ö ?\" = ?",
        "SELECT a FROM t WHERE b = ? AND (c, d) = (?, ?) AND e > ALL (SELECT ?) AND f BETWEEN SYMMETRIC ? AND ?",
    ];

    /// Forms whose texts never have a tree but that of a parse.
    const WITHOUT: &[&str] = &[
        "SELECT x::float(24), ?",
        "SELECT float(24) ?",
        "SELECT ?::int[3]",
        "SELECT CURRENT_TIME(3), ?",
        "SELECT §\n §",
        "SELECT § -- a\n §",
        "SELECT -/* a */?",
        "SELECT B'1' = ?",
        "SELECT * FROM t TABLESAMPLE system (?)",
        "SELECT json_object(§ : ?)",
        "EXPLAIN SELECT ?",
        "SELECT ? FROM",
        "EXECUTE a(?)",
    ];

    const INTEGERS: &[&str] = &["0", "1", "00", "007", "42", "100", "2147483646", "2147483647", "002147483647", "99999"];
    const NUMBERS: &[&str] =
        &["2147483648", "4294967296", "9223372036854775808", "1.5", "1.", "0.0", "12345.678", "1e5", "2E-30", "1.5e+3"];
    const STRINGS: &[&str] = &[
        "''",
        "'a'",
        "''''",
        "'it''s'",
        "'ü ö'",
        "'日本語'",
        "'\\'",
        "'a\\''b'",
        "'-- /* '",
        "'$1 \"'",
        "'🙂'",
        "'x\ny'",
        "'2024-01-01'",
        "'1'",
    ];
    const OTHERS: &[&str] = &[
        "NULL", "TRUE", "E'a\\'b'", "B'101'", "x'1F'", "$$a$$", "$1", "N'a'", "0x1F", "1_000", ".5", "U&'a'", "a", "'a'\n'b'",
        "-1", "- 2.5",
    ];

    /// A text of the form whose constants are of kinds that `kinds` says, and strings at §.
    fn text(form: &str, kinds: &[usize], chance: &mut Chance) -> String {
        let mut text = String::new();
        let mut kinds = kinds.iter();
        for part in form.split_inclusive(['?', '§']) {
            let (before, choices) = match part.strip_suffix('?') {
                Some(before) => (before, [INTEGERS, NUMBERS, STRINGS, OTHERS][*kinds.next().unwrap()]),
                None => (part.trim_end_matches('§'), if part.ends_with('§') { STRINGS } else { &[""] }),
            };
            text.push_str(before);
            text.push_str(chance.of(choices));
        }
        text
    }

    /// How many of the texts had a tree that was written, and not parsed. Each is equal to what a parse gives.
    fn written(form: &str, chance: &mut Chance) -> usize {
        let mut count = 0;
        for round in 0..200 {
            // Now and then with what is no plain constant.
            let last = if round % 8 == 0 { 3 } else { 0 };
            let kinds: Vec<usize> = (0..24).map(|_| [0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2, last][chance.below(12)]).collect();
            for _ in 0..6 {
                let sql = text(form, &kinds, chance);
                // SAFETY: until the next call.
                let Some(shaped) = (unsafe { shaped(sql.as_bytes()).as_ref() }) else { continue };
                let parsed = parse::parse(sql.as_bytes(), Backslash::Plain).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
                assert_eq!(shaped.ast, parsed.ast, "{sql}");
                assert!(shaped.executes.is_empty() && parsed.executes.is_empty() && !parsed.deep);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn what_is_written_is_what_is_parsed() {
        let mut chance = Chance(1);
        for form in FORMS {
            let count = written(form, &mut chance);
            println!("{count} of 1200: {form}");
            assert!(count > 200, "{count}: {form}");
        }
    }

    #[test]
    fn what_cannot_be_told_for_certain_is_parsed() {
        let mut chance = Chance(2);
        for form in WITHOUT {
            assert_eq!(written(form, &mut chance), 0, "{form}");
        }
    }

    #[test]
    fn only_the_second_text_of_a_skeleton_has_it_kept() {
        let find = |sql: &str| !shaped(sql.as_bytes()).is_null();
        assert!(!find("SELECT 1, 'a'") && find("SELECT 2, 'b'") && find("SELECT 3, 'c'"));
        assert!(!find("SELECT  1, 'a'"), "another skeleton");
        let long = format!("SELECT 4, '{}'", "x".repeat(2000));
        assert!(!find(&long) && find("SELECT 5, 'd'"), "there is no room for it");
        forget();
        assert!(!find("SELECT 6, 'e'"));
    }

    #[test]
    fn ever_new_skeletons_take_no_more_memory_than_is_allowed() {
        for number in 0..20_000 {
            for constant in ["1", "'a'", "2", "'b'"] {
                shaped(format!("SELECT a{number} FROM t{} WHERE b = {constant}", "u".repeat(number % 900)).as_bytes());
            }
        }
        SHAPES.with_borrow(|Shapes { young, old, bytes, .. }| {
            let sum = |shapes: &HashMap<u64, Shape>| shapes.values().map(|shape| shape.bytes).sum::<usize>();
            assert_eq!(sum(young), *bytes);
            assert!(*bytes <= MOST_BYTES && sum(old) <= MOST_BYTES && young.len() <= MOST_TREES && old.len() <= MOST_TREES);
            assert!(!old.is_empty());
        });
    }
}
