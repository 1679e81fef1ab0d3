//! Tells the code which pg_query it is built with, and whether that parser was built without its tricks on standard error.

use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-env-changed=CFLAGS");
    println!("cargo:rustc-check-cfg=cfg(parser_leaves_stderr_alone)");
    let flags = env::var("CFLAGS").unwrap_or_default();
    if flags.split_whitespace().any(|flag| flag == "-DDEBUG") {
        println!("cargo:rustc-cfg=parser_leaves_stderr_alone");
    }

    let manifest = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let lock = Path::new(&manifest)
        .ancestors()
        .map(|folder| folder.join("Cargo.lock"))
        .find(|file| file.exists())
        .expect("Cargo.lock, beside the bridge or above it");
    println!("cargo:rerun-if-changed={}", lock.display());
    let text = fs::read_to_string(&lock).expect("a readable Cargo.lock");
    let mut lines = text.lines();
    lines.find(|line| *line == "name = \"pg_query\"").expect("pg_query in Cargo.lock");
    let version = lines
        .next()
        .and_then(|line| line.strip_prefix("version = \""))
        .and_then(|line| line.strip_suffix('"'))
        .expect("the version of pg_query");
    println!("cargo:rustc-env=BRIDGE_PG_QUERY_VERSION={version}");
}
