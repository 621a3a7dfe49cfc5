//! Any bytes as a stream, in every way that streams are inflated.
#![no_main]

use std::cell::RefCell;

use cowcloop_inflate::Container;
use oracle::{Ours, Random};

#[allow(dead_code)]
#[path = "../../inflate/tests/differential/oracle.rs"]
mod oracle;

thread_local! {
    static OURS: RefCell<Ours> = RefCell::new(Ours::new());
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&[choice, room, high], stream)) = data.split_first_chunk() else { return };
    let container = [Container::Raw, Container::Zlib][usize::from(choice & 1)];
    let room = usize::from(room) | usize::from(high) << 8;
    // On the heap and of just that size, so that the sanitizer sees what is beyond.
    let mut output = vec![0; room].into_boxed_slice();
    let stream = stream.to_vec().into_boxed_slice();
    OURS.with_borrow_mut(|ours| {
        ours.check_whole(container, &stream, &mut output);
        let mut random = Random(u64::from(choice) | 1 << 32);
        let mut stops: Vec<_> = (0..4).map(|_| random.below(room + 2)).collect();
        stops.sort_unstable();
        ours.check_stops(container, &stream, &mut output, stops.into_iter());
        let most = 1 + random.below(stream.len()).max(stream.len() / 8);
        ours.check_pieces(container, &stream, &mut output, || 1 + random.below(most));
        let mut outputs = vec![output; 1 + usize::from(choice >> 1) % 5];
        let mut outputs: Vec<_> = outputs.iter_mut().map(|output| &mut **output).collect();
        ours.check_many(container, &vec![&*stream; outputs.len()], &mut outputs);
    });
});
