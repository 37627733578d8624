//! How many pages one end may send: each of them costs the other one something.

use std::time::{Duration, Instant};

/// How many pages may come at once, and how many in a second on average.
const BURST: u32 = 128;
const PAGES_A_SECOND: u32 = 32;

/// How many pages one end may send now.
#[derive(Debug)]
pub struct PageCredit {
    left: u32,
    /// Since when they are counted.
    counted: Instant,
}

impl PageCredit {
    /// As many as may come at once.
    pub fn new(now: Instant) -> Self {
        Self { left: BURST, counted: now }
    }

    /// Whether a page that has come is looked at.
    pub fn spend(&mut self, now: Instant) -> bool {
        self.earn(now);
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }

    /// Whether as many may come at once as at first: what was said before plays no part any more.
    pub fn is_full(&mut self, now: Instant) -> bool {
        self.earn(now);
        self.left == BURST
    }

    fn earn(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.counted).as_secs();
        if passed > 0 {
            let earned = u32::try_from(passed).unwrap_or(u32::MAX).saturating_mul(PAGES_A_SECOND);
            self.left = self.left.saturating_add(earned).min(BURST);
            self.counted += Duration::from_secs(passed);
        }
    }
}
