//! What went through the SAs of pairs that there are and that there were: an agent knows it, and writes it down.

use std::collections::BTreeMap;

use crate::store::PairRecord;
use crate::types::{Direction, Pair, SaReading, UnixTime, Volume};

/// What is known of a pair that the kernel does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PairTotals {
    /// Since when it is in the state that it is in.
    pub since: Option<UnixTime>,
    /// What went through all its SAs.
    pub volume: Volume,
    /// When counting that began; `None` also where figures are lost.
    pub totals_since: Option<UnixTime>,
}

/// The totals of pairs, wherever they are kept.
pub trait TotalsTable {
    /// Those of `pair`; `sas` are its SAs in the kernel.
    fn totals(&self, pair: Pair, sas: &[&SaReading]) -> PairTotals;
}

impl TotalsTable for BTreeMap<Pair, PairRecord> {
    fn totals(&self, pair: Pair, sas: &[&SaReading]) -> PairTotals {
        let nothing = PairRecord::default();
        let record = self.get(&pair).unwrap_or(&nothing);
        PairTotals {
            since: record.since,
            volume: Volume {
                tx: record.total(Direction::Out, sas, pair),
                rx: record.total(Direction::In, sas, pair),
                errors: record.refused(sas, pair),
            },
            totals_since: record.totals_since.filter(|_| record.is_whole(sas, pair)),
        }
    }
}
