//! Names of directory entries as a guest gives them: one component of a path, and never a way up or out.

use std::ffi::CStr;

use rustix::io::Errno;

/// Name of an entry in a directory: any bytes but 0 and '/', neither empty nor "." nor "..".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a>(&'a CStr);

impl<'a> Name<'a> {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// EINVAL if `name` is empty, ".", ".." or contains '/'.
    pub fn new(name: &'a CStr) -> Result<Name<'a>, Errno> {
        let bytes = name.to_bytes();
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
            return Err(Errno::INVAL);
        }
        Ok(Name(name))
    }

    /// Returns the name as it is passed to the host's system calls.
    pub fn as_c_str(self) -> &'a CStr {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_up_and_out_are_no_names() {
        for bad in [c"", c".", c"..", c"/", c"/etc", c"a/b", c"a/", c"../x"] {
            assert_eq!(Name::new(bad), Err(Errno::INVAL), "{bad:?}");
        }
        for good in [c"...", c"a", c"..a", c"a..", c"\xff\xfe", c" ", c"\n"] {
            assert_eq!(Name::new(good).map(Name::as_c_str), Ok(good));
        }
    }
}
