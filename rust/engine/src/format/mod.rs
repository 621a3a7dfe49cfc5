//! What bytes mean on the medium: the formats, each with all of its facts in one place.
//! Nothing is decoded, cached or changed here.

pub mod cloop;
pub mod cowfile;
pub mod detect;
pub mod trace;
pub mod verity;
