//! Proofs of pairs (`prover`) on this host: whom they are made with, by which sockets and counters, and who is told.

use std::net::SocketAddr;
use std::time::Instant;

use super::Host;
use super::core::Core;
use super::kernel::Unreadable;
use super::ledger::Asker;
use super::prover::word::{Gauges, ProofPorts, SAS_MOST, SaGauge};
use super::prover::{NonceSet, ProofAsker, ProofOutcome, Prover, ProvingGround, Sight};
use super::system::System;
use crate::config::Config;
use crate::control::{ErrorCode, ProveOrder, ProvenPair, Reply};
use crate::ike::Entropy;
use crate::observe::pair_proof::{Doubt, PairProof, ProofCode, ProofFigures};
use crate::types::exempt::Protocol;
use crate::types::{NodeName, Nonce, Pair, RowState, SaId, Spi};

/// The sockets and counters of this host.
struct HereGround<'a> {
    system: &'a mut dyn System,
    core: Option<&'a Core>,
}

impl ProvingGround for HereGround<'_> {
    fn node(&self, pair: Pair) -> NodeName {
        self.core.and_then(|core| core.node_of(pair)).unwrap_or_default()
    }

    fn open(&mut self, pair: Pair) -> Result<ProofPorts, String> {
        self.system.open_proof(pair).map_err(|error| format!("no socket for it: {error}"))
    }

    fn close(&mut self) {
        self.system.close_proof();
    }

    fn send(&mut self, to: SocketAddr, nonces: &NonceSet) -> (NonceSet, Option<String>) {
        self.system.send_proof(to, nonces)
    }

    fn look(&mut self, pair: Pair) -> Result<Sight, String> {
        let came = self.system.proof_came(pair);
        let refused = self.system.refused_clear().map_err(|error| {
            format!("the kernel does not count what it refuses (CONFIG_XFRM_STATISTICS): {error}")
        })?;
        let mut sas = Vec::new();
        for (spi, ids) in self.core.map(|core| core.sas_of(pair)).unwrap_or_default() {
            sas.extend(self.gauge(pair, spi, &ids).map_err(|error| error.to_string())?);
        }
        sas.truncate(SAS_MOST);
        Ok(Sight { came, gauges: Gauges { refused, sas } })
    }
}

impl HereGround<'_> {
    /// What the SAs of one name have counted each way: there is one for each processor, where that is so configured. `None`
    /// where one of them is gone, as then all are about to be.
    fn gauge(&mut self, pair: Pair, spi: Spi, ids: &[SaId]) -> Result<Vec<SaGauge>, Unreadable> {
        let mut sums: Vec<SaGauge> = Vec::new();
        for id in ids {
            let Some(reading) = self.system.read_sa(*id)? else { return Ok(Vec::new()) };
            let direction = reading.direction(pair);
            match sums.iter_mut().find(|sum| sum.direction == direction) {
                Some(sum) => sum.packets += reading.packets,
                None => sums.push(SaGauge { spi, direction, packets: reading.packets }),
            }
        }
        Ok(sums)
    }
}

/// Why no proof was begun.
pub(super) enum NotBegun {
    /// What it would show is known.
    Known(Box<PairProof>),
    /// Too many wait for their turn.
    Busy,
}

impl Host {
    /// Begins a proof for somebody.
    pub(super) fn begin_proof(
        &mut self,
        now: Instant,
        asker: ProofAsker,
        order: ProveOrder,
    ) -> Result<(), NotBegun> {
        let ProveOrder { local, remote } = order;
        let known = |proof| NotBegun::Known(Box::new(proof));
        let pair = Pair { local, remote };
        let Some(node) = self.node_of(pair) else {
            let words = format!("{local} and {remote} are no pair of the host that was asked");
            let doubt = Doubt::inconclusive(ProofCode::NotMade, words);
            return Err(known(PairProof::without_figures(NodeName::default(), pair, doubt)));
        };
        if let Some(doubt) = self.core.as_ref().map_or_else(|| Some(off()), |core| core.unprovable(pair)) {
            return Err(known(PairProof::without_figures(node, pair, doubt)));
        }
        self.prover.prove(now, asker, pair).then_some(()).ok_or(NotBegun::Busy)
    }

    /// Proves a pair, or says why that cannot be.
    pub(super) fn handle_prove(&mut self, now: Instant, asker: Asker, order: ProveOrder) {
        match self.begin_proof(now, ProofAsker::Here(asker), order) {
            Ok(()) => {}
            Err(NotBegun::Known(proof)) => self.tell_proof(asker, *proof, Vec::new()),
            Err(NotBegun::Busy) => {
                let message = "too many proofs wait for their turn on this host: try again later".to_owned();
                self.answer(now, asker, Reply::Error { code: ErrorCode::Failed, message });
            }
        }
    }

    /// Takes what the peers have said of proofs, and does what follows. To be called before anything is sent.
    pub(super) fn go_on_proving(&mut self, now: Instant, system: &mut dyn System) {
        while let Some((pair, octets)) = self.core.as_mut().and_then(Core::poll_inquiry) {
            self.with_prover(system, |prover, ground, entropy| {
                prover.handle_word(now, ground, entropy, pair, &octets);
            });
        }
        if !self.prover.is_idle() {
            self.with_prover(system, |prover, ground, entropy| prover.go_on(now, ground, entropy));
        }
        while let Some((pair, word)) = self.prover.poll_word() {
            self.core
                .iter_mut()
                .for_each(|core| core.tell_inquiry(now, pair, word.says.answers(), word.to_octets()));
        }
        while let Some(outcome) = self.prover.poll_outcome() {
            self.tell_outcome(now, outcome);
        }
        while let Some(question) = self.prover.poll_late() {
            self.tell_member_busy(now, question);
        }
    }

    /// Time has passed.
    pub(super) fn handle_prover_timeout(&mut self, now: Instant, system: &mut dyn System) {
        if self.prover.poll_timeout().is_some_and(|at| at <= now) {
            self.with_prover(system, |prover, ground, entropy| prover.handle_timeout(now, ground, entropy));
        }
    }

    fn with_prover(
        &mut self,
        system: &mut dyn System,
        input: impl FnOnce(&mut Prover, &mut dyn ProvingGround, &mut dyn Entropy),
    ) {
        let mut entropy = (self.chance)();
        let mut ground = HereGround { system, core: self.core.as_ref() };
        input(&mut self.prover, &mut ground, &mut *entropy);
    }

    fn tell_outcome(&mut self, now: Instant, outcome: ProofOutcome) {
        let ProofOutcome { asker, pair, found, clear, ports } = outcome;
        // The file may not list it any more.
        let node = self.node_of(pair).unwrap_or_default();
        let proof = match found {
            Ok(figures) => {
                let exemption = ports.and_then(|ports| exemption(&self.setup.config, ports));
                PairProof::of(node, pair, &ProofFigures { exemption, ..figures })
            }
            Err(doubt) => PairProof::without_figures(node, pair, doubt),
        };
        match asker {
            ProofAsker::Here(asker) => self.tell_proof(asker, proof, clear),
            ProofAsker::Member { line, number } => self.tell_member_proof(now, (line, number), proof),
        }
    }

    fn tell_proof(&mut self, asker: Asker, proof: PairProof, clear: Vec<Nonce>) {
        // Whoever asked watches the wire until then.
        self.ledger.tell_at_once(asker, Reply::Proof(Box::new(ProvenPair { proof, clear })));
    }

    fn node_of(&self, pair: Pair) -> Option<NodeName> {
        let pairs = self.setup.config.pairs(&self.setup.node);
        pairs.into_iter().find(|(_, listed)| *listed == pair).map(|(name, _)| name)
    }
}

impl Core {
    /// Why a pair cannot be proven, or does not have to be.
    fn unprovable(&self, pair: Pair) -> Option<Doubt> {
        let state = self.pairs().get(&pair).map_or(RowState::Off, |machine| machine.row_state());
        let summary = self.engine().summary(pair);
        let words = |text: &str| format!("nothing was tried: {text} (`hostseal status` says why)");
        match state {
            RowState::Off | RowState::Clear | RowState::Negotiating => {
                return Some(Doubt::failed(ProofCode::NotSealed, words("the pair is in the clear")));
            }
            RowState::Blocked => {
                let text = words("nothing passes between both, as there are no keys");
                return Some(Doubt::inconclusive(ProofCode::Blocked, text));
            }
            RowState::Protected => {}
        }
        if summary.as_ref().is_some_and(|summary| summary.foreign) {
            let words = "the peer is not hostseal, and does not know how to prove a pair";
            return Some(Doubt::unsupported(ProofCode::Foreign, words));
        }
        match self.about(pair) {
            Some(about) if about.proves => None,
            Some(about) => {
                let words = format!(
                    "the peer runs hostseal {}, which does not know how to prove a pair: update it",
                    about.version
                );
                Some(Doubt::unsupported(ProofCode::Older, words))
            }
            None => {
                let words = "the peer has not said inside IKE what it is: it may not answer just now, or is not hostseal";
                Some(Doubt::inconclusive(ProofCode::NoAnswer, words))
            }
        }
    }
}

fn off() -> Doubt {
    Doubt::failed(ProofCode::NotSealed, "nothing was tried: protection is off on this host")
}

/// The exemption that packets between high ports and one of these fall under.
fn exemption(config: &Config, ports: [u16; 2]) -> Option<String> {
    let covers = |port: &u16| {
        config.protection.exempt.iter().find(|entry| {
            let within = entry.ports.as_ref().is_none_or(|range| range.contains(port));
            entry.protocol == Protocol::Udp && within
        })
    };
    ports.iter().find_map(covers).map(ToString::to_string)
}
