//! What pairs have counted, for whoever is told.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Core;
use crate::host::accounts::AccountsNow;
use crate::observe::totals::{PairTotals, TotalsTable};
use crate::types::{Pair, SaId, SaReading, UnixTime};

/// The totals of a core's pairs at one moment.
pub struct CoreTotals<'a> {
    core: &'a Core,
    accounts: AccountsNow<'a>,
    now: Instant,
    wall: UnixTime,
}

impl Core {
    /// The totals where the kernel holds `sas`; `wall` is the time of day at `now`.
    pub fn totals(&self, sas: &BTreeMap<SaId, SaReading>, now: Instant, wall: UnixTime) -> CoreTotals<'_> {
        CoreTotals { core: self, accounts: self.accounts.with(sas), now, wall }
    }
}

impl TotalsTable for CoreTotals<'_> {
    fn totals(&self, pair: Pair, sas: &[&SaReading]) -> PairTotals {
        let Some(machine) = self.core.pairs.get(pair) else {
            // Of a pair that is kept no more, nothing is known but its SAs.
            return BTreeMap::new().totals(pair, sas);
        };
        let (volume, totals_since) = self.accounts.of(pair, sas);
        let age = self.now.saturating_duration_since(machine.since());
        PairTotals { since: Some(self.wall.before(age)), volume, totals_since }
    }
}
