//! `hostseal prove --cluster` between simulated members: who is asked proves its pairs, and paced.

use std::time::Duration;

use super::cluster::SECOND;
use super::members;
use super::world::World;
use crate::control::{
    ClusterReply, ClusterRequest, MemberProofReply, MemberProofRequest, ProveOrder, Reply, Request,
};
use crate::observe::MemberProving;
use crate::observe::pair_proof::{PairProof, ProofCode, ProofResult};
use crate::types::{NodeName, Pair};

fn name(at: usize) -> NodeName {
    format!("n{at}").parse().unwrap()
}

impl World {
    fn who_can(&mut self) -> Vec<NodeName> {
        match self.order(0, ClusterRequest::Proofs(MemberProofRequest::WhoCan)) {
            Ok(ClusterReply::Proofs(MemberProofReply::Can(nodes))) => nodes,
            other => panic!("{other:?}"),
        }
    }

    /// The first host has another one prove a pair.
    fn prove_by(&mut self, by: usize, pair: Pair) -> Option<MemberProving> {
        let pair = ProveOrder { local: pair.local, remote: pair.remote };
        let request = ClusterRequest::Proofs(MemberProofRequest::Prove { by: name(by), pair });
        let asker = self.ask(0, Request::Cluster(request));
        let told = move |world: &World| world.hosts[0].replies.iter().any(|(to, ..)| *to == asker);
        assert!(self.run_until(Duration::from_secs(60), told), "it is bounded in time");
        match self.hosts[0].replies.iter().find(|(to, ..)| *to == asker) {
            Some((_, Reply::Cluster(ClusterReply::Proofs(MemberProofReply::Said(said))), _)) => said.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn proof_by(&mut self, by: usize, other: usize, pair: Pair) -> PairProof {
        let said = self.prove_by(by, pair).expect("it answers");
        said.clone().proof_of(&name(by), &name(other), pair).unwrap_or_else(|| panic!("{said:?}"))
    }
}

#[test]
fn a_member_proves_its_pairs_for_others() {
    let mut world = members::protected(3, 1);
    assert_eq!(world.who_can(), [name(1), name(2)]);
    let pair = world.pair(1, 2);
    let proof = world.proof_by(1, 2, pair);
    assert_eq!((proof.result, proof.reason_code), (ProofResult::Proven, None), "{proof:#?}");
    assert!(proof.out.is_some() && proof.incoming.is_some() && proof.wire.is_none());
    // Of pairs of others it says nothing.
    let foreign = world.pair(0, 2);
    let proof = world.proof_by(1, 2, foreign);
    assert_eq!((proof.result, proof.reason_code), (ProofResult::Inconclusive, Some(ProofCode::NotMade)));
    world.kill(2);
    assert_eq!(world.who_can(), [name(1)]);
    let proof = world.proof_by(1, 2, pair);
    assert_eq!((proof.result, proof.reason_code), (ProofResult::Inconclusive, Some(ProofCode::NoAnswer)));
    assert_eq!(world.prove_by(2, pair.mirrored()), None, "it is not there");
}

/// A member gone bad asks another one all the time, and answers what it was not asked.
#[test]
fn a_member_that_has_others_prove_all_the_time_is_paced() {
    let mut world = members::protected(3, 2);
    let pair = world.pair(1, 2);
    let line = world.line(0);
    let (begun, began) = (world.hosts[1].kernel.proof.begun, world.now);
    for number in 0..1_000 {
        let ask = MemberProving::Prove { local: pair.local, remote: pair.remote };
        let said = if number % 5 == 0 { MemberProving::Can } else { ask };
        world.on(1, |agent, now, _| agent.hear_proving(now, line, number, said));
        world.run(Duration::from_millis(20), None);
    }
    let (begun, took) = (world.hosts[1].kernel.proof.begun - begun, world.now - began);
    assert!(begun >= 5 && begun <= 2 * took.as_secs() + 2, "{begun} in {took:?}");
    assert_eq!(world.total().clear, 0);
    world.run(2 * SECOND, None);
    assert!([1, 2].iter().all(|at| world.hosts[*at].kernel.proof.open.is_none()));
}
