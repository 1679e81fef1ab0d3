//! What a parse costs here and in the pg_query crate, side by side. Run: cargo run --release -p pgdog-bridge --example parse-cost

use std::time::Instant;

use pgdog_bridge::parse::{Backslash, parse};
use pgdog_plugin::pg_query;

/// Microseconds per call, the best of seven rounds.
fn cost(count: usize, mut work: impl FnMut(usize)) -> f64 {
    let round = |_| {
        let start = Instant::now();
        (0..count).for_each(&mut work);
        start.elapsed().as_secs_f64() * 1e6 / count as f64
    };
    (0..7).map(round).fold(f64::INFINITY, f64::min)
}

/// In a thread, as in the proxy: the allocator of the main thread is a little faster.
fn main() {
    std::thread::spawn(compare).join().unwrap();
}

fn compare() {
    let rows: Vec<String> = (0..105).map(|i| format!("({i}, 'name {i}', 'user{i}@example.com', now())")).collect();
    let texts = [
        ("short", "SELECT * FROM users WHERE id = 1".to_owned(), 20_000),
        (
            "join",
            "SELECT o.id, o.total, u.name FROM orders o JOIN users u ON u.id = o.user_id LEFT JOIN items i ON i.order_id = o.id \
             WHERE o.created_at > now() - interval '7 days' AND u.country IN ('de', 'fr', 'it') ORDER BY o.total DESC LIMIT 50"
                .to_owned(),
            5_000,
        ),
        ("insert of 105 rows", format!("INSERT INTO users VALUES {}", rows.join(", ")), 300),
    ];
    for (name, sql, count) in texts {
        let theirs = cost(count, |_| drop(pg_query::parse(&sql).unwrap()));
        let ours = cost(count, |_| drop(parse(sql.as_bytes(), Backslash::Plain).unwrap()));
        println!("{name}: pg_query {theirs:.1} µs, bridge {ours:.1} µs, ratio {:.2}", ours / theirs);
    }
}
