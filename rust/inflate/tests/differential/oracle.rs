//! The result of zlib-ng and libdeflate for a stream, and whether this crate's is the same.
//!
//! The fuzz targets use this file too.

use std::rc::Rc;

use cowcloop_inflate::{Container, Error, Inflated, Inflater, Job, Progress, State};
use flate2::{Decompress, FlushDecompress, Status};
use libdeflater::Decompressor;

/// zlib-ng's result for a stream.
pub struct Answer {
    /// All that it wrote, as far as the room went, and some bytes beyond.
    pub bytes: Vec<u8>,
    /// Bytes of the input that it used; `None` if the stream does not end.
    pub ended: Option<usize>,
}

/// Bytes of room that zlib-ng has beyond `room`: more than any one symbol takes.
const BEYOND: usize = 300;

impl Answer {
    /// zlib-ng's answer, with `room` bytes and some more.
    pub fn of(container: Container, input: &[u8], room: usize) -> Self {
        let mut inflater = Decompress::new(container == Container::Zlib);
        let mut bytes = vec![0; room + BEYOND];
        let mut ended = None;
        loop {
            let before = (inflater.total_in(), inflater.total_out());
            let (from, to) = (before.0 as usize, before.1 as usize);
            let status =
                inflater.decompress(&input[from..], &mut bytes[to..], FlushDecompress::None);
            match status {
                Ok(Status::StreamEnd) => {
                    ended = Some(inflater.total_in() as usize);
                    break;
                }
                Ok(_) if before != (inflater.total_in(), inflater.total_out()) => {}
                _ => break,
            }
        }
        bytes.truncate(inflater.total_out() as usize);
        Answer { bytes, ended }
    }

    /// libdeflate's answer is the same for a stream that is accepted.
    fn check_libdeflate(&self, input: &[u8], room: usize) {
        let mut bytes = vec![0; room];
        let length = Decompressor::new().zlib_decompress(input, &mut bytes);
        assert_eq!(length, Ok(self.bytes.len()), "libdeflate refuses it");
        assert!(bytes[..self.bytes.len()] == self.bytes, "libdeflate differs");
    }

    /// The expected result of an inflate into `room` bytes: `None` for any error.
    pub fn whole(&self, room: usize) -> Option<Inflated> {
        let consumed = self.ended.filter(|_| self.bytes.len() <= room)?;
        Some(Inflated { written: self.bytes.len(), consumed })
    }
}

/// Pseudo-random numbers from a seed.
pub struct Random(pub u64);

impl Random {
    /// A number below `limit`, or 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit.max(1)
    }
}

/// The crate, in both forms.
pub struct Ours {
    /// One for this processor, and one for any.
    pub inflaters: [Inflater; 2],
    /// The last question to zlib-ng, and its answer: the same stream is inflated in many ways.
    last: Option<(Question, Rc<Answer>)>,
}

/// A stream, and the room for its bytes.
type Question = (Container, Vec<u8>, usize);

impl Ours {
    /// Both forms.
    pub fn new() -> Self {
        Ours { inflaters: [Inflater::new(), Inflater::portable()], last: None }
    }

    fn answer(&mut self, container: Container, input: &[u8], room: usize) -> Rc<Answer> {
        match &self.last {
            Some(((last, stream, size), answer))
                if (*last, &stream[..], *size) == (container, input, room) =>
            {
                Rc::clone(answer)
            }
            _ => {
                let answer = Rc::new(Answer::of(container, input, room));
                let question = (container, input.to_vec(), room);
                self.last = Some((question, Rc::clone(&answer)));
                answer
            }
        }
    }

    /// A whole stream, alone.
    pub fn check_whole(&mut self, container: Container, input: &[u8], output: &mut [u8]) {
        let answer = self.answer(container, input, output.len());
        for inflater in &mut self.inflaters {
            output.fill(0xee);
            let result = inflater.inflate(container, input, output);
            assert_same(&answer, result, output);
        }
        if container == Container::Zlib && answer.whole(output.len()).is_some() {
            answer.check_libdeflate(input, output.len());
        }
    }

    /// Streams in one batch.
    pub fn check_many(
        &mut self,
        container: Container,
        streams: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) {
        let pairs = streams.iter().zip(outputs.iter());
        let answers: Vec<_> =
            pairs.map(|(input, output)| self.answer(container, input, output.len())).collect();
        for inflater in &mut self.inflaters {
            let mut jobs = Vec::new();
            for (input, output) in streams.iter().zip(outputs.iter_mut()) {
                output.fill(0xee);
                jobs.push(Job::new(input, output));
            }
            inflater.inflate_many(container, &mut jobs);
            for (job, answer) in jobs.into_iter().zip(&answers) {
                assert_same(answer, job.result, job.output);
            }
        }
    }

    /// A stream that pauses at each of the stops, and goes on to its end.
    pub fn check_stops(
        &mut self,
        container: Container,
        input: &[u8],
        output: &mut [u8],
        stops: impl Iterator<Item = usize> + Clone,
    ) {
        let room = output.len();
        let answer = self.answer(container, input, room);
        for inflater in &mut self.inflaters {
            output.fill(0xee);
            let mut state = State::new(container);
            for stop in stops.clone().chain([usize::MAX]) {
                let before = state.written();
                match inflater.resume(&mut state, input, output, stop) {
                    Ok(Progress::Paused(written)) => {
                        assert!(stop <= room || before >= stop, "paused though the end was wanted");
                        assert!(written >= stop.min(room), "paused at {written}, before {stop}");
                        assert!(written <= answer.bytes.len(), "zlib-ng has less");
                        assert!(output[..written] == answer.bytes[..written], "zlib-ng differs");
                    }
                    Ok(Progress::Ended(inflated)) => {
                        assert_same(&answer, Ok(inflated), output);
                        break;
                    }
                    Err(error) => {
                        let reached = stop <= answer.bytes.len().min(room);
                        assert!(!reached, "{error}: zlib-ng reaches {stop}");
                        assert_same(&answer, Err(error), output);
                        break;
                    }
                }
            }
        }
    }

    /// A stream whose input comes in pieces, each of which is let go when it is used up.
    pub fn check_pieces(
        &mut self,
        container: Container,
        input: &[u8],
        output: &mut [u8],
        mut size: impl FnMut() -> usize,
    ) {
        let answer = self.answer(container, input, output.len());
        for inflater in &mut self.inflaters {
            output.fill(0xee);
            let (mut state, mut from, mut upto) = (State::new(container), 0, 0);
            let result = loop {
                // Of just that size, so that a sanitizer sees what is beyond.
                let piece = input[from..upto].to_vec();
                match inflater.resume(&mut state, &piece, output, usize::MAX) {
                    Ok(Progress::Ended(end)) => {
                        break Ok(Inflated { consumed: from + end.consumed, ..end })
                    }
                    Ok(Progress::Paused(_)) => panic!("the end was wanted"),
                    Err(error) if upto == input.len() => break Err(error),
                    Err(_) => {
                        from += state.take_used();
                        upto = (upto + size().max(1)).min(input.len());
                    }
                }
            };
            assert_same(&answer, result, output);
        }
    }
}

/// Both accept or both refuse, and the bytes are the same.
fn assert_same(answer: &Answer, result: Result<Inflated, Error>, output: &[u8]) {
    match (answer.whole(output.len()), result) {
        (Some(theirs), Ok(ours)) => {
            assert_eq!(ours, theirs, "zlib-ng's numbers differ");
            assert!(output[..ours.written] == answer.bytes, "zlib-ng's bytes differ");
        }
        (None, Err(_)) => {}
        (Some(theirs), Err(error)) => {
            panic!("refused ({error}), zlib-ng takes it: {theirs:?}, room {}", output.len())
        }
        (None, Ok(ours)) => panic!(
            "taken ({ours:?}), zlib-ng has {} bytes, ended: {:?}",
            answer.bytes.len(),
            answer.ended
        ),
    }
}
