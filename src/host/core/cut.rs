//! Pairs that get no keys: all while this host's secret is awaited or withdrawn, and those with blocked addresses.

use std::iter;
use std::time::Instant;

use super::{Cause, Core, Persist, Withholding};
use crate::host::kernel::{Kernel, Vault};
use crate::ike::Engine;
use crate::types::Pair;

/// Why a pair with a host that is held out has none.
const UNDECIDED: &str =
    "an admin has to decide whether its host is a member: see `hostseal status --cluster`";
/// Why a blocked pair has no keys.
const BLOCKED: &str = "this address is blocked: somebody else may have the keys of its host";

/// This host has no secret: nothing is agreed with anybody.
#[derive(Debug)]
pub(super) struct Keyless {
    why: Withholding,
    /// Whether it was never there: what an agent before this one left in the kernel goes on until it is known whether
    /// the secret comes.
    awaited: bool,
}

impl Core {
    /// All keys go at once, here and in the kernel. Each peer is told in one message that its sessions are over and why, and
    /// nobody is answered any more: `engine`, which takes the place of the one that had the secret, has none. `why` is
    /// told of each pair until [`Core::resume`].
    pub fn cut(&mut self, now: Instant, kernel: &mut dyn Kernel, mut engine: Engine, why: Withholding) {
        self.say_farewell(now);
        self.farewells.extend(iter::from_fn(|| self.engine.poll_transmit()));
        engine.list(self.scheme.pairs.iter().copied().collect());
        if let Some(wall) = self.wall(now) {
            engine.set_clock(now, wall);
        }
        self.engine = engine;
        // What gives the secret back may come from another member.
        self.with_membership(|members, engine| members.begin(now, engine));
        self.vault = Vault::default();
        self.probes.clear();
        self.proven.clear();
        self.keyless = Some(Keyless { why, awaited: false });
        self.hold_back(now);
        self.persist(Persist::Seals);
        self.settle(now, kernel);
        // SAs that nobody knew of go too.
        if !kernel.read_sas().is_ok_and(|sas| sas.is_empty()) {
            self.look_again(now, kernel);
        }
    }

    /// A new core that is off has no secret yet: its engine has none.
    pub fn await_secret(&mut self, why: Withholding) {
        self.keyless = Some(Keyless { why, awaited: true });
    }

    /// Why this host still has no secret, where that is another reason by now.
    pub fn note_withholding(&mut self, now: Instant, kernel: &mut dyn Kernel, why: Withholding) {
        if let Some(keyless) = self.keyless.as_mut().filter(|keyless| keyless.why != why) {
            keyless.why = why;
            self.hold_back(now);
            self.settle(now, kernel);
        }
    }

    /// Whether the secret was not there yet since this core began.
    pub(super) fn awaits_secret(&self) -> bool {
        self.keyless.as_ref().is_some_and(|keyless| keyless.awaited)
    }

    /// Blocked pairs have no keys, and while the secret is withdrawn no pair has, also one that has just come. Where it
    /// is awaited, none get new ones.
    pub(super) fn hold_back(&mut self, now: Instant) {
        let held: Vec<(Pair, Cause)> = self
            .pairs()
            .keys()
            .filter_map(|pair| Some((*pair, Cause::Withheld(self.withheld(*pair)?))))
            .collect();
        let awaits = self.awaits_secret();
        for (pair, cause) in held {
            let code = cause.code();
            let goes_on = awaits && !self.is_held_out(pair);
            self.causes.insert(pair, cause);
            self.with_pair(pair, |machine| match goes_on {
                true => machine.handle_failure(now, code),
                false => machine.cut(now, code),
            });
        }
    }

    /// Whether a pair gets no keys whatever this host has.
    fn is_held_out(&self, pair: Pair) -> bool {
        self.scheme.blocked.contains(&pair) || self.scheme.withheld.contains(&pair)
    }

    /// Why a pair gets no keys, if it gets none.
    pub(super) fn withheld(&self, pair: Pair) -> Option<Withholding> {
        let blocked = || self.scheme.blocked.contains(&pair).then_some(BLOCKED);
        let undecided = || self.scheme.withheld.contains(&pair).then_some(UNDECIDED);
        let of_pair = || blocked().or_else(undecided).map(Withholding::internal);
        self.keyless.as_ref().map(|keyless| keyless.why.clone()).or_else(of_pair)
    }

    /// The secret is there, and the engine has it: keys are agreed anew.
    pub fn resume(&mut self, now: Instant, kernel: &mut dyn Kernel) {
        if self.keyless.take().is_some() {
            self.limit_adopted(now);
            self.each_pair(|machine| machine.resume(now));
            self.hold_back(now);
            self.settle(now, kernel);
        }
    }
}
