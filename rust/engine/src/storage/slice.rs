//! A file that lies in pieces inside another one: in an ISO 9660 image, for example.

use std::io;
use std::sync::Arc;

use super::{FetchCounters, FetchPace, Storage};

/// Ranges of another storage, one after the other, read-only.
#[derive(Debug)]
pub(crate) struct Slice {
    inner: Arc<dyn Storage>,
    name: String,
    /// Where each piece begins here, where it begins in `inner`, and its length.
    pieces: Vec<(u64, u64, u64)>,
    len: u64,
}

impl Slice {
    /// The `ranges` (offset and length in bytes) of `inner`, called `name` in messages.
    ///
    /// # Errors
    /// `InvalidInput` when a range does not lie in `inner`, or when their sum overflows.
    pub(crate) fn new(
        inner: Arc<dyn Storage>,
        name: String,
        ranges: &[(u64, u64)],
    ) -> io::Result<Slice> {
        let outer = inner.len()?;
        let mut pieces = Vec::with_capacity(ranges.len());
        let mut len = 0_u64;
        for &(offset, length) in ranges {
            if offset.checked_add(length).is_none_or(|end| end > outer) {
                let message = format!("{length} bytes at {offset} lie beyond its {outer} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
            pieces.push((len, offset, length));
            len = len.checked_add(length).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, "its parts are too long together")
            })?;
        }
        Ok(Slice { inner, name, pieces, len })
    }

    /// The pieces from the one on in which `offset` lies.
    fn from(&self, offset: u64) -> &[(u64, u64, u64)] {
        let first = self.pieces.partition_point(|(start, _, length)| start + length <= offset);
        &self.pieces[first..]
    }

    /// Where a range lies in `inner`, piece by piece: offsets and lengths.
    fn within(&self, offset: u64, length: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let end = self.len.min(offset.saturating_add(length));
        let inside = self.from(offset).iter().take_while(move |(start, ..)| *start < end);
        inside.map(move |&(start, inner, length)| {
            let from = offset.max(start);
            (inner + (from - start), end.min(start + length) - from)
        })
    }
}

impl Storage for Slice {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let end = self.len.min(offset.saturating_add(buf.len() as u64));
        let mut done = 0;
        for &(start, inner, length) in self.from(offset) {
            let at = offset + done as u64;
            if at >= end {
                break;
            }
            let within = at - start;
            let n = (length - within).min(end - at) as usize;
            let read = self.inner.read_at(&mut buf[done..done + n], inner + within)?;
            done += read;
            if read < n {
                break;
            }
        }
        Ok(done)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        for &(start, inner, length) in self.from(offset) {
            let within = offset.saturating_sub(start);
            match self.inner.next_data(inner + within)? {
                Some(data) if data < inner + length => return Ok(Some(start + (data - inner))),
                _ => {}
            }
        }
        Ok(None)
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        for &(start, inner, length) in self.from(offset) {
            let within = offset.saturating_sub(start);
            let hole = self.inner.next_hole(inner + within)?;
            if hole < inner + length {
                return Ok(start + (hole - inner));
            }
        }
        Ok(self.len.max(offset))
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn start(&self) {
        self.inner.start();
    }

    fn expect(&self, offset: u64, length: u64) {
        self.within(offset, length).for_each(|(at, length)| self.inner.expect(at, length));
    }

    fn is_near(&self, offset: u64, length: u64) -> bool {
        self.within(offset, length).all(|(at, length)| self.inner.is_near(at, length))
    }

    fn may_rot(&self) -> bool {
        self.inner.may_rot()
    }

    fn read_kept(&self, buf: &mut [u8], offset: u64) -> io::Result<Option<u64>> {
        let (mut done, mut edition) = (0, None);
        for (at, length) in self.within(offset, buf.len() as u64) {
            let piece = &mut buf[done..done + length as usize];
            let found = self.inner.read_kept(piece, at)?;
            if found.is_none() || edition.is_some_and(|edition| found != Some(edition)) {
                return Ok(None);
            }
            (done, edition) = (done + length as usize, found);
        }
        Ok(edition.filter(|_| done == buf.len()))
    }

    fn renew(&self, offset: u64, length: u64) -> bool {
        let renew = |(at, length)| self.inner.renew(at, length);
        self.within(offset, length).fold(false, |renewed, piece| renew(piece) | renewed)
    }

    fn pace(&self) -> Option<FetchPace> {
        self.inner.pace()
    }

    fn fetched(&self) -> Option<FetchCounters> {
        self.inner.fetched()
    }

    fn give_up(&self) {
        self.inner.give_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    #[test]
    fn pieces_read_as_one() {
        let outer = Arc::new(MemoryStorage::new("outer", u64::MAX));
        outer.write_all_at(b"0123456789abcdefghij", 0).unwrap();
        let ranges = [(10, 3), (0, 2), (5, 0), (18, 2)];
        let slice = Slice::new(outer.clone(), "slice".into(), &ranges).unwrap();
        let expected = b"abc01ij";
        for from in 0..8 {
            for length in 0..9 {
                let mut buf = vec![0; length];
                let n = slice.read_at(&mut buf, from as u64).unwrap();
                assert_eq!(&buf[..n], &expected[from.min(7)..(from + length).min(7)]);
            }
        }
        assert!(Slice::new(outer.clone(), "x".into(), &[(19, 2)]).is_err());
        assert!(Slice::new(outer, "x".into(), &[(u64::MAX, 2)]).is_err());
    }

    #[test]
    fn holes_stay_holes() {
        const K: u64 = 4096;
        let outer = Arc::new(MemoryStorage::new("outer", u64::MAX));
        // Data in the pages 0, 2 and 3 of 6.
        for page in [0, 2, 3] {
            outer.write_all_at(&[1; K as usize], page * K).unwrap();
        }
        outer.write_all_at(&[1], 6 * K - 1).unwrap();
        outer.punch_hole(5 * K, K).unwrap();
        // Page 2, two holes, page 0, page 3, a hole.
        let ranges = [(2 * K, K), (4 * K, 2 * K), (0, K), (3 * K, 2 * K)];
        let slice = Slice::new(outer, "slice".into(), &ranges).unwrap();
        for (from, data) in [(0, Some(0)), (K, Some(3 * K)), (2 * K, Some(3 * K)), (5 * K, None)] {
            assert_eq!(slice.next_data(from).unwrap(), data, "{from}");
        }
        assert_eq!(slice.next_data(3 * K + 5).unwrap(), Some(3 * K + 5));
        for (from, hole) in [(0, K), (K, K), (3 * K, 5 * K), (4 * K + 1, 5 * K), (9 * K, 9 * K)] {
            assert_eq!(slice.next_hole(from).unwrap(), hole, "{from}");
        }
    }

    #[test]
    fn a_range_is_known_piece_by_piece() {
        let outer = Arc::new(MemoryStorage::new("outer", u64::MAX));
        outer.write_all_at(b"0123456789abcdefghij", 0).unwrap();
        let slice = Slice::new(outer, "s".into(), &[(10, 3), (0, 2), (18, 2)]).unwrap();
        let within = |offset, length| slice.within(offset, length).collect::<Vec<_>>();
        assert_eq!(within(0, 7), [(10, 3), (0, 2), (18, 2)]);
        assert_eq!(within(2, 2), [(12, 1), (0, 1)]);
        assert_eq!(within(4, u64::MAX), [(1, 1), (18, 2)]);
        assert_eq!(within(7, 1), []);
    }

    #[test]
    fn overlapping_pieces_cannot_be_longer_than_a_file() {
        let outer = Arc::new(MemoryStorage::new("outer", u64::MAX));
        outer.write_all_at(b"0123", 0).unwrap();
        let slice = Slice::new(outer.clone(), "s".into(), &[(0, 4), (1, 2), (0, 4)]).unwrap();
        let mut buf = [0; 10];
        assert_eq!(slice.read_at(&mut buf, 0).unwrap(), 10);
        assert_eq!(&buf, b"0123120123");
        outer.write_all_at(b"4", (1 << 63) - 1).unwrap();
        let twice = [(0, 1 << 63), (0, 1 << 63)];
        let error = Slice::new(outer, "s".into(), &twice).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }
}
