//! The reasons to refuse a stream.

use std::fmt;

/// The reason why a stream was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error {
    /// The input ends before the stream does.
    Truncated,
    /// The stream goes on where the output is full.
    TooLong,
    /// zlib: the two bytes of the header do not pass their check.
    HeaderCheck,
    /// zlib: the compression method is not DEFLATE.
    Method,
    /// zlib: the window is larger than 32 KiB.
    Window,
    /// zlib: the stream needs a preset dictionary.
    Dictionary,
    /// A block of the type that is not defined.
    BlockType,
    /// A stored block whose length and its complement differ.
    StoredLength,
    /// A dynamic block with more than 286 or 30 codes.
    TooManyCodes,
    /// The code for the code lengths is no complete code.
    CodeLengths,
    /// A repetition of code lengths with nothing to repeat, or beyond the last code.
    Repeat,
    /// The code has no end-of-block symbol.
    NoEndOfBlock,
    /// The literal and length code is over-subscribed or incomplete.
    LiteralLengths,
    /// The distance code is over-subscribed or incomplete.
    DistanceLengths,
    /// Bits that are neither a literal nor a length.
    Symbol,
    /// Bits that are no distance.
    Distance,
    /// A distance that reaches before the start of the output.
    TooFarBack,
    /// zlib: the Adler-32 differs.
    Checksum,
    /// The state belongs to another stream or another output.
    State,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // zlib's words, where it has any.
        f.write_str(match self {
            Error::Truncated => "the stream is cut off",
            Error::TooLong => "the stream is longer than the output",
            Error::HeaderCheck => "incorrect header check",
            Error::Method => "unknown compression method",
            Error::Window => "invalid window size",
            Error::Dictionary => "a preset dictionary is asked for",
            Error::BlockType => "invalid block type",
            Error::StoredLength => "invalid stored block lengths",
            Error::TooManyCodes => "too many length or distance symbols",
            Error::CodeLengths => "invalid code lengths set",
            Error::Repeat => "invalid bit length repeat",
            Error::NoEndOfBlock => "invalid code -- missing end-of-block",
            Error::LiteralLengths => "invalid literal/lengths set",
            Error::DistanceLengths => "invalid distances set",
            Error::Symbol => "invalid literal/length code",
            Error::Distance => "invalid distance code",
            Error::TooFarBack => "invalid distance too far back",
            Error::Checksum => "incorrect data check",
            Error::State => "the state belongs to another stream",
        })
    }
}

impl std::error::Error for Error {}
