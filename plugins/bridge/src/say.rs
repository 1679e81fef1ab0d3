//! Lines of the log that the bridge writes itself, since the host cannot: a thread of its own is stuck inside of a plugin, or
//! the process is about to end. Usable in signal handlers: no allocation, no lock.

use std::sync::atomic::{AtomicU32, Ordering};

/// `log_format`: 0 text, 1 json, 2 json_flattened. As at the start; a reload does not change it here.
pub static FORMAT: AtomicU32 = AtomicU32::new(0);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Warn,
    Error,
}

/// A line on the stack; what does not fit is cut off, but for the end of the line.
pub struct Line {
    bytes: [u8; CAPACITY],
    length: usize,
    json: u32,
}

/// Bytes of a line: less than PIPE_BUF, so that no other line gets into it.
const CAPACITY: usize = 2048;
const TAIL: usize = 64;

impl Line {
    pub fn new(level: Level) -> Line {
        let mut line = Line { bytes: [0; CAPACITY], length: 0, json: FORMAT.load(Ordering::Relaxed) };
        if line.json == 0 {
            line.time();
            line.raw(if level == Level::Warn { b" WARNING " } else { b" ERROR " });
        } else {
            line.raw(b"{\"@timestamp\":\"");
            line.time();
            line.raw(b"\",\"level\":\"");
            line.raw(if level == Level::Warn { b"WARN" } else { b"ERROR" });
            line.raw(b"\",\"message\":\"");
        }
        line
    }

    fn raw(&mut self, text: &[u8]) -> &mut Line {
        let room = (CAPACITY - TAIL).saturating_sub(self.length).min(text.len());
        self.bytes[self.length..self.length + room].copy_from_slice(&text[..room]);
        self.length += room;
        self
    }

    /// Text of ours without quotes.
    pub fn add(&mut self, text: &str) -> &mut Line {
        self.raw(text.as_bytes())
    }

    pub fn quoted(&mut self, name: &crate::calls::Name) -> &mut Line {
        // A name that is too long must not take the room of what follows.
        let (quote, name) = if self.json == 0 { (&b"\""[..], &name.text) } else { (&b"\\\""[..], &name.json) };
        self.raw(quote).raw(&name[..name.len().min(CAPACITY / 2)]).raw(quote)
    }

    pub fn number(&mut self, mut number: u64) -> &mut Line {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.raw(&digits[at..])
    }

    fn padded(&mut self, number: i64, width: u32) {
        let mut unit = 10i64.pow(width - 1);
        while unit > 0 {
            self.raw(&[b'0' + (number / unit % 10) as u8]);
            unit /= 10;
        }
    }

    /// RFC 3339 in UTC, as the host's lines have it.
    fn time(&mut self) {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: fills what it is given; allowed in signal handlers.
        unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut now) };
        let seconds = now.tv_sec;
        let (year, month, day) = date(seconds.div_euclid(86_400));
        let second = seconds.rem_euclid(86_400);
        self.padded(year, 4);
        self.raw(b"-").padded(month, 2);
        self.raw(b"-").padded(day, 2);
        self.raw(b"T").padded(second / 3600, 2);
        self.raw(b":").padded(second / 60 % 60, 2);
        self.raw(b":").padded(second % 60, 2);
        self.raw(b".").padded(now.tv_nsec / 1_000_000, 3);
        self.raw(b"Z");
    }

    /// Writes the line, unless nobody has read standard error for a second: this thread must not wait for a full pipe for ever.
    pub fn write(&mut self) {
        let tail: &[u8] = match self.json {
            0 => b"\n",
            1 => b"\",\"logger\":\"pgdog\",\"properties\":{}}\n",
            _ => b"\",\"logger\":\"pgdog\"}\n",
        };
        self.bytes[self.length..self.length + tail.len()].copy_from_slice(tail);
        let length = self.length + tail.len();
        let mut ready = libc::pollfd { fd: 2, events: libc::POLLOUT, revents: 0 };
        // SAFETY: both are allowed in signal handlers; the bytes live until they return.
        unsafe {
            if libc::poll(&mut ready, 1, 1000) > 0 {
                libc::write(2, self.bytes.as_ptr().cast(), length);
            }
        }
    }
}

/// Year, month and day of the day that is `days` behind 1970-01-01. In years that begin in March a leap day comes last.
fn date(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097;
    let days = days + 719_468;
    let era = days.div_euclid(ERA);
    let of_era = days.rem_euclid(ERA);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / (ERA - 1)) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_786, (2026, 11, 29)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
    }

    #[test]
    fn a_line_never_overflows() {
        let mut line = Line::new(Level::Error);
        for _ in 0..1000 {
            line.add("a long text ").number(u64::MAX);
        }
        assert!(line.length <= CAPACITY - TAIL);
    }
}
