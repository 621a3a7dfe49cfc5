//! gzip streams: one member after the other, up to the first bytes that are no member.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;
use flate2::GzHeader;

/// The beginning of a member.
const MEMBER: u8 = 0x1f;

/// The content of all members of a gzip stream.
pub(super) struct Members<R: Read> {
    /// `None`: the last member has ended.
    decoder: Option<GzDecoder<BufReader<R>>>,
    first_header: Option<GzHeader>,
    something_behind: bool,
}

impl<R: Read> Members<R> {
    pub(super) fn new(reader: R) -> Self {
        let decoder = GzDecoder::new(BufReader::new(reader));
        let first_header = decoder.header().cloned();
        Members { decoder: Some(decoder), first_header, something_behind: false }
    }

    /// The header of the first member, if it is valid.
    pub(super) fn first_header(&self) -> Option<&GzHeader> {
        self.first_header.as_ref()
    }

    /// Whether bytes follow the last member, once that has been read.
    pub(super) fn something_behind(&self) -> bool {
        self.something_behind
    }
}

impl<R: Read> Read for Members<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.decoder {
            let n = decoder.read(buf)?;
            if n > 0 || buf.is_empty() {
                return Ok(n);
            }
            let next = decoder.get_mut().fill_buf()?.first().copied();
            let ended = self.decoder.take().map(GzDecoder::into_inner);
            match next {
                Some(MEMBER) => self.decoder = ended.map(GzDecoder::new),
                next => self.something_behind = next.is_some(),
            }
        }
        Ok(0)
    }
}
