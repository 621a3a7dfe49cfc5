//! The hot loops: the choice between them, and what they share.

use crate::arch::Arch;
use crate::bounds::Bounds;
use crate::branchy::visits;
use crate::lane::Lane;
use crate::steps::steps;
use crate::tables::Tables;
use crate::window::{Cursor, Window};

/// The block once for each of the `K` streams, with a constant index.
macro_rules! each {
    ($i:ident $block:block) => {
        { const $i: usize = 0; if $i < K $block }
        { const $i: usize = 1; if $i < K $block }
    };
}
pub(crate) use each;

/// Inflates until one of the lanes needs the careful way, and returns which. That lane may
/// have needed it from the start.
#[inline(always)]
pub(crate) fn run<A: Arch, B: Bounds, const K: usize>(
    arch: A,
    _: B,
    lanes: &mut [&mut Lane<'_>; K],
    tables: &[Tables; K],
) -> usize {
    const { assert!(K == 1 || K == 2) };
    let mut windows: [Option<(Window<'_, B>, Cursor)>; K] = [None; K];
    each!(I {
        match Window::new(lanes[I], &tables[I]) {
            Some(open) => windows[I] = Some(open),
            None => return I,
        }
    });
    let Some(open) = all(windows) else { return 0 };
    let w = open.map(|(window, _)| window);
    let mut cursors = open.map(|(_, cursor)| cursor);
    let stuck = if tables.iter().all(|tables| tables.heavy) {
        visits::<A, B, K>(arch, tables, &w, &mut cursors)
    } else {
        steps::<A, B, K>(arch, tables, &w, &mut cursors)
    };
    each!(I {
        w[I].leave(lanes[I], &cursors[I]);
    });
    stuck
}

#[inline(always)]
fn all<T: Copy, const K: usize>(options: [Option<T>; K]) -> Option<[T; K]> {
    let mut all = [options[0]?; K];
    for (to, from) in all.iter_mut().zip(options) {
        *to = from?;
    }
    Some(all)
}
