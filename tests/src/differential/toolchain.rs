//! Builds the freestanding programs with the host's `gcc`.

use super::layout::c_header;
use super::mode::Mode;
use std::process::Command;
use tempfile::TempDir;
use thiserror::Error;

/// Options of every program: no library, no floating point, fixed addresses.
const OPTIONS: &str = "-O2 -Wall -Wextra -Werror -ffreestanding -mgeneral-regs-only -fno-stack-protector \
    -fno-pic -no-pie -nostdlib -static -Wl,-z,noexecstack -Wl,--build-id=none";

/// A reason why a program could not be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The compiler is not there, or a file could not be written.
    #[error("cannot run `gcc`: {0}")]
    Io(std::io::Error),
    /// The compiler refused.
    #[error("`gcc {option}` failed: {output}")]
    Compiler {
        /// The option for the width of the program: -m32 or -m64.
        option: &'static str,
        /// The compiler's messages.
        output: String,
    },
}

impl From<std::io::Error> for BuildError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// Writes `sources` (name, text) and the `layout.h` of `mode` to a new temporary directory and runs the compiler there with
/// `arguments`, for a program of 32 or 64 `bits`.
pub fn build(
    mode: Mode,
    bits: u32,
    sources: &[(&str, &str)],
    arguments: &[&str],
) -> Result<TempDir, BuildError> {
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("layout.h"), c_header(mode))?;
    for (name, text) in sources {
        std::fs::write(directory.path().join(name), text)?;
    }
    let option = if bits == 64 { "-m64" } else { "-m32" };
    let output = Command::new("gcc")
        .current_dir(directory.path())
        .arg(option)
        .args(OPTIONS.split_whitespace())
        .args(arguments)
        .output()?;
    if output.status.success() {
        Ok(directory)
    } else {
        Err(BuildError::Compiler {
            option,
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}
