//! SAs end with what their keys rest on, also where no agent is left to end them.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Core;
use crate::host::kernel::Kernel;
use crate::protect::PairMachine;
use crate::types::{Op, Pair, Spi};

impl Core {
    /// SAs that are made from now on end then, or before; `None` for whatever their own limits say.
    pub fn bound_sas(&mut self, end: Option<Instant>) {
        self.bound = end;
    }

    /// All children get successors: what they rest on goes on for longer than they do.
    pub fn renew_all(&mut self, now: Instant, kernel: &mut dyn Kernel) {
        let of_pair = |(pair, machine): (&Pair, &PairMachine)| {
            let children: BTreeSet<Spi> = machine.sas_of_children().map(|(in_spi, _)| in_spi).collect();
            children.into_iter().map(|in_spi| (*pair, in_spi)).collect::<Vec<_>>()
        };
        for (pair, in_spi) in self.pairs().iter().flat_map(of_pair).collect::<Vec<_>>() {
            self.engine.renew_child(now, pair, in_spi);
        }
        self.settle(now, kernel);
    }

    /// The kernel gets the end with the SA. It counts whole seconds, and none would be for ever.
    pub(super) fn bound_op(&self, now: Instant, op: &mut Op) {
        if let (Op::AddSa(sa), Some(end)) = (op, self.bound) {
            let left = end.saturating_duration_since(now).as_secs().max(1);
            let hard = &mut sa.limits.hard_seconds;
            *hard = Some(hard.map_or(left, |own| own.min(left)));
        }
    }
}
