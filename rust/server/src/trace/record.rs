//! Notes which blocks clients read first, and writes them to a trace at the end.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cowcloop_engine::device::Device;
use cowcloop_engine::format::trace::{Header, Run, TraceReader};
use cowcloop_engine::jobs::{Output, Replace};
use cowcloop_engine::layer::Watch;
use cowcloop_engine::storage::{FileIdentity, FileStorage, Storage};
use parking_lot::Mutex;

use crate::words::reason;

/// Runs that are noted at most: what is read after so many is not read first.
const MOST_RUNS: usize = 1 << 20;

/// Bytes of lines that are written at a time.
const GATHERED: usize = 1 << 20;

/// The blocks that have been read.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    /// Set once the image is open: what was read before is its own index.
    image: OnceLock<Image>,
    runs: Mutex<Vec<Run>>,
}

#[derive(Debug)]
struct Image {
    block_size: u64,
    /// A bit for each block.
    seen: Box<[AtomicU64]>,
    begin: Instant,
}

impl Watch for Recorder {
    fn reads(&self, offset: u64, length: u64) {
        let Some(image) = self.image.get().filter(|_| length > 0) else { return };
        let last = (offset + length - 1) / image.block_size;
        for block in offset / image.block_size..=last {
            let Some(word) = image.seen.get((block / 64) as usize) else { return };
            let bit = 1 << (block % 64);
            if word.load(Ordering::Relaxed) & bit == 0
                && word.fetch_or(bit, Ordering::Relaxed) & bit == 0
            {
                self.note(block, image.begin.elapsed());
            }
        }
    }
}

impl Recorder {
    fn note(&self, block: u64, at: Duration) {
        let mut runs = self.runs.lock();
        let full = runs.len() == MOST_RUNS;
        match runs.last_mut() {
            Some(run) if run.block + run.count == block => run.count += 1,
            _ if full => {}
            _ => {
                let ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
                runs.push(Run { ms, block, count: 1 });
            }
        }
    }

    /// Begins to note what is read of the image of `device`, for the file `path`. The error is a
    /// line for the user.
    pub(crate) fn begin(
        self: &Arc<Self>,
        device: &Device,
        path: &Path,
    ) -> Result<Recording, String> {
        check_place(path)?;
        let header = Header::of(&device.status().image, &**device.base());
        let header = header.map_err(|error| error.to_string())?;
        // Made now: an error reaches the user at the start.
        let output = Output::open(path, &[] as &[FileIdentity], Replace::Plain);
        let output = output.map_err(|error| format!("record-trace: {error}"))?;
        let seen = (0..header.blocks().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let (block_size, begin) = (header.block_size, Instant::now());
        let _ = self.image.set(Image { block_size, seen, begin });
        let path = path.to_path_buf();
        Ok(Recording { recorder: self.clone(), header, output, path })
    }
}

/// Refuses a path where something is that a trace must not replace. The error is a line for the
/// user.
fn check_place(path: &Path) -> Result<(), String> {
    let line = |problem: &str| format!("record-trace: {}: {problem}", path.display());
    if may_be_replaced(path).map_err(|problem| line(&problem))? {
        Ok(())
    } else {
        Err(line("exists and is no trace: name another file"))
    }
}

/// Whether there is nothing at `path`, or a trace, or an empty file.
fn may_be_replaced(path: &Path) -> Result<bool, String> {
    if !path.try_exists().map_err(|error| reason(&error))? {
        return Ok(true);
    }
    let file = FileStorage::open(path).map_err(|error| reason(&error))?;
    let trace = || TraceReader::open(&file).map(|trace| trace.is_some());
    let empty = file.is_empty().map_err(|error| reason(&error))?;
    Ok(empty || trace().map_err(|error| reason(&error))?)
}

/// A trace under way: without a name until it is whole.
pub(crate) struct Recording {
    recorder: Arc<Recorder>,
    header: Header,
    output: Output,
    path: PathBuf,
}

impl Recording {
    /// Writes what was noted. Where nothing was read, an earlier trace stays. The error is a line
    /// for the user.
    pub(crate) fn publish(self) -> Result<(), String> {
        let Recording { recorder, header, mut output, path } = self;
        let runs = std::mem::take(&mut *recorder.runs.lock());
        if runs.is_empty() && path.try_exists().unwrap_or(true) {
            return Ok(());
        }
        // Another program may have put something there meanwhile.
        check_place(&path)?;
        let failed = |error: cowcloop_engine::Error| format!("record-trace: {error}");
        let go_on = || Ok(());
        let mut text = Vec::new();
        add_line(&mut text, &header);
        for run in &runs {
            add_line(&mut text, run);
            if text.len() >= GATHERED {
                output.append(&text, &go_on).map_err(failed)?;
                text.clear();
            }
        }
        output.append(&text, &go_on).map_err(failed)?;
        output.finish(&go_on).map_err(failed)
    }
}

fn add_line(text: &mut Vec<u8>, line: &impl serde::Serialize) {
    // Numbers and names can always be written to memory.
    let _ = serde_json::to_writer(&mut *text, line);
    let _ = text.write_all(b"\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder(blocks: u64) -> Recorder {
        let recorder = Recorder::default();
        let seen = (0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let _ = recorder.image.set(Image { block_size: 1000, seen, begin: Instant::now() });
        recorder
    }

    #[test]
    fn each_block_is_noted_once_and_neighbours_are_a_run() {
        let recorder = recorder(100);
        for (offset, length) in [(7_500, 1), (8_000, 1500), (7_000, 3_500), (0, 0), (0, 1)] {
            recorder.reads(offset, length);
        }
        let runs: Vec<_> = recorder.runs.lock().iter().map(|run| (run.block, run.count)).collect();
        assert_eq!(runs, [(7, 4), (0, 1)]);
    }

    #[test]
    fn reads_before_the_image_is_open_are_not_noted() {
        let recorder = Recorder::default();
        recorder.reads(0, 1000);
        assert!(recorder.runs.lock().is_empty());
    }

    #[test]
    fn the_memory_for_runs_is_bounded() {
        let blocks = 2 * MOST_RUNS as u64 + 100;
        let recorder = recorder(blocks);
        (0..blocks / 2).for_each(|block| recorder.reads(2 * block * 1000, 1));
        assert_eq!(recorder.runs.lock().len(), MOST_RUNS);
    }
}
