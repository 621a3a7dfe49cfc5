//! What may be done about an error: for a program that imports the package a function, for the
//! command line a command.

use cowcloop_engine::remedy::{self, Remedy};
use pyo3::prelude::*;

// The server's lines and the command line's name the same commands.
#[path = "../../server/src/remedies.rs"]
mod commands;

/// Adds the function to the module, and words remedies for programs.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    remedy::word(function);
    module.add_function(wrap_pyfunction!(name_commands, module)?)
}

/// Has messages name the commands that help, from now on; with False the package's functions.
#[pyfunction]
fn name_commands(wanted: bool) {
    remedy::word(if wanted { commands::command } else { function });
}

/// The clause that names a function or its argument, where the package has one.
fn function(remedy: Remedy) -> String {
    match remedy {
        Remedy::Repair => "open it with repair=True".into(),
        Remedy::Detach => "close the disk or the server that has it first".into(),
        Remedy::KeepElsewhere => "name a place where you may write, or \":memory:\"".into(),
        Remedy::GiveSize(size) => format!("a cowfile that open() makes with size={size} has them"),
        Remedy::SizeOfNew(size) => format!("size={size} counts for a new cowfile only"),
        Remedy::MakeTree => "make it with cowcloop.digest(image, tree=path)".into(),
        Remedy::OtherDigest => {
            "name the digest of this image (cowcloop.digest() tells it), or get \
                                the image that has that one"
                .into()
        }
        Remedy::GetImage => {
            "get the image again or, if it was changed on purpose, make a new tree \
                             with cowcloop.digest()"
                .into()
        }
        Remedy::GetTree => "get the tree again, or make it anew with cowcloop.digest()".into(),
        Remedy::RepairForced
        | Remedy::RepairGivesUp
        | Remedy::Unpack
        | Remedy::CompleteMerge
        | Remedy::Rebase
        | Remedy::Snapshot
        | Remedy::Commit
        | Remedy::Extract => commands::command(remedy),
    }
}
