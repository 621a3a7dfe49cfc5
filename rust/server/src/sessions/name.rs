//! The export name of a session: its name and, behind `@`, the boot of the client's machine.

/// Bytes of the longest session name.
const MAX_NAME: usize = 200;
/// Bytes of the longest boot: a kernel's has 36.
const MAX_BOOT: usize = 64;

/// The session that a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    /// Names this boot of the client's machine alone.
    pub(super) boot: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    /// Reads an export name. The error is a line for the log.
    pub(super) fn parse(export: &'a [u8]) -> Result<Wanted<'a>, String> {
        let mut parts = export.splitn(2, |byte| *byte == b'@');
        let name = parts.next().and_then(valid_name);
        let boot = parts.next().map(valid_boot);
        match (name, boot) {
            (Some(name), None) => Ok(Wanted { name, boot: None }),
            (Some(name), Some(Some(boot))) => Ok(Wanted { name, boot: Some(boot) }),
            _ => {
                let shown = &export[..export.len().min(MAX_NAME + 1 + MAX_BOOT)];
                Err(format!(
                    "export {:?}: not a session name; 1 to {MAX_NAME} letters, digits, dots, \
                     underscores and dashes, not beginning with a dot, and perhaps @ and the \
                     machine's boot",
                    String::from_utf8_lossy(shown)
                ))
            }
        }
    }
}

fn allowed(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(byte)
}

/// The name as text when it is one that stays within the folder.
pub(super) fn valid_name(name: &[u8]) -> Option<&str> {
    let valid = (1..=MAX_NAME).contains(&name.len()) && name[0] != b'.';
    std::str::from_utf8(name).ok().filter(|_| valid && name.iter().all(allowed))
}

fn valid_boot(boot: &[u8]) -> Option<&str> {
    let valid = (1..=MAX_BOOT).contains(&boot.len()) && boot.iter().all(allowed);
    std::str::from_utf8(boot).ok().filter(|_| valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_within_their_folder() {
        for name in ["a", "Alice", "room-3.seat_7", "a..b", "-", &"x".repeat(200)] {
            assert_eq!(valid_name(name.as_bytes()), Some(name));
            assert_eq!(Wanted::parse(name.as_bytes()), Ok(Wanted { name, boot: None }));
        }
        for name in ["", ".", "..", ".hidden", "../x", "a/b", "a b", "a\0b", "é", "a\n", "a@"] {
            assert_eq!(valid_name(name.as_bytes()), None, "{name:?}");
            assert!(Wanted::parse(name.as_bytes()).is_err(), "{name:?}");
        }
        assert_eq!(valid_name(&[b'x'; 201]), None);
        assert_eq!(valid_name(b"a\xff"), None);
    }

    #[test]
    fn a_boot_stands_behind_the_name() {
        let boot = "6a0e0a52-3b0e-4a57-9d43-0a0c9f0a4c11";
        let export = format!("pc17@{boot}");
        let wanted = Wanted { name: "pc17", boot: Some(boot) };
        assert_eq!(Wanted::parse(export.as_bytes()), Ok(wanted));
        for export in ["@x", "a@", "a@b@c", "a@b/c", "a@b c", "a@é", ".@b"] {
            assert!(Wanted::parse(export.as_bytes()).is_err(), "{export:?}");
        }
        let long = |boot| format!("a@{}", "b".repeat(boot));
        assert!(Wanted::parse(long(64).as_bytes()).is_ok());
        assert!(Wanted::parse(long(65).as_bytes()).is_err());
    }
}
