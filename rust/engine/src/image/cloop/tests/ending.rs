//! Where the last block ends: every kind, with whatever `mkuzip` may leave in the last entry.

use super::*;

/// What `mkuzip` writes behind the signature, shortened.
const MKUZIP: &[u8] = b" Format\n(kldstat -qm g_uzip||kldload geom_uzip)>&-\n";
const OTHER: &[u8] = b" Format\nexit 1\n";

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Right,
    Zero,
    /// Within the last block.
    Inside,
    /// Just beyond the file.
    Beyond,
    Garbage,
}

const ENDS: [End; 5] = [End::Right, End::Zero, End::Inside, End::Beyond, End::Garbage];

const KINDS: [(&[u8; 4], &[u8], Codec); 8] = [
    (b"V2.0", OTHER, Codec::Zlib),
    (b"V2.0", MKUZIP, Codec::Zlib),
    (b"V4.0", OTHER, Codec::Zlib),
    (b"v3.0", MKUZIP, Codec::Zlib),
    (b"L3.0", MKUZIP, Codec::Xz),
    (b"l3.0", MKUZIP, Codec::Lzma),
    (b"Z4.0", MKUZIP, Codec::Zstd),
    (b"z4.0", MKUZIP, Codec::Zstd),
];

/// Whether the kind is read with this last entry; `None`: a block is damaged then.
fn is_read(signature: &[u8], script: &[u8], end: End, zeros: bool) -> Option<bool> {
    match (signature, end) {
        (_, End::Right) => Some(true),
        (b"V4.0", End::Inside) | (b"Z4.0" | b"z4.0", End::Inside) if !zeros => None,
        (b"V2.0", End::Inside) if script == OTHER && !zeros => None,
        // Zeros have no inside: the entry lies before them.
        (b"V4.0", _) => Some(false),
        (b"V2.0", End::Zero | End::Inside) => Some(true),
        (b"V2.0", _) => Some(script == MKUZIP),
        (b"Z4.0" | b"z4.0", end) => Some(end == End::Zero),
        _ => Some(true),
    }
}

fn image(
    (signature, script, codec): (&'static [u8; 4], &'static [u8], Codec),
    end: End,
    zeros: bool,
    padding: bool,
) -> (Vec<u8>, Vec<u8>) {
    let data = sample(3 * 1024);
    let mut builder = Builder { script, ..Builder::new(signature, 1024) };
    for block in data.chunks(1024) {
        builder = builder.block(codec, block);
    }
    let lengths: Vec<u64> = builder.blocks.iter().map(|(bytes, _)| bytes.len() as u64).collect();
    let [second, third] = [lengths[0], lengths[0] + lengths[1]];
    let all = third + lengths[2];
    let mut device = data;
    let mut entries = vec![0, second, third];
    if zeros {
        entries.push(all);
        device.extend([0; 1024]);
    }
    let header = 136 + 8 * (entries.len() as u64 + 1);
    let file = (header + all).next_multiple_of(512);
    entries.push(match end {
        End::Right => all,
        End::Zero => 0_u64.wrapping_sub(header),
        End::Inside => all - 3,
        End::Beyond => file - header + 77,
        End::Garbage => 0xdead_beef_0000_5678,
    });
    builder = Builder { entries: Some(entries), ..builder };
    let mut bytes = builder.build();
    if padding {
        bytes.resize(file as usize, 0);
    }
    (bytes, device)
}

#[test]
fn every_kind_is_read_with_any_end_that_its_makers_leave() {
    for kind in KINDS {
        for end in ENDS {
            for zeros in [false, true] {
                for padding in [false, true] {
                    let what = format!("{:?} {:?} {end:?} zeros {zeros}", kind.0, kind.1);
                    let (bytes, device) = image(kind, end, zeros, padding);
                    match is_read(kind.0, kind.1, end, zeros) {
                        Some(true) => {
                            assert!(content(&open(&bytes).expect(&what)) == device, "{what}")
                        }
                        Some(false) => assert!(open_error(&bytes).contains("the end of"), "{what}"),
                        None => {
                            let image = open(&bytes).expect(&what);
                            assert!(image.read_at(&mut [0; 1024], 2048).is_err(), "{what}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_cut_image_does_not_read_as_zeros() {
    for kind in KINDS {
        for end in [End::Right, End::Zero, End::Garbage] {
            let (bytes, _) = image(kind, end, false, false);
            for cut in [1, 20] {
                // What a download that broke off leaves, and one whose room was made before.
                let mut short = bytes[..bytes.len() - cut].to_vec();
                for _ in 0..2 {
                    let what = format!("{:?} {end:?} cut {cut} of {}", kind.0, short.len());
                    let read = open(&short).and_then(|i| i.read_at(&mut [0; 1024], 2048));
                    assert!(read.is_err(), "{what}");
                    short.resize(bytes.len(), 0);
                }
            }
        }
    }
}

#[test]
fn a_last_block_that_became_zeros_is_damaged_where_the_index_has_bytes_for_it() {
    for kind in KINDS {
        let (mut bytes, _) = image(kind, End::Right, false, true);
        let location = open(&bytes).unwrap().location(2);
        bytes[location.offset as usize..].fill(0);
        let read = open(&bytes).and_then(|i| i.read_at(&mut [0; 1024], 2048));
        assert!(read.is_err(), "{:?}", kind.0);
    }
}

#[test]
fn a_cut_cloop_is_called_cut() {
    let (bytes, _) = image(KINDS[0], End::Right, false, false);
    let text = open_error(&bytes[..bytes.len() - 1]);
    assert!(text.contains("beyond the end of the file") && text.contains("cut short"), "{text}");
}

#[test]
fn an_image_of_mkuzip_is_known_by_its_script() {
    for kind in KINDS {
        let (bytes, _) = image(kind, End::Right, false, true);
        let format = open(&bytes).unwrap().info().format;
        assert_eq!(format, if kind.1 == MKUZIP { "uzip" } else { "cloop" }, "{:?}", kind.0);
    }
}
