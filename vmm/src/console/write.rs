//! [`write_all`]: output to a file of the host whose reader may be slow.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd,
};

/// Writes all of `bytes`, and waits while the other side is slow, even if another process has made the file non-blocking.
///
/// # Errors
/// The host's. Some of `bytes` may have been written.
pub fn write_all(to: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    let to = to.as_fd();
    while !bytes.is_empty() {
        match unistd::write(to, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => wait_for_room(to)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn wait_for_room(to: BorrowedFd<'_>) -> io::Result<()> {
    let mut writable = [PollFd::new(to, PollFlags::POLLOUT)];
    match poll(&mut writable, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read as _},
        thread,
    };

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    #[test]
    fn a_closed_pipe_is_an_error() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let error = write_all(&writer, b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_slow_reader_gets_everything_from_a_pipe_that_does_not_block() {
        let (mut reader, writer) = io::pipe().unwrap();
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let bytes: Vec<u8> = (0..1_000_000).map(|at| (at / 7) as u8).collect();
        let expected = bytes.clone();
        let sender = thread::spawn(move || write_all(&writer, &bytes).unwrap());
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();
        sender.join().unwrap();
        assert!(received == expected);
    }
}
