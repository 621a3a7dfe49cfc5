//! The numbers on which the hot loops' safety rests, in one place, so that tests can run
//! the same loops with a number that is wrong by one, and see that the error is noticed.

/// The bounds of the loops. Tests have others; only one set is right.
pub(crate) trait Bounds: Copy {
    /// Bytes that one refill of the bit buffer loads. A loop may refill as long as the
    /// address is at least this far from the input's end.
    const LOAD: usize = 8;
    /// Bits that the buffer must still have when a step has consumed its length: the
    /// padding, and the eight with which the distance is looked up before the buffer is
    /// topped up. A step that has fewer is done again in a slower way.
    const LEAST: u8 = 10;
    /// Bytes of input by which a step can move on: a refill of ten bits or more adds six at
    /// most.
    const STEP_IN: usize = 6;
    /// Bytes of output by which a step can move on: two literals, and a match of up to 64.
    const STEP_OUT: usize = 66;
    /// The most bytes that a step writes: those 66, and two behind them, the literals that
    /// the first half of the next step stores before it is known whether they are literals.
    const OUT_SLACK: usize = 68;
    /// Bytes that a long copy may write beyond the match: it copies 32 at a time.
    const COPY_SLACK: usize = 31;
    /// The number of steps that a rare event counts as, besides its own: it uses up to 13
    /// bytes of input and writes up to 260, less than four steps do.
    const RARE_STEPS: isize = 3;
    /// Steps of a round. A distance is told from the mark for "none", 65,535, because it
    /// reaches no farther than 32,768 before the round's start: a round writes less than
    /// 32,767 bytes.
    const ROUND: isize = 450;
    /// Whether the invariants are checked at run time.
    const CHECKED: bool = cfg!(debug_assertions);
}

/// The right bounds.
#[derive(Clone, Copy)]
pub(crate) struct Proven;
impl Bounds for Proven {}

/// Checks an invariant of a hot loop, named, in debug builds and in tests.
macro_rules! invariant {
    ($bounds:ty, $name:literal, $holds:expr) => {
        if <$bounds>::CHECKED {
            assert!($holds, concat!("invariant: ", $name));
        }
    };
}
pub(crate) use invariant;
