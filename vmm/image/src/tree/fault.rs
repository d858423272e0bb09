//! Why an entry cannot be put into a tree.

use crate::limits::{DEPTH, LINKS};

/// A reason for which an entry cannot be put into a tree.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TreeFault {
    #[error("its name has a component `..`")]
    Up,
    #[error("its name has a zero byte")]
    ZeroByte,
    #[error("its name is too long")]
    TooLong,
    #[error("it would replace the root")]
    Root,
    #[error("it is below {0:?}, which is not a directory")]
    BelowFile(String),
    #[error("it is more than {DEPTH} directories deep")]
    TooDeep,
    #[error("its name leads through more than {LINKS} symbolic links")]
    Loop,
    #[error("it is a hard link to {0:?}, which is not a file")]
    LinkTarget(String),
    #[error("the whiteout {0:?} names nothing")]
    Whiteout(String),
    #[error("the layers have more than {0} entries")]
    Entries(u32),
    #[error("the layers have more than {0} bytes of names")]
    Names(u64),
}
