//! Random bytes, drawn for a whole step at a time: an input takes several handfuls, and each draw is a system call.

use zeroize::{Zeroize as _, Zeroizing};

use crate::ike::Entropy;

/// So many octets are drawn at once. Who wants more draws by himself.
const AT_ONCE: usize = 256;

/// A source, and what this step has drawn from it and not used yet. Nothing of it outlives the step: a virtual machine
/// that goes on from a snapshot, twice, would use the same bytes again.
pub(super) struct Drawn {
    source: Box<dyn Entropy + Send>,
    bytes: Zeroizing<[u8; AT_ONCE]>,
    /// So many of them, from the first on, are left.
    left: usize,
}

impl Drawn {
    /// Nothing is drawn yet.
    pub(super) fn from(source: Box<dyn Entropy + Send>) -> Self {
        Self { source, bytes: Zeroizing::new([0; AT_ONCE]), left: 0 }
    }

    /// The step is over: unused octets are forgotten.
    pub(super) fn end(&mut self) {
        self.bytes[..self.left].zeroize();
        self.left = 0;
    }
}

impl Entropy for Drawn {
    fn fill(&mut self, bytes: &mut [u8]) {
        if bytes.len() > AT_ONCE {
            return self.source.fill(bytes);
        }
        if self.left < bytes.len() {
            self.source.fill(&mut *self.bytes);
            self.left = AT_ONCE;
        }
        let taken = &mut self.bytes[self.left - bytes.len()..self.left];
        bytes.copy_from_slice(taken);
        taken.zeroize();
        self.left -= bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Numbers that never come again, and how many draws there were.
    struct Counting(Arc<AtomicU64>, u64);

    impl Entropy for Counting {
        fn fill(&mut self, bytes: &mut [u8]) {
            self.0.fetch_add(1, Ordering::Relaxed);
            for piece in bytes.chunks_mut(8) {
                self.1 += 1;
                piece.copy_from_slice(&self.1.to_be_bytes()[..piece.len()]);
            }
        }
    }

    #[test]
    fn a_step_draws_once_and_leaves_nothing_behind() {
        let draws = Arc::new(AtomicU64::new(0));
        let mut drawn = Drawn::from(Box::new(Counting(draws.clone(), 0)));
        let mut seen = std::collections::BTreeSet::new();
        for step in 1..=4 {
            for _ in 0..AT_ONCE / 8 - 1 {
                let mut bytes = [0; 8];
                drawn.fill(&mut bytes);
                assert!(seen.insert(bytes), "{bytes:x?} came twice");
            }
            assert_eq!(draws.load(Ordering::Relaxed), step);
            drawn.end();
            assert_eq!((*drawn.bytes, drawn.left), ([0; AT_ONCE], 0));
        }
        let mut many = [0; 2 * AT_ONCE];
        drawn.fill(&mut many);
        assert_eq!((draws.load(Ordering::Relaxed), drawn.left), (5, 0));
    }
}
