//! Assembles the test kernels with GNU as and ld, and writes the table that `test_kernel` includes.
//!
//! Every `kernels/NAME.S` becomes `NAME.elf` and a row of the table; `harness.inc` and `kernel.ld` are shared by all.

use std::{
    env,
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let folder = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("kernels");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed={}", folder.display());

    let mut rows = String::new();
    for source in sources(&folder)? {
        let name = source
            .file_stem()
            .and_then(|s| s.to_str())
            .ok_or("kernel with an odd name")?;
        let elf = build(&source, &folder, &out.join(name))?;
        writeln!(
            rows,
            "TestKernel {{ name: {name:?}, elf: include_bytes!({elf:?}) }},"
        )?;
    }
    fs::write(out.join("test_kernels.rs"), format!("&[\n{rows}]\n"))?;
    Ok(())
}

/// The kernels' sources in alphabetical order.
fn sources(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    let mut sources: Vec<_> = entries
        .into_iter()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "S"))
        .collect();
    sources.sort();
    Ok(sources)
}

/// Assembles and links one kernel to `stem`.elf and returns its path.
fn build(source: &Path, folder: &Path, stem: &Path) -> Result<PathBuf, Failure> {
    let object = stem.with_extension("o");
    let elf = stem.with_extension("elf");
    run(Command::new("as")
        .arg("--32")
        .arg("-I")
        .arg(folder)
        .arg(source)
        .arg("-o")
        .arg(&object))?;
    run(Command::new("ld")
        .args(["-m", "elf_i386", "--no-warn-rwx-segments", "-T"])
        .arg(folder.join("kernel.ld"))
        .arg(&object)
        .arg("-o")
        .arg(&elf))?;
    Ok(elf)
}

/// Runs a tool of GNU binutils to success.
fn run(command: &mut Command) -> Result<(), Failure> {
    let tool = command.get_program().to_owned();
    let status = command.status().map_err(|e| {
        format!(
            "cannot run {tool:?} ({e}): the test kernels need GNU binutils for x86 (`as` and `ld`)"
        )
    })?;
    if !status.success() {
        return Err(format!("{tool:?} failed on a test kernel: {status}").into());
    }
    Ok(())
}
