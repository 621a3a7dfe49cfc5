//! Where the cache of an image lies: finding it, making it, and sharing it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use cowcloop_engine::storage::FileStorage;
use rustix::fs::{flock, FlockOperation};

use crate::address::Address;
use crate::version::Version;

use super::room::Room;
use super::{Cache, Head, Neighbours};

/// The endings of files' names: of a state file, of one in the making, and of an image's bytes.
pub(super) const STATE: &str = ".state";
const NEW: &str = ".new";
const IMAGE: &str = ".image";

/// How long to wait for another process to be done with a step.
const PATIENCE: Duration = Duration::from_secs(5);

/// A directory of images that are kept.
#[derive(Debug)]
pub(crate) struct Place {
    directory: PathBuf,
    limit: Option<u64>,
    address: Address,
    /// Of the address.
    key: String,
}

impl Place {
    /// The place of an address in a directory, which is made where it is missing.
    pub fn new(directory: &Path, limit: Option<u64>, address: &Address) -> io::Result<Place> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let (address, key) = (address.clone(), address.key());
        Ok(Place { directory: directory.to_path_buf(), limit, address, key })
    }

    /// The cache of a version of the image, made where it is missing.
    pub fn open(&self, version: &Version) -> io::Result<Cache> {
        let alone = alone(&self.directory);
        let path = self.directory.join(format!("{}-{}{STATE}", self.key, version.key()));
        let cache = match existing(&path, |head| head.version == *version) {
            Some((_, cache)) => cache,
            None => {
                // A name of its own, so that no other state file ever vouches for its bytes.
                let name = format!("{}-{}-{}{IMAGE}", self.key, version.key(), RandomName::new());
                let made = make(&path, &Head::new(&self.address, version, name))?;
                if alone.is_ok() {
                    self.sweep();
                }
                made
            }
        };
        Ok(self.bounded(cache))
    }

    fn bounded(&self, mut cache: Cache) -> Cache {
        cache.room = Some(Room::new(&self.directory, self.limit));
        cache
    }

    /// The version that was used last, and its cache.
    pub fn latest(&self) -> io::Result<Option<(Version, Cache)>> {
        let _alone = alone(&self.directory);
        let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = name.strip_prefix(&self.key).is_some_and(|rest| rest.starts_with('-'));
            if ours && name.ends_with(STATE) {
                found.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        found.sort();
        let mut latest = found.into_iter().rev();
        let found = latest.find_map(|(_, path)| existing(&path, |_| true));
        Ok(found.map(|(version, cache)| (version, self.bounded(cache))))
    }

    /// Removes what crashes have left: files that no state file names.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        let text = |name: &std::ffi::OsString| name.to_string_lossy().into_owned();
        let of_state = |name: &String| {
            Head::read(&FileStorage::open(&self.directory.join(name)).ok()?).map(|head| head.data)
        };
        let names: Vec<String> = names.iter().map(text).collect();
        let states = names.iter().filter(|name| name.ends_with(STATE));
        let named: Vec<String> = states.filter_map(of_state).collect();
        for name in &names {
            if name.ends_with(NEW) || name.ends_with(IMAGE) && !named.contains(name) {
                let _ = fs::remove_file(self.directory.join(name));
            }
        }
    }
}

/// The cache that a state file vouches for, where its head `fits`.
pub(super) fn existing(path: &Path, fits: impl FnOnce(&Head) -> bool) -> Option<(Version, Cache)> {
    let writable = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
    let (state, writes) = match writable(path) {
        Ok(file) => (file, true),
        // A cache that may be read only still has what it has.
        Err(_) => (File::open(path).ok()?, false),
    };
    // Shared by all who use it: it is not removed then.
    locked(&state, FlockOperation::NonBlockingLockShared).ok()?;
    let touched = state.try_clone().ok()?;
    let state = FileStorage::from_file(state, path).ok()?;
    let head = Head::read(&state).filter(fits)?;
    let data = path.with_file_name(&head.data);
    let file = if writes { writable(&data).ok()? } else { File::open(&data).ok()? };
    if file.metadata().ok()?.len() != head.version.size {
        return None;
    }
    let _ = touched.set_modified(SystemTime::now());
    let cache = cache(file, &data, state, head.version.size, writes).ok()?;
    Some((head.version, cache))
}

/// Makes a state file at `path`, and the file beside it for the image's bytes.
pub(super) fn make(path: &Path, head: &Head) -> io::Result<Cache> {
    let bytes = head.file().ok_or_else(|| io::Error::other("its address is too long"))?;
    let (data, size) = (path.with_file_name(&head.data), head.version.size);
    let unfinished = path.with_file_name(format!("{}{NEW}", head.data));
    let file = create(&data)?;
    let made = create(&unfinished).and_then(|mut state| {
        file.set_len(size)?;
        file.sync_all()?;
        io::Write::write_all(&mut state, &bytes)?;
        state.sync_all()?;
        locked(&state, FlockOperation::NonBlockingLockShared)?;
        fs::rename(&unfinished, path)?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        let state = FileStorage::from_file(state, path)?;
        cache(file, &data, state, size, true)
    });
    made.inspect_err(|_| {
        let _ = fs::remove_file(&unfinished);
        let _ = fs::remove_file(&data);
    })
}

fn cache(
    data: File,
    path: &Path,
    state: FileStorage,
    size: u64,
    writes: bool,
) -> io::Result<Cache> {
    let neighbours = Files(data.try_clone()?);
    let data = Arc::new(FileStorage::from_file(data, path)?);
    let mut cache = Cache::on(data, Arc::new(state), size)?;
    cache.neighbours = Some(Box::new(neighbours));
    cache.path = Some(path.to_path_buf());
    *cache.closed.get_mut() = !writes;
    Ok(cache)
}

/// One process at a time makes, looks for or removes files.
pub(super) fn alone(directory: &Path) -> io::Result<File> {
    let path = directory.join("lock");
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    locked(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Other processes take the data file's lock for as long as they change bits.
#[derive(Debug)]
struct Files(File);

impl Neighbours for Files {
    fn alone(&self, change: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        locked(&self.0, FlockOperation::NonBlockingLockExclusive)?;
        let changed = change();
        flock(&self.0, FlockOperation::Unlock)?;
        changed
    }
}

/// Takes a lock, and does not wait for ever for a process that was stopped.
fn locked(file: &File, operation: FlockOperation) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        match flock(file, operation) {
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            done => return Ok(done?),
        }
    }
}

/// A few letters that no other file has.
struct RandomName(u64);

impl RandomName {
    fn new() -> RandomName {
        use std::hash::{BuildHasher, Hasher};
        let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
        hasher.write_u32(std::process::id());
        RandomName(hasher.finish())
    }
}

impl std::fmt::Display for RandomName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
