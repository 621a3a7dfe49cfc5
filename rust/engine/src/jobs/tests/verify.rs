use std::sync::Arc;

use super::*;
use crate::codec::Codec;
use crate::image::{CloopImage, ImageOptions};
use crate::storage::FileStorage;
use crate::ErrorKind;

fn make(directory: &TempDir, codec: Codec, footer: bool) -> PathBuf {
    let source = write(directory, "source", &sample(40 * 16384 - 5, 1));
    let path = directory.path().join("image");
    let options = CreateOptions {
        block_size: 16384,
        format: Format::V4,
        codec,
        footer,
        ..CreateOptions::default()
    };
    create(&file_in(&source), open(&path), &options, &NoProgress).unwrap();
    path
}

fn image(path: &Path) -> Arc<CloopImage> {
    let storage = Arc::new(FileStorage::open(path).unwrap());
    CloopImage::open(storage, &ImageOptions::default()).unwrap()
}

fn damage(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
}

#[test]
fn what_create_writes_is_good() {
    for codec in [Codec::Zlib, Codec::Stored, Codec::Xz, Codec::Lz4, Codec::Lzo] {
        for footer in [false, true] {
            let directory = directory();
            let image = image(&make(&directory, codec, footer));
            let count = Count::default();
            let report = verify(&image, 0, &count).unwrap();
            assert_eq!(report, VerifyReport { blocks: 40, bad: Vec::new(), bad_blocks: 0 });
            assert_eq!(count.total.into_inner(), 40 * 16384);
            assert_eq!(count.done.into_inner(), 40 * 16384);
            let extracted = directory.path().join("extracted");
            let options = ExtractOptions::default();
            extract(&*image, open(&extracted), &options, &NoProgress).unwrap();
            let mut data = std::fs::read(directory.path().join("source")).unwrap();
            data.resize(40 * 16384, 0);
            assert!(std::fs::read(extracted).unwrap() == data);
        }
    }
}

#[test]
fn bad_blocks_are_listed_in_order() {
    let directory = directory();
    let path = make(&directory, Codec::Zlib, false);
    let found = image(&path);
    let places: Vec<_> = [3, 17, 39].map(|block| found.location(block)).into();
    for place in &places {
        damage(&path, place.end() - 1);
    }
    for threads in [1, 3] {
        let report = verify(&image(&path), threads, &NoProgress).unwrap();
        assert_eq!(report.bad_blocks, 3);
        let listed: Vec<_> =
            report.bad.iter().map(|bad| (bad.block, bad.offset, bad.length)).collect();
        let wanted: Vec<_> = [3, 17, 39]
            .into_iter()
            .zip(&places)
            .map(|(block, place)| (block, place.offset, place.length))
            .collect();
        assert_eq!(listed, wanted);
        assert!(report.bad.iter().all(|bad| !bad.reason.is_empty()));
    }
}

#[test]
fn a_cancelled_job_ends() {
    let directory = directory();
    let image = image(&make(&directory, Codec::Zlib, false));
    let error = verify(&image, 1, &StopAfter::new(0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}
