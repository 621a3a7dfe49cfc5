//! From the kernel's requests to the server's, and back.

use std::sync::Arc;

use cowcloop_server::{Connection, Fua, ZeroFlags};

use super::abi::{operation, Request};
use super::data::Data;
use super::pool::{Job, Work};
use super::queue::Queue;

/// Zeros to write.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// Handles the requests of a device.
pub struct Handler {
    pub connection: Connection,
    pub queues: Vec<Arc<Queue>>,
    pub data: Arc<Data>,
    /// The most bytes of a request.
    pub max_bytes: usize,
}

impl Work for Handler {
    fn buffer(&self) -> usize {
        self.data.own_buffer(self.max_bytes)
    }

    fn handle(&self, job: Job, buffer: &mut [u8]) {
        let queue = &self.queues[usize::from(job.queue)];
        let result = match self.done(job, &queue.request(job.tag), buffer) {
            Ok(bytes) => bytes as i32,
            Err(errno) => -told(errno),
        };
        queue.answer(job.tag, result);
    }

    fn fail(&self, job: Job) {
        self.queues[usize::from(job.queue)].answer(job.tag, -libc::EIO);
    }
}

impl Handler {
    /// Bytes that were read or written, or an errno.
    fn done(&self, job: Job, request: &Request, own: &mut [u8]) -> Result<u64, i32> {
        let Request { offset, length, flags, .. } = *request;
        let connection = &self.connection;
        let fua = Fua(flags & operation::FUA != 0);
        let data_length = usize::try_from(length).map_err(|_| libc::EIO)?;
        let changed = match request.operation {
            operation::READ => {
                let read = |buffer: &mut [u8]| connection.read(buffer, offset);
                return self.data.fill(job, data_length, own, read).map(|()| length);
            }
            operation::WRITE => {
                let write = |buffer: &[u8]| connection.write(buffer, offset, fua);
                return self.data.take(job, data_length, own, write).map(|()| length);
            }
            operation::FLUSH => connection.flush(),
            operation::DISCARD => connection.trim(offset, length, fua),
            operation::WRITE_ZEROES if flags & operation::NO_UNMAP != 0 => {
                self.write_zeros(offset, length, fua)
            }
            operation::WRITE_ZEROES => {
                connection.zero(offset, length, ZeroFlags { may_trim: true, fast: false, fua })
            }
            _ => return Err(libc::EOPNOTSUPP),
        };
        changed.map_or_else(|error| Err(error.errno()), |()| Ok(0))
    }

    /// Zeros that must not become a hole.
    fn write_zeros(&self, offset: u64, length: u64, fua: Fua) -> cowcloop_engine::Result<()> {
        let end = offset.saturating_add(length);
        let mut at = offset;
        while at < end {
            let part = (end - at).min(ZEROS.len() as u64);
            self.connection.write(&ZEROS[..part as usize], at, Fua(false))?;
            at += part;
        }
        if fua.0 {
            self.connection.flush()?;
        }
        Ok(())
    }
}

/// The errno that tells the block layer most: others have a meaning of their own there, such as
/// that the request is to be repeated.
fn told(errno: i32) -> i32 {
    match errno {
        libc::ENOSPC | libc::EDQUOT | libc::EFBIG => libc::ENOSPC,
        libc::EOPNOTSUPP => libc::EOPNOTSUPP,
        _ => libc::EIO,
    }
}
