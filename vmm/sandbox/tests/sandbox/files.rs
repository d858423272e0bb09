//! What is left of the host's files. A restriction holds for the thread that asks for it, so each test has one of its own.

use std::{
    fs, io,
    io::{ErrorKind, Write as _},
    os::unix::{fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
    thread,
};

use sandbox::{Access, RestrictError, Shared, Support, restrict_files};
use tempfile::TempDir;

/// A folder with the file `secret`, and in it the directory `share` with the file `inside` and ways that lead out.
struct Rig {
    dir: TempDir,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let share = dir.path().join("share");
        fs::create_dir(&share).unwrap();
        fs::create_dir(share.join("sub")).unwrap();
        fs::create_dir(dir.path().join("other")).unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        fs::write(share.join("inside"), "inside").unwrap();
        symlink("../secret", share.join("link")).unwrap();
        symlink(dir.path(), share.join("up")).unwrap();
        Self { dir }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn share(&self, access: Access) -> Vec<Shared> {
        let path = self.path("share");
        vec![Shared { path, access }]
    }
}

/// Calls `body` on a thread that is restricted to what is `shared`, or free if that is none. Returns nothing if the host has no
/// Landlock.
fn on_thread<R: Send>(shared: Option<&[Shared]>, body: impl FnOnce() -> R + Send) -> Option<R> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            match shared.map(restrict_files) {
                None | Some(Ok(())) => {}
                Some(Err(RestrictError::Missing | RestrictError::TooOld)) => {
                    let _ = writeln!(io::stderr(), "skipped: this host has no Landlock that fits");
                    return None;
                }
                Some(Err(error)) => panic!("{error}"),
            }
            Some(body())
        });
        thread.join().unwrap()
    })
}

fn is_denied<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| {
        matches!(
            error.kind(),
            ErrorKind::PermissionDenied | ErrorKind::CrossesDevices
        )
    })
}

/// Ways to reach what is outside of the share, by name.
type Escape = fn(&Rig) -> io::Result<()>;

const ESCAPES: [(&str, Escape); 10] = [
    ("read", |rig| fs::read(rig.path("secret")).map(drop)),
    ("list", |rig| fs::read_dir(rig.dir.path()).map(drop)),
    ("symbolic link", |rig| {
        fs::read(rig.path("share/link")).map(drop)
    }),
    ("symbolic link to a directory", |rig| {
        fs::read(rig.path("share/up/secret")).map(drop)
    }),
    ("..", |rig| fs::read(rig.path("share/../secret")).map(drop)),
    ("write", |rig| fs::write(rig.path("secret"), "x")),
    ("make", |rig| fs::write(rig.path("new"), "x")),
    ("hard link in", |rig| {
        fs::hard_link(rig.path("secret"), rig.path("share/hard"))
    }),
    ("hard link out", |rig| {
        fs::hard_link(rig.path("share/inside"), rig.path("other/hard"))
    }),
    ("move out", |rig| {
        fs::rename(rig.path("share/inside"), rig.path("other/moved"))
    }),
];

#[test]
fn nothing_outside_is_reached_and_without_a_restriction_all_is() {
    for (name, escape) in ESCAPES {
        let rig = Rig::new();
        let free = on_thread(None, || escape(&rig)).unwrap();
        assert!(free.is_ok(), "{name}: {free:?}");
        let rig = Rig::new();
        for access in [Access::Change, Access::Read] {
            let result = on_thread(Some(&rig.share(access)), || escape(&rig));
            assert!(result.is_none_or(is_denied), "{name}");
        }
        assert_eq!(fs::read(rig.path("secret")).unwrap(), b"secret");
    }
}

#[test]
fn what_is_shared_is_used_as_agreed() {
    let rig = Rig::new();
    let change = |share: &Path| {
        fs::write(share.join("new"), "new")?;
        fs::write(share.join("inside"), "")?;
        fs::rename(share.join("new"), share.join("sub/moved"))?;
        fs::hard_link(share.join("inside"), share.join("sub/hard"))?;
        fs::remove_file(share.join("sub/moved"))?;
        fs::create_dir(share.join("dir"))?;
        symlink("x", share.join("dir/link"))?;
        fs::read_dir(share).map(drop)
    };
    let share = rig.path("share");
    let changed = on_thread(Some(&rig.share(Access::Change)), || change(&share));
    assert!(changed.is_none_or(|result| result.is_ok()));
    let read = on_thread(Some(&rig.share(Access::Read)), || {
        assert!(fs::read(share.join("inside")).is_ok());
        assert!(fs::read_dir(&share).is_ok());
        for denied in [
            fs::write(share.join("inside"), "x"),
            fs::write(share.join("another"), "x"),
            fs::remove_file(share.join("inside")),
            fs::create_dir(share.join("directory")),
        ] {
            assert!(is_denied(denied));
        }
    });
    let _skipped = read;
    let file = [Shared {
        path: rig.path("secret"),
        access: Access::ReadFile,
    }];
    on_thread(Some(&file), || {
        assert!(fs::read(rig.path("secret")).is_ok());
        assert!(is_denied(fs::read(share.join("inside"))));
    });
}

#[test]
fn a_socket_is_made_and_removed_where_that_is_agreed() {
    let rig = Rig::new();
    on_thread(Some(&rig.share(Access::Sockets)), || {
        let socket = rig.path("share/socket");
        let listener = UnixListener::bind(&socket).unwrap();
        drop(listener);
        fs::remove_file(socket).unwrap();
        assert!(is_denied(fs::read(rig.path("share/inside"))));
        assert!(is_denied(fs::write(rig.path("share/new"), "x")));
        assert!(UnixListener::bind(rig.path("socket")).is_err());
    });
}

#[test]
fn descriptors_stay_and_threads_inherit() {
    let rig = Rig::new();
    let open = fs::File::open(rig.path("secret")).unwrap();
    on_thread(Some(&[]), || {
        assert_eq!(io::read_to_string(&open).unwrap(), "secret");
        let child = thread::scope(|scope| {
            let thread = scope.spawn(|| fs::read(rig.path("secret")));
            thread.join().unwrap()
        });
        assert!(is_denied(child));
    });
    assert!(fs::read(rig.path("secret")).is_ok());
}

#[test]
fn what_is_not_there_is_no_share() {
    let missing = [Shared {
        path: "/no/such/directory".into(),
        access: Access::Read,
    }];
    let has = Support::of_host().landlock.is_some();
    match thread::spawn(move || restrict_files(&missing))
        .join()
        .unwrap()
    {
        Err(RestrictError::Path(error)) => {
            assert!(error.to_string().contains("/no/such/directory"))
        }
        result => assert!(!has, "{result:?}"),
    }
}
