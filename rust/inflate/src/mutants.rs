//! Bounds that are wrong by one: the invariants notice them, and so does a page that cannot
//! be touched.
//!
//! Each mutant runs the crate's own loops, with one number changed, over streams that drive
//! that number to its limit. With the invariants checked, the one that names the number
//! fails. Without them, a child process dies at a guard page, or its output is wrong.

#![allow(unsafe_code)]

use std::os::unix::process::ExitStatusExt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process::Command;

use crate::bounds::Bounds;
use crate::{Container, Error, Inflated, Inflater, Job, State};
use guarded::Guarded;
use oracle::{Answer, Random};
use writer::{Codes, Writer};

#[allow(unreachable_pub)]
#[path = "../tests/differential/guarded.rs"]
mod guarded;
#[allow(dead_code, unreachable_pub)]
#[path = "../tests/differential/oracle.rs"]
mod oracle;
#[allow(dead_code, unreachable_pub)]
#[path = "../tests/differential/writer.rs"]
mod writer;

/// The right bounds, checked.
#[derive(Clone, Copy)]
struct Checked;

impl Bounds for Checked {
    const CHECKED: bool = true;
}

/// How a mutant is caught without the checks.
#[derive(Debug, PartialEq)]
enum Caught {
    /// It touches a guard page.
    Killed,
    /// Its output differs.
    Wrong,
}

/// A mutant: one type for each; the parameter says whether the invariants are checked.
macro_rules! mutants {
    ($($name:ident: $number:ident = $value:expr, $stream:expr, $invariant:literal, $caught:expr;)*) => {
        $(
            #[derive(Clone, Copy)]
            struct $name<const CHECKED: bool>;

            impl<const CHECKED: bool> Bounds for $name<CHECKED> {
                const $number: mutants!(@type $number) = $value;
                const CHECKED: bool = CHECKED;
            }
        )*

        #[test]
        fn invariants_notice() {
            $(
                let panic = catch_unwind(AssertUnwindSafe(|| drive($name::<true>, $stream)))
                    .expect_err(concat!(stringify!($name), " was not noticed"));
                let message = panic.downcast_ref::<String>().map_or_else(
                    || *panic.downcast_ref::<&str>().expect("a message"),
                    |message| message,
                );
                assert!(message.contains($invariant), "{}: {message}", stringify!($name));
            )*
        }

        /// The work of a child process: the test itself, when it is given the name of a
        /// mutant.
        #[test]
        fn children_are_caught() {
            if let Ok(name) = std::env::var(MUTANT) {
                return match &*name {
                    $(stringify!($name) => drive($name::<false>, $stream),)*
                    _ => panic!("no such mutant"),
                };
            }
            $(assert_eq!(child(stringify!($name)), $caught, "{}", stringify!($name));)*
        }

        #[test]
        fn the_right_bounds_pass() {
            $(drive(Checked, $stream);)*
        }
    };
    (@type LEAST) => { u8 };
    (@type RARE_STEPS) => { isize };
    (@type ROUND) => { isize };
    (@type $other:ident) => { usize };
}

/// The variable that names the mutant to a child process.
const MUTANT: &str = "COWCLOOP_INFLATE_MUTANT";

mutants! {
    Load: LOAD = 7, literals(), "a refill loads within the input", Caught::Killed;
    StepIn: STEP_IN = 5, most_input(), "a refill loads within the input", Caught::Killed;
    StepOut: STEP_OUT = 65, most_bytes(300), "a step begins within its limit", Caught::Killed;
    OutSlack: OUT_SLACK = 67, most_bytes(40), "written within the output", Caught::Killed;
    CopySlack: COPY_SLACK = 30, long_copy(), "a long copy ends within", Caught::Killed;
    RareSteps: RARE_STEPS = 2, many_long(), "a step begins within its limit", Caught::Killed;
    Round: ROUND = 2000, no_distance(), "the mark for no distance", Caught::Wrong;
    Least: LEAST = 8, any_bits(), "a step's bits are in the buffer", Caught::Wrong;
}

/// Runs the test as a child, with a mutant and no checks.
fn child(name: &str) -> Caught {
    let this = std::env::current_exe().expect("this program");
    let output = Command::new(this)
        .args(["--exact", "mutants::children_are_caught", "--nocapture"])
        .env(MUTANT, name)
        .output()
        .expect("it is run");
    match (output.status.signal(), output.status.code()) {
        // SIGSEGV, and SIGBUS.
        (Some(11 | 7), _) => Caught::Killed,
        (None, Some(101)) => Caught::Wrong,
        other => panic!("{name} was not caught: {other:?}"),
    }
}

/// Streams, and the rooms into which they are inflated.
struct Drive {
    streams: Vec<Vec<u8>>,
    rooms: std::ops::Range<usize>,
}

/// Inflates it into each of the rooms, alone and with a second one, between guard pages,
/// and compares the result with zlib-ng's.
fn drive<B: Bounds>(bounds: B, Drive { streams, rooms }: Drive) {
    for stream in streams {
        drive_one(bounds, &stream, rooms.clone());
    }
}

fn drive_one<B: Bounds>(bounds: B, stream: &[u8], rooms: std::ops::Range<usize>) {
    let mut pages: [_; 4] = std::array::from_fn(|_| Guarded::new(stream.len().max(rooms.end)));
    let [input, output, second_input, second_output] = &mut pages;
    let (input, second_input) = (input.copy(stream, true), second_input.copy(stream, true));
    for room in rooms {
        let answer = Answer::of(Container::Raw, stream, room);
        let same = |result: Result<Inflated, Error>, output: &[u8]| {
            assert_eq!(result.ok(), answer.whole(room), "room {room}: {result:?}");
            if let Ok(Inflated { written, .. }) = result {
                assert!(output[..written] == answer.bytes, "room {room}");
            }
        };
        for inflater in &mut [Inflater::new(), Inflater::portable()] {
            let output = output.slice(room, true);
            let mut state = State::new(Container::Raw);
            let result = inflater.resume_with(bounds, &mut state, input, output, usize::MAX);
            same(result.map(|progress| progress.ended().expect("to the end")), output);
            let second = second_output.slice(room, true);
            let mut jobs = [Job::new(input, output), Job::new(second_input, second)];
            inflater.many_with(bounds, Container::Raw, &mut jobs);
            for job in jobs {
                same(job.result, job.output);
            }
        }
    }
}

/// Codes of the wanted lengths. The rest of the code space goes to lengths that do not
/// occur, so that few of the codes are literals.
fn codes(literals: &[(usize, u8)], distances: &[(usize, u8)]) -> Codes {
    let fill = |lengths: &mut [u8], wanted: &[(usize, u8)], filler: &[usize]| {
        for &(symbol, length) in wanted {
            lengths[symbol] = length;
        }
        let mut left = (1 << 15) - wanted.iter().map(|it| 1 << (15 - it.1)).sum::<usize>();
        for &symbol in filler {
            // The largest part of the code space that a code can have while it stays with
            // short codes.
            if left > 0 && lengths[symbol] == 0 {
                let length = 15 - left.ilog2();
                lengths[symbol] = length as u8;
                left -= 1 << (15 - length);
            }
        }
        assert_eq!(left, 0, "a complete code");
    };
    let mut codes = Codes { literals: vec![0; 286], distances: vec![0; 30] };
    fill(&mut codes.literals, literals, &(257..286).collect::<Vec<_>>());
    fill(&mut codes.distances, distances, &(0..30).collect::<Vec<_>>());
    codes
}

/// A match's symbols, and their extra bits.
fn a_match(writer: &mut Writer, codes: &Codes, length: (usize, u32, u32), far: (usize, u32, u32)) {
    for (lengths, (symbol, more, bits)) in [(&codes.literals, length), (&codes.distances, far)] {
        assert!(writer.symbol(lengths, symbol), "it has a code");
        writer.put(more, bits);
    }
}

/// A block with literals at its start, and its end.
fn block(codes: &Codes, before: usize, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new(Container::Raw);
    writer.dynamic(true, codes);
    let mut random = Random(2);
    for _ in 0..before {
        writer.symbol(&codes.literals, 200 + random.below(2));
    }
    body(&mut writer);
    writer.symbol(&codes.literals, 256);
    writer.finish(Container::Raw)
}

/// Literals up to the end of the input, of every length, for both hot loops.
fn literals() -> Drive {
    // With the other half of the codes for one more literal, nearly all symbols are
    // literals.
    let few = codes(&[(200, 9), (201, 9), (256, 9), (202, 2)], &[(0, 1), (1, 1)]);
    let nearly_all =
        codes(&[(200, 2), (201, 2), (256, 9), (202, 2), (203, 3), (204, 4)], &[(0, 1), (1, 1)]);
    let streams = [few, nearly_all]
        .into_iter()
        .flat_map(|codes| (700..740).map(|count| block(&codes, count, |_| {})).collect::<Vec<_>>());
    Drive { streams: streams.collect(), rooms: 900..901 }
}

/// Steps that use the most input: two literals of 11 bits, a length of 8 and 3, and a
/// distance of 8 and 7. That is 48 bits in all, so the number of bits in the buffer is the
/// same from step to step, and at most positions in a byte a refill adds six bytes each
/// time.
fn most_input() -> Drive {
    let codes = codes(&[(200, 11), (201, 11), (256, 11), (276, 8)], &[(16, 8), (0, 8), (1, 8)]);
    let stream = |shift: usize| {
        let mut random = Random(1);
        block(&codes, 3000 + 3 * shift, |writer| {
            for _ in 0..1000 {
                writer.symbol(&codes.literals, 200 + random.below(2));
                writer.symbol(&codes.literals, 200 + random.below(2));
                let (length, more) = (random.below(6) as u32, random.below(1 << 7) as u32);
                a_match(writer, &codes, (276, length, 3), (16, more, 7));
            }
        })
    };
    Drive { streams: (0..8).map(stream).collect(), rooms: 100_000..100_001 }
}

/// Steps that need many bits, in any number: each possible rest in the buffer has its turn.
fn any_bits() -> Drive {
    let literals = [(200, 11), (201, 10), (202, 9), (256, 11), (276, 11)];
    let codes = codes(&literals, &[(22, 8), (23, 8), (24, 8), (25, 8), (26, 8), (27, 8)]);
    let mut random = Random(3);
    let stream = block(&codes, 20_000, |writer| {
        for _ in 0..20_000 {
            writer.symbol(&codes.literals, 200 + random.below(3));
            writer.symbol(&codes.literals, 200 + random.below(3));
            let far = 22 + random.below(6);
            let bits = far as u32 / 2 - 1;
            let (length, more) = (random.below(6) as u32, random.below(1 << bits) as u32);
            a_match(writer, &codes, (276, length, 3), (far, more, bits));
        }
    });
    Drive { streams: vec![stream], rooms: 2_000_000..2_000_001 }
}

/// Steps that write the most bytes: two literals and a match of 64.
fn most_bytes(steps: usize) -> Drive {
    let codes = codes(&[(200, 3), (201, 3), (256, 9), (276, 3)], &[(14, 3), (0, 3)]);
    let stream = block(&codes, 300, |writer| {
        for i in 0..steps {
            writer.symbol(&codes.literals, 200);
            writer.symbol(&codes.literals, 200 + i % 2);
            // 59 and 5; 129 and 10.
            a_match(writer, &codes, (276, 5, 3), (14, 10, 6));
        }
    });
    // Before the input ends, which would end the hot loop first.
    let end = 300 + 66 * (steps - 20);
    Drive { streams: vec![stream], rooms: end - 200..end }
}

/// Matches of 65, for which a copy writes 96.
fn long_copy() -> Drive {
    let codes = codes(&[(200, 3), (201, 3), (256, 9), (276, 3)], &[(14, 3), (0, 3)]);
    let stream = block(&codes, 300, |writer| {
        for _ in 0..30 {
            a_match(writer, &codes, (276, 6, 3), (14, 10, 6));
        }
    });
    Drive { streams: vec![stream], rooms: 300..1000 }
}

/// Many matches of 258, and then steps of 66.
fn many_long() -> Drive {
    let codes = codes(&[(200, 3), (201, 3), (256, 9), (276, 3), (285, 3)], &[(14, 3), (0, 3)]);
    let stream = block(&codes, 300, |writer| {
        for _ in 0..60 {
            writer.symbol(&codes.literals, 200);
            writer.symbol(&codes.literals, 201);
            a_match(writer, &codes, (285, 0, 0), (14, 10, 6));
        }
        for _ in 0..60 {
            writer.symbol(&codes.literals, 200);
            writer.symbol(&codes.literals, 201);
            a_match(writer, &codes, (276, 5, 3), (14, 10, 6));
        }
    });
    Drive { streams: vec![stream], rooms: 15_000..17_800 }
}

/// A distance that does not exist, after 70,000 bytes were written in steps of 66.
fn no_distance() -> Drive {
    let mut codes = codes(&[(200, 3), (201, 3), (256, 9), (276, 3)], &[(14, 1), (0, 1)]);
    // The distance from 129 on has the bit 0, and the bit 1 means nothing.
    codes.distances[0] = 0;
    let mut stream = block(&codes, 300, |writer| {
        for i in 0..1000 {
            writer.symbol(&codes.literals, 200);
            writer.symbol(&codes.literals, 200 + i % 2);
            a_match(writer, &codes, (276, 5, 3), (14, 10, 6));
        }
        writer.symbol(&codes.literals, 276);
        writer.put(0b1_101, 4);
        for _ in 0..200 {
            writer.symbol(&codes.literals, 200);
        }
    });
    // Room and input for the longest possible round.
    stream.resize(200_000, 0);
    Drive { streams: vec![stream], rooms: 140_000..140_001 }
}
