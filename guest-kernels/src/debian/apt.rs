//! A private apt: the system's programs, keys and settings, with a state, a cache and a source list of its own.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::architecture::Architecture;
use crate::command::Program;
use crate::error::{FetchError, file_error};
use crate::progress::{Progress, Stage};

pub(super) const APT_GET: Program = Program {
    name: "apt-get",
    package: "apt",
};
const APT_CACHE: Program = Program {
    name: "apt-cache",
    package: "apt",
};

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

/// The settings that depend on nothing: no unsigned or weakly signed archives, an error for every download that fails, and no
/// change of user, because the user _apt could not write to the private state.
const SETTINGS: [&str; 9] = [
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

/// Time between two reports of a download.
const INTERVAL: Duration = Duration::from_secs(2);

/// The packages that an [`Apt`] knows.
pub(super) struct Source<'a> {
    /// The URI of the archive.
    pub(super) uri: &'a str,
    /// The suites of the archive. A package comes from the first that has it.
    pub(super) suites: &'a [&'a str],
    /// The architecture of its packages.
    pub(super) architecture: Architecture,
}

/// An apt with a private state.
pub(super) struct Apt {
    /// The folder that holds the state, the cache and the source list.
    root: PathBuf,
    architecture: Architecture,
    /// The suite whose packages are preferred.
    preferred: String,
    /// The source list of a system with the same packages.
    source_lines: String,
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

/// A package that apt would install.
pub(super) struct Planned {
    name: String,
    uri: String,
    /// The name of the file in the folder of downloads.
    file: String,
    bytes: u64,
}

impl Planned {
    /// The package's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Reads a line such as `'URI' NAME_VERSION_ARCHITECTURE.deb BYTES SHA256:HASH`.
    fn parse(line: &str) -> Option<Self> {
        let (uri, rest) = line.strip_prefix('\'')?.split_once("' ")?;
        let mut words = rest.split(' ');
        let (file, bytes) = (words.next()?, words.next()?);
        let (name, _) = file.split_once('_')?;
        Some(Self {
            name: name.to_owned(),
            uri: uri.to_owned(),
            file: file.to_owned(),
            bytes: bytes.parse().ok()?,
        })
    }
}

impl fmt::Display for PackageInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

impl Apt {
    /// Creates an apt whose only source is `source`, with its state in the new folder `root`.
    pub(super) fn new(root: &Path, source: &Source<'_>) -> Result<Self, FetchError> {
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).map_err(file_error("create", folder))?;
        }
        let apt = Self {
            root: root.to_owned(),
            architecture: source.architecture,
            preferred: source.suites[0].to_owned(),
            source_lines: source_lines(source, ""),
        };
        let options = source_options(source.architecture)?;
        let list = source_lines(source, &format!("[{options}] "));
        for (path, content) in [
            (apt.source_list(), list.as_str()),
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

    /// The name of the first package on which `package` depends at present and whose name begins with `prefix`.
    pub(super) fn dependency(&self, package: &str, prefix: &str) -> Result<String, FetchError> {
        let record = self.record(package)?;
        field(&record, "Depends")
            .and_then(|depends| find_dependency(depends, prefix))
            .ok_or_else(|| FetchError::PackageField {
                package: package.to_owned(),
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

    /// The records of all packages that can be installed.
    pub(super) fn available(&self) -> Result<String, FetchError> {
        self.run(APT_CACHE, &["dumpavail"], &self.root)
    }

    /// Makes apt believe that the packages of `status`, a file of dpkg's database, are there.
    pub(super) fn set_installed(&self, status: &str) -> Result<(), FetchError> {
        let path = self.dpkg_status();
        fs::write(&path, status).map_err(file_error("write", path))
    }

    /// Plans to install `packages` and what they need; with `recommends`, what they recommend, too. Those that are there are left
    /// out. Each comes after those that must be unpacked before it.
    pub(super) fn plan(
        &self,
        packages: &[String],
        recommends: bool,
    ) -> Result<Vec<Planned>, FetchError> {
        let (mut command, shown) = self.install(packages, recommends);
        command.arg("--print-uris");
        let listing = APT_GET.run(command, &shown)?;
        Ok(listing.lines().filter_map(Planned::parse).collect())
    }

    /// Downloads what [`Apt::plan`] has planned for the same arguments, and checks the hashes.
    pub(super) fn download_planned(
        &self,
        planned: &[Planned],
        packages: &[String],
        recommends: bool,
        progress: &mut dyn Progress,
    ) -> Result<(), FetchError> {
        progress.stage(&Stage::Downloading {
            package: format!("{} packages", planned.len()),
            bytes: planned.iter().map(|package| package.bytes).sum(),
        });
        let (mut command, shown) = self.install(packages, recommends);
        command.args(["--download-only", "-o", "APT::Status-Fd=1"]);
        let mut told = Instant::now();
        APT_GET.stream(command, &shown, |line| {
            let percent = downloaded(line).filter(|_| told.elapsed() > INTERVAL);
            if let Some(percent) = percent {
                told = Instant::now();
                progress.stage(&Stage::Downloaded { percent });
            }
        })
    }

    /// The file of a package that has been downloaded, or that an archive on this machine has.
    pub(super) fn file(&self, package: &Planned) -> PathBuf {
        match package.uri.strip_prefix("file:") {
            Some(path) => path.into(),
            None => self.root.join("cache/archives").join(&package.file),
        }
    }

    /// The command that would install packages, and what errors show of it.
    fn install(&self, packages: &[String], recommends: bool) -> (Command, [&'static str; 1]) {
        let mut command = self.command(APT_GET, &self.root);
        command.args(["install", "--yes", "-o"]);
        command.arg(format!("APT::Install-Recommends={recommends}"));
        command.args(packages);
        (command, ["install"])
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
        let mut command = self.command(program, folder);
        command.args(arguments);
        program.run(command, arguments)
    }

    /// A command of one of apt's programs on the private state, in `folder`.
    fn command(&self, program: Program, folder: &Path) -> Command {
        let mut command = program.command();
        command.current_dir(folder).arg("-c").arg(self.config());
        for setting in SETTINGS {
            command.args(["-o", setting]);
        }
        for (setting, value) in [
            ("APT::Architecture", self.architecture.name()),
            ("APT::Architectures::", self.architecture.name()),
            ("APT::Default-Release", &self.preferred),
        ] {
            command.arg("-o").arg(format!("{setting}={value}"));
        }
        self.point_inwards(&mut command);
        command
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

    /// The source list of a system that gets its packages from the same archive.
    pub(super) fn source_lines(&self) -> &str {
        &self.source_lines
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

/// A source list with these options, which end in a space.
fn source_lines(source: &Source<'_>, options: &str) -> String {
    let line = |suite| format!("deb {options}{} {suite} main\n", source.uri);
    source.suites.iter().map(line).collect()
}

/// The options of our sources: architecture, only packages, and Debian's keys unless apt trusts them anyway.
fn source_options(architecture: Architecture) -> Result<String, FetchError> {
    let options = format!("arch={} target=Packages", architecture.name());
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

/// The percentage in a line such as `dlstatus:1:20.4:Retrieving file 3 of 93` (APT::Status-Fd, apt's `README.progress-reporting`).
fn downloaded(line: &str) -> Option<u8> {
    let mut fields = line.strip_prefix("dlstatus:")?.split(':').skip(1);
    // Rounded down by the conversion.
    Some(fields.next()?.parse::<f32>().ok()? as u8)
}

/// The value of field `name` in the first record of `records`, if the record has it on one line.
pub(super) fn field<'a>(records: &'a str, name: &str) -> Option<&'a str> {
    records
        .lines()
        .take_while(|line| !line.is_empty())
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

/// The first package whose name begins with `prefix` in a list of dependencies such as "linux-base, linux-image-6.1.0-44-686 (=
/// 6.1.164-1)".
fn find_dependency(depends: &str, prefix: &str) -> Option<String> {
    depends
        .split([',', '|'])
        .filter_map(|dependency| dependency.split_whitespace().next())
        .find(|name| name.starts_with(prefix))
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
    fn planned_packages_are_read() {
        let line = "'http://archive.example/pool/main/a/a%2bb/a%2bb_1%3a2-3_i386.deb' a+b_1%3a2-3_i386.deb 4096 SHA256:00";
        let planned = Planned::parse(line).unwrap();
        assert_eq!(planned.name(), "a+b");
        assert_eq!(planned.file, "a+b_1%3a2-3_i386.deb");
        assert_eq!(planned.bytes, 4096);
        for line in ["Reading package lists...", "'uri'", "'uri' file", ""] {
            assert!(Planned::parse(line).is_none(), "{line}");
        }
    }

    #[test]
    fn progress_of_a_download_is_read() {
        let percent = downloaded("dlstatus:1:20.9:Retrieving file 3 of 93 (2s remaining)");
        assert_eq!(percent, Some(20));
        assert_eq!(downloaded("pmstatus:apt:20.9:Installing"), None);
        assert_eq!(downloaded("dlstatus:1"), None);
    }

    #[test]
    fn the_kernel_image_is_found_among_dependencies() {
        let image = |depends| find_dependency(depends, "linux-image-");
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
