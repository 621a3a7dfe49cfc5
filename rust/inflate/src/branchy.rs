//! The hot loop for blocks of which nearly all is literals: there a branch that tells a literal
//! from a match is predicted well, and four literals between two refills are better than two.

#![allow(unsafe_code)]

use crate::arch::Arch;
use crate::bounds::{invariant, Bounds};
use crate::copy::copy_match;
use crate::tables::{DISTANCE_BITS, EXCEPTIONAL, LITERAL, LITERAL_BITS};
use crate::window::{load, Cursor, Seldom, Window, PAD};
