//! Commands to the driver: devices are made, started, taken over and removed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use io_uring::{opcode, squeue, types, IoUring};
use rustix::io::Errno;

use super::abi::{self, control, flags, state, Info, Parameters};
use super::node;

const PATH: &str = "/dev/ublk-control";

/// While a process that was killed still gives its files back, its device is not to be had.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(10);
/// After a kill the kernel takes back, in its own time, the places of the dead server's requests,
/// and may take those of a server that asks for requests meanwhile. Nothing tells when that is
/// done; it is a matter of milliseconds.
const SETTLE: Duration = Duration::from_millis(100);

/// How a kernel refuses a command that it does not have.
const ABSENT: [io::ErrorKind; 2] = [io::ErrorKind::Unsupported, io::ErrorKind::InvalidInput];

/// The driver's control file.
pub struct Control {
    file: File,
    ring: IoUring<squeue::Entry128>,
    /// What the kernel reads and writes while a command runs.
    buffer: Vec<u8>,
}

impl Control {
    /// Opens it. The error is a line for the user.
    pub fn open() -> Result<Control, String> {
        let opened = OpenOptions::new().read(true).write(true).open(PATH);
        let file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!(
                "{PATH} does not exist: load the kernel's module with: modprobe ublk_drv (Linux \
                 6.5 or newer has what is needed)"
            ),
            io::ErrorKind::PermissionDenied => {
                format!("{PATH}: this user may not make block devices: be root (sudo)")
            }
            _ => format!("{PATH}: {error}"),
        })?;
        let ring = IoUring::builder().build(2).map_err(|error| match error.raw_os_error() {
            Some(code) if code == Errno::PERM.raw_os_error() => {
                "io_uring is switched off (kernel.io_uring_disabled), and ublk needs it".into()
            }
            _ => format!("io_uring: {error}"),
        })?;
        Ok(Control { file, ring, buffer: Vec::new() })
    }

    /// What this driver can do.
    pub fn features(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.command(control::GET_FEATURES, u32::MAX, Some(&mut bytes), 0)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Makes a device, which is not started yet; the number `u32::MAX` lets the driver choose.
    pub fn add(&mut self, wanted: &Info) -> io::Result<Info> {
        let mut bytes = wanted.encode();
        self.command(control::ADD_DEV, wanted.id, Some(&mut bytes), 0)?;
        Ok(Info::decode(&bytes))
    }

    /// A device that there is.
    pub fn info(&mut self, id: u32) -> io::Result<Info> {
        // This command alone takes the path of any device.
        let unprivileged = Info { id, flags: flags::UNPRIVILEGED_DEV, ..Info::default() };
        let mut bytes = [0; Info::SIZE];
        self.device_command(control::GET_DEV_INFO2, &unprivileged, Some(&mut bytes), 0)?;
        Ok(Info::decode(&bytes))
    }

    /// The same of a device whose server is gone; `ResourceBusy` where it is not.
    pub fn unserved(&mut self, id: u32) -> io::Result<Info> {
        let end = Instant::now() + PATIENCE;
        loop {
            let info = self.info(id)?;
            if info.state != state::LIVE {
                return Ok(info);
            }
            if Instant::now() > end {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            sleep(PAUSE);
        }
    }

    pub fn set_parameters(&mut self, info: &Info, wanted: &Parameters) -> io::Result<()> {
        let mut bytes = wanted.encode();
        self.device_command(control::SET_PARAMS, info, Some(&mut bytes), 0)
    }

    /// Shows the device, once each of its queues waits for requests. The kernel looks for
    /// partitions before this returns.
    pub fn start(&mut self, info: &Info) -> io::Result<()> {
        self.device_command(control::START_DEV, info, None, std::process::id().into())
    }

    /// Ends the device: requests that come later fail.
    pub fn stop(&mut self, info: &Info) -> io::Result<()> {
        self.device_command(control::STOP_DEV, info, None, 0)
    }

    /// Removes a device; its number is free again when the last program has closed it.
    pub fn delete(&mut self, info: &Info) -> io::Result<()> {
        match self.device_command(control::DEL_DEV_ASYNC, info, None, 0) {
            // A kernel before 6.7, or for a device of a user's, has the command alone that waits
            // for these programs.
            Err(error) if ABSENT.contains(&error.kind()) => {
                self.device_command(control::DEL_DEV, info, None, 0)
            }
            done => done,
        }
    }

    /// Begins to take over the device of a server that is gone.
    pub fn start_recovery(&mut self, info: &Info) -> io::Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let done = self.device_command(control::START_USER_RECOVERY, info, None, 0);
            let busy = matches!(&done, Err(e) if e.kind() == io::ErrorKind::ResourceBusy);
            if done.is_ok() {
                sleep(SETTLE);
            }
            if !busy || Instant::now() > end {
                return done;
            }
            sleep(PAUSE);
        }
    }

    /// Goes on with the device, once each of its queues waits for requests.
    pub fn end_recovery(&mut self, info: &Info) -> io::Result<()> {
        self.device_command(control::END_USER_RECOVERY, info, None, std::process::id().into())
    }

    /// A command about a device. For one that belongs to a user without privileges, its path is
    /// what shows that the device is this user's.
    fn device_command(
        &mut self,
        operation: u32,
        info: &Info,
        payload: Option<&mut [u8]>,
        data: u64,
    ) -> io::Result<()> {
        if info.flags & flags::UNPRIVILEGED_DEV == 0 {
            return self.command(operation, info.id, payload, data);
        }
        let mut path = node::control_file(info.id).into_os_string().into_encoded_bytes();
        path.push(0);
        self.submit(operation, info.id, &path, payload, data)
    }

    fn command(
        &mut self,
        operation: u32,
        id: u32,
        payload: Option<&mut [u8]>,
        data: u64,
    ) -> io::Result<()> {
        self.submit(operation, id, &[], payload, data)
    }

    /// Gives a command, and waits for its end.
    fn submit(
        &mut self,
        operation: u32,
        id: u32,
        path: &[u8],
        payload: Option<&mut [u8]>,
        data: u64,
    ) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.extend_from_slice(path);
        self.buffer.extend(payload.iter().flat_map(|payload| payload.iter()));
        let length = self.buffer.len() as u16;
        let address = if length == 0 { 0 } else { self.buffer.as_mut_ptr() as u64 };
        let parameters = abi::command(id, address, length, path.len() as u16, data);
        let entry = opcode::UringCmd80::new(types::Fd(self.file.as_raw_fd()), operation)
            .cmd(parameters)
            .build();
        // SAFETY: the buffer is not touched until the command has ended, or never given back.
        unsafe { self.ring.submission().push(&entry) }.map_err(|_| Errno::AGAIN)?;
        let code =
            self.wait().inspect_err(|_| std::mem::forget(std::mem::take(&mut self.buffer)))?;
        if code < 0 {
            return Err(io::Error::from_raw_os_error(-code));
        }
        if let Some(payload) = payload {
            payload.copy_from_slice(&self.buffer[path.len()..]);
        }
        Ok(())
    }

    fn wait(&mut self) -> io::Result<i32> {
        loop {
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            if let Some(done) = self.ring.completion().next() {
                return Ok(done.result());
            }
        }
    }
}
