use std::sync::Arc;

use super::*;
use crate::codec::Codec;
use crate::device::{Device, DeviceOptions};
use crate::format::cloop::{Kind, Layout};
use crate::image::{CloopImage, Image, ImageOptions};
use crate::storage::FileStorage;
use crate::{ErrorKind, Layer};

const BLOCK: usize = 16384;

/// A base, the cowfiles on it, and what the device holds.
struct Case {
    directory: TempDir,
    base: PathBuf,
    cows: Vec<PathBuf>,
    content: Vec<u8>,
}

fn image(path: &Path) -> Image {
    let storage = Arc::new(FileStorage::open(path).unwrap());
    Image::open(storage, &ImageOptions::default()).unwrap()
}

fn cloop(path: &Path) -> Arc<CloopImage> {
    match image(path) {
        Image::Cloop(image) => image,
        Image::Raw(_) | Image::Other(_) => panic!("{} is raw", path.display()),
    }
}

impl Case {
    /// A base of 40 blocks that is compressed as told, or raw.
    fn new(options: Option<CreateOptions>) -> Case {
        let directory = directory();
        let content = sample(40 * BLOCK, 1);
        let source = write(&directory, "source", &content);
        let mut base = source.clone();
        if let Some(options) = options {
            base = directory.path().join("base");
            create(&file_in(&source), open(&base), &options, &NoProgress).unwrap();
        }
        Case { directory, base, cows: Vec::new(), content }
    }

    fn options(&self, writable: bool) -> DeviceOptions {
        DeviceOptions { read_only: !writable, create: writable, ..DeviceOptions::default() }
    }

    fn device(&self, options: &DeviceOptions) -> Device {
        let name = self.base.display().to_string();
        Device::on(name, image(&self.base), &self.cows, options).unwrap()
    }

    /// Adds a cowfile with these changes in it.
    fn change(&mut self, changes: &[(usize, &[u8])], size: Option<usize>) {
        self.cows.push(self.directory.path().join(format!("{}.cow", self.cows.len())));
        let device_size = size.map(|size| size as u64);
        let device = self.device(&DeviceOptions { device_size, ..self.options(true) });
        self.content.resize(self.content.len().max(size.unwrap_or(0)), 0);
        for (offset, bytes) in changes {
            device.write_at(bytes, *offset as u64).unwrap();
            self.content[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        device.close().unwrap();
    }

    fn commit(&self, output: Output, threads: usize) -> Result<CommitSummary> {
        let device = self.device(&self.options(false));
        let options = CommitOptions { threads, block_size: BLOCK as u32, ..Default::default() };
        commit(&device, output, &options, &NoProgress)
    }

    /// Commits, and checks the content of the new image.
    #[track_caller]
    fn committed(&self) -> (CommitSummary, Arc<CloopImage>) {
        let path = self.directory.path().join("new");
        let summary = self.commit(open(&path), 0).unwrap();
        let image = cloop(&path);
        let mut content = self.content.clone();
        content.resize(content.len().next_multiple_of(image.block_size() as usize), 0);
        let mut read = vec![0; content.len()];
        assert_eq!(image.size(), read.len() as u64);
        image.read_at(&mut read, 0).unwrap();
        assert!(read == content, "the content differs");
        assert_eq!(summary.size, image.size());
        assert_eq!(summary.file_size, std::fs::metadata(&path).unwrap().len());
        (summary, image)
    }
}

fn v2() -> CreateOptions {
    CreateOptions { block_size: BLOCK as u32, ..CreateOptions::default() }
}

fn v4(codec: Codec, footer: bool) -> CreateOptions {
    CreateOptions { format: Format::V4, codec, footer, ..v2() }
}

fn bytes_of(image: &CloopImage, block: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.read_compressed(block, &mut bytes).unwrap();
    bytes
}

#[test]
fn changed_blocks_are_new_and_the_others_are_copied() {
    let zlib = CreateOptions { level: Level::new(1).unwrap(), ..v2() };
    for options in [zlib, v4(Codec::Lzo, true), v4(Codec::Xz, false)] {
        let (format, footer) = (options.format, options.footer);
        let mut case = Case::new(Some(options));
        let new = sample(40_000, 2);
        case.change(&[(5 * BLOCK + 100, &new), (20 * BLOCK, &[0; BLOCK])], None);
        case.change(&[(5 * BLOCK + 1, b"above"), (40 * BLOCK - 1, b"z")], None);
        let (summary, image) = case.committed();
        assert_eq!((summary.blocks, summary.copied_blocks), (40, 40 - 3 - 1 - 1));
        let base = cloop(&case.base);
        for block in 0..40 {
            let same = bytes_of(&image, block) == bytes_of(&base, block);
            let changed = matches!(block, 5..=7 | 20 | 39);
            assert_eq!(same, !changed, "block {block}");
            assert_eq!(image.location(block).codec, base.location(block).codec);
        }
        let kind = if format == Format::V4 { Kind::V4 } else { Kind::V2 };
        let layout = if footer { Layout::Footer } else { Layout::Header };
        assert_eq!((image.header().kind, image.header().layout), (kind, layout));
        assert_ne!(image.identity().unwrap(), base.identity().unwrap());
    }
}

#[test]
fn a_raw_base_is_compressed_whole() {
    let mut case = Case::new(None);
    case.change(&[(12345, b"changed")], None);
    let (summary, image) = case.committed();
    assert_eq!((summary.blocks, summary.copied_blocks), (40, 0));
    assert_eq!(image.header().kind, Kind::V2);
}

#[test]
fn without_changes_everything_is_copied() {
    let case = Case::new(Some(v4(Codec::Lz4, false)));
    let (summary, _) = case.committed();
    assert_eq!(summary.copied_blocks, 40);
    assert!(
        std::fs::read(case.directory.path().join("new")).unwrap()
            == std::fs::read(&case.base).unwrap()
    );
}

#[test]
fn a_larger_device_gives_a_larger_image() {
    let mut case = Case::new(Some(v2()));
    case.change(&[(45 * BLOCK + 7, b"beyond")], Some(50 * BLOCK + 3072));
    let (summary, _) = case.committed();
    assert_eq!(summary.blocks, 51);
}

#[test]
fn the_end_that_cowfiles_leave_out_is_kept() {
    let mut case = Case::new(Some(CreateOptions { block_size: 512, ..v2() }));
    // One more block of 512 bytes than whole units of 1 KiB.
    case.content.extend_from_slice(&[7; 512]);
    let source = write(&case.directory, "source", &case.content);
    let options = CreateOptions { block_size: 512, ..v2() };
    create(&file_in(&source), open(&case.base), &options, &NoProgress).unwrap();
    case.change(&[(40 * BLOCK - 1, b"x")], None);
    assert_eq!(case.device(&case.options(false)).size(), 40 * BLOCK as u64);
    case.committed();
}

#[test]
fn the_result_depends_on_nothing_else() {
    let mut case = Case::new(Some(v2()));
    case.change(&[(3 * BLOCK, &sample(10 * BLOCK, 3))], None);
    case.committed();
    let image = std::fs::read(case.directory.path().join("new")).unwrap();
    for threads in [1, 5] {
        let path = case.directory.path().join("other");
        case.commit(open(&path), threads).unwrap();
        assert!(std::fs::read(path).unwrap() == image);
    }
    let (output, reader) = pipe_out(&case.directory);
    case.commit(output, 2).unwrap();
    assert!(reader.join().unwrap() == image);
}

#[test]
fn damage_is_found_where_it_matters() {
    use std::os::unix::fs::FileExt;
    let mut case = Case::new(Some(v2()));
    case.change(&[(10 * BLOCK, b"part of a block")], None);
    let base = cloop(&case.base);
    let file = File::options().write(true).open(&case.base).unwrap();
    // An unchanged block keeps its damage.
    file.write_all_at(&[0xff; 4], base.location(20).end() - 4).unwrap();
    let path = case.directory.path().join("new");
    case.commit(open(&path), 0).unwrap();
    let report = verify(&cloop(&path), 0, &NoProgress).unwrap();
    assert_eq!(report.bad.iter().map(|bad| bad.block).collect::<Vec<_>>(), [20]);
    // The rest of a changed one is needed.
    std::fs::remove_file(&path).unwrap();
    file.write_all_at(&[0xff; 4], base.location(10).end() - 4).unwrap();
    let error = case.commit(open(&path), 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(!path.exists());
}

#[test]
fn a_cancelled_job_leaves_nothing() {
    let mut case = Case::new(Some(v2()));
    case.change(&[(0, &sample(40 * BLOCK, 4))], None);
    let path = case.directory.path().join("new");
    let before = names(case.directory.path());
    let device = case.device(&case.options(false));
    let options = CommitOptions::default();
    let progress = StopAfter::new(1);
    let error = commit(&device, open(&path), &options, &progress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(names(case.directory.path()), before);
}

/// An image of the uzip family: these streams, and these blocks made of them;
/// `None` is a block of zeros that takes no bytes.
fn uzip(signature: &str, streams: &[Vec<u8>], blocks: &[Option<usize>]) -> Vec<u8> {
    let first = 136 + 8 * (blocks.len() + 1);
    let mut starts = vec![first];
    streams.iter().for_each(|stream| starts.push(starts[starts.len() - 1] + stream.len()));
    let mut image = vec![0; 128];
    let script = format!("#!/bin/sh\n#{signature} Format\n");
    image[..script.len()].copy_from_slice(script.as_bytes());
    image.extend_from_slice(&(BLOCK as u32).to_be_bytes());
    image.extend_from_slice(&(blocks.len() as u32).to_be_bytes());
    let mut stored = 0;
    for block in blocks {
        let entry = match block {
            Some(stream) => {
                stored = stored.max(stream + 1);
                starts[*stream]
            }
            None => starts[stored],
        };
        image.extend_from_slice(&(entry as u64).to_be_bytes());
    }
    image.extend_from_slice(&(starts[streams.len()] as u64).to_be_bytes());
    image.extend(streams.iter().flatten());
    image
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn uzip_bases_become_ordinary_images() {
    let [a, b, c] = [5, 6, 7].map(|seed| sample(BLOCK, seed));
    let zlibs = [&a, &b, &c].map(|data| zlib(data));
    let zstds = [&a, &b, &c].map(|data| zstd::bulk::compress(data, 3).unwrap());
    let blocks = [Some(0), None, Some(1), Some(2), Some(0), Some(1), Some(0)];
    for (signature, streams, copied) in [("v3.0", &zlibs, 4), ("z4.0", &zstds, 0)] {
        let mut case = Case::new(None);
        case.base = write(&case.directory, "base", &uzip(signature, streams, &blocks));
        case.content = [&a, &vec![0; BLOCK], &b, &c, &a, &b, &a].map(Vec::as_slice).concat();
        case.change(&[(4 * BLOCK + 9, b"changed")], None);
        let (summary, image) = case.committed();
        // Not the changed one, that of zeros, and the last, which mkuzip pads.
        assert_eq!((summary.blocks, summary.copied_blocks), (7, copied), "{signature}");
        assert_eq!(image.header().kind, Kind::V2);
        // The drivers of V2.0 fail on a block without bytes.
        assert!((0..7).all(|block| image.location(block).length > 0));
        assert_eq!(bytes_of(&image, 0) == streams[0], copied > 0);
    }
}
