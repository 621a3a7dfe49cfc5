//! A queue of the device: its thread takes requests from the kernel, gives them to the pool, and
//! hands the answers over. It does nothing that could take long.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::Arc;

use io_uring::{opcode, squeue, types, IoUring};
use parking_lot::Mutex;
use rustix::event::{eventfd, EventfdFlags};
use rustix::io::Errno;
use rustix::param::page_size;

use super::abi::{self, Info, Request};
use super::data::Data;
use super::pool::{Job, Pool};

/// In a completion: answers have come. Requests have their numbers there.
const WOKEN: u64 = u64::MAX;

/// How far the end of a device has come.
#[derive(Debug, Default)]
pub struct Course {
    /// The device is being stopped, and the kernel gives back the places of requests.
    pub stopping: AtomicBool,
    /// This server gives the device up: what it has not answered is for another one.
    pub given_up: AtomicBool,
}

/// What the threads that handle requests share with their queue.
pub struct Queue {
    index: u16,
    depth: u16,
    file: Arc<File>,
    descriptions: Descriptions,
    /// Results of requests: bytes, or an errno below 0.
    answers: Mutex<Vec<(u16, i32)>>,
    wake: OwnedFd,
    course: Arc<Course>,
}

impl Queue {
    pub fn new(
        file: &Arc<File>,
        info: &Info,
        index: u16,
        course: &Arc<Course>,
    ) -> io::Result<Queue> {
        Ok(Queue {
            index,
            depth: info.depth,
            file: file.clone(),
            descriptions: Descriptions::map(file, index, info.depth)?,
            answers: Mutex::new(Vec::with_capacity(info.depth.into())),
            wake: eventfd(0, EventfdFlags::CLOEXEC)?,
            course: course.clone(),
        })
    }

    /// A request that has come and is not answered yet.
    pub fn request(&self, tag: u16) -> Request {
        self.descriptions.request(tag)
    }

    /// Answers a request, unless that is left to another server.
    pub fn answer(&self, tag: u16, result: i32) {
        if self.course.given_up.load(Ordering::SeqCst) {
            return;
        }
        let first = {
            let mut answers = self.answers.lock();
            answers.push((tag, result));
            answers.len() == 1
        };
        if first {
            // Fails only when the counter is at its end, and then the thread wakes too.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }

    /// The thread of the queue, until the device is stopped. `ready` is told once the kernel can
    /// send requests.
    pub fn run(&self, pool: &Pool, data: &Data, ready: Sender<io::Result<()>>) -> io::Result<()> {
        // Nothing is lost when it is not heard: the door has been given up then.
        let mut ring = match self.begin(data) {
            Ok(ring) => {
                let _ = ready.send(Ok(()));
                ring
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                return Ok(());
            }
        };
        // The door waits until no queue has one.
        drop(ready);
        let mut left = self.depth;
        let mut taken = Vec::with_capacity(self.depth.into());
        while left > 0 {
            match ring.submit_and_wait(1) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            let (_, mut submissions, completions) = ring.split();
            let mut woken = false;
            for done in completions {
                match (done.user_data(), done.result()) {
                    (WOKEN, _) => woken = true,
                    (tag, 0) => pool.handle(Job { queue: self.index, tag: tag as u16 }),
                    _ if self.course.stopping.load(Ordering::SeqCst) => left -= 1,
                    // A place that is lost takes no more requests, and one that the kernel has
                    // for it would wait without an end: another server has to take over.
                    (_, code) => return Err(io::Error::from_raw_os_error(-code)),
                }
            }
            if woken {
                std::mem::swap(&mut *self.answers.lock(), &mut taken);
                for (tag, result) in taken.drain(..) {
                    let job = Job { queue: self.index, tag };
                    let code = abi::queue::COMMIT_AND_FETCH_REQ;
                    push(&mut submissions, &self.command(code, job, result, data))?;
                }
                push(&mut submissions, &self.wait_for_answers())?;
            }
        }
        Ok(())
    }

    /// Makes the ring, and asks for a request in each place.
    fn begin(&self, data: &Data) -> io::Result<IoUring> {
        let mut ring = IoUring::builder()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_defer_taskrun()
            .build(u32::from(self.depth) + 1)?;
        let mut submissions = ring.submission();
        for tag in 0..self.depth {
            let job = Job { queue: self.index, tag };
            push(&mut submissions, &self.command(abi::queue::FETCH_REQ, job, 0, data))?;
        }
        push(&mut submissions, &self.wait_for_answers())?;
        drop(submissions);
        ring.submit()?;
        Ok(ring)
    }

    fn command(&self, code: u32, job: Job, result: i32, data: &Data) -> squeue::Entry {
        let parameters = abi::queue::command(job.queue, job.tag, result, data.address(job));
        opcode::UringCmd16::new(types::Fd(self.file.as_raw_fd()), code)
            .cmd(parameters)
            .build()
            .user_data(job.tag.into())
    }

    fn wait_for_answers(&self) -> squeue::Entry {
        // The kernel may write to it for as long as the ring is there, and that is not known; its
        // content is of no use.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.as_ptr().cast::<u8>();
        opcode::Read::new(types::Fd(self.wake.as_raw_fd()), count, 8).build().user_data(WOKEN)
    }
}

fn push(submissions: &mut squeue::SubmissionQueue<'_>, entry: &squeue::Entry) -> io::Result<()> {
    // SAFETY: what an entry points to lives as long as the process, or, a request's buffer, until
    // all of the device's requests are answered.
    unsafe { submissions.push(entry) }.map_err(|_| Errno::NOBUFS.into())
}

/// The memory in which the driver describes requests.
struct Descriptions {
    start: *mut libc::c_void,
    length: usize,
    depth: u16,
}

// SAFETY: the memory is only read, and the driver does not change a description between a
// request's coming and its answer.
unsafe impl Send for Descriptions {}
// SAFETY: as above.
unsafe impl Sync for Descriptions {}

impl Descriptions {
    fn map(file: &File, queue: u16, depth: u16) -> io::Result<Descriptions> {
        let (offset, length) = abi::queue::descriptions(queue, depth, page_size());
        // SAFETY: the kernel chooses the place.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                file.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Descriptions { start, length, depth })
    }

    fn request(&self, tag: u16) -> Request {
        assert!(tag < self.depth);
        let at = usize::from(tag) * abi::queue::DESCRIPTION;
        // SAFETY: it lies within the memory, which is mapped as long as this lives.
        let bytes = unsafe {
            self.start.cast::<u8>().add(at).cast::<[u8; abi::queue::DESCRIPTION]>().read_volatile()
        };
        Request::decode(&bytes)
    }
}

impl Drop for Descriptions {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nothing borrows from it.
        unsafe { libc::munmap(self.start, self.length) };
    }
}
