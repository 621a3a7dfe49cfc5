//! Random cases of several kinds.

use std::io::ErrorKind;

use proptest::prelude::*;
use proptest::strategy::Union;

use crate::scenario::{Below, Case, Op};
use crate::world::{Form, WINDOW};

/// States of the disk that are tried at one moment, unless there are fewer.
const SAMPLES: usize = 40;
/// The same where the device is looked at in hundreds of places, or several cowfiles are.
const FEW: usize = 3;
const SOME: usize = 12;

/// What the cases are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing fails but the power.
    Plain,
    /// A call on the storage fails.
    CallsFail,
    /// The system cannot write back what waits.
    WriteBackFails,
    /// Several cowfiles on another one, which may have been left by a crash.
    Stacked,
    /// Pages of the bitmap change by the hundred.
    Wide,
}

fn range() -> impl Strategy<Value = (u64, u64)> {
    let at = 0..4 * WINDOW;
    // Half of the requests are aligned as a file system's are.
    prop_oneof![
        (at.clone(), 1..5000_u64),
        (at, 1..6_u64).prop_map(|(at, blocks)| (at / 1024 * 1024, blocks * 1024)),
    ]
}

fn op(kind: Kind) -> impl Strategy<Value = Op> {
    let write = (range(), any::<u8>());
    let write = write.prop_map(|((at, length), seed)| Op::Write { at, length, seed });
    let mut ops = vec![
        (60, write.boxed()),
        (30, range().prop_map(|(at, length)| Op::Zero { at, length }).boxed()),
        (30, Just(Op::Flush).boxed()),
        (10, Just(Op::Reopen).boxed()),
        (15, Just(Op::Kill).boxed()),
        (5, Just(Op::ReadOnly).boxed()),
        (1, Just(Op::Snapshot).boxed()),
        (10, any::<u64>().prop_map(|pick| Op::Crash { pick }).boxed()),
    ];
    match kind {
        Kind::WriteBackFails => {
            ops.push((15, Just(Op::WriteBackFails).boxed()));
            ops.push((10, Just(Op::Pressure).boxed()));
        }
        Kind::Wide => ops.push((20, any::<u8>().prop_map(|seed| Op::Scatter { seed }).boxed())),
        Kind::Plain | Kind::CallsFail | Kind::Stacked => {}
    }
    Union::new_weighted(ops)
}

fn below(kind: Kind) -> BoxedStrategy<Below> {
    match kind {
        Kind::Stacked => prop_oneof![
            1 => (0..8_u8).prop_map(Below::Closed),
            2 => (0..8_u8).prop_map(Below::Unclean),
        ]
        .boxed(),
        _ => prop_oneof![
            4 => Just(Below::Base),
            1 => Just(Below::ShortBase),
            1 => (0..8_u8).prop_map(Below::Closed),
        ]
        .boxed(),
    }
}

pub fn case(kind: Kind) -> impl Strategy<Value = Case> {
    let fault = match kind {
        Kind::CallsFail => {
            let error = prop_oneof![Just(ErrorKind::StorageFull), Just(ErrorKind::Other)];
            (0..120_u64, error).prop_map(Some).boxed()
        }
        _ => Just(None).boxed(),
    };
    let length = if kind == Kind::Wide { 1..8 } else { 1..30 };
    let samples = match kind {
        Kind::Wide => FEW,
        Kind::Stacked => SOME,
        _ => SAMPLES,
    };
    let sessions = if kind == Kind::Stacked { 1..3_usize } else { 1..2 };
    let quota = prop_oneof![5 => Just(None), 1 => (20_u64..200).prop_map(|n| Some(n << 10))];
    let ops = prop::collection::vec(op(kind), length);
    let form = (0..8_u64).prop_map(Form::number);
    let world = (form, below(kind), sessions, quota, any::<bool>());
    (ops, world, fault, any::<u64>()).prop_map(
        move |(ops, (form, below, sessions, quota, pinned), fault, seed)| Case {
            ops,
            form,
            below,
            sessions,
            quota,
            pinned,
            fault,
            seed,
            samples,
        },
    )
}
