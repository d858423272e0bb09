//! The Debian archive that this system uses.
//!
//! No mirror is named here: the system's own apt sources have one, or the user names one. The sources are read by
//! having apt list what an update would download, without downloading it. So every format and option of sources.list(5)
//! is read as apt reads it.

use std::env;
use std::fs;
use std::path::Path;

use super::SUITE;
use super::apt::APT_GET;
use crate::error::{FetchError, file_error};

/// The environment variable that names the archive's URI and takes precedence over apt's sources.
const MIRROR_VARIABLE: &str = "REPLEX_DEBIAN_MIRROR";

/// The suites of Debian's main archive. An archive that has one of them has [`SUITE`] too. Suites of the security,
/// updates and backports archives, whose names have a hyphen or a slash, are not among them.
const DEBIAN_SUITES: [&str; 10] = [
    "bullseye",
    SUITE,
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldstable",
    "stable",
    "testing",
    "unstable",
];

/// Finds the URI of a Debian archive: that in [`MIRROR_VARIABLE`], else the best of the system's apt sources. `scratch`
/// is a folder that does not exist yet.
pub(super) fn discover(scratch: &Path) -> Result<String, FetchError> {
    let uri = match env::var(MIRROR_VARIABLE) {
        Ok(uri) => uri,
        Err(_) => from_apt(scratch, &[])?,
    };
    let fits_a_source_line = !uri.is_empty()
        && uri
            .chars()
            .all(|c| c.is_ascii_graphic() && !"[]#".contains(c));
    if fits_a_source_line {
        Ok(uri)
    } else {
        Err(FetchError::BadArchiveUri { uri })
    }
}

/// Finds the best of apt's sources by what apt, with an empty private state in `scratch` and further `options`, would
/// download.
fn from_apt(scratch: &Path, options: &[String]) -> Result<String, FetchError> {
    let lists = scratch.join("lists");
    fs::create_dir_all(&lists).map_err(file_error("create", &lists))?;
    let mut command = APT_GET.command();
    command
        .arg("-o")
        .arg(format!("Dir::State={}", scratch.display()))
        .arg("-o")
        .arg(format!("Dir::State::lists={}", lists.display()))
        .args(options)
        .args(["update", "--print-uris"]);
    let listing = APT_GET.run(command, &["update", "--print-uris"])?;
    choose(&listing).ok_or(FetchError::NoArchive)
}

/// The best archive of a listing with lines such as `'ARCHIVE/dists/SUITE/main/binary-ARCH/Packages.xz' FILE 0`.
///
/// Third parties name their suites after Debian's. So a path that contains "debian" is preferred, and one that does not
/// counts only with [`SUITE`] itself. A wrong choice is harmless, because apt notices that Debian has not signed it.
fn choose(listing: &str) -> Option<String> {
    listing
        .lines()
        .filter_map(main_archive)
        .filter(|(uri, suite)| says_debian(uri) || *suite == SUITE)
        .min_by_key(|(uri, suite)| (!says_debian(uri), *suite != SUITE))
        .map(|(uri, _)| uri.to_owned())
}

/// Returns the archive's URI and the suite, if the line is about binary packages of component main of a suite of
/// Debian.
fn main_archive(line: &str) -> Option<(&str, &str)> {
    let (uri, _) = line.strip_prefix('\'')?.split_once('\'')?;
    let (archive, index) = uri.rsplit_once("/dists/")?;
    let mut parts = index.split('/');
    let suite = parts.next().filter(|suite| DEBIAN_SUITES.contains(suite))?;
    let binary_main = parts.next() == Some("main") && parts.next()?.starts_with("binary-");
    binary_main.then_some((archive, suite))
}

/// Whether the path of `uri`, which is the part after the host, contains "debian".
fn says_debian(uri: &str) -> bool {
    let after_scheme = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    after_scheme
        .split('/')
        .skip(1)
        .any(|segment| segment.contains("debian"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the archive chosen from sources files, given as (name, content), or `None` without apt.
    fn chosen(files: &[(&str, &str)]) -> Option<Result<String, FetchError>> {
        if APT_GET.command().arg("--version").output().is_err() {
            crate::tell_skipped("reading apt sources takes apt-get, which is not installed");
            return None;
        }
        let root = tempfile::tempdir().unwrap();
        let parts = root.path().join("sources.list.d");
        fs::create_dir(&parts).unwrap();
        for (name, content) in files {
            fs::write(parts.join(name), content).unwrap();
        }
        let options = [
            "-oDir::Etc::SourceList=/dev/null".to_owned(),
            format!("-oDir::Etc::SourceParts={}", parts.display()),
        ];
        Some(from_apt(&root.path().join("scratch"), &options))
    }

    fn assert_chosen(files: &[(&str, &str)], expected: &str) {
        if let Some(result) = chosen(files) {
            assert_eq!(result.unwrap(), expected);
        }
    }

    fn assert_none(files: &[(&str, &str)]) {
        if let Some(result) = chosen(files) {
            assert!(matches!(result, Err(FetchError::NoArchive)), "{result:?}");
        }
    }

    #[test]
    fn deb822_with_several_suites_and_components() {
        let sources = "Types: deb deb-src\nURIs: http://a.example/debian\nSuites: bookworm bookworm-updates\n\
                       Components: contrib main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
                       Types: deb\nURIs: http://a.example/debian-security\nSuites: bookworm-security\nComponents: main\n";
        assert_chosen(&[("debian.sources", sources)], "http://a.example/debian");
    }

    #[test]
    fn one_line_with_options_and_comments() {
        let list = "# deb http://commented.example/debian bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] https://b.example/debian/ trixie main contrib # ours\n";
        assert_chosen(&[("debian.list", list)], "https://b.example/debian");
    }

    #[test]
    fn disabled_entries_and_files_apt_ignores_do_not_count() {
        let disabled = "Enabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n";
        let list = "deb http://backup.example/debian bookworm main\n";
        assert_none(&[("off.sources", disabled), ("debian.list.bak", list)]);
    }

    #[test]
    fn source_packages_alone_do_not_count() {
        assert_none(&[(
            "src.list",
            "deb-src http://s.example/debian bookworm main\n",
        )]);
    }

    #[test]
    fn security_updates_and_backports_do_not_count() {
        let list = "deb http://c.example/debian-security bookworm-security main\n\
                    deb http://c.example/debian bookworm-updates main\n\
                    deb http://c.example/debian bookworm-backports main\n";
        assert_none(&[("debian.list", list)]);
    }

    #[test]
    fn ubuntu_has_no_debian_archive() {
        let sources = "Types: deb\nURIs: http://archive.example/ubuntu/\nSuites: noble noble-updates noble-security\n\
                       Components: main universe\n";
        assert_none(&[("ubuntu.sources", sources)]);
    }

    #[test]
    fn third_parties_do_not_count_or_come_last() {
        let browser = "deb [arch=amd64] https://browser.example/linux/deb/ stable main\n";
        let engine = "deb https://engine.example/linux/debian bookworm stable\n";
        let node = "deb https://node.example/node_20.x bookworm main\n";
        let debian = "deb http://d.example/debian trixie main\n";
        assert_none(&[("browser.list", browser), ("engine.list", engine)]);
        assert_chosen(
            &[("a.list", node), ("b.list", debian), ("c.list", browser)],
            "http://d.example/debian",
        );
    }

    #[test]
    fn the_release_we_want_goes_first() {
        let list = "deb http://sid.example/debian sid main\ndeb http://twelve.example/debian bookworm main\n";
        assert_chosen(&[("debian.list", list)], "http://twelve.example/debian");
    }

    #[test]
    fn a_mirror_list_is_an_archive_too() {
        let list = "deb mirror+file:/etc/apt/mirrors/debian.list bookworm main\n";
        assert_chosen(
            &[("debian.list", list)],
            "mirror+file:/etc/apt/mirrors/debian.list",
        );
    }

    #[test]
    fn no_sources_at_all() {
        assert_none(&[]);
    }

    #[test]
    fn a_host_that_says_debian_is_not_a_path_that_does() {
        assert!(!says_debian("http://debian.example/other"));
        assert!(says_debian("http://any.example/pub/debian-archive"));
    }
}
