//! Streams with any codes that the format has, damaged here and there: seed, then places and bytes.
#![no_main]

use std::cell::RefCell;

use cowcloop_inflate::Container;
use oracle::{Ours, Random};
use writer::Writer;

#[allow(dead_code)]
#[path = "../../inflate/tests/differential/oracle.rs"]
mod oracle;
#[allow(dead_code)]
#[path = "../../inflate/tests/differential/writer.rs"]
mod writer;

thread_local! {
    static OURS: RefCell<Ours> = RefCell::new(Ours::new());
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((seed, damage)) = data.split_first_chunk() else { return };
    let mut random = Random(u64::from_le_bytes(*seed) | 1);
    let container = [Container::Raw, Container::Zlib][random.below(2)];
    let mut writer = Writer::new(container);
    // Many short streams find more than few long ones.
    writer.longest = 300;
    for _ in 0..random.below(4) {
        writer.block(&mut random, false, 0);
    }
    writer.block(&mut random, true, 0);
    let room = writer.written;
    let mut stream = writer.finish(container).into_boxed_slice();
    for place in damage.chunks_exact(3) {
        let at = usize::from(place[0]) | usize::from(place[1]) << 8;
        if let Some(byte) = stream.get_mut(at) {
            *byte ^= place[2];
        }
    }
    let mut output = vec![0; room].into_boxed_slice();
    OURS.with_borrow_mut(|ours| {
        ours.check_whole(container, &stream, &mut output);
        let mut stops: Vec<_> = (0..4).map(|_| random.below(room + 2)).collect();
        stops.sort_unstable();
        ours.check_stops(container, &stream, &mut output, stops.into_iter());
        let most = 1 + random.below(stream.len()).max(stream.len() / 8);
        ours.check_pieces(container, &stream, &mut output, || 1 + random.below(most));
        let mut second = output.clone();
        ours.check_many(container, &[&stream, &stream], &mut [&mut output, &mut second]);
    });
});
