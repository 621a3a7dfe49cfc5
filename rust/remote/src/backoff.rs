//! Pauses between attempts: longer each time, and of no common rhythm.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// The pauses of one request.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next pause: a random one between half of what doubles each time and all of it.
    pub fn next(&mut self) -> Duration {
        let whole = (FIRST * 2_u32.pow(self.tries.min(10))).min(LONGEST);
        self.tries += 1;
        let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
        hasher.write_u32(self.tries);
        let part = (hasher.finish() % 1000) as u32;
        whole / 2 + whole / 2 * part / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound() {
        let mut backoff = Backoff::default();
        for tries in 0..12 {
            let whole = (FIRST * 2_u32.pow(tries.min(10))).min(LONGEST);
            let pause = backoff.next();
            assert!(pause >= whole / 2 && pause <= whole, "{tries}: {pause:?}");
        }
    }
}
