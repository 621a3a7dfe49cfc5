//! What images hold.

use super::*;

fn text(blocks: usize, block_size: usize) -> Vec<Vec<u8>> {
    sample(blocks * block_size).chunks(block_size).map(<[u8]>::to_vec).collect()
}

#[test]
fn every_kind_reads_back() {
    let blocks = text(5, 4096);
    for (signature, codec) in [
        (b"V2.0", Codec::Zlib),
        (b"V4.0", Codec::Zlib),
        (b"V4.0", Codec::Stored),
        (b"V4.0", Codec::Xz),
        (b"V4.0", Codec::Lz4),
        (b"V4.0", Codec::Lzo),
        (b"v3.0", Codec::Zlib),
        (b"L3.0", Codec::Xz),
        (b"l3.0", Codec::Xz),
        (b"L3.0", Codec::Lzma),
        (b"l3.0", Codec::Lzma),
        (b"Z4.0", Codec::Zstd),
        (b"z4.0", Codec::Zstd),
    ] {
        for footer in [false, true] {
            if footer && !signature.starts_with(b"V") {
                continue;
            }
            for (gap, padding) in [(0, 0), (100, 333)] {
                let mut builder = Builder::new(signature, 4096);
                builder = Builder { footer, gap, padding, ..builder };
                for block in &blocks {
                    builder = builder.block(codec, block);
                }
                let image = open(&builder.build()).unwrap();
                assert_eq!(image.size(), 5 * 4096);
                assert!(content(&image) == blocks.concat(), "{signature:?} {codec} {footer}");
                // First and last sector, and across a border.
                for offset in [0, 4096 * 5 - 512, 4096 * 2 - 256] {
                    let mut sector = [0; 512];
                    image.read_at(&mut sector, offset as u64).unwrap();
                    assert!(sector[..] == blocks.concat()[offset..offset + 512]);
                }
            }
        }
    }
}

#[test]
fn blocks_of_one_image_may_differ_in_codec() {
    let blocks = text(5, 4096);
    let codecs = [Codec::Lzo, Codec::Stored, Codec::Zlib, Codec::Lz4, Codec::Xz];
    let mut builder = Builder { footer: true, ..Builder::new(b"V4.0", 4096) };
    for (codec, block) in codecs.into_iter().zip(&blocks) {
        builder = builder.block(codec, block);
    }
    let image = open(&builder.build()).unwrap();
    assert!(content(&image) == blocks.concat());
    let info = image.info();
    assert_eq!((info.format, info.layout, info.blocks), ("cloop", Layout::Footer, 5));
    assert_eq!(info.codecs.values().collect::<Vec<_>>(), [&1; 5]);
    assert_eq!(info.index_bytes, 48);
    let lengths: u64 = (0..5).map(|block| u64::from(image.location(block).length)).sum();
    assert_eq!(info.compressed_bytes, lengths);
}

#[test]
fn one_block_and_no_block() {
    let image = open(&Builder::new(b"V2.0", 512).block(Codec::Zlib, &[3; 512]).build()).unwrap();
    assert_eq!(content(&image), [3; 512]);
    let image = open(&Builder::new(b"V2.0", 512).build()).unwrap();
    assert_eq!((image.size(), extents_of(&*image, 0, 0)), (0, vec![]));
    image.read_at(&mut [], 0).unwrap();
}

#[test]
fn an_empty_block_is_zeros() {
    for signature in [b"V2.0", b"V4.0", b"v3.0"] {
        let builder = Builder::new(signature, 512)
            .bytes_block(&[], 0)
            .block(Codec::Zlib, &[1; 512])
            .bytes_block(&[], 0);
        let image = open(&builder.build()).unwrap();
        assert!(content(&image) == [[0; 512], [1; 512], [0; 512]].concat(), "{signature:?}");
        assert_eq!(image.info().zero_blocks, 2);
        image.read_at(&mut [0; 10], 5).unwrap();
    }
}

#[test]
fn shared_blocks_read_as_the_first_of_them() {
    let [a, b, c] = [sample(512), vec![1; 512], vec![2; 512]];
    let [x, y, z] = [&a, &b, &c].map(|data| encode(Codec::Zlib, data));
    let [at_y, at_z] = [x.len() as u64, (x.len() + y.len()) as u64];
    let end = at_z + z.len() as u64;
    // a b a [zero] c b a c, where the end entry is what mkuzip may leave there.
    for last in [end, 0, at_z, 1 << 40, u64::MAX - 5000] {
        let builder = Builder {
            entries: Some(vec![0, at_y, 0, at_z, at_z, at_y, 0, at_y, last]),
            ..Builder::new(b"v3.0", 512).bytes_block(&x, 0).bytes_block(&y, 0).bytes_block(&z, 0)
        };
        let image = open(&builder.build()).unwrap();
        let zero = vec![0; 512];
        let expected = [&a, &b, &a, &zero, &c, &b, &a, &b].map(|v| v.clone()).concat();
        assert!(content(&image) == expected, "end {last}");
        assert_eq!(image.info().shared_blocks, 4);
        assert_eq!(image.info().compressed_bytes, end, "end {last}");
    }
}

#[test]
fn a_short_last_block_is_filled_with_zeros_where_mkuzip_may_have_made_it() {
    for (signature, codec) in
        [(b"V2.0", Codec::Zlib), (b"L3.0", Codec::Lzma), (b"z4.0", Codec::Zstd)]
    {
        let builder =
            Builder::new(signature, 1024).block(codec, &[5; 1024]).block(codec, &[6; 512]);
        let image = open(&builder.build()).unwrap();
        assert!(content(&image) == [&[5; 1024][..], &[6; 512], &[0; 512]].concat());
        assert_eq!(image.check_blocks(&[1], &mut Vec::new()), []);
        // No other block may.
        let builder = builder.block(codec, &[7; 1024]);
        assert!(open(&builder.build()).unwrap().read_at(&mut [0; 1024], 1024).is_err());
    }
}

#[test]
fn zero_blocks_are_found_without_their_being_empty() {
    let zero = vec![0; 65536];
    let mut builder = Builder::new(b"V2.0", 65536);
    for i in 0..40 {
        builder = match i % 10 {
            // As small as a block of zeros, and not one.
            3 => builder.block(Codec::Zlib, &[1; 65536]),
            7 => builder.block(Codec::Zlib, &sample(65536)),
            _ => builder.block(Codec::Zlib, &zero),
        };
    }
    let image = open(&builder.build()).unwrap();
    for _ in 0..2 {
        let found = extents_of(&*image, 100, 40 * 65536 - 100);
        let mut at = 100;
        for extent in &found {
            assert_eq!(extent.offset, at);
            at = extent.end();
        }
        assert_eq!(at, 40 * 65536);
        let data: Vec<u64> = found
            .iter()
            .filter(|extent| extent.kind == ExtentKind::Data)
            .map(|extent| {
                assert_eq!(extent.length, 65536);
                extent.offset / 65536
            })
            .collect();
        assert_eq!(data, [3, 7, 13, 17, 23, 27, 33, 37]);
        assert_eq!(found.len(), 17);
    }
    assert_eq!(image.info().zero_blocks, 32);
    // The second walk read nothing.
    let reads = image.counters().base_reads;
    assert!(image.is_zero(0, 3 * 65536).unwrap());
    assert!(!image.is_zero(0, 3 * 65536 + 1).unwrap());
    assert_eq!(image.counters().base_reads, reads);
    // A block that is known to be zeros needs no decoding.
    image.read_at(&mut vec![1; 65536], 0).unwrap();
    assert_eq!(image.counters().base_reads, reads);
}

#[test]
fn the_identity_follows_header_and_index() {
    let builder = Builder::new(b"V2.0", 512).block(Codec::Zlib, &[1; 512]);
    let image = builder.build();
    let identity = open(&image).unwrap().identity().unwrap();
    assert_eq!(open(&image).unwrap().identity().unwrap(), identity);
    let mut script = image.clone();
    script[100] ^= 1;
    let longer = Builder { padding: 1, ..builder.clone() }.build();
    let other = builder.block(Codec::Zlib, &[2; 512]).build();
    for changed in [script, longer, other] {
        assert_ne!(open(&changed).unwrap().identity().unwrap(), identity);
    }
}

#[test]
fn an_image_past_2_tib_opens_and_reads() {
    // 40000 blocks of 64 MiB, 2.4 TiB: zeros but for the first and the last.
    let block_size = 64 << 20;
    let mut data = vec![0; block_size as usize];
    data[block_size as usize - 1] = 1;
    let stream = encode(Codec::Zlib, &data);
    let count = 40_000_u64;
    let mut entries = vec![stream.len() as u64; count as usize + 1];
    entries[0] = 0;
    entries[count as usize] = 2 * stream.len() as u64;
    let builder = Builder {
        entries: Some(entries),
        ..Builder::new(b"V2.0", block_size).bytes_block(&stream, 0).bytes_block(&stream, 0)
    };
    let image = open(&builder.build()).unwrap();
    assert_eq!(image.size(), count << 26);
    let mut tail = [0; 2];
    image.read_at(&mut tail, image.size() - 2).unwrap();
    assert_eq!(tail, [0, 1]);
    image.read_at(&mut tail, image.size() / 2).unwrap();
    assert_eq!(tail, [0, 0]);
    assert!(image.is_zero(1 << 26, (count - 2) << 26).unwrap());
}

#[test]
fn readers_of_one_block_share_its_decoding() {
    let blocks = text(4, 1 << 20);
    let mut builder = Builder::new(b"V2.0", 1 << 20);
    for block in &blocks {
        builder = builder.block(Codec::Zlib, block);
    }
    let options = ImageOptions { strict: true, ..Default::default() };
    let image = CloopImage::open(storage(&builder.build()), &options).unwrap();
    let barrier = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (image, blocks, barrier) = (&image, &blocks, &barrier);
            scope.spawn(move || {
                for (block, expected) in blocks.iter().enumerate() {
                    barrier.wait();
                    let mut buf = [0; 1000];
                    let within = 100_000 * thread;
                    image.read_at(&mut buf, (block << 20) as u64 + within as u64).unwrap();
                    assert!(buf[..] == expected[within..within + 1000]);
                }
            });
        }
    });
    let counters = image.counters();
    assert_eq!((counters.cache_misses, counters.cache_hits), (4, 28));
    assert_eq!(counters.base_reads, 4, "one a block");
}

#[test]
fn the_cache_keeps_its_budget() {
    let blocks = text(64, 65536);
    let mut builder = Builder::new(b"V2.0", 65536);
    for block in &blocks {
        builder = builder.block(Codec::Zlib, block);
    }
    let options = ImageOptions { cache_bytes: 1 << 20, ..Default::default() };
    let image = CloopImage::open(storage(&builder.build()), &options).unwrap();
    for round in 0..3 {
        for (block, expected) in blocks.iter().enumerate() {
            let mut buf = [0; 100];
            let within = (block * 997 + round * 20_000) % 65_000;
            image.read_at(&mut buf, (block * 65536 + within) as u64).unwrap();
            assert!(buf[..] == expected[within..within + 100]);
            assert!(image.counters().cache_bytes <= 1 << 20);
        }
    }
}
