//! zstd frames (RFC 8878).

use std::cell::RefCell;

use zstd::zstd_safe::{find_frame_compressed_size, get_error_name, DCtx};

use super::DecodeError;

thread_local! {
    static CONTEXT: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

pub(super) fn decode(input: &[u8], output: &mut [u8]) -> Result<usize, DecodeError> {
    // One frame only: what follows is padding, not another frame.
    let length = find_frame_compressed_size(input).map_err(refused)?;
    let frame = input.get(..length).ok_or_else(DecodeError::truncated)?;
    CONTEXT.with_borrow_mut(|context| context.decompress(output, frame)).map_err(refused)
}

fn refused(code: usize) -> DecodeError {
    DecodeError::new(format!("zstd: {}", get_error_name(code)))
}
