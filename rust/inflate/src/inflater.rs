//! The interface of the crate.

use std::fmt;

use crate::arch::{Arch, Portable, Work};
use crate::bounds::{Bounds, Proven};
use crate::header;
use crate::lane::{Lane, Place, Position};
use crate::many::{Many, One};
use crate::tables::Tables;
use crate::{Container, Error};

/// A stream that was inflated to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inflated {
    /// Bytes of the output that it filled. The bytes behind them are undefined.
    pub written: usize,
    /// Bytes of the input that it used, with header and trailer. More may follow; that is
    /// no error.
    pub consumed: usize,
}

impl Inflated {
    pub(crate) fn of(lane: &Lane<'_>) -> Self {
        Inflated { written: lane.at.out, consumed: lane.at.bit.div_ceil(8) }
    }
}

/// A stream among many.
#[derive(Debug)]
pub struct Job<'a> {
    /// The stream.
    pub input: &'a [u8],
    /// The output for its bytes.
    pub output: &'a mut [u8],
    /// Its result: [`Error::Truncated`] until it was inflated.
    pub result: Result<Inflated, Error>,
}

impl<'a> Job<'a> {
    /// Describes a stream to be inflated.
    pub fn new(input: &'a [u8], output: &'a mut [u8]) -> Self {
        Job { input, output, result: Err(Error::Truncated) }
    }
}

/// How far a stream was inflated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes are right, and the stream may go on.
    Paused(usize),
    /// The stream has ended.
    Ended(Inflated),
}

impl Progress {
    /// The result of the stream, if it has ended.
    pub fn ended(self) -> Option<Inflated> {
        match self {
            Progress::Ended(inflated) => Some(inflated),
            Progress::Paused(_) => None,
        }
    }
}

/// The place at which an inflate paused. It is small and has no window: that is in the
/// output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State(Position);

impl State {
    /// The start of a stream.
    pub fn new(container: Container) -> Self {
        State(Position::start(container))
    }

    /// Bytes that were written; the next ones follow them.
    pub fn written(&self) -> usize {
        self.0.out
    }

    /// Has the input begin with the first byte that is still needed, and returns how many bytes
    /// come before it: the caller takes them off the input.
    pub fn take_used(&mut self) -> usize {
        let Position { place, bit, header, .. } = &mut self.0;
        let used = if *place == Place::Symbols { *header / 8 } else { *bit / 8 };
        *bit -= used * 8;
        // Elsewhere than among symbols the header is of no more use.
        *header = header.saturating_sub(used * 8);
        used
    }
}

/// Inflates streams. It keeps the tables that this needs, 26 KB, from one stream to the
/// next.
pub struct Inflater {
    tables: Box<[Tables; 2]>,
    processor: Processor,
}

/// The kind of this processor.
#[derive(Debug, Clone, Copy)]
enum Processor {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Bmi2(crate::arch::Bmi2),
}

impl Processor {
    fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(bmi2) = crate::arch::Bmi2::detect() {
            return Processor::Bmi2(bmi2);
        }
        Processor::Portable
    }

    fn call<W: Work>(self, work: W) -> W::Output {
        match self {
            Processor::Portable => Portable.call(work),
            #[cfg(target_arch = "x86_64")]
            Processor::Bmi2(bmi2) => bmi2.call(work),
        }
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("processor", &self.processor).finish_non_exhaustive()
    }
}

impl Default for Inflater {
    fn default() -> Self {
        Self::new()
    }
}

impl Inflater {
    /// An inflater for this processor.
    pub fn new() -> Self {
        Inflater {
            tables: Box::new([Tables::new(), Tables::new()]),
            processor: Processor::detect(),
        }
    }

    /// The same, without the instructions that only some processors have.
    pub fn portable() -> Self {
        Inflater { processor: Processor::Portable, ..Self::new() }
    }

    /// Inflates a whole stream. [`Error::TooLong`] if it does not fit into `output`. A
    /// stream that is shorter is no error: the caller sees its length by the bytes written.
    pub fn inflate(
        &mut self,
        container: Container,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<Inflated, Error> {
        match self.resume(&mut State::new(container), input, output, usize::MAX)? {
            Progress::Ended(inflated) => Ok(inflated),
            Progress::Paused(_) => Err(Error::TooLong),
        }
    }

    /// Inflates many streams, each as [`Inflater::inflate`] would, two at a time. Each job
    /// has its own result.
    pub fn inflate_many(&mut self, container: Container, jobs: &mut [Job<'_>]) {
        self.many_with(Proven, container, jobs);
    }

    pub(crate) fn many_with<B: Bounds>(
        &mut self,
        bounds: B,
        container: Container,
        jobs: &mut [Job<'_>],
    ) {
        self.processor.call(Many { container, jobs, tables: &mut self.tables, bounds });
    }

    /// Inflates the beginning of a stream: at least `stop` bytes, unless it ends before.
    pub fn inflate_prefix(
        &mut self,
        container: Container,
        input: &[u8],
        output: &mut [u8],
        stop: usize,
    ) -> Result<(Progress, State), Error> {
        let mut state = State::new(container);
        let progress = self.resume(&mut state, input, output, stop)?;
        Ok((progress, state))
    }

    /// Goes on from `state`, until at least `stop` bytes are written or the stream ends.
    ///
    /// After an error the state stands before the symbol, header or trailer that it is about. So
    /// a stream of which only the beginning was there goes on once `input` is longer.
    pub fn resume(
        &mut self,
        state: &mut State,
        input: &[u8],
        output: &mut [u8],
        stop: usize,
    ) -> Result<Progress, Error> {
        self.resume_with(Proven, state, input, output, stop)
    }

    pub(crate) fn resume_with<B: Bounds>(
        &mut self,
        bounds: B,
        state: &mut State,
        input: &[u8],
        output: &mut [u8],
        stop: usize,
    ) -> Result<Progress, Error> {
        let at = state.0;
        if at.bit.div_ceil(8) > input.len() || at.out > output.len() {
            return Err(Error::State);
        }
        let mut lane = Lane::new(at, input, output, stop);
        let tables = &mut self.tables[0];
        let result = self.processor.call(Resume { lane: &mut lane, tables, bounds });
        state.0 = lane.at;
        result?;
        Ok(match lane.at.place {
            Place::End => Progress::Ended(Inflated::of(&lane)),
            _ => Progress::Paused(lane.filled.max(lane.at.out)),
        })
    }
}

/// One stream, with the tables that its block needs.
struct Resume<'l, 'a, 't, B> {
    lane: &'l mut Lane<'a>,
    tables: &'t mut Tables,
    bounds: B,
}

impl<B: Bounds> Work for Resume<'_, '_, '_, B> {
    type Output = Result<(), Error>;

    #[inline(always)]
    fn work<A: Arch>(self, arch: A) -> Result<(), Error> {
        let Resume { lane, tables, bounds } = self;
        if lane.at.place == Place::Symbols && !lane.is_done() {
            let at = lane.at;
            lane.at.bit = at.header;
            let header = header::read(arch, lane, tables);
            let after = std::mem::replace(&mut lane.at, at);
            if header.is_err() || after.place != Place::Symbols || after.bit > at.bit {
                return Err(Error::State);
            }
        }
        One { lane, tables, bounds }.work(arch)
    }
}
