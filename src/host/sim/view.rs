//! What is true of the hosts of a world.

use super::kernel::{Leaves, SimKernel};
use super::world::{Tally, World};
use crate::host::core::ToldReason;
use crate::observe::totals::TotalsTable as _;
use crate::protect::PairMachine;
use crate::types::{Direction, RowState, SaId, SaReading};

impl World {
    pub(super) fn state(&self, from: usize, to: usize) -> RowState {
        let machine = self.hosts[from].core().and_then(|core| core.pairs().get(&self.pair(from, to)));
        machine.map_or(RowState::Off, PairMachine::row_state)
    }

    pub(super) fn reason(&self, from: usize, to: usize) -> Option<ToldReason> {
        let core = self.hosts[from].core()?;
        core.why(core.pairs().get(&self.pair(from, to))?)
    }

    pub(super) fn all_protected(&self) -> bool {
        self.ways().iter().all(|(from, to)| self.state(*from, *to) == RowState::Protected)
    }

    /// One pair of SAs, the same on both hosts, with the same keys, and both policies name it.
    pub(super) fn is_single(&self, from: usize, to: usize) -> bool {
        let (pair, mirror) = (self.pair(from, to), self.pair(to, from));
        let (here, there) = (&self.hosts[from].kernel, &self.hosts[to].kernel);
        let out = here.spis(pair, Direction::Out);
        let key = |kernel: &SimKernel, id| kernel.keys.get(&id).cloned();
        match here.leaves(pair) {
            Leaves::Esp(id) => {
                out == [id.spi]
                    && there.spis(mirror, Direction::In) == [id.spi]
                    && key(here, id).is_some()
                    && key(here, id) == key(there, SaId::of(mirror, Direction::In, id.spi))
            }
            _ => false,
        }
    }

    /// Whether all that is sent as ESP goes in UDP.
    pub(super) fn all_in_udp(&self) -> bool {
        self.ways().iter().all(|way| self.is_in_udp(*way))
    }

    pub(super) fn any_in_udp(&self) -> bool {
        self.ways().iter().any(|way| self.is_in_udp(*way))
    }

    fn is_in_udp(&self, (from, to): (usize, usize)) -> bool {
        match self.hosts[from].kernel.leaves(self.pair(from, to)) {
            Leaves::Esp(id) => self.hosts[from].kernel.is_in_udp(id),
            Leaves::Clear | Leaves::Dropped => false,
        }
    }

    pub(super) fn all_single(&self) -> bool {
        self.ways().iter().all(|(from, to)| self.is_single(*from, *to))
    }

    pub(super) fn total(&self) -> Tally {
        self.tally.values().fold(Tally::default(), |sum, tally| Tally {
            sent: sum.sent + tally.sent,
            lost: sum.lost + tally.lost,
            clear: sum.clear + tally.clear,
            leaked: sum.leaked + tally.leaked,
        })
    }

    /// What `status` would show as totals of a pair.
    pub(super) fn totals(&self, from: usize, to: usize, direction: Direction) -> u64 {
        let host = &self.hosts[from];
        let pair = self.pair(from, to);
        let Some(core) = host.core() else {
            return 0;
        };
        let live: Vec<&SaReading> = host.kernel.state.sas.values().filter(|sa| sa.is_between(pair)).collect();
        let sas = &host.kernel.state.sas;
        let volume = core.totals(sas, self.now, self.wall()).totals(pair, &live).volume;
        match direction {
            Direction::In => volume.rx.packets,
            Direction::Out => volume.tx.packets,
        }
    }

    pub(super) fn is_saved_as_sealed(&self, from: usize, to: usize) -> bool {
        let machine = self.hosts[from].core().and_then(|core| core.pairs().get(&self.pair(from, to)));
        machine.is_some_and(PairMachine::is_saved_as_sealed)
    }
}
