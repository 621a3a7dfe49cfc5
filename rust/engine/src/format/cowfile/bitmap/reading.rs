//! Reading a bitmap from where it is stored. Only pages that hold a bit take memory.

use std::io;
use std::sync::atomic::Ordering;

use super::{Bitmap, PAGE_BYTES};
use crate::format::cowfile::head::HEAD_BYTES;
use crate::storage::Storage;

impl Bitmap {
    /// Reads the bitmap of a cowfile.
    ///
    /// # Errors
    /// `UnexpectedEof`, before any memory is taken, when the file ends before
    /// the bitmap does.
    pub fn load(storage: &dyn Storage, mapsize: u64) -> io::Result<Bitmap> {
        let end = HEAD_BYTES + mapsize;
        if storage.len()? < end {
            let message = format!("the file ends before its {mapsize} bytes of bitmap");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        let bitmap = Bitmap::new(mapsize);
        let mut buf = vec![0; 256 * PAGE_BYTES as usize];
        let mut at = 0;
        while let Some(data) = storage.next_data(at)?.filter(|data| *data < end) {
            let stop = storage.next_hole(data)?.clamp(data + 1, end);
            at = data - data % PAGE_BYTES;
            while at < stop {
                let n = buf.len().min((stop.next_multiple_of(PAGE_BYTES).min(end) - at) as usize);
                storage.read_exact_at(&mut buf[..n], at)?;
                for (i, bytes) in buf[..n].chunks(PAGE_BYTES as usize).enumerate() {
                    bitmap.fill_page((at / PAGE_BYTES) as usize + i, bytes);
                }
                at += n as u64;
            }
        }
        Ok(bitmap)
    }

    /// Reads a bitmap from a reader that stands at its beginning.
    pub(crate) fn read_from(reader: &mut dyn io::Read, mapsize: u64) -> io::Result<Bitmap> {
        let bitmap = Bitmap::new(mapsize);
        let end = HEAD_BYTES + mapsize;
        let mut page = [0; PAGE_BYTES as usize];
        let mut at = HEAD_BYTES;
        while at < end {
            let start = at - at % PAGE_BYTES;
            let bytes = &mut page[..(end - start).min(PAGE_BYTES) as usize];
            reader.read_exact(&mut bytes[(at - start) as usize..])?;
            bitmap.fill_page((start / PAGE_BYTES) as usize, bytes);
            at = start + PAGE_BYTES;
        }
        Ok(bitmap)
    }

    fn fill_page(&self, page: usize, bytes: &[u8]) {
        let skip = if page == 0 { HEAD_BYTES as usize } else { 0 };
        if bytes.iter().skip(skip).all(|byte| *byte == 0) {
            return;
        }
        let mut fresh = 0;
        for (word, chunk) in self.page(page).iter().zip(bytes.chunks(8)).skip(skip / 8) {
            let mut raw = [0; 8];
            raw[..chunk.len()].copy_from_slice(chunk);
            let value = u64::from_le_bytes(raw);
            fresh += (value & !word.swap(value, Ordering::Relaxed)).count_ones();
        }
        self.count.fetch_add(u64::from(fresh), Ordering::Relaxed);
    }
}
