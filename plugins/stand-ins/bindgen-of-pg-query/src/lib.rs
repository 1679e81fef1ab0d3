//! The part of bindgen that the build script of the pg_query crate uses, for the one header it is used on.

use std::io;
use std::path::{Path, PathBuf};

#[path = "../../known.rs"]
mod known;

const KNOWN: &str = "pg_query 6.2.1";
const DIGEST: u64 = 0x2032ea180218d8b6;

#[derive(Default)]
pub struct Builder {
    header: PathBuf,
}

impl Builder {
    pub fn header(mut self, header: impl Into<String>) -> Self {
        self.header = PathBuf::from(header.into());
        self
    }

    pub fn generate(self) -> Result<Bindings, String> {
        let included = self.header.with_file_name("postgres_deparse.h");
        known::require(&[&self.header, &included], DIGEST, KNOWN)?;
        Ok(Bindings)
    }
}

pub struct Bindings;

impl Bindings {
    pub fn write_to_file(&self, file: impl AsRef<Path>) -> io::Result<()> {
        std::fs::write(file, include_str!("bindings.rs"))
    }
}
