//! The medium of the base, which can be taken out and put back under a device in use.
//!
//! Nothing waits in here, so nothing that waits holds a lock or a thread that another
//! request needs. While the medium is out, a request for data on it fails at once with
//! `NoMedium`; the caller, which knows its own way to wait, is told when to try again.

use std::sync::Arc;

use parking_lot::Mutex;

use super::open::Base;
use super::{Device, DeviceOptions};
use crate::format::verity::Verified;
use crate::storage::{Exchange, Storage};
use crate::{Error, ErrorKind, Layer, Result};

/// Tells a caller that asked for it whether the medium is back.
type Told = Box<dyn FnOnce(bool) + Send>;

/// The image's file, and the identity by which it is recognized.
pub(super) struct Medium {
    file: Arc<Exchange>,
    /// Its digest tree, which may lie on the same medium.
    tree: Option<Arc<Exchange>>,
    verified: Option<Arc<Verified>>,
    options: DeviceOptions,
    /// Held while the medium is taken out or put back, which may take long.
    turn: Mutex<()>,
    /// Never held for long.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The base's identity while the medium is out: it cannot be asked then.
    out: Option<[u8; 32]>,
    /// Requests shall not wait for it.
    given_up: bool,
    waiting: Vec<Told>,
}

impl Medium {
    pub(super) fn new(base: Base, options: DeviceOptions) -> Medium {
        let Base { file, tree, verified, .. } = base;
        let (turn, state) = (Mutex::default(), Mutex::default());
        Medium { file, tree, verified, options, turn, state }
    }

    fn suspend(&self, base: &dyn Layer) -> Result<()> {
        let _turn = self.turn.lock();
        if !self.is_out() {
            let identity = base.identity()?;
            // First, so that a request that finds no file is not told that there is one.
            self.state.lock().out = Some(identity);
            drop(self.file.take());
            drop(self.tree.as_ref().map(|tree| tree.take()));
        }
        Ok(())
    }

    fn resume(&self, image: &str) -> Result<()> {
        let _turn = self.turn.lock();
        let Some(expected) = self.state.lock().out else { return Ok(()) };
        let fresh = Base::open(self.file.path(), &self.options)?;
        if fresh.image.identity()? != expected || fresh.tree.is_some() != self.tree.is_some() {
            let message = "this is another image than the one that was suspended";
            return Err(Error::new(ErrorKind::Mismatch, image, message));
        }
        if let Some(verified) = &self.verified {
            verified.forget();
        }
        let trees = self.tree.iter().zip(&fresh.tree);
        for (ours, fresh) in trees.chain([(&self.file, &fresh.file)]) {
            if let Some(file) = fresh.take() {
                ours.put(file);
            }
        }
        let State { waiting, .. } = std::mem::take(&mut *self.state.lock());
        waiting.into_iter().for_each(|told| told(true));
        Ok(())
    }

    fn is_out(&self) -> bool {
        self.state.lock().out.is_some()
    }

    pub(super) fn give_up(&self) {
        let waiting = {
            let mut state = self.state.lock();
            state.given_up = true;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(|told| told(false));
    }

    fn when_back(&self, told: Told) {
        let mut state = self.state.lock();
        let (is_in, given_up) = (state.out.is_none(), state.given_up);
        if !is_in && !given_up {
            state.waiting.push(told);
            return;
        }
        drop(state);
        told(is_in);
    }

    pub(super) fn abandon(&self) {
        self.file.abandon();
        if let Some(tree) = &self.tree {
            tree.abandon();
        }
    }
}

impl Device {
    /// Lets go of the image's file, so that its medium can be taken out: requests that need the
    /// base fail with `NoMedium` until [`resume`](Self::resume). Blocks in the cache and in
    /// cowfiles can still be read.
    ///
    /// # Errors
    /// `InvalidInput` when the base was given open, or is another device's.
    pub fn suspend(&self) -> Result<()> {
        self.own_medium()?.suspend(&*self.base)
    }

    /// Opens the image's file anew, which must be the same image as before.
    ///
    /// # Errors
    /// `Mismatch` for another image; the device stays suspended then.
    pub fn resume(&self) -> Result<()> {
        self.own_medium()?.resume(&self.image)
    }

    /// Calls `told` once it is worth repeating a request that failed with `NoMedium`: with
    /// `true` when the medium is back, with `false` when waiting is over for good. If
    /// either is the case already, it is called before this returns.
    pub fn when_back(&self, told: impl FnOnce(bool) + Send + 'static) {
        match &self.medium {
            Some(medium) => medium.when_back(Box::new(told)),
            None => told(false),
        }
    }

    /// Tells all that wait for the medium that it is not coming back, until it is resumed, and
    /// all that wait for an image that is far away.
    pub fn give_up(&self) {
        if let Some(storage) = self.storage.as_ref().filter(|_| !self.shares) {
            storage.give_up();
        }
        if let Ok(medium) = self.own_medium() {
            medium.give_up();
        }
    }

    /// Whether the medium of the base is out.
    pub fn is_suspended(&self) -> bool {
        self.medium.as_ref().is_some_and(|medium| medium.is_out())
    }

    fn own_medium(&self) -> Result<&Medium> {
        if self.storage.is_some() {
            let message = "the image lies on a server: there is no medium to take out";
            return Err(Error::new(ErrorKind::InvalidInput, &self.image, message));
        }
        self.medium.as_deref().filter(|_| !self.shares).ok_or_else(|| {
            let message = "the image is shared and cannot be suspended by itself";
            Error::new(ErrorKind::InvalidInput, &self.image, message)
        })
    }
}
