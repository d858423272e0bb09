//! Reading files out of a .deb without installing it.
//!
//! `dpkg-deb` decompresses the package's tar stream. Reading of one file stops after it, so the hundreds of megabytes of
//! modules after a kernel are not decompressed. apt has already checked the hash of the whole package.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Stdio};

use crate::command::{Program, last_lines};
use crate::error::FetchError;

const DPKG_DEB: Program = Program {
    name: "dpkg-deb",
    package: "dpkg",
};

/// A part of a package.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// The files that it installs.
    Files,
    /// Its control files.
    Control,
}

impl Part {
    /// The option of dpkg-deb that writes this part's tar stream.
    const fn option(self) -> &'static str {
        match self {
            Self::Files => "--fsys-tarfile",
            Self::Control => "--ctrl-tarfile",
        }
    }
}

/// Reads `file`, a path without leading slash, from the package file `deb` of `package`.
pub(super) fn read_file(package: &str, deb: &Path, file: &str) -> Result<Vec<u8>, FetchError> {
    let wanted = Path::new(file);
    let find = |stream| {
        for entry in tar::Archive::new(stream).entries()? {
            let mut entry = entry?;
            if path_in(&entry)? == wanted {
                return Ok(Some(content(&mut entry)?));
            }
        }
        Ok(None)
    };
    read(package, deb, Part::Files, find)?.ok_or_else(|| FetchError::NotInPackage {
        package: package.to_owned(),
        file: file.to_owned(),
    })
}

/// Reads the files of a package whose paths, without leading slash, are `wanted`.
pub(super) fn read_files(
    package: &str,
    deb: &Path,
    wanted: impl Fn(&Path) -> bool,
) -> Result<Vec<(PathBuf, Vec<u8>)>, FetchError> {
    let find = |stream| {
        let mut found = Vec::new();
        for entry in tar::Archive::new(stream).entries()? {
            let mut entry = entry?;
            let path = path_in(&entry)?;
            if entry.header().entry_type().is_file() && wanted(&path) {
                found.push((path, content(&mut entry)?));
            }
        }
        Ok(Some(found))
    };
    Ok(read(package, deb, Part::Files, find)?.unwrap_or_default())
}

/// Unpacks a package into `folder`.
pub(super) fn unpack(package: &str, deb: &Path, folder: &Path) -> Result<(), FetchError> {
    read(package, deb, Part::Files, |stream| {
        tar::Archive::new(stream).unpack(folder).map(Some)
    })
    .map(drop)
}

/// The path of an entry without leading "./".
fn path_in<R: Read>(entry: &tar::Entry<'_, R>) -> io::Result<PathBuf> {
    let path = entry.path()?;
    Ok(path.strip_prefix("./").unwrap_or(&path).to_owned())
}

fn content<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Passes the tar stream of a part of a package to `find` and returns its result, or `None` if it found nothing in a whole stream.
pub(super) fn read<T>(
    package: &str,
    deb: &Path,
    part: Part,
    find: impl FnOnce(ChildStdout) -> io::Result<Option<T>>,
) -> Result<Option<T>, FetchError> {
    let mut child = DPKG_DEB
        .command()
        .arg(part.option())
        .arg(deb)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(DPKG_DEB.start_error())?;
    let found = child.stdout.take().map_or(Ok(None), find);
    // The pipe is closed now, so dpkg-deb ends by itself if it has not already ended.
    let output = child.wait_with_output().map_err(DPKG_DEB.start_error())?;
    match found {
        Ok(Some(found)) => Ok(Some(found)),
        Ok(None) if output.status.success() => Ok(None),
        Ok(None) => Err(FetchError::Command {
            command: format!("dpkg-deb {} {}", part.option(), deb.display()),
            status: output.status,
            stderr: last_lines(&output.stderr),
        }),
        Err(reason) => Err(FetchError::Unpack {
            package: package.to_owned(),
            reason,
            stderr: last_lines(&output.stderr),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Builds a package with one file, or prints the reason and returns `None` if dpkg-deb is not installed.
    fn sample(folder: &Path) -> Option<PathBuf> {
        let tree = folder.join("tree");
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        fs::create_dir_all(tree.join("bin")).unwrap();
        let control = "Package: sample\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <n@n.example>\nDescription: x\n";
        fs::write(tree.join("DEBIAN/control"), control).unwrap();
        fs::write(tree.join("bin/tool"), b"\x7fELF bytes\0\n").unwrap();
        let deb = folder.join("sample.deb");
        let mut command = DPKG_DEB.command();
        command.arg("--build").arg(&tree).arg(&deb);
        match DPKG_DEB.run(command, &["--build"]) {
            Err(FetchError::Start { reason, .. }) => {
                crate::tell_skipped(&format!("cannot run dpkg-deb: {reason}"));
                None
            }
            result => result.map(|_| deb).map(Some).unwrap(),
        }
    }

    #[test]
    fn a_file_is_read_byte_for_byte() {
        let folder = tempfile::tempdir().unwrap();
        if let Some(deb) = sample(folder.path()) {
            assert_eq!(
                read_file("sample", &deb, "bin/tool").unwrap(),
                b"\x7fELF bytes\0\n"
            );
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        if let Some(deb) = sample(folder.path()) {
            let error = read_file("sample", &deb, "bin/other").unwrap_err();
            assert_eq!(error.to_string(), "package sample has no file bin/other");
        }
    }

    #[test]
    fn a_broken_package_is_an_error_with_dpkgs_words() {
        let folder = tempfile::tempdir().unwrap();
        if sample(folder.path()).is_some() {
            let broken = folder.path().join("broken.deb");
            fs::write(&broken, b"not a package").unwrap();
            let error = read_file("broken", &broken, "bin/tool")
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("broken") && error.contains("dpkg-deb"),
                "{error}"
            );
        }
    }
}
