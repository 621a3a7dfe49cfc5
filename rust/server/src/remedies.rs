//! What may be done about an error, as the command line has it: its user reads a server's lines.

use cowcloop_engine::Remedy;

/// The clause that names the command.
pub fn command(remedy: Remedy) -> String {
    match remedy {
        Remedy::Repair => {
            "repair it first with `cowcloop cow repair` (or --repair of serve, attach \
                           and mount)"
                .into()
        }
        Remedy::RepairForced => "repair it with `cowcloop cow repair --force`".into(),
        Remedy::RepairGivesUp => {
            "where the original driver's disk was full, `cowcloop cow repair` \
                                  gives up the blocks that are missing"
                .into()
        }
        Remedy::Unpack => "unpack it first with `cowcloop cow unpack`".into(),
        Remedy::CompleteMerge => "complete it with `cowcloop cow merge`".into(),
        Remedy::Rebase => "use that one, or `cowcloop cow rebase` if this is the same device, \
                           extracted or compressed anew"
            .into(),
        Remedy::Snapshot => "save it before with `cowcloop cow snapshot`".into(),
        Remedy::Detach => "detach the device that has it first (`cowcloop list` shows it)".into(),
        Remedy::Commit => "make a new one with `cowcloop commit`".into(),
        Remedy::Extract => "make a new image with `cowcloop extract`".into(),
        Remedy::KeepElsewhere => "name a place where you may write, or :memory:".into(),
        Remedy::MakeTree => "make it with `cowcloop digest IMAGE --tree FILE`".into(),
        Remedy::OtherDigest => {
            "name the digest of this image (`cowcloop digest` tells it), or get \
                                the image that has that one"
                .into()
        }
        Remedy::GetImage => {
            "get the image again or, if it was changed on purpose, make a new tree \
                             with `cowcloop digest --tree`"
                .into()
        }
        Remedy::GetTree => {
            "get the tree again, or make it anew with `cowcloop digest --tree`".into()
        }
        Remedy::SizeOfNew(size) => format!("--size {size} counts for a new cowfile only"),
        Remedy::GiveSize(size) => format!("a cowfile made with --size {size} has them"),
    }
}
