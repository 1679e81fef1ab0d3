//! The part of bindgen that the build script of the pgdog-plugin crate uses, for the one header it is used on.
//!
//! The crate is published with its bindings, `src/bindings.rs`, and its build script writes them anew over the copy that all
//! of cargo's projects share. This writes nothing: they are right as published (test/plugin/bindings.test.ts compares them).

use std::io;
use std::path::{Path, PathBuf};

#[path = "../../known.rs"]
mod known;

const KNOWN: &str = "pgdog-plugin 0.1.8";
const DIGEST: u64 = 0xd8769ef23b5d4ed4;

#[derive(Default)]
pub struct Builder {
    header: PathBuf,
}

impl Builder {
    pub fn header(mut self, header: impl Into<String>) -> Self {
        self.header = PathBuf::from(header.into());
        self
    }

    pub fn generate_comments(self, _: bool) -> Self {
        self
    }

    pub fn parse_callbacks(self, _: Box<CargoCallbacks>) -> Self {
        self
    }

    pub fn generate(self) -> Result<Bindings, String> {
        // The header includes types.h and nothing else.
        let included = self.header.with_file_name("types.h");
        known::require(&[&self.header, &included], DIGEST, KNOWN)?;
        Ok(Bindings)
    }
}

pub struct CargoCallbacks;

impl CargoCallbacks {
    #[expect(clippy::new_without_default, reason = "this is how the build script makes one")]
    pub fn new() -> Self {
        CargoCallbacks
    }
}

pub struct Bindings;

impl Bindings {
    pub fn write_to_file(&self, _: impl AsRef<Path>) -> io::Result<()> {
        Ok(())
    }
}
