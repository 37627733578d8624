//! What a kernel has counted since a proof began, over SAs that come and go meanwhile.

use std::collections::BTreeMap;

use super::word::{Gauges, SaGauge};
use crate::observe::pair_proof::FIGURE_MOST;
use crate::types::{Direction, Spi};

/// What was counted before, and by now.
pub(super) struct ProofCount {
    before: Gauges,
    last: Gauges,
    /// What each SA had counted when it was seen last, also those that are gone.
    seen: BTreeMap<(Spi, Direction), u64>,
}

impl ProofCount {
    /// So much was counted before.
    pub(super) fn since(before: Gauges) -> Self {
        let mut counted = Self { last: before.clone(), before, seen: BTreeMap::new() };
        counted.see();
        counted
    }

    /// So much is by now. Says whether a counter fell, which none does.
    pub(super) fn note(&mut self, gauges: Gauges) -> bool {
        let seen = |sa: &SaGauge| self.seen.get(&(sa.spi, sa.direction)).copied();
        let fell = gauges.sas.iter().any(|sa| seen(sa) > Some(sa.packets));
        let fell = fell || gauges.refused < self.last.refused;
        self.last = gauges;
        self.see();
        fell
    }

    fn see(&mut self) {
        self.seen.extend(self.last.sas.iter().map(|sa| ((sa.spi, sa.direction), sa.packets)));
    }

    /// What was counted before.
    pub(super) fn before(&self) -> &Gauges {
        &self.before
    }

    /// What was at the last look.
    pub(super) fn last(&self) -> &Gauges {
        &self.last
    }

    /// How many more packets were refused.
    pub(super) fn refused(&self) -> u64 {
        self.last.refused.saturating_sub(self.before.refused)
    }

    /// How many more packets went that way, as far as that is known. An SA that is new began at 0.
    pub(super) fn rise(&self, direction: Direction) -> u64 {
        let of = self.seen.iter().filter(|((_, way), _)| *way == direction);
        let risen = |((spi, way), packets): (&(Spi, Direction), &u64)| {
            packets.saturating_sub(self.before.of(*spi, *way).unwrap_or_default())
        };
        of.map(risen).fold(0, u64::saturating_add).min(FIGURE_MOST)
    }

    /// Whether that is all: an SA that is gone may have counted more after it was seen last.
    pub(super) fn is_whole(&self, direction: Direction) -> bool {
        let mut of = self.seen.keys().filter(|(_, way)| *way == direction);
        of.all(|(spi, way)| self.last.of(*spi, *way).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauges(refused: u64, inbound: &[(u32, u64)]) -> Gauges {
        let sa = |(spi, packets): &(u32, u64)| SaGauge {
            spi: Spi(*spi),
            direction: Direction::In,
            packets: *packets,
        };
        Gauges { refused, sas: inbound.iter().map(sa).collect() }
    }

    #[test]
    fn a_rise_is_over_all_sas_of_its_way_also_those_that_go() {
        let mut counted = ProofCount::since(gauges(3, &[(1, 5)]));
        assert!(!counted.note(gauges(4, &[(1, 9), (2, 3)])));
        assert_eq!((counted.refused(), counted.rise(Direction::In), counted.rise(Direction::Out)), (1, 7, 0));
        assert!(counted.is_whole(Direction::In));
        assert!(!counted.note(gauges(4, &[(2, 4)])), "the first one is gone");
        assert_eq!(counted.rise(Direction::In), 8);
        assert!(!counted.is_whole(Direction::In) && counted.is_whole(Direction::Out));
    }

    /// A peer may name many SAs, each with the highest figure.
    #[test]
    fn a_sum_is_no_higher_than_any_figure() {
        let mut counted = ProofCount::since(gauges(0, &[]));
        for spi in 0..9000 {
            counted.note(gauges(FIGURE_MOST, &[(spi, FIGURE_MOST)]));
        }
        assert_eq!((counted.rise(Direction::In), counted.refused()), (FIGURE_MOST, FIGURE_MOST));
    }

    #[test]
    fn no_counter_falls() {
        for (refused, inbound) in [(2, 9), (4, 8)] {
            let mut counted = ProofCount::since(gauges(3, &[(1, 9)]));
            assert!(!counted.note(gauges(3, &[])));
            assert!(counted.note(gauges(refused, &[(1, inbound)])), "nor after it was away");
        }
    }
}
