//! Rules that no random life hits often: a close under changes, extents that end in a block.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cowcloop_engine::format::cowfile::head::{mapsize, HEAD_BYTES, MAPUNIT, VERSION_CLOSED};
use cowcloop_engine::format::cowfile::{read_head, Access};
use cowcloop_engine::overlay::Overlay;
use cowcloop_engine::storage::Storage;
use cowcloop_engine::Layer;

use crate::disk::SimDisk;
use crate::passed_on::reads_pass;
use crate::world::{base, new_cowfile, Form, DEVICE};

/// Has a data write take so long that a close which did not wait would be done meanwhile.
#[derive(Debug)]
struct Slow {
    disk: Arc<SimDisk>,
    /// The first write of data says here that it has begun.
    began: Mutex<Option<std::sync::mpsc::Sender<()>>>,
    writing: AtomicBool,
    closed_meanwhile: AtomicBool,
}

impl Storage for Slow {
    reads_pass!();

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if offset >= HEAD_BYTES + mapsize(DEVICE / MAPUNIT) {
            if let Some(began) = self.began.lock().unwrap().take() {
                self.writing.store(true, Ordering::SeqCst);
                began.send(()).unwrap();
                // However long: a close that waits is not done before.
                std::thread::sleep(Duration::from_millis(100));
                self.writing.store(false, Ordering::SeqCst);
            }
        } else if offset == 0 && self.writing.load(Ordering::SeqCst) {
            self.closed_meanwhile.store(true, Ordering::SeqCst);
        }
        self.disk.write_all_at(buf, offset)
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        self.disk.punch_hole(offset, length)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }
}

#[test]
fn a_close_waits_for_changes_under_way() {
    let disk = Arc::new(SimDisk::new(new_cowfile(Form::NEW, &*base(false))));
    let (began, has_begun) = std::sync::mpsc::channel();
    let slow = Arc::new(Slow {
        disk: disk.clone(),
        began: Mutex::new(Some(began)),
        writing: AtomicBool::new(false),
        closed_meanwhile: AtomicBool::new(false),
    });
    let overlay = Overlay::open(slow.clone(), base(false), Access::Writable).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| overlay.write_at(&[1; MAPUNIT as usize], 0).unwrap());
        has_begun.recv().unwrap();
        overlay.close().unwrap();
    });
    assert!(!slow.closed_meanwhile.load(Ordering::SeqCst));
    let (head, _) = read_head(&*disk).unwrap();
    assert_eq!((head.version, head.cowused), (VERSION_CLOSED, 1));
}

/// Zeros over every range of blocks near the ends of extents, which lie within blocks.
#[test]
fn a_discard_over_an_extent_that_ends_within_a_block_leaves_zeros() {
    for first in 0..16 {
        for length in 1..8 {
            let disk = Arc::new(SimDisk::new(new_cowfile(Form::NEW, &*base(false))));
            let overlay = Overlay::open(disk, base(false), Access::Writable).unwrap();
            overlay.write_zeroes(first * MAPUNIT, length * MAPUNIT, false).unwrap();
            let mut found = vec![1; (length * MAPUNIT) as usize];
            overlay.read_at(&mut found, first * MAPUNIT).unwrap();
            assert!(found.iter().all(|byte| *byte == 0), "{length} blocks from {first} on");
        }
    }
}
