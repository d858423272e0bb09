//! Builds the freestanding 32-bit programs with the host's `gcc`.

use super::layout::c_header;
use std::process::Command;
use tempfile::TempDir;
use thiserror::Error;

/// Options of every program: 32-bit, no library, no floating point, fixed addresses.
const OPTIONS: &str = "-m32 -O2 -Wall -Wextra -Werror -ffreestanding -mgeneral-regs-only -fno-stack-protector \
    -fno-pic -no-pie -nostdlib -static -Wl,-z,noexecstack -Wl,--build-id=none";

/// A reason why a 32-bit program could not be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The compiler is not there, or a file could not be written.
    #[error("cannot run `gcc -m32`: {0}")]
    Io(std::io::Error),
    /// The compiler refused.
    #[error("`gcc -m32` failed: {0}")]
    Compiler(String),
}

impl From<std::io::Error> for BuildError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// Writes `sources` (name, text) and `layout.h` to a new temporary directory and runs the compiler there with `arguments`.
pub fn build(sources: &[(&str, &str)], arguments: &[&str]) -> Result<TempDir, BuildError> {
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("layout.h"), c_header())?;
    for (name, text) in sources {
        std::fs::write(directory.path().join(name), text)?;
    }
    let output = Command::new("gcc")
        .current_dir(directory.path())
        .args(OPTIONS.split_whitespace())
        .args(arguments)
        .output()?;
    if output.status.success() {
        Ok(directory)
    } else {
        Err(BuildError::Compiler(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    }
}
