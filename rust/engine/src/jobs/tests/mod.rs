//! Tests of whole pipelines, on files, pipes and devices as users have them.

mod commit;
mod create;
mod extract;
mod output;
mod pieces;
mod verify;

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use tempfile::TempDir;

use super::*;
use crate::progress::{NoProgress, Progress};
use crate::Result;

/// Bytes that look like data to compressors: words from a small vocabulary,
/// with runs of zeros and of noise between them.
fn sample(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = move || {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    };
    let mut data = Vec::with_capacity(length + 4096);
    while data.len() < length {
        match next() % 40 {
            0 => data.resize(data.len() + (next() % 9000) as usize, 0),
            1 => (0..next() % 3000).for_each(|_| data.push(next() as u8)),
            n => data.extend_from_slice(format!("word{} ", n * n % 97).as_bytes()),
        }
    }
    data.truncate(length);
    data
}

/// Stops the job once this many bytes are done.
struct StopAfter(u64, AtomicU64);

impl StopAfter {
    fn new(bytes: u64) -> Self {
        StopAfter(bytes, AtomicU64::new(0))
    }
}

impl Progress for StopAfter {
    fn advance(&self, bytes: u64) {
        self.1.fetch_add(bytes, Ordering::SeqCst);
    }

    fn cancelled(&self) -> bool {
        self.1.load(Ordering::SeqCst) >= self.0
    }
}

/// Sums up what it is told.
#[derive(Default)]
struct Count {
    total: AtomicU64,
    done: AtomicU64,
}

impl Progress for Count {
    fn total(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::SeqCst);
    }

    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::SeqCst);
    }
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// All names in a directory.
fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn write(directory: &TempDir, name: &str, data: &[u8]) -> PathBuf {
    let path = directory.path().join(name);
    std::fs::write(&path, data).unwrap();
    path
}

fn open(path: &Path) -> Output {
    Output::open(path, &[], Replace::Anything).unwrap()
}

fn make_fifo(directory: &TempDir) -> PathBuf {
    let path = directory.path().join("pipe-out");
    let _ = std::fs::remove_file(&path);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from(0o600),
        0,
    )
    .unwrap();
    path
}

/// An output that is a pipe, and what arrives at its other end.
fn pipe_out(directory: &TempDir) -> (Output, JoinHandle<Vec<u8>>) {
    let path = make_fifo(directory);
    let reader = std::thread::spawn({
        let path = path.clone();
        move || {
            let mut data = Vec::new();
            File::open(path).unwrap().read_to_end(&mut data).unwrap();
            data
        }
    });
    (open(&path), reader)
}

/// An input that is a pipe, which gives the data in odd pieces.
fn pipe_in(data: Vec<u8>) -> Input {
    let (reader, mut writer) = std::io::pipe().unwrap();
    std::thread::spawn(move || {
        for piece in data.chunks(7777) {
            if writer.write_all(piece).is_err() {
                return;
            }
        }
    });
    Input::pipe("pipe", File::from(std::os::fd::OwnedFd::from(reader))).unwrap()
}

fn file_in(path: &Path) -> Input {
    Input::open(path).unwrap()
}

#[track_caller]
fn line<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => panic!("an error was expected"),
        Err(error) => error.to_string(),
    }
}
