//! A server that is killed, or whose sync failed, a machine that goes on, and a power cut
//! after that: what the first one left is for the next one to see to.

use std::io::ErrorKind;
use std::sync::Arc;

use cowcloop_engine::format::cowfile::head::MAPUNIT;
use cowcloop_engine::format::cowfile::Access;
use cowcloop_engine::overlay::Overlay;
use cowcloop_engine::Layer;

use crate::disk::{Fault, SimDisk};
use crate::medium::{Files, Image};
use crate::world::{base, new_cowfile, Form, DEVICE, WINDOWS};

/// A block that the second page of the bitmap tells of: the first one is written with the head.
const FAR: u64 = WINDOWS[2];

fn new_disk() -> Arc<SimDisk> {
    Arc::new(SimDisk::new(new_cowfile(Form::NEW, &*base(false))))
}

fn open(disk: &Arc<SimDisk>) -> Overlay {
    Overlay::open(disk.clone(), base(false), Access::Writable).unwrap()
}

fn read(layer: &dyn Layer, at: u64) -> [u8; MAPUNIT as usize] {
    let mut block = [0; MAPUNIT as usize];
    layer.read_at(&mut block, at).unwrap();
    block
}

fn block(byte: u8) -> [u8; MAPUNIT as usize] {
    [byte; MAPUNIT as usize]
}

/// What a power cut leaves now that loses all that was not synced.
fn durable(disk: &SimDisk) -> Vec<Image> {
    let (start, events) = disk.history();
    let mut files = Files::new(vec![start]);
    events.iter().for_each(|event| files.apply(event));
    let nothing_more = vec![0; files.choices().len()];
    files.cut(&nothing_more)
}

fn after_a_cut(disk: &SimDisk) -> Overlay {
    open(&Arc::new(SimDisk::new(durable(disk).remove(0))))
}

/// The `call`-th call of a flush fails: a sync, the write of the bitmap, a sync.
fn flush_fails(disk: &SimDisk, overlay: &Overlay, call: u64, kind: ErrorKind) {
    disk.inject(Some(Fault { call, kind }));
    overlay.flush().unwrap_err();
    disk.inject(None);
}

#[test]
fn what_a_killed_server_wrote_is_durable_once_the_next_one_has_flushed() {
    let disk = new_disk();
    let first = open(&disk);
    first.write_at(&block(1), 0).unwrap();
    first.flush().unwrap();
    first.write_at(&block(2), 0).unwrap();
    drop(first);

    let second = open(&disk);
    assert_eq!(read(&second, 0), block(2));
    second.flush().unwrap();
    assert_eq!(read(&after_a_cut(&disk), 0), block(2));
}

#[test]
fn a_clean_end_after_a_kill_needs_no_repair() {
    for call in 1..=2 {
        let disk = new_disk();
        let first = open(&disk);
        first.write_at(&block(1), 0).unwrap();
        first.flush().unwrap();
        first.write_at(&block(3), 5 * MAPUNIT).unwrap();
        flush_fails(&disk, &first, call, ErrorKind::Interrupted);
        drop(first);

        open(&disk).close().unwrap();
        let (start, events) = disk.history();
        let mut files = Files::new(vec![start]);
        for event in &events {
            files.apply(event);
            let choices = files.choices();
            if choices.len() > 12 {
                continue;
            }
            for number in 0..choices.iter().product() {
                let mut rest: usize = number;
                let pick = |choice: &usize| {
                    let pick = rest % choice;
                    rest /= choice;
                    pick
                };
                let picks: Vec<usize> = choices.iter().map(pick).collect();
                open(&Arc::new(SimDisk::new(files.cut(&picks).remove(0))));
            }
        }
    }
}

/// A failed sync of the bitmap, or of the data, by every dice of the disk: what the next server
/// shows, its flush makes durable, and its clean end needs no repair.
#[test]
fn what_is_shown_after_a_failed_sync_survives() {
    for seed in 0..64 {
        for (call, pinned, clean) in
            [(0, 0, false), (2, 0, false), (2, 1 << 20, false), (2, 0, true), (2, 1 << 20, true)]
        {
            let image = new_cowfile(Form::NEW, &*base(false));
            let disk = SimDisk::machine(vec![image], seed).remove(0);
            disk.pin(pinned);
            let first = open(&disk);
            first.write_at(&block(1), FAR).unwrap();
            first.flush().unwrap();
            first.write_at(&block(2), FAR).unwrap();
            first.write_at(&block(3), FAR + 8 * MAPUNIT).unwrap();
            flush_fails(&disk, &first, call, ErrorKind::Other);
            drop(first);

            let second = open(&disk);
            let seen = [FAR, FAR + 8 * MAPUNIT].map(|at| (at, read(&second, at)));
            assert_ne!(seen[0].1, read(&*base(false), FAR), "it was flushed");
            if clean {
                second.close().unwrap();
            } else {
                second.write_at(&block(4), 0).unwrap();
                second.flush().unwrap();
            }
            let after = after_a_cut(&disk);
            for (at, seen) in seen {
                assert_eq!(read(&after, at), seen, "seed {seed}, call {call}, {at}");
            }
        }
    }
}

/// The system shows a length that never reached the medium: what is discarded up to there must
/// not count on it.
#[test]
fn a_length_that_was_lost_is_not_counted_on() {
    for seed in 0..16 {
        let image = new_cowfile(Form::NEW, &*base(false));
        let disk = SimDisk::machine(vec![image], seed).remove(0);
        let first = open(&disk);
        first.write_at(&block(1), DEVICE - MAPUNIT).unwrap();
        flush_fails(&disk, &first, 0, ErrorKind::Other);
        drop(first);

        let second = open(&disk);
        second.write_zeroes(FAR, 8 * MAPUNIT, false).unwrap();
        second.flush().unwrap();
        assert_eq!(read(&after_a_cut(&disk), FAR), block(0));
    }
}

/// A write-back failed and a kill came before any sync told of it: the next server is told,
/// once, and the one after it shows what is on the medium.
#[test]
fn a_write_back_that_failed_unseen_is_told() {
    for seed in 0..16 {
        let image = new_cowfile(Form::NEW, &*base(false));
        let disk = SimDisk::machine(vec![image], seed).remove(0);
        let first = open(&disk);
        first.write_at(&block(1), FAR).unwrap();
        first.flush().unwrap();
        first.write_at(&block(2), FAR).unwrap();
        disk.fail_write_back();
        drop(first);

        let refused = Overlay::open(disk.clone(), base(false), Access::Writable).err().unwrap();
        assert!(refused.to_string().contains("attach again"), "{refused}");
        let second = open(&disk);
        let seen = read(&second, FAR);
        second.flush().unwrap();
        assert_eq!(read(&after_a_cut(&disk), FAR), seen);
    }
}

/// A cowfile that lies below others is settled as well, although nothing is written to it.
#[test]
fn a_lower_cowfile_is_on_the_medium_before_it_is_shown() {
    let disk = new_disk();
    let first = open(&disk);
    first.write_at(&block(1), FAR).unwrap();
    first.flush().unwrap();
    first.write_at(&block(2), FAR).unwrap();
    drop(first);
    let lower = Overlay::open(disk.clone(), base(false), Access::ReadOnly).unwrap();
    let seen = read(&lower, FAR);
    assert_eq!(read(&after_a_cut(&disk), FAR), seen);
}
