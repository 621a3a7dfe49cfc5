//! The door's own arguments: `[DEVICE]`.

use std::ffi::OsStr;

use super::device::Wanted;

/// Which device it is to be.
#[derive(Debug, Default)]
pub struct Arguments {
    left_behind: Option<u32>,
}

impl Arguments {
    /// Takes one word. The error is a line for the user.
    pub fn take(&mut self, word: &OsStr) -> Result<(), String> {
        let shown = word.to_string_lossy();
        if shown.starts_with('-') {
            return Err(format!("{shown}: no such option of the door ublk"));
        }
        if self.left_behind.is_some() {
            return Err(format!("{shown}: ublk: one device is enough"));
        }
        self.left_behind = Some(number(word)?);
        Ok(())
    }

    /// Whether a device is named that a server has left behind.
    pub fn takes_over(&self) -> bool {
        self.left_behind.is_some()
    }

    /// What the words mean.
    pub fn wanted(&self) -> Wanted {
        self.left_behind.map_or(Wanted::New, Wanted::LeftBehind)
    }
}

/// The number of a device that is named. The error is a line for the user.
pub fn number(device: &OsStr) -> Result<u32, String> {
    let shown = device.to_string_lossy();
    let number = shown.strip_prefix("/dev/ublkb").and_then(|number| number.parse().ok());
    number.ok_or_else(|| format!("{shown}: not a device of ublk's, such as /dev/ublkb0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_by_its_path() {
        assert_eq!(number("/dev/ublkb12".as_ref()), Ok(12));
        for wrong in ["/dev/ublkc1", "/dev/ublkb", "/dev/ublkb0p1", "ublkb0", "/dev/ublkb-1"] {
            let line = number(wrong.as_ref()).unwrap_err();
            assert!(line.starts_with(wrong), "{line}");
        }
        let mut arguments = Arguments::default();
        arguments.take("/dev/ublkb3".as_ref()).unwrap();
        assert_eq!(arguments.wanted(), Wanted::LeftBehind(3));
        assert!(arguments.take("/dev/ublkb4".as_ref()).is_err());
    }
}
