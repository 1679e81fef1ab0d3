//! Refuses headers that the bindings kept here were not written for. Part of both stand-ins.

use std::fs;
use std::path::Path;

/// Reads the headers and compares a digest of their bytes. A binding that does not fit its library compiles, links, and then
/// reads memory that is something else: so anything but the very header is an error of the build.
pub fn require(headers: &[&Path], digest: u64, whose: &str) -> Result<(), String> {
    let mut found = 0xcbf29ce484222325;
    for header in headers {
        let bytes = fs::read(header).map_err(|error| format!("{}: {error}", header.display()))?;
        found = fnv1a(found, &bytes);
    }
    if found == digest {
        return Ok(());
    }
    let names: Vec<_> = headers.iter().map(|header| header.display().to_string()).collect();
    Err(format!(
        "{} (digest {found:#018x}) is not of {whose}, the one version that this stand-in for bindgen has bindings for. \
         Build with that version, or take the [patch.crates-io] lines for bindgen out of Cargo.toml and install libclang \
         (Debian, Ubuntu: apt install libclang-dev)",
        names.join(", "),
    ))
}

/// FNV-1a: the digests of Rust's own library differ from one release to the next.
fn fnv1a(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |digest, byte| (digest ^ u64::from(*byte)).wrapping_mul(0x100000001b3))
}
