//! Replaces some functions that nbdkit calls in the C library with ours.
//!
//! A program finds the functions of a shared library in a table of addresses, which the
//! loader fills in by name. Only entries of nbdkit's table are exchanged here, while no
//! other thread runs.

use std::ffi::{c_int, c_void, CStr};
use std::io;
use std::ops::Range;
use std::ptr;
use std::slice;

use libc::{dl_phdr_info, Elf64_Phdr};

/// Entries of the dynamic section, as the ELF specification numbers them.
const DT_NULL: i64 = 0;
const DT_PLTRELSZ: i64 = 2;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_RELA: i64 = 7;
const DT_RELASZ: i64 = 8;
const DT_JMPREL: i64 = 23;

/// Relocations whose place holds the address of an imported function.
#[cfg(target_arch = "x86_64")]
const ADDRESSES: [u32; 2] = [6, 7];
#[cfg(target_arch = "aarch64")]
const ADDRESSES: [u32; 2] = [1025, 1026];

#[repr(C)]
struct Dynamic {
    tag: i64,
    value: usize,
}

#[repr(C)]
struct Relocation {
    offset: usize,
    info: u64,
    addend: i64,
}

#[repr(C)]
struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: usize,
    size: u64,
}

/// The program that loaded this library, nbdkit, as it lies in memory.
#[derive(Debug, Default)]
pub struct Program {
    base: usize,
    code: Vec<Range<usize>>,
    /// The part that the loader made read-only after filling it in.
    sealed: Range<usize>,
    strings: usize,
    symbols: usize,
    /// Tables of relocations: their places, and their numbers of entries.
    tables: [(usize, usize); 2],
}

impl Program {
    /// The program of this process.
    pub fn find() -> Option<Program> {
        let mut found = None;
        // SAFETY: the callback takes the pointer as what it is, and keeps nothing of the
        // others.
        unsafe { libc::dl_iterate_phdr(Some(first), ptr::from_mut(&mut found).cast()) };
        found
    }

    /// Whether `address` is in the program's code.
    pub fn has_code_at(&self, address: usize) -> bool {
        self.code.iter().any(|range| range.contains(&address))
    }

    /// Makes the program call `ours` where it called the function `name`. False: it does
    /// not call that.
    ///
    /// # Safety
    /// `ours` is a function that may be called like the original, and no other thread of
    /// the process runs.
    pub unsafe fn replace(&self, name: &CStr, ours: *const ()) -> io::Result<bool> {
        let mut replaced = false;
        for (table, count) in self.tables {
            if table == 0 {
                continue;
            }
            // SAFETY: the loader has read the same table, by the same entries.
            let table = unsafe { slice::from_raw_parts(table as *const Relocation, count) };
            for entry in table.iter().filter(|entry| ADDRESSES.contains(&(entry.info as u32))) {
                // SAFETY: indices and names are those that the loader has looked up.
                let known = unsafe {
                    let symbol = &*(self.symbols as *const Symbol).add((entry.info >> 32) as usize);
                    CStr::from_ptr((self.strings as *const libc::c_char).add(symbol.name as usize))
                };
                if known == name {
                    // SAFETY: the relocation's type says that the address of a function lies there.
                    unsafe { self.exchange(self.base + entry.offset, ours)? };
                    replaced = true;
                }
            }
        }
        Ok(replaced)
    }

    /// # Safety
    /// The address of a function lies at `place`, that of one like `ours`.
    unsafe fn exchange(&self, place: usize, ours: *const ()) -> io::Result<()> {
        // SAFETY: asks for a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let start = (place / page * page) as *mut c_void;
        let protect = |flags| {
            // SAFETY: a page of the program's data, whose content stays as it is.
            match unsafe { libc::mprotect(start, page, flags) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        protect(libc::PROT_READ | libc::PROT_WRITE)?;
        // SAFETY: by the condition above, and writable now.
        unsafe { (place as *mut *const ()).write_volatile(ours) };
        if self.sealed.contains(&place) {
            protect(libc::PROT_READ)?;
        }
        Ok(())
    }

    /// Records the addresses that the dynamic section gives.
    ///
    /// # Safety
    /// `entry` is the first of a dynamic section.
    unsafe fn read_dynamic(&mut self, mut entry: *const Dynamic) {
        let mut sizes = [0, 0];
        loop {
            // SAFETY: the section goes on up to DT_NULL, which is the last entry that is
            // read.
            let Dynamic { tag, value } = unsafe { entry.read() };
            // The C library has replaced offsets with addresses; others leave them.
            let address = if value < self.base { self.base + value } else { value };
            match tag {
                DT_NULL => break,
                DT_STRTAB => self.strings = address,
                DT_SYMTAB => self.symbols = address,
                DT_RELA => self.tables[0].0 = address,
                DT_RELASZ => sizes[0] = value,
                DT_JMPREL => self.tables[1].0 = address,
                DT_PLTRELSZ => sizes[1] = value,
                _ => {}
            }
            // SAFETY: this was not the last.
            entry = unsafe { entry.add(1) };
        }
        for (table, size) in self.tables.iter_mut().zip(sizes) {
            table.1 = size / size_of::<Relocation>();
        }
    }
}

/// Takes the first object, which is the program, and asks for no more.
unsafe extern "C" fn first(info: *mut dl_phdr_info, _size: usize, found: *mut c_void) -> c_int {
    // SAFETY: `find` passes the first pointer, and the loader its facts about the program.
    let (found, info) = unsafe { (&mut *found.cast::<Option<Program>>(), &*info) };
    // SAFETY: as above.
    let headers: &[Elf64_Phdr] =
        unsafe { slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let mut program = Program { base: info.dlpi_addr as usize, ..Program::default() };
    let mut dynamic = None;
    for header in headers {
        let start = program.base + header.p_vaddr as usize;
        let range = start..start + header.p_memsz as usize;
        match header.p_type {
            libc::PT_LOAD if header.p_flags & libc::PF_X != 0 => program.code.push(range),
            libc::PT_DYNAMIC => dynamic = Some(start as *const Dynamic),
            libc::PT_GNU_RELRO => program.sealed = range,
            _ => {}
        }
    }
    if let Some(dynamic) = dynamic {
        // SAFETY: a header of this type says that the section lies there.
        unsafe { program.read_dynamic(dynamic) };
        *found = Some(program);
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static CALLS: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn no_parent() -> libc::pid_t {
        CALLS.fetch_add(1, Ordering::Relaxed);
        -7
    }

    /// The test program loads this library, as nbdkit does.
    #[test]
    fn the_programs_calls_of_one_function_come_to_us() {
        let program = Program::find().unwrap();
        assert!(program.has_code_at(no_parent as *const () as usize));
        assert!(!program.has_code_at(libc::printf as *const () as usize));
        // SAFETY: takes nothing, returns the same; no other thread calls it.
        unsafe {
            assert!(libc::getppid() > 0);
            assert!(!program.replace(c"no_such_function", no_parent as *const ()).unwrap());
            assert!(program.replace(c"getppid", no_parent as *const ()).unwrap());
            assert_eq!(libc::getppid(), -7);
        }
        assert_eq!(CALLS.load(Ordering::Relaxed), 1);
    }
}
