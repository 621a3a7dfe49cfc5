//! The kernel's interface, from its `include/uapi/linux/ublk_cmd.h`: numbers, and what lies where
//! in the structures. They are written and read field by field, so nothing here is unsafe.

/// Bytes of a sector, the unit of every position and length.
pub const SECTOR: u64 = 512;

/// What the driver can do, as bits of a device's flags.
pub mod flags {
    /// A device outlives its server.
    pub const USER_RECOVERY: u64 = 1 << 3;
    /// The next server is sent what the last one had not answered.
    pub const USER_RECOVERY_REISSUE: u64 = 1 << 4;
    /// The device belongs to a user without privileges.
    pub const UNPRIVILEGED_DEV: u64 = 1 << 5;
    /// Commands are numbered as ioctls are.
    pub const CMD_IOCTL_ENCODE: u64 = 1 << 6;
    /// The server reads and writes a request's data through the device's control file.
    pub const USER_COPY: u64 = 1 << 7;
}

/// How it stands with a device.
pub mod state {
    /// A server answers, or has just been killed.
    pub const LIVE: u16 = 1;
}

/// What a device is, as bits of its attributes.
pub mod attributes {
    pub const READ_ONLY: u32 = 1 << 0;
    pub const VOLATILE_CACHE: u32 = 1 << 2;
    pub const FUA: u32 = 1 << 3;
}

/// Commands to the driver.
pub mod control {
    use super::{ioctl, READ, READ_WRITE};

    /// Bytes of a command's parameters.
    const SIZE: u32 = 32;

    pub const ADD_DEV: u32 = ioctl(READ_WRITE, 0x04, SIZE);
    pub const DEL_DEV: u32 = ioctl(READ_WRITE, 0x05, SIZE);
    pub const START_DEV: u32 = ioctl(READ_WRITE, 0x06, SIZE);
    pub const STOP_DEV: u32 = ioctl(READ_WRITE, 0x07, SIZE);
    pub const SET_PARAMS: u32 = ioctl(READ_WRITE, 0x08, SIZE);
    pub const START_USER_RECOVERY: u32 = ioctl(READ_WRITE, 0x10, SIZE);
    pub const END_USER_RECOVERY: u32 = ioctl(READ_WRITE, 0x11, SIZE);
    pub const GET_DEV_INFO2: u32 = ioctl(READ, 0x12, SIZE);
    pub const GET_FEATURES: u32 = ioctl(READ, 0x13, SIZE);
    pub const DEL_DEV_ASYNC: u32 = ioctl(READ, 0x14, SIZE);
}

/// Commands to a queue.
pub mod queue {
    use super::{ioctl, READ_WRITE};

    /// Bytes of a command's parameters.
    const SIZE: u32 = 16;

    pub const FETCH_REQ: u32 = ioctl(READ_WRITE, 0x20, SIZE);
    pub const COMMIT_AND_FETCH_REQ: u32 = ioctl(READ_WRITE, 0x21, SIZE);

    /// Bytes of the description of a request.
    pub const DESCRIPTION: usize = 24;
    /// The most requests that a queue may have: where the next queue's descriptions begin.
    const MAX_DEPTH: usize = 4096;

    /// Where a queue's descriptions lie in the control file's memory, and how long they are.
    pub fn descriptions(queue: u16, depth: u16, page: usize) -> (u64, usize) {
        let size = |requests: usize| (requests * DESCRIPTION).next_multiple_of(page);
        (u64::from(queue) * size(MAX_DEPTH) as u64, size(depth.into()))
    }

    /// Where a request's data lie in the control file.
    pub fn data(queue: u16, tag: u16) -> u64 {
        0x8000_0000 + (u64::from(queue) << 41) + (u64::from(tag) << 25)
    }

    /// The parameters of a command: with it comes the result of the request before.
    pub fn command(queue: u16, tag: u16, result: i32, buffer: u64) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&queue.to_ne_bytes());
        bytes[2..4].copy_from_slice(&tag.to_ne_bytes());
        bytes[4..8].copy_from_slice(&result.to_ne_bytes());
        bytes[8..].copy_from_slice(&buffer.to_ne_bytes());
        bytes
    }
}

const READ: u32 = 2;
const READ_WRITE: u32 = 3;

const fn ioctl(direction: u32, number: u32, size: u32) -> u32 {
    direction << 30 | size << 16 | (b'u' as u32) << 8 | number
}

/// Kinds of requests.
pub mod operation {
    pub const READ: u8 = 0;
    pub const WRITE: u8 = 1;
    pub const FLUSH: u8 = 2;
    pub const DISCARD: u8 = 3;
    pub const WRITE_ZEROES: u8 = 5;

    /// The change is to be durable before it is answered.
    pub const FUA: u32 = 1 << 13;
    /// The zeros are not to become a hole.
    pub const NO_UNMAP: u32 = 1 << 15;
}

/// The parameters of a command to the driver, in the larger of the two sizes that a ring has.
pub fn command(device: u32, buffer: u64, length: u16, path: u16, data: u64) -> [u8; 80] {
    let mut bytes = [0; 80];
    bytes[..4].copy_from_slice(&device.to_ne_bytes());
    // It is about no queue.
    bytes[4..6].copy_from_slice(&u16::MAX.to_ne_bytes());
    bytes[6..8].copy_from_slice(&length.to_ne_bytes());
    bytes[8..16].copy_from_slice(&buffer.to_ne_bytes());
    bytes[16..24].copy_from_slice(&data.to_ne_bytes());
    bytes[24..26].copy_from_slice(&path.to_ne_bytes());
    bytes
}

/// A device as the driver keeps it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Info {
    pub queues: u16,
    pub depth: u16,
    pub state: u16,
    /// The most bytes of a request.
    pub max_bytes: u32,
    /// The number N in the devices' names.
    pub id: u32,
    /// The process that serves it, or served it last.
    pub pid: i32,
    pub flags: u64,
    /// The driver keeps it for the server.
    pub mark: u64,
}

impl Info {
    pub const SIZE: usize = 64;

    pub fn encode(&self) -> [u8; Info::SIZE] {
        let mut bytes = [0; Info::SIZE];
        bytes[..2].copy_from_slice(&self.queues.to_ne_bytes());
        bytes[2..4].copy_from_slice(&self.depth.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.state.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.max_bytes.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.id.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.pid.to_ne_bytes());
        bytes[24..32].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[32..40].copy_from_slice(&self.mark.to_ne_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; Info::SIZE]) -> Info {
        Info {
            queues: u16::from_ne_bytes(field(bytes, 0)),
            depth: u16::from_ne_bytes(field(bytes, 2)),
            state: u16::from_ne_bytes(field(bytes, 4)),
            max_bytes: u32::from_ne_bytes(field(bytes, 8)),
            id: u32::from_ne_bytes(field(bytes, 12)),
            pid: i32::from_ne_bytes(field(bytes, 16)),
            flags: u64::from_ne_bytes(field(bytes, 24)),
            mark: u64::from_ne_bytes(field(bytes, 32)),
        }
    }
}

/// What the block layer is to know of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    pub attributes: u32,
    /// Block sizes in bytes, each a power of two.
    pub logical_block: u32,
    pub physical_block: u32,
    pub best_io: u32,
    /// The most bytes of a request.
    pub max_bytes: u32,
    /// The device's sectors.
    pub sectors: u64,
    /// The most sectors of a discard, or of a request for zeros; 0: there are none.
    pub max_discard: u32,
    /// Bytes: what is smaller cannot be discarded.
    pub discard_block: u32,
}

impl Parameters {
    pub const SIZE: usize = 64;

    /// Basic parameters are there, and those of discards.
    const BASIC: u32 = 1 << 0;
    const DISCARD: u32 = 1 << 1;

    pub fn encode(&self) -> [u8; Parameters::SIZE] {
        let discard = self.max_discard > 0;
        let kinds = Parameters::BASIC | if discard { Parameters::DISCARD } else { 0 };
        let mut bytes = [0; Parameters::SIZE];
        put(&mut bytes, 0, Parameters::SIZE as u32);
        put(&mut bytes, 4, kinds);
        put(&mut bytes, 8, self.attributes);
        put(&mut bytes, 16, self.max_bytes / SECTOR as u32);
        if discard {
            put(&mut bytes, 44, self.discard_block);
            put(&mut bytes, 48, self.max_discard);
            put(&mut bytes, 52, self.max_discard);
            // A discard is one range.
            bytes[56..58].copy_from_slice(&1u16.to_ne_bytes());
        }
        let power = |size: u32| size.trailing_zeros() as u8;
        bytes[12] = power(self.logical_block);
        bytes[13] = power(self.physical_block);
        bytes[14] = power(self.best_io);
        bytes[15] = power(self.physical_block);
        bytes[24..32].copy_from_slice(&self.sectors.to_ne_bytes());
        bytes
    }
}

/// A request's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// One of [`operation`].
    pub operation: u8,
    pub flags: u32,
    /// Bytes, as the device has them.
    pub offset: u64,
    pub length: u64,
}

impl Request {
    pub fn decode(bytes: &[u8; queue::DESCRIPTION]) -> Request {
        let word = u32::from_ne_bytes(field(bytes, 0));
        Request {
            operation: word.to_le_bytes()[0],
            flags: word & !0xff,
            offset: u64::from_ne_bytes(field(bytes, 8)).saturating_mul(SECTOR),
            length: u64::from(u32::from_ne_bytes(field(bytes, 4))) * SECTOR,
        }
    }
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
}

/// The bytes of a field.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers that a C compiler makes of the kernel's header.
    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!(control::ADD_DEV, 0xc020_7504);
        assert_eq!(control::GET_DEV_INFO2, 0x8020_7512);
        assert_eq!(queue::FETCH_REQ, 0xc010_7520);
        assert_eq!(queue::COMMIT_AND_FETCH_REQ, 0xc010_7521);
        assert_eq!(queue::data(1, 2), 0x200_8400_0000);
        assert_eq!(queue::descriptions(1, 64, 4096), (98304, 4096));
    }

    #[test]
    fn a_device_is_read_as_it_was_written() {
        let info = Info {
            queues: 2,
            depth: 64,
            state: 1,
            max_bytes: 1 << 19,
            id: 7,
            pid: 4711,
            flags: flags::USER_COPY,
            mark: u64::MAX,
        };
        assert_eq!(Info::decode(&info.encode()), info);
        assert_eq!(&info.encode()[24..32], 128u64.to_ne_bytes());
    }

    #[test]
    fn parameters_lie_where_the_driver_looks_for_them() {
        let mut parameters = Parameters {
            attributes: attributes::FUA,
            logical_block: 512,
            physical_block: 4096,
            best_io: 1 << 16,
            max_bytes: 1 << 19,
            sectors: 1 << 33,
            max_discard: 2048,
            discard_block: 4096,
        };
        let bytes = parameters.encode();
        assert_eq!(bytes[..8], [[64, 0, 0, 0], [3, 0, 0, 0]].concat());
        assert_eq!(bytes[12..16], [9, 12, 16, 12]);
        assert_eq!(bytes[16..20], 1024u32.to_ne_bytes());
        assert_eq!(bytes[24..32], (1u64 << 33).to_ne_bytes());
        assert_eq!(bytes[44..48], 4096u32.to_ne_bytes());
        assert_eq!(bytes[56..58], 1u16.to_ne_bytes());
        parameters.max_discard = 0;
        assert_eq!(parameters.encode()[4..8], 1u32.to_ne_bytes());
        assert_eq!(parameters.encode()[40..], [0; 24]);
    }

    #[test]
    fn a_request_is_in_bytes() {
        let mut bytes = [0; queue::DESCRIPTION];
        bytes[..4].copy_from_slice(&(operation::FUA | 1).to_ne_bytes());
        bytes[4..8].copy_from_slice(&8u32.to_ne_bytes());
        bytes[8..16].copy_from_slice(&2u64.to_ne_bytes());
        let request = Request::decode(&bytes);
        let flags = operation::FUA;
        let wanted = Request { operation: operation::WRITE, flags, offset: 1024, length: 4096 };
        assert_eq!(request, wanted);
    }
}
