//! What texts have in common that differ in constants only: every byte but those of the constants. Told apart from
//! `levels.rs` by what a mistake costs: here a plugin would see another statement than PostgreSQL runs, so that whatever is
//! rare, or is not plain, has no skeleton and is parsed.

/// What stands for a constant: a byte that is in no skeleton otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Fits into 32 bits: the grammar knows it from other numbers.
    Integer = 1,
    Number = 2,
    String = 3,
}

/// The bytes of a constant in its text, quotes included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    pub start: usize,
    pub end: usize,
    pub kind: Kind,
}

/// The skeleton of the text that was read last; used again by the next.
#[derive(Default)]
pub struct Skeleton {
    pub bytes: Vec<u8>,
    pub slots: Vec<Slot>,
    pub hash: u64,
}

impl Skeleton {
    /// Reads a text as with standard_conforming_strings on. False when it has no skeleton.
    pub fn read(&mut self, sql: &[u8]) -> bool {
        self.bytes.clear();
        self.slots.clear();
        let mut at = 0;
        while at < sql.len() {
            let start = at;
            let kind = match sql[at] {
                // Behind a word, or behind U&, it is another kind of string.
                b'\'' if at > 0 && (is_of_word(sql[at - 1]) || sql[at - 1] == b'&') => return false,
                b'\'' => {
                    let Some(end) = quoted(sql, at) else { return false };
                    at = end;
                    Kind::String
                }
                b'0'..=b'9' => {
                    let Some((end, kind)) = number(sql, at) else { return false };
                    at = end;
                    kind
                }
                _ => {
                    let Some(end) = other(sql, at) else { return false };
                    at = end;
                    // A byte that would look like the mark of a constant.
                    if sql[start..at].iter().any(|&byte| byte < b'\t') {
                        return false;
                    }
                    self.bytes.extend_from_slice(&sql[start..at]);
                    continue;
                }
            };
            self.slots.push(Slot { start, end: at, kind });
            self.bytes.push(kind as u8);
        }
        self.hash = hash(&self.bytes);
        true
    }

    /// A text with this skeleton and other constants, of other lengths.
    pub fn probe(&self) -> String {
        let mut text = Vec::with_capacity(self.bytes.len() + 24 * self.slots.len());
        let mut slots = self.slots.iter();
        for part in self.bytes.split_inclusive(|byte| (1..=3).contains(byte)) {
            let Some((1..=3, before)) = part.split_last() else {
                text.extend_from_slice(part);
                continue;
            };
            text.extend_from_slice(before);

            let Slot { start, end, kind } = *slots.next().expect("one for each mark");
            let is_short = end - start < 4;
            text.extend_from_slice(match kind {
                Kind::Integer if is_short => b"1968374652",
                Kind::Integer => b"0",
                Kind::Number if is_short => b"98765432109.250e-3",
                Kind::Number => b"7e9",
                Kind::String if is_short => "'it''s ü \\ -- /* $1'".as_bytes(),
                Kind::String => b"''",
            });
        }
        String::from_utf8(text).expect("the bytes of characters, whole")
    }
}

/// FNV-1a, eight bytes at a time; who finds something by it compares.
fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ bytes.len() as u64;
    let mut add = |word: u64| {
        hash = (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        hash ^= hash >> 29;
    };
    let words = bytes.chunks_exact(8);
    let rest = words.remainder().iter().fold(0, |rest, &byte| rest << 8 | u64::from(byte));
    words.for_each(|word| add(u64::from_le_bytes(word.try_into().expect("eight bytes"))));
    add(rest);
    hash
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// The end of what begins at `at` and is no constant, or of a byte of it: a word, a quoted name, a parameter, a comment.
fn other(sql: &[u8], at: usize) -> Option<usize> {
    let next = sql.get(at + 1).copied().unwrap_or(b' ');
    match sql[at] {
        b'"' if at > 0 && sql[at - 1] == b'&' => None,
        b'"' => quoted(sql, at),
        b'$' if next.is_ascii_digit() => Some(at + 1 + sql[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count()),
        b'$' => None,
        b'.' if next.is_ascii_digit() || next == b'.' => None,
        b'-' if next == b'-' => Some(line(sql, at)),
        b'/' if next == b'*' => comment(sql, at),
        byte if is_of_word(byte) => Some(at + sql[at..].iter().take_while(|&&byte| is_of_word(byte)).count()),
        _ => Some(at + 1),
    }
}

/// The place behind the quote that ends what the one at `at` begins; a doubled one does not.
fn quoted(sql: &[u8], mut at: usize) -> Option<usize> {
    let quote = sql[at];
    loop {
        at += 1;
        match *sql.get(at)? {
            0 => return None,
            byte if byte != quote => {}
            _ if sql.get(at + 1) == Some(&quote) => at += 1,
            _ => return Some(at + 1),
        }
    }
}

/// The end and kind of a number without prefix or underscores, and with nothing directly behind it that could be of it.
fn number(sql: &[u8], start: usize) -> Option<(usize, Kind)> {
    let digits = |at: usize| at + sql[at.min(sql.len())..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = digits(start);
    let mut kind = Kind::Integer;
    if sql[start..at].iter().fold(0_u64, |value, digit| (10 * value + u64::from(digit - b'0')).min(1 << 40)) > i32::MAX as u64 {
        kind = Kind::Number;
    }
    if sql.get(at) == Some(&b'.') {
        kind = Kind::Number;
        at = digits(at + 1);
    }
    if matches!(sql.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(sql.get(at + 1), Some(b'+' | b'-')));
        let end = digits(at + 1 + sign);
        if end == at + 1 + sign {
            return None;
        }
        kind = Kind::Number;
        at = end;
    }
    let ends = sql.get(at).is_none_or(|&byte| !is_of_word(byte) && byte != b'.');
    ends.then_some((at, kind))
}

fn line(sql: &[u8], at: usize) -> usize {
    at + sql[at..].iter().take_while(|&&byte| byte != b'\n' && byte != b'\r').count()
}

/// The end of a block comment; None when it has another inside, which is rare.
fn comment(sql: &[u8], at: usize) -> Option<usize> {
    let inside = at + 2;
    let length = sql[inside..].windows(2).position(|two| two == b"*/")?;
    let nests = sql[inside..inside + length].windows(2).any(|two| two == b"/*");
    (!nests).then_some(inside + length + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sql: &str) -> Option<String> {
        let mut skeleton = Skeleton::default();
        skeleton.read(sql.as_bytes()).then(|| {
            let marks = String::from_utf8(skeleton.bytes.clone()).unwrap();
            marks.replace('\u{1}', "<i>").replace('\u{2}', "<n>").replace('\u{3}', "<s>")
        })
    }

    #[test]
    fn all_but_constants_stays() {
        for (sql, expected) in [
            ("SELECT  a1 FROM \"t 1''\" WHERE b=17", "SELECT  a1 FROM \"t 1''\" WHERE b=<i>"),
            ("VALUES (-1, 2147483647, 2147483648, 1.5, 1., 1e5, 2E-3, 007)", "VALUES (-<i>, <i>, <n>, <n>, <n>, <n>, <n>, <i>)"),
            ("VALUES ('', 'it''s', '\\', 'ü', $12, t.a$1)", "VALUES (<s>, <s>, <s>, <s>, $12, t.a$1)"),
            ("SELECT 1 /* 2 '3 */ - 4 -- 5 '\n+ 6", "SELECT <i> /* 2 '3 */ - <i> -- 5 '\n+ <i>"),
        ] {
            assert_eq!(of(sql).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_is_rare_has_none() {
        for sql in [
            "E'a'",
            "b'1'",
            "N'a'",
            "U&'a'",
            "U&\"a\"",
            "$$a$$",
            "$a$a$a$",
            "$",
            ".5",
            "1..2",
            "1.2.3",
            "1_000",
            "0x1F",
            "1a",
            "1e",
            "1e+",
            "'a",
            "\"a",
            "/* a",
            "/* /* */ */",
            "a\u{1}",
            "\"\u{2}\"",
            "'\0'",
            "/*\u{3}*/",
            "é'a'",
        ] {
            assert_eq!(of(sql), None, "{sql}");
        }
    }

    #[test]
    fn a_probe_has_the_same_skeleton() {
        let sql = "SELECT 1, 12345, 'a', 'abcdef', 1.5, 100000.5 FROM t";
        let (mut one, mut other) = (Skeleton::default(), Skeleton::default());
        assert!(one.read(sql.as_bytes()) && other.read(one.probe().as_bytes()));
        assert_eq!((one.hash, &one.bytes), (other.hash, &other.bytes));
        assert!(one.slots.iter().zip(&other.slots).all(|(one, other)| one.end - one.start != other.end - other.start));
    }
}
