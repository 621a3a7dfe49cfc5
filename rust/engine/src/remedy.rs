//! What may be done about an error, in no door's words.

use std::fmt;

use parking_lot::RwLock;

/// What may be done about an error.
///
/// The engine says what, and each door how: by a command, or by a function of its own. A door that
/// has [`word`]ed nothing shows the plain words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Remedy {
    /// Repair the cowfile, or have it repaired as it is opened.
    Repair,
    /// Repair the cowfile although it is marked as clean.
    RepairForced,
    /// A repair gives up the blocks that a full disk had no room for.
    RepairGivesUp,
    /// Unpack the packed cowfile.
    Unpack,
    /// Merge the cowfile once more, to complete an interrupted merge.
    CompleteMerge,
    /// Make the cowfile one of this base, if that holds the same device.
    Rebase,
    /// Save what was written to the cowfile.
    Snapshot,
    /// Let go of the device that has the cowfile in use.
    Detach,
    /// Make a new compressed image with the cowfile's changes in it.
    Commit,
    /// Make a new plain image with the cowfile's changes in it.
    Extract,
    /// Name a place that may be written, or keep the cowfile in memory.
    KeepElsewhere,
    /// Make the digest tree of the image.
    MakeTree,
    /// Name the digest that the image has, or get the image that has this one.
    OtherDigest,
    /// Get the image anew, or make a new digest tree if it was changed on purpose.
    GetImage,
    /// Get the digest tree anew, or make it again.
    GetTree,
    /// Make a new cowfile for a device of this many bytes.
    GiveSize(u64),
    /// Give the size of so many bytes for a new cowfile only: this one has its own.
    SizeOfNew(u64),
}

/// How a door words what may be done: a clause that follows a semicolon.
pub(crate) type Wording = fn(Remedy) -> String;

static WORDING: RwLock<Option<Wording>> = RwLock::new(None);

/// Has every error of this process shown with a door's own words, from now on.
pub fn word(wording: Wording) {
    *WORDING.write() = Some(wording);
}

impl Remedy {
    fn plain(self) -> &'static str {
        match self {
            Remedy::Repair => "repair it first",
            Remedy::RepairForced => "repair it by force",
            Remedy::RepairGivesUp => {
                "where the original driver's disk was full, a repair gives up the blocks that are \
                 missing"
            }
            Remedy::Unpack => "unpack it first",
            Remedy::CompleteMerge => "merge it again, which completes that",
            Remedy::Rebase => {
                "use that one, or rebase the cowfile if this is the same device, extracted or \
                 compressed anew"
            }
            Remedy::Snapshot => "save it with a snapshot before",
            Remedy::Detach => "detach the device that has it first",
            Remedy::Commit => "commit the cowfile into a new image",
            Remedy::Extract => "extract the device into a new image",
            Remedy::KeepElsewhere => "keep it in another place, or in memory",
            Remedy::MakeTree => "make the digest tree of this image",
            Remedy::OtherDigest => {
                "name the digest of this image, or get the image that has that one"
            }
            Remedy::GetImage => {
                "get the image again, or make a new digest tree if it was changed on purpose"
            }
            Remedy::GetTree => "get the digest tree again, or make it anew",
            Remedy::SizeOfNew(_) => "a size counts for a new cowfile only",
            Remedy::GiveSize(_) => "a cowfile that is made for a larger device has them",
        }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wording = *WORDING.read();
        match wording {
            Some(wording) => f.write_str(&wording(*self)),
            None => f.write_str(self.plain()),
        }
    }
}
