//! The functions that nbdkit calls. Each hands its arguments on to safe code, and stops
//! both errors and panics.

use std::ffi::{c_char, c_int, c_void, CStr, OsStr};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::{ptr, slice};

use cowcloop_engine::remedy::word;
use cowcloop_engine::{Extent, ExtentKind, Result};
use cowcloop_server::{command, forward, guard, Connection, Event, Events, Fua, ZeroFlags, HELP};

use crate::abi::{self, Plugin};
use crate::host::{ExportList, ExtentList};
use crate::report::{client_errno, TOLD};
use crate::{host, lifecycle};

/// Block sizes that clients are told, in bytes: any request is served; below a file
/// system's usual block a write may have to read first; nbdkit itself takes no more than
/// the maximum.
const BLOCK_SIZES: (u32, u32, u32) = (1, 4096, 64 << 20);

/// Extents that one answer may hold; the client asks again for what follows.
const MAX_EXTENTS: usize = 1 << 16;

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version without NUL"),
    };

static PLUGIN: Plugin = Plugin {
    struct_size: size_of::<Plugin>() as u64,
    api_version: abi::API_VERSION,
    max_thread_model: abi::THREAD_MODEL_PARALLEL,
    name: c"cowcloop".as_ptr(),
    longname: c"cowcloop: compressed images, writable through cowfiles".as_ptr(),
    version: VERSION.as_ptr(),
    description: c"Serves cloop, uzip and raw images; a cowfile takes the writes.".as_ptr(),
    load: Some(load),
    unload: Some(cleanup),
    config: Some(config),
    config_complete: Some(config_complete),
    config_help: HELP.as_ptr(),
    open: Some(open),
    close: Some(close),
    get_size: Some(get_size),
    can_write: Some(can_write),
    can_flush: Some(yes),
    is_rotational: Some(no),
    can_trim: Some(can_write),
    version_1: [None; 5],
    errno_is_preserved: 0,
    dump_plugin: Some(dump_plugin),
    can_zero: Some(can_write),
    can_fua: Some(can_fua),
    pread: Some(pread),
    pwrite: Some(pwrite),
    flush: Some(flush),
    trim: Some(trim),
    zero: Some(zero),
    magic_config_key: c"image".as_ptr(),
    can_multi_conn: Some(yes),
    can_extents: Some(yes),
    extents: Some(extents),
    can_cache: Some(can_cache),
    cache: Some(cache),
    thread_model: Some(thread_model),
    can_fast_zero: Some(can_write),
    preconnect: Some(preconnect),
    get_ready: Some(get_ready),
    after_fork: Some(after_fork),
    list_exports: Some(list_exports),
    default_export: None,
    export_description: Some(export_description),
    cleanup: Some(cleanup),
    block_size: Some(block_size),
};

/// Where nbdkit finds the plugin.
#[no_mangle]
pub extern "C" fn plugin_init() -> *mut Plugin {
    // nbdkit copies the table and writes nothing to it.
    ptr::from_ref(&PLUGIN).cast_mut()
}

/// 0, or -1 after the error was reported.
fn step(work: impl FnOnce() -> std::result::Result<(), String>) -> c_int {
    match guard(work) {
        Some(Ok(())) => 0,
        Some(Err(line)) => {
            TOLD.tell(Event::Error { text: &line });
            -1
        }
        None => -1,
    }
}

/// Runs a data request of a connection: 0, or -1 with the errno that its client sees.
///
/// # Safety
/// `handle` is what [`open`] returned and [`close`] has not yet taken.
unsafe fn request(handle: *mut c_void, work: impl FnOnce(&Connection) -> Result<()>) -> c_int {
    // SAFETY: by the condition above, `handle` is a `Connection` that lives.
    let connection = unsafe { &*handle.cast::<Connection>() };
    match guard(|| work(connection)) {
        Some(Ok(())) => 0,
        Some(Err(error)) => {
            host::set_error(client_errno(&error));
            -1
        }
        // Without an errno set, nbdkit answers EIO.
        None => -1,
    }
}

/// Answers a question about a connection; -1 after a panic.
///
/// # Safety
/// As for [`request`].
unsafe fn query(handle: *mut c_void, work: impl FnOnce(&Connection) -> c_int) -> c_int {
    // SAFETY: by the condition above, `handle` is a `Connection` that lives.
    let connection = unsafe { &*handle.cast::<Connection>() };
    guard(|| work(connection)).unwrap_or(-1)
}

extern "C" fn load() {
    forward(&TOLD);
    // The command line shows the server's lines to its user.
    word(command);
}

extern "C" fn dump_plugin() {
    guard(|| host::print_line(concat!("cowcloop_version=", env!("CARGO_PKG_VERSION"))));
}

unsafe extern "C" fn config(key: *const c_char, value: *const c_char) -> c_int {
    // SAFETY: nbdkit passes two C strings.
    let (key, value) = unsafe { (CStr::from_ptr(key), CStr::from_ptr(value)) };
    step(|| lifecycle::configure(&key.to_string_lossy(), OsStr::from_bytes(value.to_bytes())))
}

extern "C" fn config_complete() -> c_int {
    step(lifecycle::check_config)
}

extern "C" fn thread_model() -> c_int {
    abi::THREAD_MODEL_PARALLEL
}

extern "C" fn get_ready() -> c_int {
    step(lifecycle::get_ready)
}

extern "C" fn after_fork() -> c_int {
    step(lifecycle::after_fork)
}

extern "C" fn cleanup() {
    step(lifecycle::end);
}

extern "C" fn preconnect(_readonly: c_int) -> c_int {
    match guard(lifecycle::enter) {
        Some(true) => 0,
        _ => -1,
    }
}

extern "C" fn open(readonly: c_int) -> *mut c_void {
    let opened = guard(|| lifecycle::open(readonly != 0).map(Box::new)).flatten();
    opened.map_or(ptr::null_mut(), |connection| Box::into_raw(connection).cast())
}

unsafe extern "C" fn close(handle: *mut c_void) {
    // SAFETY: `open` made it by `Box::into_raw`, and nbdkit gives it back once,
    // after the connection's last request.
    let connection = unsafe { Box::from_raw(handle.cast::<Connection>()) };
    guard(|| drop(connection));
}

unsafe extern "C" fn get_size(handle: *mut c_void) -> i64 {
    // SAFETY: nbdkit passes the handle of a connection that is open.
    let connection = unsafe { &*handle.cast::<Connection>() };
    guard(|| i64::try_from(connection.size()).unwrap_or(-1)).unwrap_or(-1)
}

unsafe extern "C" fn block_size(
    _handle: *mut c_void,
    minimum: *mut u32,
    preferred: *mut u32,
    maximum: *mut u32,
) -> c_int {
    // SAFETY: nbdkit passes pointers to three variables of its own.
    unsafe { (*minimum, *preferred, *maximum) = BLOCK_SIZES };
    0
}

fn fua(flags: u32) -> Fua {
    Fua(flags & abi::FLAG_FUA != 0)
}

extern "C" fn yes(_handle: *mut c_void) -> c_int {
    1
}

extern "C" fn no(_handle: *mut c_void) -> c_int {
    0
}

extern "C" fn can_fua(_handle: *mut c_void) -> c_int {
    abi::FUA_NATIVE
}

extern "C" fn can_cache(_handle: *mut c_void) -> c_int {
    abi::CACHE_NATIVE
}

unsafe extern "C" fn can_write(handle: *mut c_void) -> c_int {
    // SAFETY: nbdkit passes the handle of a connection that is open.
    unsafe { query(handle, |connection| connection.writable().into()) }
}

unsafe extern "C" fn pread(
    handle: *mut c_void,
    data: *mut c_void,
    count: u32,
    offset: u64,
    _flags: u32,
) -> c_int {
    if count == 0 {
        return 0;
    }
    // SAFETY: nbdkit passes a buffer of `count` bytes that is this request's alone.
    let data = unsafe { slice::from_raw_parts_mut(data.cast::<u8>(), count as usize) };
    // SAFETY: nbdkit passes the handle of a connection that is open.
    unsafe { request(handle, |connection| connection.read(data, offset)) }
}

unsafe extern "C" fn pwrite(
    handle: *mut c_void,
    data: *const c_void,
    count: u32,
    offset: u64,
    flags: u32,
) -> c_int {
    if count == 0 {
        return 0;
    }
    // SAFETY: nbdkit passes a buffer of `count` bytes that does not change meanwhile.
    let data = unsafe { slice::from_raw_parts(data.cast::<u8>(), count as usize) };
    // SAFETY: nbdkit passes the handle of a connection that is open.
    unsafe { request(handle, |connection| connection.write(data, offset, fua(flags))) }
}

unsafe extern "C" fn flush(handle: *mut c_void, _flags: u32) -> c_int {
    // SAFETY: nbdkit passes the handle of a connection that is open.
    unsafe { request(handle, Connection::flush) }
}

unsafe extern "C" fn trim(handle: *mut c_void, count: u32, offset: u64, flags: u32) -> c_int {
    // SAFETY: nbdkit passes the handle of a connection that is open.
    unsafe { request(handle, |connection| connection.trim(offset, count.into(), fua(flags))) }
}

unsafe extern "C" fn zero(handle: *mut c_void, count: u32, offset: u64, flags: u32) -> c_int {
    let flags = ZeroFlags {
        may_trim: flags & abi::FLAG_MAY_TRIM != 0,
        fast: flags & abi::FLAG_FAST_ZERO != 0,
        fua: fua(flags),
    };
    // SAFETY: nbdkit passes the handle of a connection that is open.
    unsafe { request(handle, |connection| connection.zero(offset, count.into(), flags)) }
}

unsafe extern "C" fn extents(
    handle: *mut c_void,
    count: u32,
    offset: u64,
    flags: u32,
    list: *mut abi::Extents,
) -> c_int {
    // SAFETY: nbdkit passes its list of this request.
    let mut list = unsafe { ExtentList::new(list) };
    let mut left = if flags & abi::FLAG_REQ_ONE == 0 { MAX_EXTENTS } else { 1 };
    let mut accepted = true;
    let mut sink = |extent: Extent| {
        let kind = match extent.kind {
            ExtentKind::Data => 0,
            ExtentKind::Zero => abi::EXTENT_ZERO_HOLE,
        };
        accepted = list.add(extent.offset, extent.length, kind);
        left -= 1;
        if accepted && left > 0 {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    };
    // SAFETY: nbdkit passes the handle of a connection that is open.
    let result = unsafe {
        request(handle, |connection| connection.extents(offset, count.into(), &mut sink))
    };
    // nbdkit has itself reported what it refused.
    if accepted {
        result
    } else {
        -1
    }
}

unsafe extern "C" fn cache(handle: *mut c_void, count: u32, offset: u64, _flags: u32) -> c_int {
    let work = |connection: &Connection| {
        connection.cache(offset, count.into());
        Ok(())
    };
    // SAFETY: nbdkit passes the handle of a connection that is open.
    unsafe { request(handle, work) }
}

unsafe extern "C" fn export_description(handle: *mut c_void) -> *const c_char {
    // SAFETY: nbdkit passes the handle of a connection that is open.
    let connection = unsafe { &*handle.cast::<Connection>() };
    guard(|| host::intern(&connection.description())).unwrap_or(ptr::null())
}

unsafe extern "C" fn list_exports(
    _readonly: c_int,
    _is_tls: c_int,
    list: *mut abi::Exports,
) -> c_int {
    // SAFETY: nbdkit passes its list of this request.
    let mut list = unsafe { ExportList::new(list) };
    let added = guard(|| {
        lifecycle::exports().iter().all(|(name, description)| list.add(name, description))
    });
    match added {
        Some(true) => 0,
        _ => -1,
    }
}
