//! How hard an encoder tries.

/// How hard to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Level(Inner);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Inner {
    Number(u8),
    Best,
}

impl Level {
    /// The smallest result, however long it takes.
    pub const BEST: Level = Level(Inner::Best);

    /// 1, the fastest, to 9; `None` for other numbers.
    pub fn new(number: u8) -> Option<Level> {
        (1..=9).contains(&number).then_some(Level(Inner::Number(number)))
    }

    /// 1 to 9; `None`: the smallest result.
    pub(super) fn number(self) -> Option<u8> {
        match self.0 {
            Inner::Number(number) => Some(number),
            Inner::Best => None,
        }
    }
}

impl Default for Level {
    /// 8: on programs, text, tables and pictures alike, smaller than zlib's 9 in a fifth of
    /// its time. On source text 7 is larger than zlib's 9, by 0.3 %.
    fn default() -> Self {
        Level(Inner::Number(8))
    }
}
