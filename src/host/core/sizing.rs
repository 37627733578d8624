//! Searches for the largest packet that gets through to each peer (`protect::path_mtu`), a few at a time.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::silence::listens;
use super::{Core, ProbeDatagram};
use crate::host::probe::{self, ECHO, SizeProbe};
use crate::protect::PairMachine;
use crate::protect::clock::Clock;
use crate::protect::path_mtu::{PathMtu, Sizing};
use crate::types::{Pair, Sa, Spi};

/// So many searches go on at a time.
const AT_ONCE: usize = 32;
/// How often it is looked whether a path on which large packets were lost passes them again.
const AGAIN: Duration = Duration::from_secs(60);

/// A search that goes on.
pub(super) struct Search {
    /// Our name of the child that it goes through.
    child: Spi,
    sizing: Sizing,
    wake: Option<Instant>,
}

/// What a search has found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    child: Spi,
    found: PathMtu,
    /// The largest size that was answered.
    passed: u16,
    at: Instant,
    /// The last search found nothing; the size is from one before.
    in_vain: bool,
}

impl Measured {
    fn is_outdated(&self, child: Spi, now: Instant) -> bool {
        match self.found {
            PathMtu::Fine if !self.in_vain => self.child != child,
            _ => now >= self.at + AGAIN,
        }
    }
}

impl Core {
    /// Octets of the largest packet that gets through to the peer of `pair`, with its IP header and before ESP, where
    /// larger ones are lost on the way though this host lets them out.
    pub fn narrow(&self, pair: Pair) -> Option<u16> {
        match self.acquaintances.get(&pair)?.measured?.found {
            PathMtu::Narrow { passes } => Some(passes),
            PathMtu::Fine | PathMtu::Nothing => None,
        }
    }

    /// Begins searches for pairs that have new keys, once for each child, and for those on which packets were lost.
    pub(super) fn measure_paths(&mut self, now: Instant) {
        let mut wanted = Vec::new();
        for (pair, machine) in self.pairs().iter().filter(|(_, machine)| listens(machine)) {
            let known = self.acquaintances.get(pair);
            let answers = known.is_some_and(|known| known.about.as_ref().is_some_and(|about| about.sizes));
            let Some(child) = machine.settled_child().filter(|_| answers) else { continue };
            let last = known.and_then(|known| known.measured);
            let due = last.is_none_or(|it| it.is_outdated(child, now));
            if due && !self.searches.contains_key(pair) {
                wanted.push((last.map(|it| it.at), *pair, child));
            }
        }
        for (pair, child) in choose(wanted, AT_ONCE.saturating_sub(self.searches.len())) {
            self.searches.insert(pair, Search { child, sizing: Sizing::default(), wake: None });
            self.go_on(now, pair);
        }
    }

    /// Begins a search on a pair that nobody searches on. `false` where none can be.
    pub(super) fn measure_now(&mut self, now: Instant, pair: Pair) -> bool {
        let known = self.acquaintances.get(&pair).and_then(|known| known.about.as_ref());
        let answers = known.is_some_and(|about| about.sizes);
        let machine = self.pairs.get(pair).filter(|machine| answers && listens(machine));
        let Some(child) = machine.and_then(PairMachine::settled_child) else { return false };
        if !self.searches.contains_key(&pair) && self.searches.len() < AT_ONCE {
            self.searches.insert(pair, Search { child, sizing: Sizing::default(), wake: None });
            self.go_on(now, pair);
        }
        true
    }

    /// Octets of the largest packet that a search which ended at `since` or later saw get through, and whether that is
    /// all that this host lets out.
    pub(super) fn measured_since(&self, since: Instant, pair: Pair) -> Option<(u16, bool)> {
        let measured = self.acquaintances.get(&pair)?.measured?;
        let fresh = measured.at >= since && !measured.in_vain;
        fresh.then_some((measured.passed, measured.found == PathMtu::Fine))
    }

    /// Whether a search goes on.
    pub(super) fn is_measuring(&self, pair: Pair) -> bool {
        self.searches.contains_key(&pair)
    }

    /// When a search is due to go on.
    pub(super) fn search_due(&self) -> Option<Instant> {
        self.searches.values().filter_map(|search| search.wake).min()
    }

    /// Goes on with the searches that are due.
    pub(super) fn go_on_searching(&mut self, now: Instant) {
        let due = |search: &Search| search.wake.is_some_and(|at| at <= now);
        let due: Vec<Pair> = self.searches.iter().filter(|(_, it)| due(it)).map(|(pair, _)| *pair).collect();
        due.into_iter().for_each(|pair| self.go_on(now, pair));
    }

    /// Sends the next packet of a search, or ends it.
    fn go_on(&mut self, now: Instant, pair: Pair) {
        let Some(search) = self.searches.get_mut(&pair) else { return };
        let machine = self.pairs.get(pair).filter(|machine| machine.settled_child() == Some(search.child));
        let Some((sa, token)) = machine.and_then(|machine| machine.way_to_peer()) else {
            self.searches.remove(&pair);
            return self.go_on_asking(now, pair);
        };
        let mut clock = Clock::new(now);
        let size = search.sizing.poll(&mut clock);
        search.wake = clock.next;
        if let Some(size) = size {
            let probe = SizeProbe { token, size, answers: false };
            let octets = usize::from(size).saturating_sub(headers(pair.remote));
            self.queue_size(sa, pair, probe, octets);
        } else if let Some(found) = search.sizing.found() {
            let (child, passed) = (search.child, search.sizing.passed());
            let measured = Measured { child, found, passed, at: now, in_vain: found == PathMtu::Nothing };
            self.searches.remove(&pair);
            self.note_measured(now, pair, measured);
            self.go_on_asking(now, pair);
        }
    }

    fn note_measured(&mut self, now: Instant, pair: Pair, measured: Measured) {
        let known = &mut self.acquaintance(pair, now).measured;
        let before = known.map(|before| before.found);
        // If nothing was found this time, the size from before stays.
        let found = before.filter(|_| measured.found == PathMtu::Nothing).unwrap_or(measured.found);
        *known = Some(Measured { found, ..measured });
        match (before, found) {
            (Some(PathMtu::Narrow { .. }), PathMtu::Narrow { .. }) => {}
            (_, PathMtu::Narrow { passes }) => {
                self.line(pair).warn(&format!("packets of more than {passes} octets are lost on the way"));
            }
            (Some(PathMtu::Narrow { .. }), PathMtu::Fine) => {
                self.line(pair).info("large packets get through again")
            }
            (_, PathMtu::Fine | PathMtu::Nothing) => {}
        }
    }

    pub(super) fn queue_size(&mut self, sa: Sa, pair: Pair, probe: SizeProbe, octets: usize) {
        let remote = SocketAddr::new(pair.remote, self.scheme.port);
        let bytes = probe::encode_size(probe, octets);
        let size = (!probe.answers).then_some(probe.size);
        self.probes.push_back(ProbeDatagram { sa, local: pair.local, remote, bytes, size });
    }

    /// A packet of a search left this host, or was refused by its kernel.
    pub(super) fn handle_size_sent(&mut self, now: Instant, pair: Pair, size: u16, sent: bool) {
        let Some(search) = self.searches.get_mut(&pair) else { return };
        match sent {
            true => search.sizing.handle_sent(size),
            false => search.sizing.handle_refused(size),
        }
        self.go_on(now, pair);
    }

    /// There was no room for a packet of a search on this host.
    pub(super) fn handle_size_unsent(&mut self, pair: Pair, size: u16) {
        let search = self.searches.get_mut(&pair);
        search.into_iter().for_each(|search| search.sizing.handle_unsent(size));
    }

    /// A packet of a search came in, the peer's or the answer to one of ours.
    pub(super) fn handle_size_probe(
        &mut self,
        now: Instant,
        (local, remote): (IpAddr, IpAddr),
        probe: SizeProbe,
        octets: usize,
    ) {
        let Some(pair) = Pair::new(local, remote) else { return };
        let Some((id, sa, token)) = self.pairs.get(pair).and_then(|it| it.way_back(&probe.token)) else {
            return;
        };
        self.accounts.probe(id, probe::counted(octets));
        if probe.size == ECHO {
            self.note_echo(now, pair, probe.answers);
        }
        if !probe.answers {
            self.queue_size(sa, pair, SizeProbe { token, answers: true, ..probe }, 0);
        } else if probe.size == ECHO {
            self.acquaintance(pair, now).memory.note_answer(now);
        } else if let Some(search) = self.searches.get_mut(&pair) {
            search.sizing.handle_answer(probe.size);
            self.go_on(now, pair);
        }
    }
}

/// Chooses children that were never measured, and then the ones that were longest ago: with thousands of pairs there is
/// always one to be measured again.
fn choose(mut wanted: Vec<(Option<Instant>, Pair, Spi)>, most: usize) -> Vec<(Pair, Spi)> {
    wanted.sort_unstable();
    wanted.into_iter().take(most).map(|(_, pair, child)| (pair, child)).collect()
}

/// Octets of the headers of IP and UDP.
fn headers(remote: IpAddr) -> usize {
    if remote.is_ipv4() { 20 + 8 } else { 40 + 8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_were_never_measured_come_first() {
        let now = Instant::now();
        let of = |host: u8, at| {
            (at, Pair::new([10, 0, 0, 1].into(), [10, 0, 0, host].into()).unwrap(), Spi(host.into()))
        };
        let wanted = vec![of(2, Some(now + AGAIN)), of(3, Some(now)), of(4, None), of(5, None)];
        let chosen: Vec<u32> = choose(wanted, 3).iter().map(|(_, child)| child.0).collect();
        assert_eq!(chosen, [4, 5, 3]);
    }
}
