//! Media that fail for a moment, and checks that could not be made at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::medium::Medium;
use super::*;

fn zlib_image(block_size: usize, blocks: usize) -> (Vec<u8>, Vec<u8>) {
    let bytes = sample(block_size * blocks);
    let mut builder = Builder::new(b"V2.0", block_size as u32);
    for block in bytes.chunks(block_size) {
        builder = builder.block(Codec::Zlib, block);
    }
    (builder.build(), bytes)
}

fn read(image: &CloopImage, offset: usize) -> Result<[u8; 100]> {
    let mut buf = [0; 100];
    image.read_at(&mut buf, offset as u64).map(|()| buf)
}

#[test]
fn a_block_goes_on_where_it_was_when_a_read_failed() {
    const BLOCK: usize = 4 << 20;
    let (built, bytes) = zlib_image(BLOCK, 2);
    for (block, started) in [(0, false), (0, true), (1, false), (1, true)] {
        let storage = Medium::over(storage(&built));
        let image = CloopImage::open(storage.clone(), &ImageOptions::default()).unwrap();
        let base = block * BLOCK;
        read(&image, base + 1000).unwrap();
        if started {
            image.start();
        }
        storage.fail_after(1);
        let error = read(&image, base + 1_000_000).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        for at in (0..BLOCK - 100).step_by(50_000) {
            assert!(read(&image, base + at).unwrap() == bytes[base + at..][..100], "at {at}");
        }
    }
}

#[test]
fn a_block_that_was_pushed_out_of_the_queue_is_checked_by_its_next_reader() {
    const BLOCK: usize = 8192;
    const BLOCKS: usize = 6000;
    let (mut built, _) = zlib_image(BLOCK, BLOCKS);
    let end = open(&built).unwrap().location(1).end() as usize;
    built[end - 1] ^= 1;
    let options = ImageOptions { cache_bytes: 600 << 20, threads: 2, ..Default::default() };
    let image = CloopImage::open(storage(&built), &options).unwrap();
    image.start();
    for number in 0..BLOCKS {
        // Behind enough others not to be checked at once, and before more than can wait.
        if number == 500 {
            read(&image, BLOCK).unwrap();
        }
        match number * 2477 % BLOCKS {
            1 => {}
            block => drop(read(&image, block * BLOCK).unwrap()),
        }
    }
    assert_eq!(read(&image, BLOCK).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn what_has_rotted_where_it_is_kept_is_fetched_anew_once() {
    const BLOCK: usize = 256 << 10;
    let (built, bytes) = zlib_image(BLOCK, 4);
    let end = open(&built).unwrap().location(1).end() as usize;
    let mut rotten = built.clone();
    rotten[end - 1] ^= 1;
    let opened = || {
        let (kept, origin) = (storage(&rotten), storage(&built));
        let storage = Arc::new(Rotten { kept, origin, renewed: AtomicUsize::new(0) });
        (CloopImage::open(storage.clone(), &ImageOptions::default()).unwrap(), storage)
    };
    for started in [false, true] {
        let (image, storage) = opened();
        if started {
            image.start();
        }
        // A part of a block, whose checksum is at its end.
        assert_eq!(read(&image, BLOCK + 5).unwrap(), bytes[BLOCK + 5..][..100]);
        let mut all = vec![0; bytes.len()];
        image.read_at(&mut all, 0).unwrap();
        assert!(all == bytes);
        assert_eq!(storage.renewed.load(Ordering::SeqCst), 1);
    }
    let (image, storage) = opened();
    let mut compressed = Vec::new();
    image.read_compressed(1, &mut compressed).unwrap();
    assert!(compressed == built[image.location(1).offset as usize..end]);
    assert_eq!(image.check_blocks(&[0, 1, 2], &mut Vec::new()), []);
    assert_eq!(storage.renewed.load(Ordering::SeqCst), 1);
}

#[test]
fn a_block_that_has_rotted_before_where_it_goes_on_is_inflated_anew() {
    const BLOCK: usize = 256 << 10;
    let bytes = sample(BLOCK * 3);
    let mut builder = Builder::new(b"V2.0", BLOCK as u32);
    for block in bytes.chunks(BLOCK) {
        // Not compressed, so that a flipped bit is one wrong byte and is not found at once.
        let mut stream = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::none());
        std::io::Write::write_all(&mut stream, block).unwrap();
        builder = builder.bytes_block(&stream.finish().unwrap(), 0);
    }
    let built = builder.build();
    let (kept, origin) = (storage(&built), storage(&built));
    let rotten = Arc::new(Rotten { kept, origin, renewed: AtomicUsize::new(0) });
    let image = CloopImage::open(rotten.clone(), &ImageOptions::default()).unwrap();
    // Checked once, it is read in parts.
    image.read_at(&mut vec![0; bytes.len()], 0).unwrap();
    let at = image.location(1).offset + 100;
    rotten.kept.write_all_at(&[!built[at as usize]], at).unwrap();
    read(&image, BLOCK + 5).unwrap();
    read(&image, BLOCK + 100_000).unwrap();
    assert_eq!(rotten.renewed.load(Ordering::SeqCst), 0, "the part does not end the block");
    for at in [BLOCK - 100, 5, 50, 100_000] {
        assert_eq!(read(&image, BLOCK + at).unwrap(), bytes[BLOCK + at..][..100]);
    }
    assert_eq!(rotten.renewed.load(Ordering::SeqCst), 1);
}

/// Storage that keeps a rotten copy until it is told to fetch another one.
#[derive(Debug)]
struct Rotten {
    kept: Arc<dyn Storage>,
    origin: Arc<dyn Storage>,
    renewed: AtomicUsize,
}

impl Storage for Rotten {
    fn name(&self) -> &str {
        "rotten"
    }
    fn len(&self) -> std::io::Result<u64> {
        self.origin.len()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        self.kept.read_at(buf, offset)
    }
    fn sync(&self) -> std::io::Result<()> {
        Ok(())
    }
    fn next_data(&self, offset: u64) -> std::io::Result<Option<u64>> {
        self.origin.next_data(offset)
    }
    fn next_hole(&self, offset: u64) -> std::io::Result<u64> {
        self.origin.next_hole(offset)
    }
    fn allocated(&self) -> std::io::Result<u64> {
        self.origin.allocated()
    }
    fn may_rot(&self) -> bool {
        true
    }
    fn renew(&self, offset: u64, length: u64) -> bool {
        let mut bytes = vec![0; length as usize];
        self.origin.read_exact_at(&mut bytes, offset).unwrap();
        self.kept.write_all_at(&bytes, offset).unwrap();
        self.renewed.fetch_add(1, Ordering::SeqCst);
        true
    }
}

#[test]
fn an_index_of_nothing_is_refused_by_its_first_piece() {
    let hollow = MemoryStorage::new("hollow", u64::MAX);
    let header = Builder { num_blocks: Some(1 << 28), ..Builder::new(b"V2.0", 512) }.build();
    hollow.write_all_at(&header[..136], 0).unwrap();
    hollow.write_all_at(&[1], 3 << 30).unwrap();
    let storage = Medium::over(Arc::new(hollow));
    let error = CloopImage::open(storage.clone(), &ImageOptions::default()).unwrap_err();
    assert!(error.to_string().contains("offset 0 is 0, before the data"), "{error}");
    assert!(storage.bytes_read() < 4 << 20);
}

#[test]
fn hints_are_followed_once_there_may_be_workers() {
    let (built, bytes) = zlib_image(65536, 40);
    let image = open(&built).unwrap();
    image.prefetch(0, 1);
    assert_eq!(image.counters().cache_misses, 0, "there is no worker to follow it");
    image.start();
    for number in 0..20_000 {
        image.prefetch(number % 40 * 65536, 65536);
    }
    while image.counters().cache_misses < 40 {
        std::thread::yield_now();
    }
    assert_eq!(read(&image, 5000).unwrap(), bytes[5000..][..100]);
    assert_eq!(image.counters().cache_misses, 40);
}
