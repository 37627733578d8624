//! `hostseal prove` between simulated hosts: in bad weather, with peers that lie, die or ask too much.

use std::net::SocketAddr;
use std::time::Duration;
use std::{io, iter};

use super::cluster::{MILLISECOND, SECOND, protected, seeds};
use super::kernel::{Leaves, SimKernel};
use super::net::{Inner, Packet, Weather};
use super::world::World;
use crate::control::{ProveOrder, Reply, Request};
use crate::host::ledger::Asker;
use crate::host::ports::ProofPort;
use crate::host::prover::word::{ProofPorts, ProofWord, Says};
use crate::host::prover::{NonceArrival, NonceSet, PROOF_PATIENCE};
use crate::observe::pair_proof::{PairProof, ProofCode, ProofResult};
use crate::types::{Action, Nonce, NonceKind, Pair, PolicyDirection, PolicyId, RowState};

/// The port of what is sent past all policies is so much higher.
const PAST: u16 = 10_000;
const WAYS: [(usize, usize); 2] = [(0, 1), (1, 0)];

/// What a simulated host has for the proof that is being made.
#[derive(Default)]
pub(super) struct SimProof {
    pub(super) open: Option<(Pair, SocketAddr)>,
    came: Vec<NonceArrival>,
    /// Clear packets that were refused.
    refused: u64,
    /// So many packets more it says each time that came through each SA.
    pub(super) inflates: u64,
    /// Its firewall drops what comes to ports like these.
    pub(super) drops: bool,
    /// How often it has said what it has counted.
    pub(super) told: u64,
    /// So many proofs were begun.
    pub(super) begun: u64,
}

impl SimProof {
    fn is_open_at(&self, local: SocketAddr) -> bool {
        self.open.is_some_and(|(_, port)| port == local)
    }

    /// A datagram comes out of ESP, or was accepted without. Says whether it is for here.
    pub(super) fn receive(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> bool {
        let is_for_here = self.is_open_at(to);
        if is_for_here && !self.drops && self.open.is_some_and(|(pair, _)| pair.remote == from.ip()) {
            let (port, nonce) = (from.port(), Nonce::from_datagram(bytes));
            self.came.extend(nonce.map(|(kind, nonce)| NonceArrival { port, kind, nonce }));
        }
        is_for_here
    }

    /// A clear datagram is refused.
    pub(super) fn refuse(&mut self) {
        self.refused += 1;
    }
}

impl ProofPort for SimKernel {
    fn open_proof(&mut self, pair: Pair) -> io::Result<ProofPorts> {
        assert!(self.proof.open.is_none(), "one proof at a time");
        self.proof.begun += 1;
        let ordinary = 40_000 + (self.proof.begun % 10_000) as u16;
        self.proof.open = Some((pair, SocketAddr::new(pair.local, ordinary)));
        self.proof.came.clear();
        Ok(ProofPorts { ordinary, past: ordinary + PAST })
    }

    fn close_proof(&mut self) {
        self.proof.open = None;
    }

    fn send_proof(&mut self, to: SocketAddr, nonces: &NonceSet) -> (NonceSet, Option<String>) {
        let (pair, from) = self.proof.open.expect("its socket is open");
        let past = SocketAddr::new(from.ip(), from.port() + PAST);
        let clear =
            |from, kind, nonce: &Nonce| Packet::Plain { from, to, bytes: nonce.datagram(kind).to_vec() };
        self.sent.extend(nonces.clear.iter().map(|nonce| clear(past, NonceKind::Clear, nonce)));
        for nonce in &nonces.sealed {
            let packet = match self.leaves(pair) {
                Leaves::Clear => clear(from, NonceKind::Sealed, nonce),
                Leaves::Esp(id) => {
                    let bytes = nonce.datagram(NonceKind::Sealed).to_vec();
                    self.count(id, bytes.len() as u64 + 8);
                    Packet::Esp { id, from, in_udp: self.is_in_udp(id), inner: Inner::Probe { to, bytes } }
                }
                Leaves::Dropped => {
                    let sent = NonceSet { sealed: Vec::new(), ..nonces.clone() };
                    return (sent, Some("Operation not permitted".to_owned()));
                }
            };
            self.sent.push(packet);
        }
        (nonces.clone(), None)
    }

    fn proof_came(&mut self, _: Pair) -> Vec<NonceArrival> {
        std::mem::take(&mut self.proof.came)
    }

    fn refused_clear(&mut self) -> io::Result<u64> {
        Ok(self.proof.refused)
    }
}

impl World {
    /// Asks a host to prove its pair with another.
    fn prove(&mut self, at: usize, other: usize) -> Asker {
        let pair = self.pair(at, other);
        self.ask(at, Request::Prove(ProveOrder { local: pair.local, remote: pair.remote }))
    }

    fn proof_of(&self, at: usize, asker: Asker) -> Option<PairProof> {
        self.hosts[at].replies.iter().find(|(to, ..)| *to == asker).map(|(_, reply, _)| match reply {
            Reply::Proof(proven) => proven.proof.clone(),
            other => panic!("{other:?}"),
        })
    }

    /// What becomes of a proof.
    fn proven(&mut self, at: usize, other: usize) -> PairProof {
        let asker = self.prove(at, other);
        let patience = PROOF_PATIENCE + SECOND;
        assert!(self.run_until(patience, |world| world.proof_of(at, asker).is_some()));
        // The other end closes, too.
        self.run(SECOND, None);
        self.proof_of(at, asker).unwrap()
    }
}

fn found(proof: &PairProof) -> (ProofResult, Option<ProofCode>) {
    (proof.result, proof.reason_code)
}

#[test]
fn a_sealed_pair_is_proven_from_both_ends_and_nothing_changes() {
    seeds(6, |seed| {
        let mut world = protected(2, seed, Weather::FAIR);
        world.tally.clear();
        for (at, other) in WAYS {
            let asker = world.prove(at, other);
            world.run(2 * SECOND, Some((MILLISECOND, &WAYS)));
            let proof = world.proof_of(at, asker).unwrap();
            assert_eq!(found(&proof), (ProofResult::Proven, None), "{proof:#?}");
            assert_eq!(proof.rounds, 1);
            let (out, incoming) = (proof.out.unwrap(), proof.incoming.unwrap());
            for way in [out, incoming] {
                assert!((16..=64).contains(&way.clear.sent) && (16..=64).contains(&way.sealed.sent));
                assert_eq!((way.clear.delivered, way.clear.refused), (0, way.clear.sent));
                assert_eq!(way.sealed.delivered, way.sealed.sent);
            }
            assert!([0, 1].iter().all(|at| world.hosts[*at].kernel.proof.open.is_none()), "all is closed");
        }
        let total = world.total();
        assert_eq!((total.lost, total.clear), (0, 0));
        assert!(world.all_protected() && world.all_single());
    });
}

/// The network loses a tenth of everything: what is lost is sent again.
#[test]
fn bad_weather_is_gone_through() {
    seeds(10, |seed| {
        let mut world = protected(2, seed, Weather::ROUGH);
        let proof = world.proven(0, 1);
        assert_ne!(proof.result, ProofResult::Failed, "{proof:#?}");
        println!("{:?}, {} rounds: {:?}", proof.result, proof.rounds, proof.reason);
    });
}

/// Somebody's policy lets clear packets in, or the pair's out.
#[test]
fn a_policy_that_is_not_as_it_should_be_is_found() {
    seeds(4, |seed| {
        for (at, direction, code) in [
            (0, PolicyDirection::In, ProofCode::ClearAccepted),
            (1, PolicyDirection::In, ProofCode::ClearAccepted),
            (0, PolicyDirection::Out, ProofCode::NotEncrypted),
            (1, PolicyDirection::Out, ProofCode::NotEncrypted),
        ] {
            let mut world = protected(2, seed, Weather::FAIR);
            let pair = world.pair(at, 1 - at);
            // The agent is not told of it: it would put it right at once.
            let policies = &mut world.hosts[at].kernel.state.policies;
            match direction {
                PolicyDirection::In => {
                    policies.get_mut(&PolicyId::of(pair, direction)).unwrap().action = Some(Action::Accept);
                }
                _ => drop(policies.remove(&PolicyId::of(pair, direction))),
            }
            let proof = world.proven(0, 1);
            assert_eq!(found(&proof), (ProofResult::Failed, Some(code)), "{at} {direction:?}: {proof:#?}");
        }
    });
}

#[test]
fn firewalls_prove_nothing() {
    for ((at, esp), code) in [((0, false), ProofCode::NotRefused), ((1, true), ProofCode::Dropped)] {
        let mut world = protected(2, 2, Weather::FAIR);
        world.hosts[at].kernel.proof.drops = esp;
        world.net.swallows_plain = !esp;
        let proof = world.proven(0, 1);
        assert_eq!(found(&proof), (ProofResult::Inconclusive, Some(code)), "{proof:#?}");
        assert_eq!(proof.rounds, 3, "it was tried again");
    }
}

#[test]
fn a_peer_that_counts_what_was_not_sent_is_found_out() {
    let mut world = protected(2, 4, Weather::FAIR);
    world.hosts[1].kernel.proof.inflates = 100;
    let proof = world.proven(0, 1);
    assert_eq!(found(&proof), (ProofResult::Failed, Some(ProofCode::Contradiction)), "{proof:#?}");
}

#[test]
fn what_is_not_protected_is_not_proven() {
    let mut world = World::new(2, 0, Weather::FAIR);
    world.start(0);
    let proof = world.proven(0, 1);
    assert_eq!(found(&proof), (ProofResult::Failed, Some(ProofCode::NotSealed)));
    world.enable(0);
    let proof = world.proven(0, 1);
    assert_eq!(
        found(&proof),
        (ProofResult::Failed, Some(ProofCode::NotSealed)),
        "in the clear until b comes"
    );
    let mut world = World::new(2, 0, Weather::FAIR);
    world.enable_with(0, true, None);
    let proof = world.proven(0, 1);
    assert_eq!(found(&proof), (ProofResult::Inconclusive, Some(ProofCode::Blocked)));
}

/// An older agent does not say that it knows how. One that does and then says nothing is given up.
#[test]
fn a_peer_that_does_not_know_how_or_dies_is_named() {
    let mut world = protected(2, 4, Weather::FAIR);
    world.run(SECOND, None);
    let pair = world.pair(0, 1);
    let older = br#"{"version":"0.1.0","config_id":"5","secret_id":null,"sizes":true}"#;
    world.hosts[0].agent.as_mut().unwrap().core.as_mut().unwrap().handle_told(world.now, pair, older);
    let proof = world.proven(0, 1);
    assert_eq!(found(&proof), (ProofResult::Unsupported, Some(ProofCode::Older)));
    for after in [0, 1, 20, 60] {
        let mut world = protected(2, 6, Weather::FAIR);
        world.run(SECOND, None);
        let asker = world.prove(0, 1);
        world.run(Duration::from_millis(after), None);
        world.kill(1);
        let done = |world: &World| world.proof_of(0, asker).is_some();
        assert!(world.run_until(PROOF_PATIENCE + SECOND, done));
        let proof = world.proof_of(0, asker).unwrap();
        assert_eq!(
            found(&proof),
            (ProofResult::Inconclusive, Some(ProofCode::NoAnswer)),
            "{after}: {proof:#?}"
        );
        assert!(world.hosts[0].kernel.proof.open.is_none());
        assert_eq!(world.state(0, 1), RowState::Protected);
    }
}

#[test]
fn those_who_prove_at_once_take_turns() {
    seeds(6, |seed| {
        let mut world = protected(4, seed, Weather::FAIR);
        world.run(SECOND, None);
        let asked: Vec<(usize, Asker)> =
            world.ways().into_iter().map(|(at, other)| (at, world.prove(at, other))).collect();
        let done = |world: &World| asked.iter().all(|(at, asker)| world.proof_of(*at, *asker).is_some());
        assert!(world.run_until(100 * SECOND, done));
        for (at, asker) in &asked {
            let proof = world.proof_of(*at, *asker).unwrap();
            assert_eq!(found(&proof), (ProofResult::Proven, None), "{proof:#?}");
        }
    });
}

/// A member gone bad asks all the time, each time for another proof, and never goes on: it has no more than one place
/// for half of the time, and others are proven meanwhile.
#[test]
fn a_member_that_asks_all_the_time_leaves_room_for_others() {
    let mut world = protected(3, 4, Weather::FAIR);
    world.run(SECOND, None);
    let pair = world.pair(1, 0);
    let flood = |world: &mut World, number: u64| {
        let word = ProofWord::new(number, 1, Says::Begin { ports: ProofPorts::default() }).to_octets();
        world.on(1, |agent, now, _| agent.core.as_mut().unwrap().tell_inquiry(now, pair, false, word));
        world.run(10 * MILLISECOND, None);
    };
    (0..1_000).for_each(|number| flood(&mut world, number));
    assert!(world.hosts[0].kernel.proof.begun <= 2, "{}", world.hosts[0].kernel.proof.begun);
    let asker = world.prove(2, 0);
    let mut numbers = 1_000..4_000;
    let done = iter::from_fn(|| {
        flood(&mut world, numbers.next()?);
        Some(world.proof_of(2, asker))
    });
    let proof = done.flatten().next().expect("it had its turn");
    assert_eq!(found(&proof), (ProofResult::Proven, None), "{proof:#?}");
    assert!(world.all_protected());
}
