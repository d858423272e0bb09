//! A cache of unpacked kernels, kept between runs.
//!
//! An entry is named by the SHA-256 of the bzImage it came from and holds the unpacked ELF followed by the SHA-256 of
//! itself, so that a damaged or half-written entry is noticed and made again. Entries appear by an atomic rename: any
//! number of processes may use the cache at once. A cache that cannot be written costs time, never a boot.

use std::{
    env, fs,
    io::{self, Write},
    path::PathBuf,
};

use sha2::{Digest, Sha256};

/// A directory of unpacked kernels.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
}

const DIGEST_LEN: usize = 32;

impl Cache {
    /// Returns the cache in `dir`, which is created with the first entry.
    pub fn in_dir(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Returns the user's cache: `$REPLEX_CACHE/vmlinux`, else `$XDG_CACHE_HOME/replex/vmlinux`, else
    /// `$HOME/.cache/replex/vmlinux`; none if no variable is set.
    pub fn of_user() -> Option<Self> {
        let set = |name| {
            env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        let replex = set("REPLEX_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("replex")))
            .or_else(|| set("HOME").map(|dir| dir.join(".cache").join("replex")))?;
        Some(Self::in_dir(replex.join("vmlinux")))
    }

    /// Returns the kernel unpacked from `packed`: the cached one, or else the result of `unpack`, which is then kept.
    ///
    /// # Errors
    /// The errors of `unpack`. Errors of the cache itself are logged.
    pub fn get_or_unpack<E>(
        &self,
        packed: &[u8],
        unpack: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        let path = self.dir.join(hex(&Sha256::digest(packed)));
        match fs::read(&path) {
            Ok(entry) => match open(entry) {
                Some(kernel) => return Ok(kernel),
                None => log::warn!("{}: damaged cache entry, unpacking again", path.display()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => log::warn!("{}: {error}", path.display()),
        }
        let kernel = unpack()?;
        if let Err(error) = self.store(&path, &kernel) {
            log::warn!("{}: unpacked kernel not kept: {error}", path.display());
        }
        Ok(kernel)
    }

    fn store(&self, path: &PathBuf, kernel: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        file.write_all(kernel)?;
        file.write_all(&Sha256::digest(kernel))?;
        file.persist(path)?;
        Ok(())
    }
}

/// Removes the digest from an entry. Returns none if it does not match.
fn open(mut entry: Vec<u8>) -> Option<Vec<u8>> {
    let (kernel, digest) = entry.split_last_chunk::<DIGEST_LEN>()?;
    let sound = Sha256::digest(kernel).as_slice() == digest;
    entry.truncate(entry.len() - DIGEST_LEN);
    sound.then_some(entry)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Asks for the kernel packed as "packed"; true in the answer if it had to be unpacked.
    fn get(cache: &Cache) -> (Vec<u8>, bool) {
        let mut unpacked = false;
        let kernel = cache.get_or_unpack(b"packed", || {
            unpacked = true;
            Ok::<_, Infallible>(b"kernel".to_vec())
        });
        (kernel.unwrap(), unpacked)
    }

    #[test]
    fn a_kernel_is_unpacked_once() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::in_dir(dir.path().join("made/when/needed"));
        assert_eq!(get(&cache), (b"kernel".to_vec(), true));
        assert_eq!(get(&cache), (b"kernel".to_vec(), false));
    }

    #[test]
    fn damage_is_noticed_and_mended() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::in_dir(dir.path());
        get(&cache);
        let entry = fs::read_dir(dir.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let good = fs::read(&entry).unwrap();
        let mut flipped = good.clone();
        flipped[2] ^= 1;
        for bad in [&[][..], &good[..10], &good[..good.len() - 1], &flipped] {
            fs::write(&entry, bad).unwrap();
            assert_eq!(get(&cache), (b"kernel".to_vec(), true), "{bad:?}");
            assert_eq!(fs::read(&entry).unwrap(), good);
        }
    }

    #[test]
    fn an_unwritable_cache_does_not_matter() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let cache = Cache::in_dir(file.path().join("below-a-file"));
        assert_eq!(get(&cache), (b"kernel".to_vec(), true));
    }

    #[test]
    fn errors_of_unpacking_are_passed_on_and_nothing_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::in_dir(dir.path());
        assert_eq!(cache.get_or_unpack(b"packed", || Err("bad")), Err("bad"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
