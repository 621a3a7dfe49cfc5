//! What is held against the promise, and every state that it is held against.

use std::sync::Arc;

use cowcloop_engine::format::cowfile::head::{Head, HEAD_BYTES};
use cowcloop_engine::format::cowfile::{read_head, Access};
use cowcloop_engine::overlay::Overlay;
use cowcloop_engine::{ErrorKind, Layer, Result};

use crate::disk::SimDisk;
use crate::medium::{Files, Image};
use crate::numbers::Numbers;
use crate::world::WINDOWS;

/// What came of a check: how the promise was broken, if it was.
pub type Outcome<T = ()> = std::result::Result<T, String>;

/// All states of the disk that a power cut may leave now, or so many of them.
pub fn states_of(numbers: &mut Numbers, files: &Files, samples: usize) -> Vec<Vec<usize>> {
    let choices = files.choices();
    let all = choices.iter().try_fold(1, |n: usize, c| n.checked_mul(*c));
    if let Some(all) = all.filter(|n| *n <= samples) {
        let state = |mut number: usize| {
            let next = |n: &usize| {
                let pick = number % n;
                number /= n;
                pick
            };
            choices.iter().map(next).collect()
        };
        return (0..all).map(state).collect();
    }
    let newest: Vec<usize> = choices.iter().map(|n| n - 1).collect();
    let mut states = vec![vec![0; choices.len()], newest.clone()];
    while states.len() < samples {
        // Half of them lose one sector only, or keep one only.
        let one = numbers.below(choices.len());
        states.push(match numbers.below(4) {
            0 => {
                let mut picks = newest.clone();
                picks[one] = 0;
                picks
            }
            1 => {
                let mut picks = vec![0; choices.len()];
                picks[one] = choices[one] - 1;
                picks
            }
            _ => choices.iter().map(|n| numbers.below(*n)).collect(),
        });
    }
    states
}

/// Whether a disk that held `start` was changed behind a head that still says otherwise.
pub fn changed_before_its_head(start: &Image, image: &Image) -> Outcome<bool> {
    let generation = |image: &Image| {
        let head: Result<(Head, _)> = read_head(&SimDisk::new(image.clone()));
        head.map(|(head, _)| head.mark.map(|mark| mark.generation)).map_err(|e| e.to_string())
    };
    Ok(generation(start)? == generation(image)? && !start.same_from(image, HEAD_BYTES))
}

/// After a failed sync everything that changes the file must be refused.
pub fn check_refused(poisoned: &mut bool, outcome: &Result<()>) -> Outcome {
    match outcome {
        Ok(()) if *poisoned => Err("a change was accepted after a failed sync".into()),
        Err(error) if *poisoned && error.kind() != ErrorKind::Poisoned => {
            Err(format!("refused for another reason than the failed sync: {error}"))
        }
        Err(error) if error.to_string().contains("sync failed") => {
            *poisoned = true;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Closed cleanly, a cowfile is what the original driver accepts.
pub fn check_closed(disk: &Arc<SimDisk>, overlay: &Overlay, lower: &Arc<dyn Layer>) -> Outcome {
    overlay.write_at(&[1; 700], WINDOWS[1]).map_err(|e| e.to_string())?;
    overlay.close().map_err(|e| e.to_string())?;
    let (head, _) = read_head(&**disk).map_err(|e| e.to_string())?;
    let bits = overlay.cowfile().bitmap().count();
    if (head.version, head.dirty, head.cowused) != (1, false, bits) {
        return Err(format!("a closed cowfile has the head {head:?}"));
    }
    match Overlay::open(disk.clone(), lower.clone(), Access::Writable) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("a closed cowfile cannot be opened: {error}")),
    }
}
