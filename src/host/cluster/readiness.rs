//! Whether this host could be protected now, which `enable --cluster` asks before anybody signs an order.

use std::time::{Duration, Instant};

use crate::host::system::System;
use crate::types::{Family, Protection, Unready};

/// How often the kernel is asked at most, however often others ask this host.
const ASKED_EVERY: Duration = Duration::from_secs(2);
/// The same where it lacks something: it looks for its modules each time, and the agent waits for that.
const LOOKED_EVERY: Duration = Duration::from_secs(15);

/// What the kernel has said last.
#[derive(Default)]
pub(super) struct Readiness(Option<(Instant, Option<Unready>)>);

impl Readiness {
    /// Why this host, which has addresses of these families, could not be protected; `None` where it is or could be.
    pub(super) fn unready(
        &mut self,
        now: Instant,
        protection: Protection,
        families: &[Family],
        system: &mut dyn System,
    ) -> Option<Unready> {
        if protection != Protection::Off {
            return None;
        }
        if let Some((at, why)) = self.0 {
            let lacks = why.is_some_and(|why| !why.may_pass());
            if now < at + if lacks { LOOKED_EVERY } else { ASKED_EVERY } {
                return why;
            }
        }
        let mut tried = families.iter().map(|family| system.try_esp(*family));
        let why = tried.find_map(Result::err);
        self.0 = Some((now, why));
        why
    }
}
