//! Pieces that are compressed or checked by themselves, as on other machines.

use super::*;
use crate::codec::Codec;
use crate::image::{CloopImage, ImageOptions};
use crate::storage::FileStorage;

const GO_ON: &dyn Fn() -> Result<()> = &|| Ok(());

fn options() -> Vec<CreateOptions> {
    let v4 = |codec| CreateOptions { format: Format::V4, codec, ..CreateOptions::default() };
    let footer = CreateOptions { footer: true, block_size: 4096, ..v4(Codec::Lz4) };
    vec![CreateOptions::default(), v4(Codec::Xz), footer]
}

#[test]
fn pieces_make_the_image_that_create_makes() {
    let directory = directory();
    let mut data = sample(900_000, 3);
    data[200_000..500_000].fill(0);
    let raw = write(&directory, "raw", &data);
    for options in options() {
        let (here, there) = (directory.path().join("here"), directory.path().join("there"));
        let want = create(&file_in(&raw), open(&here), &options, &NoProgress).unwrap();
        let compressor = Compressor::new(&options).unwrap();
        let input = file_in(&raw);
        let mut assembly = Assembly::new(&input, open(&there), &options, GO_ON).unwrap();
        let step = options.block_size as usize * 3;
        for (number, bytes) in data.chunks(step).enumerate() {
            let offset = (number * step) as u64;
            let piece = match number % 2 {
                0 => compressor.range(&input, offset, bytes.len()).unwrap(),
                _ => compressor.bytes("raw", offset, bytes.to_vec()).unwrap(),
            };
            let (lengths, sum) = (piece.lengths(), piece.sum());
            let parts = (piece.bytes(), piece.input());
            assembly.append_received(parts.0, lengths, sum, parts.1, GO_ON).unwrap();
        }
        assert_eq!(assembly.finish(GO_ON).unwrap(), want);
        assert_eq!(std::fs::read(&there).unwrap(), std::fs::read(&here).unwrap());
    }
}

#[test]
fn a_piece_that_does_not_fit_together_is_refused_and_leaves_nothing() {
    let directory = directory();
    let raw = write(&directory, "raw", &sample(300_000, 4));
    let (input, options) = (file_in(&raw), CreateOptions::default());
    let piece = Compressor::new(&options).unwrap().range(&input, 0, 200_000).unwrap();
    let (bytes, lengths, sum) = (piece.bytes(), piece.lengths(), piece.sum());
    let mut changed = bytes.to_vec();
    changed[77] ^= 1;
    let cases: [(&[u8], &[u32], u32, u64); 5] = [
        (&changed, lengths, sum, 200_000),
        (bytes, &lengths[1..], sum, 200_000),
        (bytes, lengths, sum ^ 1, 200_000),
        (bytes, lengths, sum, 100_000),
        (&bytes[1..], lengths, sum, 200_000),
    ];
    for (bytes, lengths, sum, length) in cases {
        let out = open(&directory.path().join("out"));
        let mut assembly = Assembly::new(&input, out, &options, GO_ON).unwrap();
        let refused = assembly.append_received(bytes, lengths, sum, length, GO_ON);
        assert!(line(refused).contains("came back damaged"));
    }
    assert_eq!(names(directory.path()), ["raw"]);
}

#[test]
fn blocks_that_were_taken_out_are_checked_as_in_the_image() {
    let directory = directory();
    let raw = write(&directory, "raw", &sample(400_000, 5));
    let path = directory.path().join("image");
    let options = CreateOptions { block_size: 8192, ..CreateOptions::default() };
    create(&file_in(&raw), open(&path), &options, &NoProgress).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len();
    (3..9).for_each(|part| bytes[end * part / 9 - 600] ^= 0x10);
    std::fs::write(&path, bytes).unwrap();
    let storage = FileStorage::open(&path).unwrap();
    let image = CloopImage::open(std::sync::Arc::new(storage), &ImageOptions::default()).unwrap();
    let want = verify(&image, 1, &NoProgress).unwrap().bad;
    assert!(want.len() > 3);
    let all = 0..image.block_count();
    assert_eq!(check_range(&image, all.clone(), &mut Vec::new()), want);
    let taken = take_range(&image, all);
    assert!(taken.bad.is_empty());
    assert_eq!(check_taken(&taken.blocks, &taken.bytes, 8192), Some(want));
    assert_eq!(check_taken(&taken.blocks, &taken.bytes[1..], 8192), None);
    assert_eq!(check_taken(&taken.blocks[1..], &taken.bytes, 8192), None);
}
