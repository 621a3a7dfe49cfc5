//! Streams of all encoders and of none, intact and damaged, inflated in every way, with
//! buffers that end at pages that cannot be touched.

use cowcloop_inflate::{Container, Job, Progress, State};

use crate::encoders::{compress, data, ENCODERS};
use crate::guarded::Guarded;
use crate::oracle::{Ours, Random};
use crate::writer::Writer;

const ROOM: usize = 256 << 10;
const CONTAINERS: [Container; 2] = [Container::Raw, Container::Zlib];

/// An input and an output between pages that cannot be touched.
struct Pair {
    input: Guarded,
    output: Guarded,
}

impl Pair {
    fn new() -> Self {
        Pair { input: Guarded::new(ROOM), output: Guarded::new(ROOM) }
    }
}

/// Damages a stream in one of several ways.
fn damage(random: &mut Random, stream: &mut Vec<u8>) {
    if stream.len() < 8 {
        return;
    }
    match random.below(4) {
        kind @ 0..2 => {
            let reach = if kind == 0 { stream.len() } else { stream.len().min(120) };
            for _ in 0..1 + random.below(4) {
                stream[random.below(reach)] ^= 1 << random.below(8);
            }
        }
        2 => stream.truncate(random.below(stream.len() + 1)),
        _ => {
            let from = random.below(stream.len());
            let length = random.below((stream.len() - from).min(64));
            stream[from..from + length].fill_with(|| random.below(256) as u8);
        }
    }
}

/// A length; short ones are as frequent as long ones.
fn some_length(random: &mut Random) -> usize {
    let limit = [1, 40, 600, 5000, 70_000, 140_000][random.below(6)];
    random.below(limit + 1)
}

/// A room for `length` bytes: mostly exactly that, else a little more or less.
fn some_room(random: &mut Random, length: usize) -> usize {
    match random.below(6) {
        0 => length.saturating_sub(random.below(300)),
        1 => length + random.below(100),
        2 => random.below(length + 1),
        _ => length,
    }
}

/// A stream of any kind, and the bytes that it seems to hold.
fn some_stream(random: &mut Random, container: Container) -> (Vec<u8>, usize) {
    let (mut stream, length) = match random.below(8) {
        0 => {
            let length = random.below(400);
            let mut bytes: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
            if container == Container::Zlib && length > 2 {
                bytes[..2].copy_from_slice(&[0x78, 0xda]);
            }
            (bytes, random.below(3000))
        }
        1..4 => {
            let mut writer = Writer::new(container);
            let wild = [0, 0, 2000, 100][random.below(4)];
            for _ in 0..random.below(6) {
                writer.block(random, false, wild);
            }
            writer.block(random, true, wild);
            let length = writer.written;
            (writer.finish(container), length)
        }
        _ => {
            let length = some_length(random);
            let bytes = data(random, length);
            (compress(container, &bytes, random.below(ENCODERS)), length)
        }
    };
    if random.below(3) == 0 {
        damage(random, &mut stream);
    }
    if random.below(8) == 0 {
        stream.extend((0..random.below(20)).map(|_| 0x5a));
    }
    (stream, length.min(ROOM - 300))
}

#[test]
fn every_encoder_whole() {
    let (mut random, mut ours, mut pair) = (Random(1), Ours::new(), Pair::new());
    for encoder in 0..ENCODERS {
        for container in CONTAINERS {
            for _ in 0..3 {
                let length = some_length(&mut random);
                let bytes = data(&mut random, length);
                let stream = compress(container, &bytes, encoder);
                let input = pair.input.copy(&stream, true);
                ours.check_whole(container, input, pair.output.slice(length, true));
            }
        }
    }
}

#[test]
fn any_stream_whole() {
    let (mut random, mut ours, mut pair) = (Random(2), Ours::new(), Pair::new());
    for _ in 0..3000 {
        let container = CONTAINERS[random.below(2)];
        let (stream, length) = some_stream(&mut random, container);
        let at_end = random.below(4) != 0;
        let input = pair.input.copy(&stream, at_end);
        let room = some_room(&mut random, length);
        ours.check_whole(container, input, pair.output.slice(room, at_end));
    }
}

#[test]
fn any_streams_in_batches_of_every_size() {
    let (mut random, mut ours) = (Random(3), Ours::new());
    let mut pairs: Vec<Pair> = (0..20).map(|_| Pair::new()).collect();
    for round in 0..150 {
        let container = CONTAINERS[random.below(2)];
        let (mut inputs, mut outputs) = (Vec::<&[u8]>::new(), Vec::new());
        let at_end = random.below(4) != 0;
        for pair in &mut pairs[..round % 21] {
            let (stream, length) = some_stream(&mut random, container);
            inputs.push(pair.input.copy(&stream, at_end));
            let room = some_room(&mut random, length);
            outputs.push(pair.output.slice(room, at_end));
        }
        ours.check_many(container, &inputs, &mut outputs);
    }
}

#[test]
fn every_stop() {
    let (mut random, mut ours, mut pair) = (Random(4), Ours::new(), Pair::new());
    for round in 0..30 {
        let container = CONTAINERS[round % 2];
        let (stream, length) = some_stream(&mut random, container);
        let length = length.min(700);
        let input = pair.input.copy(&stream, true);
        let output = pair.output.slice(length, true);
        for stop in 0..length + 2 {
            ours.check_stops(container, input, output, [stop].into_iter());
        }
        ours.check_stops(container, input, output, 0..length + 2);
    }
}

#[test]
fn any_splits() {
    let (mut random, mut ours, mut pair) = (Random(5), Ours::new(), Pair::new());
    for _ in 0..800 {
        let container = CONTAINERS[random.below(2)];
        let (stream, length) = some_stream(&mut random, container);
        let at_end = random.below(4) != 0;
        let input = pair.input.copy(&stream, at_end);
        let room = some_room(&mut random, length);
        let mut stops: Vec<_> = (0..random.below(12)).map(|_| random.below(room + 2)).collect();
        stops.sort_unstable();
        ours.check_stops(container, input, pair.output.slice(room, at_end), stops.into_iter());
    }
}

#[test]
fn inputs_in_pieces() {
    let (mut random, mut ours, mut pair) = (Random(8), Ours::new(), Pair::new());
    for _ in 0..800 {
        let container = CONTAINERS[random.below(2)];
        let (stream, length) = some_stream(&mut random, container);
        let room = some_room(&mut random, length);
        let most = [1, 30, 5000, stream.len()][random.below(4)].max(stream.len() / 200);
        let size = || 1 + random.below(most);
        ours.check_pieces(container, &stream, pair.output.slice(room, true), size);
    }
}

#[test]
fn every_truncation() {
    let (mut random, mut ours, mut pair) = (Random(6), Ours::new(), Pair::new());
    for round in 0..16 {
        let container = CONTAINERS[round % 2];
        let bytes = data(&mut random, 500);
        let stream = compress(container, &bytes, random.below(ENCODERS));
        for length in 0..=stream.len() {
            let input = pair.input.copy(&stream[..length], true);
            ours.check_whole(container, input, pair.output.slice(500, true));
        }
    }
}

/// The ways through a stream, compared without a library: for Miri, which can call none,
/// and for valgrind.
#[test]
fn alike_in_every_way() {
    let mut random = Random(7);
    for _ in 0..if cfg!(miri) { 5 } else { 200 } {
        let mut writer = Writer::new(Container::Raw);
        for _ in 0..random.below(4) {
            writer.block(&mut random, false, 1000);
        }
        writer.block(&mut random, true, 1000);
        let room = writer.written;
        let mut stream = writer.finish(Container::Raw);
        if random.below(4) == 0 {
            damage(&mut random, &mut stream);
        }
        for inflater in &mut Ours::new().inflaters {
            let mut whole = vec![0; room];
            let result = inflater.inflate(Container::Raw, &stream, &mut whole);
            let mut outputs = vec![vec![0; room]; 3];
            let jobs = outputs.iter_mut().map(|output| Job::new(&stream, output));
            let mut jobs: Vec<_> = jobs.collect();
            inflater.inflate_many(Container::Raw, &mut jobs);
            assert!(jobs.iter().all(|job| job.result == result));
            let mut output = vec![0; room];
            let mut state = State::new(Container::Raw);
            let mut last = Ok(None);
            for stop in [random.below(room + 1), random.below(room + 1), usize::MAX] {
                if last == Ok(None) {
                    let progress = inflater.resume(&mut state, &stream, &mut output, stop);
                    last = progress.map(Progress::ended);
                }
            }
            assert_eq!(last, result.map(Some));
            if result.is_ok() {
                assert!(output == whole && outputs.iter().all(|output| *output == whole));
            }
        }
    }
}
