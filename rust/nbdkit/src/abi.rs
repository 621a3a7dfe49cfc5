//! nbdkit's C interface, as far as this plugin uses it.
//!
//! The facts are those of `nbdkit-plugin.h` of nbdkit 1.32, API version 2. Fields are only
//! ever added at the end, and nbdkit goes by `struct_size`, so this table serves older and
//! newer servers alike.

use std::ffi::{c_char, c_int, c_void};

/// The interface with flags on data requests.
pub const API_VERSION: c_int = 2;

/// Any number of requests at once, on one connection too.
pub const THREAD_MODEL_PARALLEL: c_int = 3;

/// A zero request may punch a hole.
pub const FLAG_MAY_TRIM: u32 = 1 << 0;
/// Answer once the request is durable.
pub const FLAG_FUA: u32 = 1 << 1;
/// Only the first extent is wanted.
pub const FLAG_REQ_ONE: u32 = 1 << 2;
/// Fail rather than write the zeros out.
pub const FLAG_FAST_ZERO: u32 = 1 << 3;

/// The plugin itself honours FUA.
pub const FUA_NATIVE: c_int = 2;
/// The plugin itself answers cache requests.
pub const CACHE_NATIVE: c_int = 2;

/// A hole that reads as zeros (hole and zero flags together).
pub const EXTENT_ZERO_HOLE: u32 = 1 << 0 | 1 << 1;

/// Collects the extents of one request. Opaque.
#[repr(C)]
pub struct Extents {
    _opaque: [u8; 0],
}

/// Collects the exports of one listing. Opaque.
#[repr(C)]
pub struct Exports {
    _opaque: [u8; 0],
}

/// A callback that takes and returns nothing.
pub type Event = Option<unsafe extern "C" fn()>;
/// A callback of the start: 0, or -1 after an error.
pub type Step = Option<unsafe extern "C" fn() -> c_int>;
/// A question about a connection.
pub type Query = Option<unsafe extern "C" fn(*mut c_void) -> c_int>;
/// A data request without data: count, offset, flags.
pub type RangeRequest = Option<unsafe extern "C" fn(*mut c_void, u32, u64, u32) -> c_int>;

/// `struct nbdkit_plugin` under API version 2.
#[repr(C)]
pub struct Plugin {
    pub struct_size: u64,
    pub api_version: c_int,
    pub max_thread_model: c_int,

    pub name: *const c_char,
    pub longname: *const c_char,
    pub version: *const c_char,
    pub description: *const c_char,

    pub load: Event,
    pub unload: Event,

    pub config: Option<unsafe extern "C" fn(*const c_char, *const c_char) -> c_int>,
    pub config_complete: Step,
    pub config_help: *const c_char,

    pub open: Option<unsafe extern "C" fn(c_int) -> *mut c_void>,
    pub close: Option<unsafe extern "C" fn(*mut c_void)>,

    pub get_size: Option<unsafe extern "C" fn(*mut c_void) -> i64>,

    pub can_write: Query,
    pub can_flush: Query,
    pub is_rotational: Query,
    pub can_trim: Query,

    /// The data requests of API version 1, never filled in.
    pub version_1: [Event; 5],

    pub errno_is_preserved: c_int,

    pub dump_plugin: Event,

    pub can_zero: Query,
    pub can_fua: Query,
    pub pread: Option<unsafe extern "C" fn(*mut c_void, *mut c_void, u32, u64, u32) -> c_int>,
    pub pwrite: Option<unsafe extern "C" fn(*mut c_void, *const c_void, u32, u64, u32) -> c_int>,
    pub flush: Option<unsafe extern "C" fn(*mut c_void, u32) -> c_int>,
    pub trim: RangeRequest,
    pub zero: RangeRequest,

    pub magic_config_key: *const c_char,

    pub can_multi_conn: Query,

    pub can_extents: Query,
    pub extents: Option<unsafe extern "C" fn(*mut c_void, u32, u64, u32, *mut Extents) -> c_int>,
    pub can_cache: Query,
    pub cache: RangeRequest,

    pub thread_model: Step,

    pub can_fast_zero: Query,

    pub preconnect: Option<unsafe extern "C" fn(c_int) -> c_int>,

    pub get_ready: Step,
    pub after_fork: Step,

    pub list_exports: Option<unsafe extern "C" fn(c_int, c_int, *mut Exports) -> c_int>,
    pub default_export: Option<unsafe extern "C" fn(c_int, c_int) -> *const c_char>,
    pub export_description: Option<unsafe extern "C" fn(*mut c_void) -> *const c_char>,

    pub cleanup: Event,

    pub block_size:
        Option<unsafe extern "C" fn(*mut c_void, *mut u32, *mut u32, *mut u32) -> c_int>,
}

// SAFETY: the table is only ever read; its pointers are to static strings and
// functions.
unsafe impl Sync for Plugin {}

#[cfg(test)]
mod tests {
    use super::Plugin;
    use std::mem::{offset_of, size_of};

    /// The numbers are those that a C compiler gives for the header (64-bit machine).
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn layout_is_that_of_the_c_header() {
        assert_eq!(size_of::<Plugin>(), 384);
        assert_eq!(offset_of!(Plugin, name), 16);
        assert_eq!(offset_of!(Plugin, config), 64);
        assert_eq!(offset_of!(Plugin, open), 88);
        assert_eq!(offset_of!(Plugin, is_rotational), 128);
        assert_eq!(offset_of!(Plugin, errno_is_preserved), 184);
        assert_eq!(offset_of!(Plugin, dump_plugin), 192);
        assert_eq!(offset_of!(Plugin, pread), 216);
        assert_eq!(offset_of!(Plugin, zero), 248);
        assert_eq!(offset_of!(Plugin, magic_config_key), 256);
        assert_eq!(offset_of!(Plugin, extents), 280);
        assert_eq!(offset_of!(Plugin, get_ready), 328);
        assert_eq!(offset_of!(Plugin, export_description), 360);
        assert_eq!(offset_of!(Plugin, cleanup), 368);
        assert_eq!(offset_of!(Plugin, block_size), 376);
    }
}
