//! What the cases are made of, and random ones of several kinds.

use std::io::ErrorKind;

use proptest::prelude::*;
use proptest::strategy::Union;

use crate::world::{Form, WINDOW};

/// What the user of a device does, and what happens to it.
#[derive(Debug, Clone)]
pub enum Op {
    Write {
        at: u64,
        length: u64,
        seed: u8,
    },
    Zero {
        at: u64,
        length: u64,
    },
    /// A block for each page of the bitmap.
    Scatter {
        seed: u8,
    },
    Flush,
    /// A clean close, and opened again.
    Reopen,
    /// The server is killed, and another one goes on.
    Kill,
    /// The server will be killed after so many of its calls on files, within a request or not.
    Die {
        calls: u64,
    },
    /// It is killed, and the one that goes on keeps no bits.
    KillUnkept,
    /// There is no room for more bits in the kept file, or there is again.
    KeptFull(bool),
    /// Closed, and gone on with read-only; then opened again.
    ReadOnly,
    Snapshot,
    /// The system fails to write some of what waits; no sync has reported it yet.
    WriteBackFails,
    /// The system forgets some of what it has in memory.
    Pressure,
    /// A power cut; whatever the disk holds then is opened again.
    Crash {
        pick: u64,
    },
}

/// What the cowfiles lie on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Below {
    Base,
    /// A base that is smaller than the device.
    ShortBase,
    /// Another cowfile.
    Closed(u8),
    /// One that a killed server left.
    Unclean(u8),
}

/// A whole test case.
#[derive(Debug, Clone)]
pub struct Case {
    pub ops: Vec<Op>,
    pub form: Form,
    pub below: Below,
    /// Cowfiles on one base, each written to by itself.
    pub sessions: usize,
    pub quota: Option<u64>,
    /// The head and bitmap stay in the system's cache whatever it is told.
    pub pinned: bool,
    /// Bits are kept for a server that takes over.
    pub kept: bool,
    /// Which call on the first cowfile fails, on each machine.
    pub fault: Option<(u64, std::io::ErrorKind)>,
    pub seed: u64,
    /// States of the disk that are tried at one moment, unless there are fewer.
    pub samples: usize,
}

impl Case {
    pub fn new(ops: &[Op], seed: u64, samples: usize) -> Case {
        Case {
            ops: ops.to_vec(),
            form: Form::NEW,
            below: Below::Base,
            sessions: 1,
            quota: None,
            pinned: false,
            kept: false,
            fault: None,
            seed,
            samples,
        }
    }

    /// Whether there is a cowfile below.
    pub fn stacked(&self) -> bool {
        matches!(self.below, Below::Closed(_) | Below::Unclean(_))
    }
}

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
    /// Servers are killed at any call, and others take over from what was kept.
    TakeOver,
    /// The same, and the system cannot write back what waits.
    TakeOverFails,
}

impl Kind {
    fn keeps(self) -> bool {
        matches!(self, Kind::TakeOver | Kind::TakeOverFails)
    }
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
    if kind.keeps() {
        ops.push((40, (0..24_u64).prop_map(|calls| Op::Die { calls }).boxed()));
        ops.push((3, Just(Op::KillUnkept).boxed()));
        ops.push((5, any::<bool>().prop_map(Op::KeptFull).boxed()));
    }
    match kind {
        Kind::WriteBackFails | Kind::TakeOverFails => {
            ops.push((15, Just(Op::WriteBackFails).boxed()));
            ops.push((10, Just(Op::Pressure).boxed()));
        }
        Kind::Wide => ops.push((20, any::<u8>().prop_map(|seed| Op::Scatter { seed }).boxed())),
        Kind::Plain | Kind::CallsFail | Kind::Stacked | Kind::TakeOver => {}
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
        Kind::Stacked | Kind::TakeOver | Kind::TakeOverFails => SOME,
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
            kept: kind.keeps(),
            fault,
            seed,
            samples,
        },
    )
}
