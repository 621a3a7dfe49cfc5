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
use libdeflater::Decompressor;

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
    let next = AtomicUsize::new(0);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut inflater = Decompressor::new();
                let mut output = vec![0; block_size];
                while let Some(input) = blocks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !input.is_empty() {
                        inflater.zlib_decompress(input, &mut output).expect("inflate");
                    }
                }
            });
        }
    });
    let bytes = (blocks.len() * block_size) as f64;
    println!("{:.1}", bytes / begin.elapsed().as_secs_f64() / 1e6);
}
