//! dpkg's database of a tree whose packages are unpacked and not yet configured.
//!
//! ```text
//! var/lib/dpkg/
//! ├── status              control files, with "Status: install ok unpacked"
//! ├── available           empty
//! ├── info/format         1: names of packages of which several architectures can be installed have the architecture
//! ├── info/NAME.list      paths of the package
//! ├── info/NAME.postinst  and all other control files
//! └── triggers/           who is interested in which trigger: File for paths, otherwise a file a trigger
//! ```
//!
//! Sources: dpkg's manual pages deb-triggers(5) and deb-conffiles(5), its `doc/triggers.txt` ("Internal documentation: on-disk
//! state"), and multistrap(1), which makes trees in the same way.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::debian::apt::field;
use crate::debian::package;
use crate::error::{FetchError, file_error};

/// The folder of the database in the tree.
const FOLDER: &str = "var/lib/dpkg";
/// The file of a package with the paths of its configuration files.
const CONFFILES: &str = "conffiles";
/// The script that dpkg would have run before it unpacked the package.
const PREINST: &str = "preinst";
/// The package whose script comes first: it makes /etc/passwd, in which others look users up.
const FIRST: &str = "base-passwd";
/// The status of a package that is configured.
const INSTALLED: &str = "install ok installed";
/// The file of triggers that are paths.
const FILE_TRIGGERS: &str = "File";

/// A control file: its name, mode and content.
type Member = (String, u32, Vec<u8>);

/// The control files of a package.
pub(super) struct Control {
    package: String,
    /// The name in the database.
    name: String,
    /// The file "control".
    record: String,
    /// The others.
    files: Vec<Member>,
    conffiles: Vec<PathBuf>,
}

/// The database in the making.
pub(super) struct Database {
    folder: PathBuf,
    status: String,
    /// Lines by the file below "triggers".
    triggers: BTreeMap<String, String>,
    /// The packages with a script to run before all others are configured.
    preinst: String,
}

impl Control {
    /// The paths of the package's configuration files, without leading slash.
    pub(super) fn conffiles(&self) -> &[PathBuf] {
        &self.conffiles
    }
}

impl Database {
    /// Begins the database of the tree `root`.
    pub(super) fn new(root: &Path) -> Result<Self, FetchError> {
        let folder = root.join(FOLDER);
        for name in ["info", "triggers", "updates"] {
            let folder = folder.join(name);
            fs::create_dir_all(&folder).map_err(file_error("create", folder))?;
        }
        Ok(Self {
            folder,
            status: String::new(),
            triggers: BTreeMap::new(),
            preinst: String::new(),
        })
    }

    /// Reads the control files of `package` from its file `deb`.
    pub(super) fn read(&self, package: &str, deb: &Path) -> Result<Control, FetchError> {
        let read = |stream| members(stream).map(Some);
        let files = package::read(package, deb, package::Part::Control, read)?;
        control(package, files.unwrap_or_default())
    }

    /// Adds a package that has been unpacked, with its paths.
    pub(super) fn add(&mut self, control: &Control, paths: &[PathBuf]) -> Result<(), FetchError> {
        self.status.push_str(&stanza(control));
        let mut list = String::new();
        for path in paths {
            let path = path.to_str().ok_or_else(|| control.bad("paths"))?;
            // The tree itself is "/.".
            let path = if path == "/" { "/." } else { path };
            let _ = writeln!(list, "{path}");
        }
        self.write_info(control, "list", 0o644, list.as_bytes())?;
        for (name, mode, content) in &control.files {
            self.write_info(control, name, mode & 0o755, content)?;
            match name.as_str() {
                "triggers" => self.add_triggers(control, &String::from_utf8_lossy(content)),
                PREINST => {
                    let line = format!("{} {}\n", control.package, control.name);
                    let at = match control.package == FIRST {
                        true => 0,
                        false => self.preinst.len(),
                    };
                    self.preinst.insert_str(at, &line);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes what is about all packages, and returns those with a script to run first, in lines "PACKAGE NAME".
    pub(super) fn finish(self) -> Result<String, FetchError> {
        let write = |path: PathBuf, content: &str| {
            replace(&path, content.as_bytes(), 0o644).map_err(file_error("write", path))
        };
        write(self.folder.join("status"), &self.status)?;
        write(self.folder.join("available"), "")?;
        write(self.folder.join("info/format"), "1\n")?;
        for (name, lines) in &self.triggers {
            write(self.folder.join("triggers").join(name), lines)?;
        }
        Ok(self.preinst)
    }

    fn write_info(
        &self,
        control: &Control,
        file: &str,
        mode: u32,
        content: &[u8],
    ) -> Result<(), FetchError> {
        let path = self.folder.join(format!("info/{}.{file}", control.name));
        replace(&path, content, mode | 0o600).map_err(file_error("write", path))
    }

    /// Notes a package's interests in triggers.
    fn add_triggers(&mut self, control: &Control, content: &str) {
        for line in content.lines() {
            let mut words = line.split_whitespace();
            let (Some(directive), Some(trigger)) = (words.next(), words.next()) else {
                continue;
            };
            let noawait = match directive {
                "interest" | "interest-await" => "",
                "interest-noawait" => "/noawait",
                _ => continue,
            };
            let name = &control.name;
            if trigger.starts_with('/') {
                let lines = self.triggers.entry(FILE_TRIGGERS.into()).or_default();
                let _ = writeln!(lines, "{trigger} {name}{noawait}");
            } else if !trigger.contains('/') {
                let lines = self.triggers.entry(trigger.into()).or_default();
                let _ = writeln!(lines, "{name}{noawait}");
            }
        }
    }
}

impl Control {
    fn bad(&self, file: &str) -> FetchError {
        FetchError::NotInPackage {
            package: self.package.clone(),
            file: format!("{file} that can be read"),
        }
    }
}

/// The control files in a tar stream.
fn members(stream: impl Read) -> io::Result<Vec<Member>> {
    let mut files = Vec::new();
    for entry in tar::Archive::new(stream).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(name) = name.filter(|_| entry.header().entry_type().is_file()) {
            let (name, mode) = (name.to_owned(), entry.header().mode()?);
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            files.push((name, mode, content));
        }
    }
    Ok(files)
}

/// Sorts the control files of a package.
fn control(package: &str, mut files: Vec<Member>) -> Result<Control, FetchError> {
    let missing = || FetchError::NotInPackage {
        package: package.to_owned(),
        file: "control".into(),
    };
    let at = files.iter().position(|(name, ..)| name == "control");
    let (_, _, record) = files.swap_remove(at.ok_or_else(missing)?);
    let record = String::from_utf8(record).map_err(|_| missing())?;
    let is_same = field(&record, "Multi-Arch") == Some("same");
    let name = match field(&record, "Architecture") {
        Some(architecture) if is_same => format!("{package}:{architecture}"),
        _ => package.to_owned(),
    };
    let conffiles = files.iter().find(|(name, ..)| name == CONFFILES);
    let conffiles = conffiles.map_or_else(Vec::new, |(_, _, content)| {
        let content = String::from_utf8_lossy(content);
        // A flag before the path is for upgrades only.
        let paths = content
            .lines()
            .filter_map(|line| line.trim().strip_prefix('/'));
        paths.map(PathBuf::from).collect()
    });
    Ok(Control {
        package: package.to_owned(),
        name,
        record,
        files,
        conffiles,
    })
}

/// The record of a package in the database.
fn stanza(control: &Control) -> String {
    let mut stanza = with_status(&control.record, "install ok unpacked");
    if !control.conffiles.is_empty() {
        stanza.push_str("Conffiles:\n");
        for conffile in &control.conffiles {
            let _ = writeln!(stanza, " /{} newconffile", conffile.display());
        }
    }
    stanza.push('\n');
    stanza
}

/// A package's record with a status, without the empty line after it.
fn with_status(record: &str, status: &str) -> String {
    format!("{}\nStatus: {status}\n", record.trim_matches('\n'))
}

/// The names of the packages that each system must have, among the records `available`.
pub(super) fn essential(available: &str) -> Vec<String> {
    records(available)
        .filter(|record| {
            field(record, "Essential") == Some("yes")
                || field(record, "Priority") == Some("required")
        })
        .filter_map(|record| field(record, "Package").map(str::to_owned))
        .collect()
}

/// A database's file "status" in which the packages `names` among the records `available` are installed.
pub(super) fn installed(available: &str, names: &[&str]) -> String {
    let is_named =
        |record: &&str| field(record, "Package").is_some_and(|name| names.contains(&name));
    let records = records(available).filter(is_named);
    records
        .map(|record| with_status(record, INSTALLED) + "\n")
        .collect()
}

/// Whether the package `name` is installed, by a database's file "status".
pub(crate) fn is_installed(status: &str, name: &str) -> bool {
    records(status).any(|record| {
        field(record, "Package") == Some(name) && field(record, "Status") == Some(INSTALLED)
    })
}

/// The records of a file like Packages.
fn records(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n\n")
        .filter(|record| !record.trim().is_empty())
}

/// Writes a file, in place of whatever a package has put there: a link there could lead out of the directory.
fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::create_new(path)?;
    file.write_all(content)?;
    file.set_permissions(Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AVAILABLE: &str = "Package: bash\nEssential: yes\nVersion: 5\n\n\
                             Package: apt\nPriority: important\n\n\
                             Package: tzdata\nPriority: required\nDescription: times\n Essential: yes\n\n";

    fn sample() -> Control {
        let record = "Package: libsample\nArchitecture: i386\nMulti-Arch: same\nVersion: 1\n";
        let members = [
            (
                "conffiles",
                0o644,
                "/etc/sample.conf\nremove-on-upgrade /etc/old\n/etc/sample.d/a\n",
            ),
            ("control", 0o644, record),
            ("postinst", 0o755, "#!/bin/sh\n"),
            ("preinst", 0o755, "#!/bin/sh\n"),
            (
                "triggers",
                0o644,
                "# comment\ninterest-noawait /usr/share/sample\ninterest sample-done\nactivate-noawait ldconfig\n",
            ),
        ];
        let members = members.map(|(name, mode, text)| (name.to_owned(), mode, text.into()));
        control("libsample", members.into()).unwrap()
    }

    #[test]
    fn the_database_of_an_unpacked_package_is_as_dpkg_writes_it() {
        let root = tempfile::tempdir().unwrap();
        let mut database = Database::new(root.path()).unwrap();
        let paths = ["/", "/usr", "/usr/sample"].map(PathBuf::from);
        database.add(&sample(), &paths).unwrap();
        assert_eq!(database.finish().unwrap(), "libsample libsample:i386\n");
        let read = |name: &str| fs::read_to_string(root.path().join(FOLDER).join(name)).unwrap();
        assert_eq!(
            read("status"),
            "Package: libsample\nArchitecture: i386\nMulti-Arch: same\nVersion: 1\n\
             Status: install ok unpacked\nConffiles:\n /etc/sample.conf newconffile\n /etc/sample.d/a newconffile\n\n"
        );
        assert_eq!(read("info/libsample:i386.list"), "/.\n/usr\n/usr/sample\n");
        assert_eq!(read("info/format"), "1\n");
        assert_eq!(
            read("triggers/File"),
            "/usr/share/sample libsample:i386/noawait\n"
        );
        assert_eq!(read("triggers/sample-done"), "libsample:i386\n");
        let script = root
            .path()
            .join(FOLDER)
            .join("info/libsample:i386.postinst");
        let mode = fs::metadata(script).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        assert!(
            !root
                .path()
                .join(FOLDER)
                .join("info/libsample:i386.control")
                .exists()
        );
    }

    #[test]
    fn essential_and_required_packages_are_found() {
        assert_eq!(essential(AVAILABLE), ["bash", "tzdata"]);
    }

    #[test]
    fn packages_are_made_installed() {
        assert_eq!(
            installed(AVAILABLE, &["apt"]),
            "Package: apt\nPriority: important\nStatus: install ok installed\n\n"
        );
    }
}
