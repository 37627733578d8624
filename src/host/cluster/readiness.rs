//! Whether this host could be protected now, which `enable --cluster` asks before anybody signs an order.

use std::time::{Duration, Instant};

use crate::host::system::System;
use crate::types::{Family, Protection};

/// How often the kernel is asked at most, however often others ask this host: where modules are missing, it looks for them
/// each time.
const ASKED_EVERY: Duration = Duration::from_secs(2);

/// What the kernel has said last.
#[derive(Default)]
pub(super) struct Readiness(Option<(Instant, Option<String>)>);

impl Readiness {
    /// Why this host, which has addresses of these families, could not be protected; `None` where it is or could be.
    pub(super) fn unready(
        &mut self,
        now: Instant,
        protection: Protection,
        families: &[Family],
        system: &mut dyn System,
    ) -> Option<String> {
        if protection != Protection::Off {
            return None;
        }
        if let Some((at, words)) = &self.0
            && now < *at + ASKED_EVERY
        {
            return words.clone();
        }
        let mut tried = families.iter().map(|family| system.try_esp(*family));
        let words = tried.find_map(Result::err);
        self.0 = Some((now, words.clone()));
        words
    }
}
