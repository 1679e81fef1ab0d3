//! How deep the tree of an SQL text can be at most, told without parsing it: libpg_query recurses while it writes the tree out
//! and has no limit of its own, so a text that is too deep must be known before.

/// A bound of the depth: each level of a tree costs a word, an operator character or a bracket. Literals and comments count too:
/// never too small, often far too large.
pub fn tokens(sql: &[u8]) -> usize {
    let mut count = 0;
    let mut in_word = false;
    for &byte in sql {
        let letter = starts_word(byte);
        count += usize::from((letter && !in_word) || is_operator(byte) || byte == b'(' || byte == b'[');
        in_word = letter || (in_word && continues_word(byte));
    }
    count
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte >= 0x80 || byte == b'_'
}

fn continues_word(byte: u8) -> bool {
    starts_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

fn is_operator(byte: u8) -> bool {
    b"+-*/<>=~!@#%^&|`?:.".contains(&byte)
}

/// What is known of one pair of brackets while the scan is inside it. Elements of a list lie side by side in the tree, so only
/// the deepest counts, and so do terms between AND and OR. Some words nest across commas and AND, so they always count.
#[derive(Default)]
struct Level {
    in_element: usize,
    deepest_inside: usize,
    sticky: usize,
    has_boolean: bool,
    deepest_element: usize,
}

/// Words each of which may add more than one level to the tree.
const STICKY: [&[u8]; 5] = [b"union", b"except", b"intersect", b"join", b"case"];
const STICKY_LEVELS: usize = 3;
/// A list of terms between AND, inside one between OR.
const BOOLEAN_LEVELS: usize = 2;

impl Level {
    fn end_element(&mut self) {
        self.deepest_element = self.deepest_element.max(self.in_element + self.deepest_inside);
        self.in_element = 0;
        self.deepest_inside = 0;
    }

    fn depth(mut self) -> usize {
        self.end_element();
        self.deepest_element + self.sticky + if self.has_boolean { BOOLEAN_LEVELS } else { 0 }
    }
}

/// Like `tokens`, but knows strings, comments and lists: close for the large INSERT that `tokens` would take for a tower.
/// Where a literal has no end the parser reports an error too, so what is returned then does not matter.
pub fn depth(sql: &[u8]) -> usize {
    let mut levels = vec![Level::default()];
    let mut at = 0;
    while at < sql.len() {
        let byte = sql[at];
        let rest = &sql[at..];
        let level = levels.last_mut().expect("one more than brackets are open");
        match byte {
            b'\'' => at += quoted(rest, false),
            b'"' => {
                level.in_element += 1;
                at += quoted(rest, false);
            }
            b'-' if rest.starts_with(b"--") => at += line(rest),
            b'/' if rest.starts_with(b"/*") => at += comment(rest),
            b'$' => at += dollar_quoted(rest).unwrap_or(1),
            b'(' | b'[' => {
                level.in_element += 1;
                levels.push(Level::default());
                at += 1;
            }
            b')' | b']' => {
                // A bracket too many: the parser will refuse the text, and we must not lose what we counted.
                if levels.len() > 1 {
                    let inside = levels.pop().map_or(0, Level::depth);
                    let outer = levels.last_mut().expect("checked");
                    outer.deepest_inside = outer.deepest_inside.max(inside);
                }
                at += 1;
            }
            b',' | b';' => {
                level.end_element();
                at += 1;
            }
            _ if starts_word(byte) => {
                let length = rest.iter().position(|&byte| !continues_word(byte)).unwrap_or(rest.len());
                let word = &rest[..length];
                if word.eq_ignore_ascii_case(b"and") || word.eq_ignore_ascii_case(b"or") {
                    level.end_element();
                    level.has_boolean = true;
                } else if STICKY.iter().any(|sticky| word.eq_ignore_ascii_case(sticky)) {
                    level.sticky += STICKY_LEVELS;
                } else {
                    level.in_element += 1;
                }
                at += length;
                if word.eq_ignore_ascii_case(b"e") && sql.get(at) == Some(&b'\'') {
                    at += escaped(&sql[at..]);
                }
            }
            _ => {
                level.in_element += usize::from(is_operator(byte));
                at += 1;
            }
        }
    }
    let mut inside = 0;
    while let Some(mut level) = levels.pop() {
        level.deepest_inside = level.deepest_inside.max(inside);
        inside = level.depth();
    }
    inside
}

/// True when only plain quotes can hide code in this text: no escapes, comments or dollar quotes, nor anything that looks so.
/// `depth` can then not be misled, whatever a client sends.
pub fn is_plain(sql: &[u8]) -> bool {
    !sql.iter().enumerate().any(|(at, &byte)| match byte {
        b'\\' => true,
        b'-' => sql.get(at + 1) == Some(&b'-'),
        b'/' => sql.get(at + 1) == Some(&b'*'),
        b'$' => !sql.get(at + 1).is_some_and(u8::is_ascii_digit),
        _ => false,
    })
}

/// The length from a quote to behind its match. A doubled quote ends one string and starts the next: as good for us.
fn quoted(text: &[u8], backslash_escapes: bool) -> usize {
    let quote = text[0];
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' if backslash_escapes => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// The length of an E'…' string with its continuations: after white space another quote goes on in the same manner.
fn escaped(text: &[u8]) -> usize {
    let mut at = 0;
    loop {
        at += quoted(&text[at..], true);
        if at >= text.len() {
            return text.len();
        }
        let mut next = at;
        loop {
            let rest = &text[next..];
            match rest.first() {
                Some(b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c) => next += 1,
                Some(b'-') if rest.starts_with(b"--") => next += line(rest),
                _ => break,
            }
        }
        if text.get(next) != Some(&b'\'') {
            return at;
        }
        at = next;
    }
}

fn line(text: &[u8]) -> usize {
    text.iter().position(|&byte| byte == b'\n' || byte == b'\r').unwrap_or(text.len())
}

fn comment(text: &[u8]) -> usize {
    let mut open = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with(b"/*") {
            open += 1;
            at += 2;
        } else if text[at..].starts_with(b"*/") {
            open -= 1;
            at += 2;
            if open == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// None when no dollar quote starts here (a parameter such as $1).
fn dollar_quoted(text: &[u8]) -> Option<usize> {
    let end = 1 + text[1..].iter().position(|&byte| byte == b'$' || !continues_word(byte))?;
    if text[end] != b'$' || text[1].is_ascii_digit() {
        return None;
    }
    let tag = &text[..=end];
    let mut at = end + 1;
    while at < text.len() {
        if text[at] == b'$' && text[at..].starts_with(tag) {
            return Some(at + tag.len());
        }
        at += 1;
    }
    Some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sql: &str) -> usize {
        depth(sql.as_bytes())
    }

    #[test]
    fn a_large_insert_is_flat() {
        let row = "(1, 'it''s (((', E'\\'(((', $$ + + ( $$, now(), \"a\"\"b\", NULL /* ((( */)";
        let one = of(&format!("INSERT INTO t VALUES {row}"));
        let sql = format!("INSERT INTO t VALUES {}", vec![row; 10_000].join(",\n"));
        assert_eq!(of(&sql), one);
        assert!(one < 25, "{one}");
        assert!(tokens(sql.as_bytes()) > 100_000);
    }

    #[test]
    fn chains_count_whatever_lies_between() {
        for link in [
            "+a",
            "+(a)",
            "+','",
            "+E'\\','",
            "+$$,$$",
            "+/*,*/a",
            "+--,\na",
            "+\",\"",
            "+f(a,b)",
            " UNION SELECT 1,2",
            "+E'a'\n'\\','",
            "+$1",
            "+a$$",
            "+a[1,2]",
            " JOIN a ON b AND c",
            " IS NULL",
        ] {
            let sql = format!("SELECT a{}", link.repeat(1000));
            assert!(of(&sql) >= 1000, "{link}: {}", of(&sql));
        }
    }

    #[test]
    fn a_long_row_of_conditions_is_flat() {
        assert!(of(&format!("SELECT 1 WHERE a = 1{}", " OR a = 1 AND b BETWEEN 2 AND 3".repeat(10_000))) < 20);
        assert!(of(&format!("SELECT {}1", "CASE WHEN a AND b THEN 1 ELSE ".repeat(1000))) >= 1000);
        assert!(of(&format!("SELECT {}1", "a AND (b OR (".repeat(1000))) >= 2000);
    }

    #[test]
    fn what_follows_a_bracket_adds_to_what_is_inside() {
        let sql = format!("SELECT ({}){}", vec!["a"; 100].join("+"), "+a".repeat(100));
        assert!(of(&sql) >= 200);
    }

    #[test]
    fn texts_with_other_quotes_than_plain_ones_are_told() {
        assert!(is_plain(b"SELECT a - 1 / 2, $1, 'it''s' FROM \"t\""));
        for sql in [&b"SELECT E'\\''"[..], b"SELECT 1 -- a", b"SELECT /* a */ 1", b"SELECT $$a$$", b"SELECT $a$a$a$", b"SELECT $"]
        {
            assert!(!is_plain(sql));
        }
    }

    #[test]
    fn unfinished_texts_are_survived() {
        for sql in ["'", "\"", "E'\\", "$a$", "$", "/*", "--", ")))", "(((", "E'a'\n", "$1", ""] {
            of(sql);
        }
    }
}
