//! A server that is killed, a machine that goes on, and a power cut after that:
//! what the first one had not yet synced is for the next one to sync.

use std::io::ErrorKind;
use std::sync::Arc;

use cowcloop_engine::cowfile::{Access, Cowfile};
use cowcloop_engine::overlay::Overlay;
use cowcloop_engine::Layer;

use crate::disk::{Fault, Image, Pending, SimDisk};
use crate::scenario;

fn open(disk: &Arc<SimDisk>, lower: &Arc<dyn Layer>) -> Overlay {
    Overlay::open(disk.clone(), lower.clone(), Access::Writable).unwrap()
}

/// Everything that a power cut can leave after each event that there was.
fn every_cut(disk: &SimDisk, mut check: impl FnMut(Image)) {
    let (start, events) = disk.history();
    let mut pending = Pending::new(start);
    for event in &events {
        pending.apply(event);
        let (choices, lengths) = pending.choices();
        if choices.len() > 12 {
            continue;
        }
        for number in 0..choices.iter().product() {
            let mut rest: usize = number;
            let picks: Vec<usize> = choices
                .iter()
                .map(|choice| {
                    let pick = rest % choice;
                    rest /= choice;
                    pick
                })
                .collect();
            check(pending.cut(&picks, lengths - 1));
        }
    }
}

#[test]
fn what_a_killed_server_wrote_is_durable_once_the_next_one_has_flushed() {
    let lower = scenario::lower(false);
    let disk = Arc::new(SimDisk::default());
    Cowfile::create(&*disk, &*lower, lower.size()).unwrap();
    let first = open(&disk, &lower);
    first.write_at(&[1; 1024], 0).unwrap();
    first.flush().unwrap();
    first.write_at(&[2; 1024], 0).unwrap();
    drop(first);

    let second = open(&disk, &lower);
    let mut seen = [0; 1024];
    second.read_at(&mut seen, 0).unwrap();
    assert_eq!(seen, [2; 1024]);
    second.flush().unwrap();

    let (start, events) = disk.history();
    let mut pending = Pending::new(start);
    events.iter().for_each(|event| pending.apply(event));
    let nothing_more = vec![0; pending.choices().0.len()];
    let after = Arc::new(SimDisk::new(pending.cut(&nothing_more, 0)));
    open(&after, &lower).read_at(&mut seen, 0).unwrap();
    assert_eq!(seen, [2; 1024]);
}

#[test]
fn a_clean_end_after_a_kill_needs_no_repair() {
    let lower = scenario::lower(false);
    // Calls of a flush: sync, write of the bitmap, sync. The kill comes before the last.
    for call in 1..=2 {
        let disk = Arc::new(SimDisk::default());
        Cowfile::create(&*disk, &*lower, lower.size()).unwrap();
        let first = open(&disk, &lower);
        first.write_at(&[1; 1024], 0).unwrap();
        first.flush().unwrap();
        first.write_at(&[3; 1024], 5 * 1024).unwrap();
        disk.inject(Some(Fault { call, kind: ErrorKind::Interrupted }));
        first.flush().unwrap_err();
        disk.inject(None);
        drop(first);

        open(&disk, &lower).close().unwrap();
        every_cut(&disk, |image| {
            let after = Arc::new(SimDisk::new(image));
            if let Err(error) = Overlay::open(after, lower.clone(), Access::Writable) {
                // Before the cowfile was made it was none.
                assert!(!error.to_string().contains("cowused"), "{error}");
            }
        });
    }
}
