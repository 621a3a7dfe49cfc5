//! The two ways through streams: one alone, or many, two at a time.

use crate::arch::{Arch, Work};
use crate::bounds::Bounds;
use crate::hot;
use crate::inflater::{Inflated, Job};
use crate::lane::{Lane, Position};
use crate::tables::Tables;
use crate::window::is_ready;
use crate::{Container, Error};

/// One stream, until it is done.
pub(crate) struct One<'l, 'a, 't, B> {
    pub(crate) lane: &'l mut Lane<'a>,
    pub(crate) tables: &'t mut Tables,
    pub(crate) bounds: B,
}

impl<B: Bounds> Work for One<'_, '_, '_, B> {
    type Output = Result<(), Error>;

    #[inline(always)]
    fn work<A: Arch>(self, arch: A) -> Result<(), Error> {
        let One { lane, tables, bounds } = self;
        while !walk::<A, B>(arch, lane, tables)? {
            hot::run(arch, bounds, &mut [&mut *lane], std::array::from_ref(tables));
        }
        Ok(())
    }
}

/// The careful way, at least one step, until a hot loop can take over. True if the lane is
/// done.
#[inline(always)]
fn walk<A: Arch, B: Bounds>(
    arch: A,
    lane: &mut Lane<'_>,
    tables: &mut Tables,
) -> Result<bool, Error> {
    loop {
        if lane.is_done() {
            return Ok(true);
        }
        lane.step(arch, tables)?;
        if is_ready::<B>(lane) {
            return Ok(false);
        }
    }
}

/// Many streams.
pub(crate) struct Many<'j, 'a, 't, B> {
    pub(crate) container: Container,
    pub(crate) jobs: &'j mut [Job<'a>],
    pub(crate) tables: &'t mut [Tables; 2],
    pub(crate) bounds: B,
}

/// A stream in one of the two places.
struct Seat<'j> {
    lane: Lane<'j>,
    result: &'j mut Result<Inflated, Error>,
}

impl<B: Bounds> Work for Many<'_, '_, '_, B> {
    type Output = ();

    #[inline(always)]
    fn work<A: Arch>(self, arch: A) {
        let Many { container, jobs, tables, bounds } = self;
        let mut queue: Vec<_> = jobs.iter_mut().collect();
        // The longest first: then little is left for one stream alone at the end, and
        // streams of the same kind meet.
        queue.sort_unstable_by_key(|job| job.input.len());
        // The next stream that a hot loop can work on.
        let mut sit = |tables: &mut Tables| loop {
            let job = queue.pop()?;
            let at = Position::start(container);
            let lane = Lane::new(at, job.input, &mut *job.output, usize::MAX);
            let mut seat = Seat { lane, result: &mut job.result };
            if seat.walk::<A, B>(arch, tables) {
                return Some(seat);
            }
        };
        let (mut first, mut second) = (sit(&mut tables[0]), sit(&mut tables[1]));
        while let (Some(a), Some(b)) = (&mut first, &mut second) {
            let lanes = &mut [&mut a.lane, &mut b.lane];
            if hot::run(arch, bounds, lanes, tables) == 0 {
                if !a.walk::<A, B>(arch, &mut tables[0]) {
                    first = sit(&mut tables[0]);
                }
            } else if !b.walk::<A, B>(arch, &mut tables[1]) {
                second = sit(&mut tables[1]);
            }
        }
        for (seat, tables) in [first, second].into_iter().zip(tables) {
            let Some(mut seat) = seat else { continue };
            loop {
                hot::run(arch, bounds, &mut [&mut seat.lane], std::array::from_ref(tables));
                if !seat.walk::<A, B>(arch, tables) {
                    break;
                }
            }
        }
    }
}

impl Seat<'_> {
    /// The careful way; false when the stream has ended, and its result is known.
    #[inline(always)]
    fn walk<A: Arch, B: Bounds>(&mut self, arch: A, tables: &mut Tables) -> bool {
        *self.result = match walk::<A, B>(arch, &mut self.lane, tables) {
            Ok(false) => return true,
            Ok(true) => Ok(Inflated::of(&self.lane)),
            Err(error) => Err(error),
        };
        false
    }
}
