//! What must never be trusted: each lie is refused, in words.

use super::*;

fn good() -> Builder {
    Builder::new(b"V2.0", 512)
        .block(Codec::Zlib, &sample(512))
        .block(Codec::Zlib, &[7; 512])
        .block(Codec::Zlib, &[9; 512])
}

#[test]
fn a_block_size_that_cannot_be_is_refused() {
    for (block_size, expected) in [
        (0, "test.img: block_size is 0"),
        (1000, "test.img: block_size 1000 is not a multiple of 512"),
        (0xffff_fe00, "test.img: block_size 4294966784 is larger than the 67108864 that are read"),
        ((64 << 20) + 512, "block_size 67109376 is larger than the 67108864 that are read"),
        (u32::MAX, "block_size 4294967295 is not a multiple of 512"),
    ] {
        let text = open_error(&Builder { block_size, ..good() }.build());
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn an_index_that_does_not_fit_the_file_is_refused_before_it_is_read() {
    for num_blocks in [200, 0x1fff_ffff, 0x2000_0000, u32::MAX] {
        let text = open_error(&Builder { num_blocks: Some(num_blocks), ..good() }.build());
        let expected = format!("test.img: num_blocks {num_blocks} asks for an index of");
        assert!(text.starts_with(&expected), "{text}");
    }
}

#[test]
fn a_footer_index_that_does_not_fit_is_refused() {
    let builder = Builder { footer: true, num_blocks: Some(u32::MAX), ..good() };
    let text = open_error(&builder.build());
    assert!(text.starts_with("test.img: num_blocks 4294967295 asks for an index of"), "{text}");
}

#[test]
fn offsets_that_do_not_rise_are_refused() {
    let text = open_error(&Builder { entries: Some(vec![10, 5, 20, 30]), ..good() }.build());
    assert_eq!(text, "test.img: offset 1 is 173, below offset 0 (178)");
}

#[test]
fn an_offset_before_the_data_is_refused() {
    let entries = Some(vec![0u64.wrapping_sub(100), 0, 20, 30]);
    let text = open_error(&Builder { entries, ..good() }.build());
    assert_eq!(text, "test.img: offset 0 is 68, before the data, which begin at 168");
}

#[test]
fn an_offset_beyond_the_file_is_refused() {
    let image = Builder { entries: Some(vec![0, 10, 100_000, 100_010]), ..good() }.build();
    let text = open_error(&image);
    let expected = format!(
        "test.img: offset 2 is 100168, beyond the end of the file at {}: it is damaged or cut \
         short",
        image.len()
    );
    assert_eq!(text, expected);
    let image = Builder { entries: Some(vec![0, 10, 20, u64::MAX - 168]), ..good() }.build();
    let text = open_error(&image);
    assert!(text.contains("the end of the data, offset 3 is 18446744073709551615"), "{text}");
}

#[test]
fn a_compressed_length_beyond_any_bound_is_refused() {
    let builder = Builder { entries: Some(vec![0, 10, 20, 20_000]), padding: 20_000, ..good() };
    let text = open_error(&builder.build());
    assert_eq!(
        text,
        "test.img: block 2 takes 19980 compressed bytes, more than any block can (5120)"
    );
}

#[test]
fn a_truncated_file_is_refused() {
    let image = good().build();
    for length in 15..image.len() {
        let text = open_error(&image[..length]);
        assert!(text.contains("cut short"), "{length}: {text}");
    }
}

#[test]
fn less_than_a_signature_is_raw() {
    for length in 0..15 {
        let layer = crate::image::open(storage(&good().build()[..length]), &Default::default());
        assert_eq!(layer.unwrap().size(), length as u64);
    }
}

#[test]
fn other_versions_are_refused_by_name() {
    for (signature, name) in [
        (b"V0.6", "V0.68"),
        (b"V1.0", "V1.0"),
        (b"V3.0", "V3.0"),
        (b"V9.9", "V9.9"),
        (b"L2.0", "L2.0"),
        (b"q1.2", "q1.2"),
    ] {
        let text = open_error(&Builder { signature, ..good() }.build());
        let expected = format!("test.img: cloop version {name} is not supported");
        assert!(text.starts_with(&expected), "{text}");
    }
}

#[test]
fn other_scripts_are_raw() {
    for signature in [b"2.0V", b"V2,0", b"V200", b"\0\0\0\0"] {
        let bytes = Builder { signature, ..good() }.build();
        let image = Image::open(storage(&bytes), &Default::default()).unwrap();
        assert!(matches!(image, Image::Raw(_)), "{signature:?}");
    }
    for signature in [b"v3.0", b"L3.0", b"Z4.0", b"V9.9"] {
        let mut bytes = Builder { signature, ..good() }.build();
        bytes[0] = b' ';
        assert!(matches!(Image::open(storage(&bytes), &Default::default()), Ok(Image::Raw(_))));
    }
}

#[test]
fn the_kernel_driver_wants_no_script() {
    for (signature, footer) in
        [(b"V2.0", false), (b"V4.0", false), (b"V2.0", true), (b"V4.0", true)]
    {
        let builder = Builder { signature, footer, ..good() };
        let mut bytes = builder.build();
        let header = if footer { bytes.len() - 136 } else { 0 };
        bytes[header..header + 11].fill(0);
        let image = open(&bytes).unwrap();
        assert_eq!(image.info().version.as_bytes(), signature);
        assert!(content(&image) == content(&open(&builder.build()).unwrap()));
        // The same four bytes in a disk, where the other fields are not those of an image.
        for field in [&0_u32.to_be_bytes(), &1000_u32.to_be_bytes(), b"text"] {
            let mut disk = bytes.clone();
            disk[header + 128..header + 132].copy_from_slice(field);
            assert!(matches!(Image::open(storage(&disk), &Default::default()), Ok(Image::Raw(_))));
        }
        for blocks in [0, u32::MAX] {
            let mut disk = bytes.clone();
            disk[header + 132..header + 136].copy_from_slice(&u32::to_be_bytes(blocks));
            assert!(matches!(Image::open(storage(&disk), &Default::default()), Ok(Image::Raw(_))));
        }
    }
}

#[test]
fn an_unknown_compressor_is_refused() {
    let builder =
        Builder::new(b"V4.0", 512).block(Codec::Zlib, &sample(512)).bytes_block(&sample(300), 9);
    let text = open_error(&builder.build());
    assert_eq!(text, "test.img: block 1 is of compressor 9, and only 0 to 4 are known");
}

#[test]
fn a_v2_entry_has_no_flags() {
    let builder = Builder::new(b"V2.0", 512).bytes_block(&sample(300), 1);
    assert!(open_error(&builder.build()).contains("beyond the end of the file"));
}

#[test]
fn a_reference_back_must_hit_a_block() {
    let builder = |entries| Builder { entries: Some(entries), signature: b"v3.0", ..good() };
    let text = open_error(&builder(vec![0, 10, 5, 20]).build());
    assert_eq!(text, "test.img: offset 2 is 173, where no earlier block begins");
    // The block at 10 is still open when it is referred to: that is no reference, but an empty block.
    let image = open(&builder(vec![0, 10, 10, 20]).build()).unwrap();
    assert_eq!([0, 1].map(|block| image.location(block).length), [10, 0]);
}

#[test]
fn a_damaged_block_fails_its_readers_alone() {
    let mut image = good().build();
    let at = open(&image).unwrap().location(1);
    image[at.offset as usize + 5] ^= 0xff;
    let image = open(&image).unwrap();
    let mut buf = [0; 512];
    image.read_at(&mut buf, 0).unwrap();
    image.read_at(&mut buf, 1024).unwrap();
    assert_eq!(buf, [9; 512]);
    for (offset, length) in [(512, 512), (600, 10), (0, 1536), (600, 10)] {
        let error = image.read_at(&mut vec![0; length], offset).unwrap_err();
        assert_eq!((error.kind(), error.errno()), (ErrorKind::Damaged, 5), "{error}");
        let expected = format!("test.img: block 1 at offset {} is damaged", at.offset);
        assert_eq!(error.to_string(), expected);
    }
    let bad = image.check_blocks(&[0, 1], &mut Vec::new()).remove(0);
    assert_eq!((bad.block, bad.offset, bad.length), (1, at.offset, at.length));
    assert!(bad.reason.contains("zlib"), "{}", bad.reason);
    assert_eq!(image.check_blocks(&[0], &mut Vec::new()), []);
}

#[test]
fn blocks_of_a_wrong_length_are_damaged() {
    let builder = Builder::new(b"V4.0", 1024)
        .block(Codec::Zlib, &sample(1024))
        .block(Codec::Zlib, &sample(1023))
        .block(Codec::Xz, &sample(1025))
        .block(Codec::Lz4, &sample(4096))
        .block(Codec::Lzo, &sample(1000))
        .block(Codec::Stored, &sample(1000))
        .block(Codec::Zlib, &sample(512));
    let image = open(&builder.build()).unwrap();
    image.read_at(&mut [0; 1024], 0).unwrap();
    for block in 1..image.block_count() {
        assert!(image.read_at(&mut [0; 1024], block * 1024).is_err(), "block {block}");
        assert_eq!(image.check_blocks(&[block], &mut Vec::new()).len(), 1, "block {block}");
    }
}

#[test]
fn a_file_cut_under_us_is_an_error() {
    let bytes = good().build();
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), &bytes).unwrap();
    let file = crate::storage::FileStorage::open(path.path()).unwrap();
    let image = CloopImage::open(Arc::new(file), &Default::default()).unwrap();
    std::fs::OpenOptions::new().write(true).open(path.path()).unwrap().set_len(200).unwrap();
    let error = image.read_at(&mut [0; 512], 1024).unwrap_err();
    assert_eq!(error.errno(), 5, "{error}");
    assert!(error.to_string().contains("cannot read block 2 at offset"), "{error}");
    // Nothing was learned of the block: it reads once the file is whole again.
    std::fs::write(path.path(), &bytes).unwrap();
    image.read_at(&mut [0; 512], 1024).unwrap();
}
