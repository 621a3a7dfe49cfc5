//! How the machine that made a cowfile stores integers: its byte order, and its C `long`.

/// Where a head's `long` fields begin, and how many there are.
const LONGS_AT: usize = 8;
const LONGS: usize = 6;

/// The byte order of the head's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ByteOrder {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

/// The size of a C `long` on the machine that made the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WordSize {
    /// 4 bytes.
    Bits32,
    /// 8 bytes.
    Bits64,
}

/// How the fields of a head are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FieldEncoding {
    /// Byte order of every field.
    pub order: ByteOrder,
    /// Size of the `long` fields.
    pub word: WordSize,
}

impl FieldEncoding {
    /// That of a new cowfile.
    pub const NEW: FieldEncoding =
        FieldEncoding { order: ByteOrder::Little, word: WordSize::Bits64 };

    fn word_bytes(self) -> usize {
        match self.word {
            WordSize::Bits32 => 4,
            WordSize::Bits64 => 8,
        }
    }

    pub(super) fn get(self, bytes: &[u8]) -> u64 {
        let fold = |value, byte: &u8| (value << 8) | u64::from(*byte);
        match self.order {
            ByteOrder::Little => bytes.iter().rev().fold(0, fold),
            ByteOrder::Big => bytes.iter().fold(0, fold),
        }
    }

    /// Stores the low bytes of `value`, as many as `bytes` has.
    pub(super) fn put(self, bytes: &mut [u8], value: u64) {
        let n = bytes.len();
        match self.order {
            ByteOrder::Little => bytes.copy_from_slice(&value.to_le_bytes()[..n]),
            ByteOrder::Big => bytes.copy_from_slice(&value.to_be_bytes()[8 - n..]),
        }
    }

    /// The `long` fields of a head.
    pub(super) fn longs(self, head: &[u8]) -> [u64; LONGS] {
        let size = self.word_bytes();
        std::array::from_fn(|i| self.get(&head[LONGS_AT + i * size..][..size]))
    }

    /// Stores the `long` fields of a head.
    pub(super) fn put_longs(self, head: &mut [u8], values: [u64; LONGS]) {
        let size = self.word_bytes();
        for (i, value) in values.into_iter().enumerate() {
            self.put(&mut head[LONGS_AT + i * size..][..size], value);
        }
    }

    /// Bytes of the original driver's fields, from the head's first on.
    pub(crate) fn field_bytes(self) -> usize {
        LONGS_AT + LONGS * self.word_bytes()
    }

    /// The largest value that a `long` field holds.
    pub(super) fn max_long(self) -> u64 {
        match self.word {
            WordSize::Bits32 => i32::MAX as u64,
            WordSize::Bits64 => i64::MAX as u64,
        }
    }
}
