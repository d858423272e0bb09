//! A private apt: the system's programs, keys and settings, with a state, a cache and a source list of its own.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::SUITE;
use crate::command::Program;
use crate::error::{FetchError, file_error};
use crate::guest::Guest;

pub(super) const APT_GET: Program = Program {
    name: "apt-get",
    package: "apt",
};
const APT_CACHE: Program = Program {
    name: "apt-cache",
    package: "apt",
};

/// The architecture of every package that is fetched.
const ARCHITECTURE: &str = "i386";

/// The keys of Debian's archive, from the package debian-archive-keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The folder of the keys that apt trusts for every source.
const TRUSTED_PARTS: &str = "/etc/apt/trusted.gpg.d";
/// The prefix of Debian's keys in that folder.
const TRUSTED_PREFIX: &str = "debian-archive-";

/// The settings that must be cleared before ours apply, in the syntax of apt.conf(5): hooks that would act on the
/// system's own state, and the system's list of architectures.
const CLEARED: &str = "#clear APT::Update::Pre-Invoke;\n\
                       #clear APT::Update::Post-Invoke;\n\
                       #clear APT::Update::Post-Invoke-Success;\n\
                       #clear APT::Architectures;\n";

/// The settings that do not depend on the folder: our architecture, no unsigned or weakly signed archives, an error for
/// every download that fails, and no change of user, because the user _apt could not write to the private state.
const SETTINGS: [&str; 11] = [
    "APT::Architecture=i386",
    "APT::Architectures::=i386",
    "APT::Get::AllowUnauthenticated=false",
    "APT::Sandbox::User=root",
    "APT::Update::Error-Mode=any",
    "Acquire::AllowDowngradeToInsecureRepositories=false",
    "Acquire::AllowInsecureRepositories=false",
    "Acquire::AllowWeakRepositories=false",
    "Acquire::Languages=none",
    "Dir::Etc::Preferences=/dev/null",
    "Dir::Etc::PreferencesParts=/dev/null",
];

/// An apt with a private state.
pub(super) struct Apt {
    /// The folder that holds the state, the cache and the source list.
    root: PathBuf,
}

/// The entry of a package in the package lists.
pub(super) struct PackageInfo {
    /// The package's name.
    pub(super) name: String,
    /// The package's version, in Debian's syntax.
    version: String,
    /// The size of the .deb file.
    pub(super) bytes: u64,
}

impl fmt::Display for PackageInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

impl Apt {
    /// Creates an apt whose only source is [`SUITE`] of the archive at `uri`, with its state in the new folder `root`.
    pub(super) fn new(root: &Path, uri: &str) -> Result<Self, FetchError> {
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).map_err(file_error("create", folder))?;
        }
        let apt = Self {
            root: root.to_owned(),
        };
        let source = format!("deb [{}] {uri} {SUITE} main\n", source_options()?);
        for (path, content) in [
            (apt.source_list(), source.as_str()),
            (apt.config(), CLEARED),
            (apt.dpkg_status(), ""),
        ] {
            fs::write(&path, content).map_err(file_error("write", path))?;
        }
        Ok(apt)
    }

    /// Downloads the package lists and checks their signatures.
    pub(super) fn update(&self) -> Result<(), FetchError> {
        self.run(APT_GET, &["update"], &self.root).map(drop)
    }

    /// The name of the kernel image on which `guest`'s metapackage depends at present.
    pub(super) fn kernel_image(&self, guest: Guest) -> Result<String, FetchError> {
        let metapackage = guest.metapackage();
        let record = self.record(metapackage)?;
        field(&record, "Depends")
            .and_then(image_dependency)
            .ok_or_else(|| FetchError::PackageField {
                package: metapackage.to_owned(),
                field: "Depends",
            })
    }

    /// Looks up `package` in the package lists.
    pub(super) fn show(&self, package: &str) -> Result<PackageInfo, FetchError> {
        let missing = |field| FetchError::PackageField {
            package: package.to_owned(),
            field,
        };
        let record = self.record(package)?;
        Ok(PackageInfo {
            name: package.to_owned(),
            version: field(&record, "Version")
                .ok_or_else(|| missing("Version"))?
                .to_owned(),
            bytes: field(&record, "Size")
                .and_then(|size| size.parse().ok())
                .ok_or_else(|| missing("Size"))?,
        })
    }

    /// Downloads `package` into the new folder `folder`, checks its hash and returns the .deb file.
    pub(super) fn download(
        &self,
        package: &PackageInfo,
        folder: &Path,
    ) -> Result<PathBuf, FetchError> {
        fs::create_dir(folder).map_err(file_error("create", folder))?;
        let wanted = format!("{}={}", package.name, package.version);
        self.run(APT_GET, &["download", &wanted], folder)?;
        fs::read_dir(folder)
            .map_err(file_error("list", folder))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .ok_or_else(|| FetchError::NotInPackage {
                package: package.name.clone(),
                file: wanted,
            })
    }

    /// The record of `package` in the package lists, as in a Packages file.
    fn record(&self, package: &str) -> Result<String, FetchError> {
        self.run(
            APT_CACHE,
            &["--no-all-versions", "show", package],
            &self.root,
        )
    }

    /// Runs one of apt's programs on the private state, in `folder`.
    fn run(
        &self,
        program: Program,
        arguments: &[&str],
        folder: &Path,
    ) -> Result<String, FetchError> {
        let mut command = program.command();
        command.current_dir(folder).arg("-c").arg(self.config());
        for setting in SETTINGS {
            command.args(["-o", setting]);
        }
        self.point_inwards(&mut command);
        command.args(arguments);
        program.run(command, arguments)
    }

    /// Adds the settings that place apt's state, cache and sources below the root.
    fn point_inwards(&self, command: &mut Command) {
        for (setting, path) in [
            ("Dir::State", self.root.join("state")),
            ("Dir::State::Lists", self.root.join("state/lists")),
            ("Dir::State::Status", self.dpkg_status()),
            ("Dir::Cache", self.root.join("cache")),
            ("Dir::Cache::Archives", self.root.join("cache/archives")),
            ("Dir::Etc::SourceList", self.source_list()),
            ("Dir::Etc::SourceParts", PathBuf::from("/dev/null")),
        ] {
            command
                .arg("-o")
                .arg(format!("{setting}={}", path.display()));
        }
    }

    fn source_list(&self) -> PathBuf {
        self.root.join("sources.list")
    }

    fn config(&self) -> PathBuf {
        self.root.join("apt.conf")
    }

    fn dpkg_status(&self) -> PathBuf {
        self.root.join("status")
    }
}

/// The options of our source: architecture, only packages, and Debian's keys unless apt trusts them anyway.
fn source_options() -> Result<String, FetchError> {
    let options = format!("arch={ARCHITECTURE} target=Packages");
    if Path::new(KEYRING).exists() {
        return Ok(format!("{options} signed-by={KEYRING}"));
    }
    let trusted = fs::read_dir(TRUSTED_PARTS).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with(TRUSTED_PREFIX)
        })
    });
    if trusted {
        Ok(options)
    } else {
        Err(FetchError::NoKeyring {
            path: KEYRING.into(),
        })
    }
}

/// The value of field `name` in the first record of `records`, if the record has it on one line.
fn field<'a>(records: &'a str, name: &str) -> Option<&'a str> {
    records
        .lines()
        .take_while(|line| !line.is_empty())
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

/// The kernel image in a metapackage's list of dependencies, e.g. "linux-image-6.1.0-44-686 (= 6.1.164-1)".
fn image_dependency(depends: &str) -> Option<String> {
    depends
        .split([',', '|'])
        .filter_map(|dependency| dependency.split_whitespace().next())
        .find(|name| name.starts_with("linux-image-"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDS: &str = "Package: linux-image-686\nVersion: 6.1.164-1\nDepends-Not: x\n\
                           Depends: linux-base, linux-image-6.1.0-44-686 (= 6.1.164-1)\nSize: 1476\n\n\
                           Package: other\nHomepage: elsewhere\n";

    #[test]
    fn fields_are_found_by_their_whole_name_in_the_first_record() {
        assert_eq!(field(RECORDS, "Size"), Some("1476"));
        assert_eq!(
            field(RECORDS, "Depends"),
            Some("linux-base, linux-image-6.1.0-44-686 (= 6.1.164-1)")
        );
        assert_eq!(field(RECORDS, "Homepage"), None);
        assert_eq!(field(RECORDS, "Si"), None);
    }

    #[test]
    fn the_kernel_image_is_found_among_dependencies() {
        let image = |depends| image_dependency(depends);
        assert_eq!(
            image("linux-image-6.1.0-44-686 (= 6.1.164-1)").as_deref(),
            Some("linux-image-6.1.0-44-686")
        );
        assert_eq!(
            image("kmod, linux-image-6.1-686-pae | other").as_deref(),
            Some("linux-image-6.1-686-pae")
        );
        assert_eq!(image("kmod, linux-base"), None);
    }
}
