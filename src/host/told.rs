//! What onlookers were told of traffic that came in. The kernel counts a probe before this host hears of it, and takes it
//! for traffic until then: what was told would be taken back, which monitoring systems read as a counter that began anew.
//! So it stands still for them until there is more. The totals themselves stay exact.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::observe::Figures;
use crate::observe::figures::PairFigures;
use crate::types::Traffic;

/// What of a pair can be probes that this host has not heard of: whatever is more has begun anew.
const PROBES_MOST: Traffic = Traffic { bytes: 64 * 1500, packets: 64 };

/// The last of it, of each pair and of the host.
#[derive(Debug, Default)]
pub(super) struct ToldTraffic {
    pairs: BTreeMap<(IpAddr, IpAddr), Traffic>,
    host: Traffic,
}

impl ToldTraffic {
    /// Has these figures take back nothing for probes.
    pub(super) fn hold(&mut self, figures: &mut Figures) {
        if let Some(pairs) = &mut figures.pairs {
            let ends = |pair: &PairFigures| (pair.local, pair.remote);
            for pair in pairs.iter_mut() {
                let told = self.pairs.entry(ends(pair)).or_default();
                pair.rx = held(*told, pair.rx, 1);
                *told = pair.rx;
            }
            if self.pairs.len() > pairs.len() {
                let there: BTreeSet<_> = pairs.iter().map(ends).collect();
                self.pairs.retain(|ends, _| there.contains(ends));
            }
        }
        if let Some(volume) = &mut figures.volume {
            volume.rx = held(self.host, volume.rx, figures.summary.peers);
            self.host = volume.rx;
        }
    }
}

/// What is told of traffic of so many pairs.
fn held(told: Traffic, now: Traffic, pairs: u64) -> Traffic {
    let back = told.minus(now);
    let of_all = |most: u64| most.saturating_mul(pairs);
    match back.packets <= of_all(PROBES_MOST.packets) && back.bytes <= of_all(PROBES_MOST.bytes) {
        true => told.at_least(now),
        false => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::tests::figures;

    fn traffic(packets: u64, bytes: u64) -> Traffic {
        Traffic { bytes, packets }
    }

    /// Three packets; a probe; the probe is heard of; small packets, by which octets catch up later; and a new beginning.
    #[test]
    fn a_probe_that_is_heard_of_later_takes_back_nothing_that_was_told() {
        let mut told = ToldTraffic::default();
        let beginning = traffic(1_000_000, 1_000_000_000);
        let courses = [
            (traffic(3, 300), traffic(3, 300)),
            (traffic(4, 1800), traffic(4, 1800)),
            (traffic(3, 300), traffic(4, 1800)),
            (traffic(5, 500), traffic(5, 1800)),
            (traffic(30, 3000), traffic(30, 3000)),
            (beginning, beginning),
            (traffic(2, 200), traffic(2, 200)),
        ];
        for (counted, expected) in courses {
            let mut figures = figures();
            figures.summary.peers = 1;
            figures.pairs.iter_mut().flatten().for_each(|pair| pair.rx = counted);
            figures.volume.iter_mut().for_each(|volume| volume.rx = counted);
            told.hold(&mut figures);
            assert_eq!(figures.volume.map(|volume| volume.rx), Some(expected));
            assert_eq!(figures.pairs.map(|pairs| pairs[0].rx), Some(expected));
        }
    }
}
