//! [`Requests`]: what a block device does with each request (VIRTIO 1.2, 5.2.6 Device Operation).
//!
//! ```text
//!   readable:  type, 4 │ reserved, 4 │ sector, 8 │ data of a write …
//!   writable:  data of a read … │ status, 1
//! ```

use std::{
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use parking_lot::Mutex;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
    virtio_blk_discard_write_zeroes,
};

use super::image::{Image, SECTOR};
use crate::devices::virtio::queue::{Malformed, Reader, Writer};

/// The most sectors of a discard or a write of zeroes: 1 GiB.
pub const MOST_SECTORS: u32 = 1 << 21;

/// The most bytes that are moved at once.
const PIECE: usize = 256 << 10;
/// The length of a segment of a discard or a write of zeroes.
const SEGMENT: usize = size_of::<virtio_blk_discard_write_zeroes>();
const ID_BYTES: usize = VIRTIO_BLK_ID_BYTES as usize;

/// The server of a disk's requests.
pub struct Requests {
    image: Arc<Mutex<Image>>,
    write_through: Arc<AtomicBool>,
    capacity: u64,
    read_only: bool,
    id: [u8; ID_BYTES],
    piece: Vec<u8>,
}

/// A failure that the driver is told of.
enum Failure {
    /// The request cannot be carried out.
    Io,
    /// The device does not know the request.
    Unsupported,
    /// The request is shorter than it must be, and the ring with it is not to be trusted.
    Malformed,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        log::warn!("disk: {error}");
        Self::Io
    }
}

impl Requests {
    /// Creates the server of a disk with `capacity` sectors, which calls itself `id`.
    pub fn new(
        image: Arc<Mutex<Image>>,
        write_through: Arc<AtomicBool>,
        capacity: u64,
        read_only: bool,
        id: &str,
    ) -> Self {
        let mut bytes = [0; ID_BYTES];
        for (byte, own) in bytes.iter_mut().zip(id.bytes()) {
            *byte = own;
        }
        Self {
            image,
            write_through,
            capacity,
            read_only,
            id: bytes,
            piece: vec![0; PIECE],
        }
    }

    /// Serves a request, and returns the number of bytes written to its room, the status included.
    pub fn serve(
        &mut self,
        mut request: Reader<'_>,
        mut room: Writer<'_>,
    ) -> Result<u32, Malformed> {
        let data = room.available_bytes().checked_sub(1).ok_or(Malformed)?;
        let mut status = room.split_at(data)?;
        let mut header = [0; 16];
        request.read_exact(&mut header)?;
        let [kind, _, low, high] = words(&header);
        let sector = u64::from(high) << 32 | u64::from(low);
        let done = match kind {
            VIRTIO_BLK_T_IN => self.read(sector, &mut room),
            VIRTIO_BLK_T_OUT => self.write(sector, &mut request),
            VIRTIO_BLK_T_FLUSH => self.flush(),
            VIRTIO_BLK_T_GET_ID => self.identify(&mut room),
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => self.clear(kind, &mut request),
            _ => Err(Failure::Unsupported),
        };
        let byte = match done {
            Ok(()) => VIRTIO_BLK_S_OK,
            Err(Failure::Io) => VIRTIO_BLK_S_IOERR,
            Err(Failure::Unsupported) => VIRTIO_BLK_S_UNSUPP,
            Err(Failure::Malformed) => return Err(Malformed),
        };
        status.write_all(&[byte as u8])?;
        // The device has written so much from the beginning only if all of it: the status is the last byte.
        let written = if room.available_bytes() == 0 {
            data + 1
        } else {
            0
        };
        u32::try_from(written).map_err(|_| Malformed)
    }

    fn read(&mut self, sector: u64, room: &mut Writer<'_>) -> Result<(), Failure> {
        let mut offset = self.check(sector, room.available_bytes() as u64)?;
        let image = self.image.lock();
        while room.available_bytes() > 0 {
            let len = room.available_bytes().min(PIECE);
            let piece = &mut self.piece[..len];
            image.read(piece, offset)?;
            room.write_all(piece).map_err(|_| Failure::Malformed)?;
            offset += len as u64;
        }
        Ok(())
    }

    fn write(&mut self, sector: u64, request: &mut Reader<'_>) -> Result<(), Failure> {
        self.check_writable()?;
        let mut offset = self.check(sector, request.available_bytes() as u64)?;
        let image = self.image.lock();
        while request.available_bytes() > 0 {
            let len = request.available_bytes().min(PIECE);
            let piece = &mut self.piece[..len];
            request.read_exact(piece).map_err(|_| Failure::Malformed)?;
            image.write(piece, offset)?;
            offset += len as u64;
        }
        self.written(&image)
    }

    fn flush(&self) -> Result<(), Failure> {
        Ok(self.image.lock().flush()?)
    }

    fn identify(&self, room: &mut Writer<'_>) -> Result<(), Failure> {
        room.write_all(&self.id).map_err(|_| Failure::Malformed)
    }

    /// Discards sectors or makes them read as zeroes.
    fn clear(&self, kind: u32, request: &mut Reader<'_>) -> Result<(), Failure> {
        self.check_writable()?;
        // The configuration allows one; many would keep whoever waits for the thread.
        if request.available_bytes() > SEGMENT {
            return Err(Failure::Io);
        }
        let mut image = self.image.lock();
        if request.available_bytes() > 0 {
            let mut segment = [0; SEGMENT];
            request
                .read_exact(&mut segment)
                .map_err(|_| Failure::Malformed)?;
            let [low, high, sectors, flags] = words(&segment);
            let sector = u64::from(high) << 32 | u64::from(low);
            let zeroes = kind == VIRTIO_BLK_T_WRITE_ZEROES;
            let known = match zeroes {
                true => VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
                false => 0,
            };
            if flags & !known != 0 {
                return Err(Failure::Unsupported);
            }
            if sectors > MOST_SECTORS {
                return Err(Failure::Io);
            }
            let len = u64::from(sectors) * SECTOR;
            let offset = self.check(sector, len)?;
            match zeroes && flags == 0 {
                true => image.write_zeroes(offset, len)?,
                false => image.discard(offset, len)?,
            }
        }
        self.written(&image)
    }

    fn written(&self, image: &Image) -> Result<(), Failure> {
        if self.write_through.load(SeqCst) {
            image.flush()?;
        }
        Ok(())
    }

    fn check_writable(&self) -> Result<(), Failure> {
        match self.read_only {
            true => Err(Failure::Io),
            false => Ok(()),
        }
    }

    /// The offset in bytes of `sector`, if `len` bytes from there are whole sectors of the disk.
    fn check(&self, sector: u64, len: u64) -> Result<u64, Failure> {
        let sectors = len / SECTOR;
        let end = sector
            .checked_add(sectors)
            .filter(|end| *end <= self.capacity);
        match end {
            Some(_) if len.is_multiple_of(SECTOR) => Ok(sector * SECTOR),
            _ => Err(Failure::Io),
        }
    }
}

/// The four little-endian words of a header or a segment.
fn words(bytes: &[u8; 16]) -> [u32; 4] {
    let (words, _) = bytes.as_chunks();
    [0, 1, 2, 3].map(|at: usize| u32::from_le_bytes(words[at]))
}
