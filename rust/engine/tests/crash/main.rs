//! The crash promise, held against simulated power cuts.
//!
//! Random sequences of writes, zeros, flushes, closes and crashes run through
//! the real code on a simulated disk; after every event the power is cut, each
//! subset of the sectors that were not synced is lost, kept or torn, and what is
//! left is opened again with the real code and compared with what the promise
//! allows. `docs/crash-safety.md` has the argument.
//!
//! `COWCLOOP_CRASH_SEED` chooses other sequences, `COWCLOOP_CRASH_CUTS` how many
//! power cuts are tried. A case that fails is shrunk and printed.

mod disk;
mod killed;
mod model;
mod mutants;
mod scenario;
mod threads;

use std::cell::Cell;
use std::io::ErrorKind;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

use scenario::{Case, Op, Wrap, WINDOW};

/// States of the disk that are tried at one moment, unless there are fewer.
const SAMPLES: usize = 40;

fn op() -> impl Strategy<Value = Op> {
    let at = 0..4 * WINDOW;
    // Half of the requests are aligned as a file system's are.
    let range = prop_oneof![
        (at.clone(), 1..5000_u64),
        (at, 1..6_u64).prop_map(|(at, blocks)| (at / 1024 * 1024, blocks * 1024)),
    ];
    let write = (range.clone(), any::<u8>()).prop_map(|((at, length), seed)| Op::Write {
        at,
        length,
        seed,
    });
    let zero = range.prop_map(|(at, length)| Op::Zero { at, length });
    prop_oneof![
        6 => write,
        3 => zero,
        3 => Just(Op::Flush),
        1 => Just(Op::Reopen),
        1 => any::<u64>().prop_map(|pick| Op::Crash { pick }),
    ]
}

fn case(faults: bool) -> impl Strategy<Value = Case> {
    let fault = match faults {
        true => {
            let kind = prop_oneof![Just(ErrorKind::StorageFull), Just(ErrorKind::Other)];
            (0..100_u64, kind).prop_map(Some).boxed()
        }
        false => Just(None).boxed(),
    };
    let ops = prop::collection::vec(op(), 1..30);
    (ops, any::<Option<(bool, bool)>>(), any::<bool>(), fault, any::<u64>()).prop_map(
        |(ops, layout, stacked, fault, seed)| Case {
            ops,
            layout,
            stacked,
            fault,
            seed,
            samples: SAMPLES,
        },
    )
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs cases until `cuts` power cuts were tried; how the first bad one failed.
fn explore(cuts: u64, faults: bool, wrap: Wrap) -> Result<u64, TestError<Case>> {
    let seed = setting("COWCLOOP_CRASH_SEED", 1);
    let config = Config {
        cases: u32::MAX,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let tried = Cell::new(0);
    let strategy = case(faults);
    // A case at a time: the number of cuts decides when it is enough.
    while tried.get() < cuts {
        let tree = strategy.new_tree(&mut runner).expect("cases can be made");
        runner.run_one(tree, |case| match scenario::run(&case, wrap) {
            Ok(more) => {
                tried.set(tried.get() + more.cuts);
                Ok(())
            }
            Err(broken) => Err(TestCaseError::fail(broken)),
        })?;
    }
    println!("{} power cuts, seed {seed}", tried.get());
    Ok(tried.get())
}

fn plain(
    disk: std::sync::Arc<disk::SimDisk>,
) -> std::sync::Arc<dyn cowcloop_engine::storage::Storage> {
    disk
}

#[test]
fn nothing_flushed_is_lost_in_a_power_cut() {
    let cuts = setting("COWCLOOP_CRASH_CUTS", 120_000);
    assert!(explore(cuts, false, plain).unwrap_or_else(|bad| panic!("{bad}")) >= cuts);
}

#[test]
fn nothing_flushed_is_lost_when_calls_fail_as_well() {
    let cuts = setting("COWCLOOP_CRASH_CUTS", 120_000) / 2;
    assert!(explore(cuts, true, plain).unwrap_or_else(|bad| panic!("{bad}")) >= cuts);
}

/// A short life with every kind of request, in which each call fails once.
#[test]
fn nothing_flushed_is_lost_whichever_call_fails() {
    let seed = setting("COWCLOOP_CRASH_SEED", 1);
    let write = |at, length, seed| Op::Write { at, length, seed };
    let ops = [
        write(700, 3000, 1),
        Op::Zero { at: 1024, length: 9000 },
        write(WINDOW + 5000, 2500, 2),
        Op::Flush,
        write(100, 2048, 3),
        Op::Zero { at: WINDOW + 5300, length: 100 },
        write(3 * WINDOW + 4096, 4096, 4),
        Op::Reopen,
        write(2 * WINDOW + 5632, 1024, 5),
        Op::Zero { at: 2048, length: 1024 },
        Op::Flush,
        write(700, 512, 6),
    ];
    let mut case =
        Case { ops: ops.to_vec(), layout: None, stacked: false, fault: None, seed, samples: 8 };
    let mut cuts = 0;
    for layout in [None, Some((true, false))] {
        case.layout = layout;
        case.stacked = layout.is_some();
        case.fault = None;
        let calls = scenario::run(&case, plain).unwrap_or_else(|bad| panic!("{bad}")).calls;
        assert!(calls > 20, "{calls}");
        for call in 0..calls {
            for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
                case.fault = Some((call, kind));
                cuts += scenario::run(&case, plain)
                    .unwrap_or_else(|bad| panic!("{:?}: {bad}", case.fault))
                    .cuts;
            }
        }
    }
    println!("{cuts} power cuts");
}

#[test]
fn nothing_flushed_is_lost_under_several_threads() {
    let seed = setting("COWCLOOP_CRASH_SEED", 1);
    let wanted = setting("COWCLOOP_CRASH_CUTS", 120_000) / 2;
    let (mut cuts, mut round) = (0, 0);
    while cuts < wanted {
        let seed = seed.wrapping_mul(1_000_003).wrapping_add(round);
        cuts += threads::run(seed, plain).unwrap_or_else(|bad| panic!("seed {seed}: {bad}"));
        round += 1;
    }
    println!("{cuts} power cuts in {round} lives, seed {seed}");
}

#[test]
fn a_broken_rule_is_found() {
    let rules: [(&str, Wrap); 4] = [
        ("data is synced before the bitmap is written", mutants::no_data_sync),
        ("the bitmap is synced before a flush is acknowledged", mutants::no_bitmap_sync),
        ("every changed page of the bitmap is written", mutants::forgotten_page),
        ("the head says 'in use' before the first change", mutants::no_head_sync),
    ];
    for (rule, broken) in rules {
        match explore(120_000, false, broken) {
            Ok(_) => panic!("nobody noticed that this rule was broken: {rule}"),
            Err(TestError::Fail(reason, _)) => println!("{rule}: {reason}"),
            Err(other) => panic!("{other}"),
        }
    }
}
