//! How fast this crate is beside libdeflate and zlib-ng: medians of ratios, in this
//! thread's processor time, with the decoders in turn, batch by batch. `cargo bench -p
//! cowcloop-inflate -- [IMAGE]`.
//!
//! Without an image it takes files of /usr, each from the start of a page on, as a file
//! system has them. No decoder gets the same block twice in a row: it would have learned
//! its branches.
#![allow(missing_docs)]

use std::path::{Path, PathBuf};

use cowcloop_inflate::{Container, Inflater, Job, Progress};
use flate2::{Decompress, FlushDecompress};
use libdeflater::Decompressor;
use rustix::time::{clock_gettime, ClockId};

const PAGE: usize = 4096;
/// Of a sample's files, in bytes.
const LARGEST: usize = 8 << 20;

/// This thread's processor time in seconds; other programs do not count.
fn now() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Evenly chosen files of /usr, up to so many bytes.
fn sample(size: usize) -> Vec<u8> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => walk(&entry.path(), files),
                Ok(kind) if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    let mut files = Vec::new();
    walk(Path::new("/usr"), &mut files);
    files.sort();
    let mut sample = Vec::new();
    // A step that shares no large divisor with the number of files.
    for i in 0..files.len() {
        let path = &files[i * 7919 % files.len()];
        let room = (size - sample.len()).min(LARGEST) as u64;
        if std::fs::metadata(path).is_ok_and(|found| found.len() <= room) {
            sample.extend(std::fs::read(path).unwrap_or_default());
            sample.resize(sample.len().next_multiple_of(PAGE).min(size), 0);
        }
        if sample.len() + PAGE > size {
            break;
        }
    }
    sample
}

/// Blocks of the sample, compressed at zlib's level 9, without those that are all zeros.
fn blocks(sample: &[u8], size: usize) -> Vec<Vec<u8>> {
    let compress = |block: &[u8]| {
        let mut stream = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(9));
        std::io::Write::write_all(&mut stream, block).expect("a vector takes all");
        stream.finish().expect("a vector takes all")
    };
    let blocks = sample.chunks_exact(size).map(compress);
    blocks.filter(|block| block.len() > 200).collect()
}

type Decoder<'a> = (&'static str, Box<dyn FnMut(&[Vec<u8>], &mut [u8]) + 'a>);

fn decoders(size: usize) -> Vec<Decoder<'static>> {
    fn zlib_ng(inflater: &mut Decompress, input: &[u8], output: &mut [u8]) {
        inflater.reset(true);
        inflater.decompress(input, output, FlushDecompress::None).expect("a good stream");
        assert_eq!(inflater.total_out() as usize, output.len());
    }
    fn many(inflater: &mut Inflater, blocks: &[Vec<u8>], output: &mut [u8], size: usize) {
        let pairs = blocks.iter().zip(output.chunks_exact_mut(size));
        let mut jobs: Vec<_> = pairs.map(|(input, output)| Job::new(input, output)).collect();
        inflater.inflate_many(Container::Zlib, &mut jobs);
        assert!(jobs.iter().all(|job| job.result.is_ok_and(|it| it.written == size)));
    }
    let (mut libdeflate, mut ng) = (Decompressor::new(), Decompress::new(true));
    let inflaters = [Inflater::new(), Inflater::new(), Inflater::new(), Inflater::portable()];
    let [mut one, mut pairs, mut sixteen, mut portable] = inflaters;
    vec![
        (
            "libdeflate",
            Box::new(move |blocks, output| {
                for (input, output) in blocks.iter().zip(output.chunks_exact_mut(size)) {
                    assert_eq!(libdeflate.zlib_decompress(input, output), Ok(size));
                }
            }),
        ),
        (
            "zlib-ng",
            Box::new(move |blocks, output| {
                for (input, output) in blocks.iter().zip(output.chunks_exact_mut(size)) {
                    zlib_ng(&mut ng, input, output);
                }
            }),
        ),
        (
            "one at a time",
            Box::new(move |blocks, output| {
                for (input, output) in blocks.iter().zip(output.chunks_exact_mut(size)) {
                    let inflated = one.inflate(Container::Zlib, input, output);
                    assert!(inflated.is_ok_and(|it| it.written == size));
                }
            }),
        ),
        ("all of a batch", Box::new(move |b, output| many(&mut pairs, b, output, size))),
        (
            "16 at a time",
            Box::new(move |blocks, output| {
                for (b, output) in blocks.chunks(16).zip(output.chunks_mut(16 * size)) {
                    many(&mut sixteen, b, output, size);
                }
            }),
        ),
        ("portable, all", Box::new(move |b, output| many(&mut portable, b, output, size))),
    ]
}

/// Each decoder's ratio to the first one, and the first one's MB/s.
fn whole(
    blocks: &[Vec<u8>],
    size: usize,
    batch: usize,
    passes: usize,
) -> (Vec<(&'static str, f64)>, f64) {
    let mut decoders = decoders(size);
    let mut output = vec![1; batch * size];
    let mut ratios = vec![Vec::new(); decoders.len()];
    let mut rates = Vec::new();
    let mut turn = 0;
    for pass in 0..=passes {
        for batch in blocks.chunks_exact(batch) {
            let mut times = vec![0.0; decoders.len()];
            for i in 0..decoders.len() {
                let which = (i + turn) % decoders.len();
                let start = now();
                decoders[which].1(batch, &mut output);
                times[which] = now() - start;
            }
            turn += 1;
            // The first pass warms up the caches and the processor's clock.
            if pass > 0 {
                rates.push((batch.len() * size) as f64 / 1e6 / times[0]);
                for (ratios, time) in ratios.iter_mut().zip(&times) {
                    ratios.push(times[0] / time);
                }
            }
        }
    }
    let ratios = decoders.iter().zip(&mut ratios).map(|(it, ratios)| (it.0, median(ratios)));
    (ratios.collect(), median(&mut rates))
}

fn prefixes(blocks: &[Vec<u8>], size: usize, passes: usize) {
    let (mut inflater, mut ng) = (Inflater::new(), Decompress::new(true));
    let mut output = vec![0; size];
    let mut random = 88_172_645_463_325_252_u64;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for pass in 0..passes {
        for (i, block) in blocks.iter().enumerate() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let stop = (1 + random as usize % (size / PAGE)) * PAGE;
            std::hint::black_box(block.iter().step_by(64).fold(0u8, |sum, byte| sum ^ byte));
            for turn in 0..2 {
                let start = now();
                if (turn + i + pass) % 2 == 0 {
                    let container = Container::Zlib;
                    match inflater.inflate_prefix(container, block, &mut output, stop) {
                        Ok((Progress::Paused(written), _)) => assert!(written >= stop),
                        other => assert!(other.is_ok()),
                    }
                    ours.push(now() - start);
                } else {
                    ng.reset(true);
                    ng.decompress(block, &mut output[..stop], FlushDecompress::None).expect("good");
                    assert_eq!(ng.total_out() as usize, stop);
                    theirs.push(now() - start);
                }
            }
        }
    }
    let mean = |times: &[f64]| times.iter().sum::<f64>() / times.len() as f64;
    let means = mean(&theirs) / mean(&ours);
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    println!(
        "a random page of {} KiB: {:.1} us, zlib-ng {:.1} us, ratio {:.2} (of the means {means:.2})",
        size >> 10,
        ours * 1e6,
        theirs * 1e6,
        theirs / ours
    );
}

fn main() {
    let image = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let sample = match image {
        Some(path) => std::fs::read(&path).expect("the image can be read"),
        None => sample(64 << 20),
    };
    for size in [16 << 10, 64 << 10, 1 << 20] {
        let blocks = blocks(&sample, size);
        let batch = ((4 << 20) / size).max(16).min(blocks.len());
        for cores in [1, 2] {
            let results = std::thread::scope(|scope| {
                let run = || whole(&blocks, size, batch, 3);
                let threads: Vec<_> = (0..cores).map(|_| scope.spawn(run)).collect();
                threads.into_iter().map(|it| it.join().expect("no panic")).collect::<Vec<_>>()
            });
            let mut rates: Vec<_> = results.iter().map(|result| result.1).collect();
            println!(
                "{} KiB, threads at once: {cores}, beside libdeflate with {:.0} MB/s a core",
                size >> 10,
                median(&mut rates)
            );
            for (i, (name, _)) in results[0].0.iter().enumerate() {
                let mut ratios: Vec<_> = results.iter().map(|result| result.0[i].1).collect();
                println!("    {name:16} {:.2}", median(&mut ratios));
            }
        }
        if size < 1 << 20 {
            prefixes(&blocks, size, 3);
        }
    }
}
