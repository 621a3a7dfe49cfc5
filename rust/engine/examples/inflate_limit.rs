//! `inflate_limit IMAGE THREADS`: inflates all blocks of a cloop image from memory
//! into memory, and prints how many MB of inflated bytes a second that gives.
//!
//! It is the limit that extracting and sequential reading are measured against:
//! nothing is read, written, checked for holes or put in order meanwhile.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Instant;

use cowcloop_engine::image::cloop::CloopImage;
use cowcloop_engine::image::ImageOptions;
use cowcloop_engine::storage::FileStorage;
use cowcloop_inflate::{Container, Inflater, Job};

/// Blocks that a thread inflates before it asks for more.
const TOGETHER: usize = 16;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().expect("IMAGE");
    let threads: usize = arguments.next().expect("THREADS").parse().expect("a number");
    let storage = FileStorage::open(Path::new(&path)).expect("open");
    let image = CloopImage::open(Arc::new(storage), &ImageOptions::default()).expect("cloop");
    let block_size = image.block_size() as usize;
    let blocks: Vec<Vec<u8>> = (0..image.block_count())
        .map(|block| {
            let mut bytes = Vec::new();
            image.read_compressed(block, &mut bytes).expect("read");
            bytes
        })
        .collect();
    let groups: Vec<_> = blocks.chunks(TOGETHER).collect();
    let next = AtomicUsize::new(0);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut inflater = Inflater::new();
                let mut output = vec![0; TOGETHER * block_size];
                while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // Blocks of zeros that are not stored take no time.
                    let stored = group.iter().filter(|input| !input.is_empty());
                    let rooms = output.chunks_exact_mut(block_size);
                    let jobs = stored.zip(rooms).map(|(input, room)| Job::new(input, room));
                    let mut jobs: Vec<_> = jobs.collect();
                    inflater.inflate_many(Container::Zlib, &mut jobs);
                    assert!(jobs.iter().all(|job| job.result.is_ok()), "inflate");
                }
            });
        }
    });
    let bytes = (blocks.len() * block_size) as f64;
    println!("{:.1}", bytes / begin.elapsed().as_secs_f64() / 1e6);
}
