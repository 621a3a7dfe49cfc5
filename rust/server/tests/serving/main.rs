//! A server driven without any transport: what a door may ask of it, and what its owner may.

mod anew;
mod control;
mod events;
mod sessions;
mod support;
mod traces;

use cowcloop_engine::{Extent, ExtentKind};
use cowcloop_server::{Fua, ZeroFlags};
use std::ops::ControlFlow;
use support::{Served, BLOCK, PATTERN, SIZE};

const HOLE: ZeroFlags = ZeroFlags { may_trim: true, fast: false, fua: Fua(false) };

#[test]
fn what_one_connection_writes_the_others_read_and_the_cowfile_keeps() {
    let served = Served::with_cowfile();
    let (first, second) = (served.connect(""), served.connect(""));
    assert_eq!(first.size(), SIZE);
    assert!(first.writable());
    first.write(&[7; 4096], BLOCK, Fua(false)).unwrap();
    let mut found = [0; 4096];
    second.read(&mut found, BLOCK).unwrap();
    assert_eq!(found, [7; 4096]);
    second.read(&mut found, 0).unwrap();
    assert_eq!(found, [PATTERN; 4096]);
    second.flush().unwrap();
    drop((first, second));
    let served = served.again();
    let reader = served.connect("");
    reader.read(&mut found, BLOCK).unwrap();
    assert_eq!(found, [7; 4096]);
}

#[test]
fn zeros_and_extents() {
    let served = Served::with_cowfile();
    let client = served.connect("");
    client.zero(BLOCK, BLOCK, HOLE).unwrap();
    client.trim(2 * BLOCK, BLOCK, Fua(true)).unwrap();
    let mut zeros = Vec::new();
    let mut next = 0;
    let mut sink = |extent: Extent| {
        assert_eq!(extent.offset, next);
        next = extent.end();
        if extent.kind == ExtentKind::Zero {
            zeros.push(extent);
        }
        ControlFlow::Continue(())
    };
    client.extents(0, SIZE, &mut sink).unwrap();
    assert_eq!(next, SIZE);
    // A file system frees whole blocks of its own: the edges may remain.
    let (first, last) = (zeros.first().unwrap(), zeros.last().unwrap());
    assert!(first.offset >= BLOCK && last.end() <= 3 * BLOCK);
    assert!(zeros.iter().map(|extent| extent.length).sum::<u64>() > BLOCK);
    let mut found = vec![1; 2 * BLOCK as usize];
    client.read(&mut found, BLOCK).unwrap();
    assert!(found.iter().all(|byte| *byte == 0));
    let solid = ZeroFlags { may_trim: false, ..HOLE };
    let refused = client.zero(0, BLOCK, solid).unwrap_err();
    assert_eq!(refused.kind(), cowcloop_engine::ErrorKind::Unsupported);
    client.cache(0, SIZE);
}

#[test]
fn fua_is_durable_on_return_and_nothing_else_is() {
    let served = Served::with_cowfile();
    let client = served.connect("");
    client.write(&[1; 1024], 0, Fua(false)).unwrap();
    assert_eq!(served.status()["cowfiles"][0]["flushes"], 0);
    client.write(&[1; 1024], 0, Fua(true)).unwrap();
    assert_eq!(served.status()["cowfiles"][0]["flushes"], 1);
}

#[test]
fn a_read_only_connection_changes_nothing() {
    let served = Served::with_cowfile();
    let client = served.server.connect(b"", true).unwrap();
    assert!(!client.writable());
    for refused in [
        client.write(&[1; 1024], 0, Fua(false)),
        client.trim(0, 1024, Fua(false)),
        client.zero(0, 1024, HOLE),
    ] {
        assert_eq!(refused.unwrap_err().kind(), cowcloop_engine::ErrorKind::ReadOnly);
    }
    assert_eq!(served.status()["cowfiles"][0]["blocks_used"], 0);
}

#[test]
fn an_image_alone_is_read_only() {
    let served = Served::new(|_| {});
    let client = served.connect("");
    assert!(!client.writable());
    assert!(client.write(&[1; 1024], 0, Fua(false)).is_err());
    client.flush().unwrap();
}
