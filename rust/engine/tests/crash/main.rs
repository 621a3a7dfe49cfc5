//! The crash promise, held against simulated power cuts.
//!
//! Random sequences of writes, zeros, flushes, closes, kills and crashes run through
//! the real code on a simulated disk; after every event the power is cut, each
//! subset of the sectors that were not synced is lost, kept or torn, and what is
//! left is opened again with the real code and compared with what the promise
//! allows. `docs/crash-safety.md` has the argument.
//!
//! `COWCLOOP_CRASH_SEED` chooses other sequences, `COWCLOOP_CRASH_CUTS` how many
//! power cuts are tried. A case that fails is shrunk and printed.

mod cases;
mod closing;
mod disk;
mod killed;
mod lost;
mod medium;
mod model;
mod mortal;
mod mutants;
mod numbers;
mod passed_on;
mod promise;
mod scenario;
mod session;
mod threads;
mod world;

use std::cell::Cell;
use std::io::ErrorKind;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

use cases::{Below, Case, Kind, Op};
use scenario::Rules;
use world::{Form, WINDOW};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs cases until `cuts` power cuts were tried; how the first bad one failed, made smaller
/// in so many steps.
fn explore(cuts: u64, kind: Kind, rules: Rules, shrink: u32) -> Result<u64, TestError<Case>> {
    let seed = setting("COWCLOOP_CRASH_SEED", 1);
    let config = Config {
        cases: u32::MAX,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: shrink,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let tried = Cell::new(0);
    let strategy = cases::case(kind);
    // A case at a time: the number of cuts decides when it is enough.
    while tried.get() < cuts {
        let tree = strategy.new_tree(&mut runner).expect("cases can be made");
        runner.run_one(tree, |case| match scenario::run(&case, rules) {
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

/// Part of the power cuts that are tried in all.
fn part(of: u64) -> u64 {
    setting("COWCLOOP_CRASH_CUTS", 120_000) / of
}

fn holds(cuts: u64, kind: Kind) {
    assert!(explore(cuts, kind, Rules::PLAIN, 2000).unwrap_or_else(|bad| panic!("{bad}")) >= cuts);
}

#[test]
fn nothing_flushed_is_lost_in_a_power_cut() {
    holds(part(1), Kind::Plain);
}

#[test]
fn nothing_flushed_is_lost_when_calls_fail_as_well() {
    holds(part(2), Kind::CallsFail);
}

#[test]
fn nothing_flushed_is_lost_when_the_system_cannot_write_back() {
    holds(part(1), Kind::WriteBackFails);
}

#[test]
fn nothing_flushed_is_lost_on_a_lower_cowfile() {
    holds(part(4), Kind::Stacked);
}

#[test]
fn nothing_acknowledged_is_lost_in_a_take_over() {
    holds(part(1), Kind::TakeOver);
}

#[test]
fn nothing_flushed_is_lost_in_a_take_over_when_the_system_cannot_write_back() {
    holds(part(2), Kind::TakeOverFails);
}

#[test]
fn nothing_flushed_is_lost_in_hundreds_of_pages_of_the_bitmap() {
    holds(part(6), Kind::Wide);
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
        Op::Kill,
        write(2 * WINDOW + 5632, 512, 7),
        Op::Flush,
    ];
    let mut case = Case::new(&ops, seed, 6);
    let mut cuts = 0;
    for (form, below) in [(Form::NEW, Below::Base), (Form::number(1), Below::Closed(6))] {
        (case.form, case.below, case.fault) = (form, below, None);
        let calls = scenario::run(&case, Rules::PLAIN).unwrap_or_else(|bad| panic!("{bad}")).calls;
        assert!(calls > 20, "{calls}");
        for call in 0..calls {
            for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
                case.fault = Some((call, kind));
                cuts += scenario::run(&case, Rules::PLAIN)
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
    let wanted = part(3);
    let (mut cuts, mut round) = (0, 0);
    while cuts < wanted {
        let seed = seed.wrapping_mul(1_000_003).wrapping_add(round);
        cuts +=
            threads::run(seed, Rules::PLAIN.cow).unwrap_or_else(|bad| panic!("seed {seed}: {bad}"));
        round += 1;
    }
    println!("{cuts} power cuts in {round} lives, seed {seed}");
}

#[test]
fn a_broken_rule_is_found() {
    for (rule, kind, broken) in mutants::RULES.into_iter().chain(lost::RULES) {
        match explore(120_000, kind, broken, 0) {
            Ok(_) => panic!("nothing told that this rule was broken: {rule}"),
            Err(TestError::Fail(reason, _)) => println!("{rule}: {reason}"),
            Err(other) => panic!("{other}"),
        }
    }
}
