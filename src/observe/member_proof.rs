//! What members say to each other when one of them has the pairs of all proven (`prove --cluster`).
//!
//! ```text
//! asker  --- can?                    -->  each member
//! asker  <-- can                     ---  each that knows how
//! asker  --- prove this pair of yours --> one end of a pair, which proves it with the other end
//! asker  <-- what it found, or busy  ---
//! ```
//! Whoever is asked may have gone bad. What it says concerns its pairs alone: it is asked about no others, and
//! [`MemberProving::proof_of`] takes nothing about others.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::pair_proof::{Doubt, PairProof, ProofCode};
use crate::types::{Family, NodeName, Pair};

/// The longest reason in octets, so that it can be told at once.
const REASON_MAX: usize = 1000;

/// What one member says to another about proofs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberProving {
    /// Can you prove pairs for others?
    CanYou,
    /// Yes.
    Can,
    /// Prove this pair of yours.
    Prove {
        /// Your address.
        local: IpAddr,
        /// That of the other end.
        remote: IpAddr,
    },
    /// Not now: you have another one made, or others have.
    Busy,
    /// It was found to be so.
    Found(Box<PairProof>),
}

impl MemberProving {
    /// This was found, as it is told: in one line, and not too long. Nobody has watched the wire.
    pub fn found(mut proof: PairProof) -> Self {
        proof.wire = None;
        proof.reason = proof.reason.map(|reason| {
            let mut plain: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            plain.truncate(plain.floor_char_boundary(REASON_MAX));
            plain
        });
        Self::Found(Box::new(proof))
    }

    /// Whether all of it can be shown.
    pub(super) fn is_plain(&self) -> bool {
        let Self::Found(proof) = self else { return true };
        let plain = |reason: &String| reason.len() <= REASON_MAX && !reason.chars().any(char::is_control);
        proof.wire.is_none() && proof.reason.iter().all(plain)
    }

    /// What `by` says to have found of its pair with `node`, which it was asked to prove; `None` where it says nothing of
    /// that.
    pub fn proof_of(self, by: &NodeName, node: &NodeName, pair: Pair) -> Option<PairProof> {
        let Self::Found(said) = self else { return None };
        if (said.local, said.remote) != (pair.local, pair.remote) {
            return None;
        }
        let family = Family::of(pair.remote);
        let mut proof = PairProof { by: Some(by.clone()), node: node.clone(), family, ..*said };
        let is_possible = proof.is_possible();
        if !is_possible {
            // Nobody is to reckon with them.
            (proof.rounds, proof.out, proof.incoming) = (0, None, None);
        }
        if !is_possible || !proof.adds_up() {
            let words =
                format!("the figures from {by} do not support its result: run `hostseal prove` there");
            proof.doubt(Doubt::failed(ProofCode::Contradiction, words));
        }
        Some(proof)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::MemberWord;
    use crate::observe::pair_proof::{
        ClearCount, FIGURE_MOST, ProofFigures, ProofResult, SealedCount, WayProof,
    };

    fn pair() -> Pair {
        Pair::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).unwrap()
    }

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn proven() -> PairProof {
        let clear = ClearCount { sent: 64, delivered: 0, refused: FIGURE_MOST };
        let sealed = SealedCount {
            sent: 64,
            packets: 192,
            delivered: 64,
            outbound: FIGURE_MOST,
            inbound: FIGURE_MOST,
        };
        let way = WayProof { clear, sealed };
        let figures = ProofFigures { out: way, incoming: way, ..ProofFigures::default() };
        PairProof::of(name("b"), pair(), &figures)
    }

    #[test]
    fn what_is_found_can_be_told_at_once_and_is_heard() {
        let mut long = proven();
        long.node = name(&"n".repeat(64));
        long.doubt(Doubt::failed(ProofCode::ClearAccepted, "é\n".repeat(9000)));
        for said in [MemberProving::found(long), MemberProving::CanYou, MemberProving::Busy] {
            let word = MemberWord::Prove(u64::MAX, said);
            let octets = word.to_bytes();
            assert!(octets.len() < 3500, "{}", octets.len());
            assert_eq!(MemberWord::from_bytes(&octets), Some(word));
        }
        let mut painted = proven();
        painted.reason = Some("\u{1b}[2J".to_owned());
        let octets = MemberWord::Prove(1, MemberProving::Found(Box::new(painted))).to_bytes();
        assert_eq!(MemberWord::from_bytes(&octets), None);
    }

    /// A member gone bad can lie about its pairs, and not about others'.
    #[test]
    fn a_member_speaks_for_pairs_of_its_own_alone() {
        let (a, b) = (name("a"), name("b"));
        let found = |proof| MemberProving::found(proof).proof_of(&a, &b, pair());
        let taken = found(PairProof { node: name("z"), ..proven() }).unwrap();
        assert_eq!((taken.result, taken.by, taken.node), (ProofResult::Proven, Some(a.clone()), b.clone()));
        assert_eq!(found(PairProof { remote: [10, 0, 0, 3].into(), ..proven() }), None, "another pair");
        assert_eq!(MemberProving::Busy.proof_of(&a, &b, pair()), None);
        let cases: [fn(&mut PairProof); 3] = [
            |proof| proof.out = None,
            |proof| proof.incoming.iter_mut().for_each(|way| way.clear.delivered = 1),
            |proof| proof.reason_code = Some(ProofCode::Lost),
        ];
        for lie in cases {
            let mut proof = proven();
            lie(&mut proof);
            let taken = found(proof).unwrap();
            assert_eq!(
                (taken.result, taken.reason_code),
                (ProofResult::Failed, Some(ProofCode::Contradiction))
            );
        }
    }

    /// Figures that cannot be are in no report: its readers may sum them up.
    #[test]
    fn figures_that_cannot_be_are_dropped() {
        let (a, b) = (name("a"), name("b"));
        let lies: [fn(&mut WayProof); 7] = [
            |way| way.clear.sent = 65,
            |way| way.sealed.sent = 65,
            |way| way.sealed.delivered = 65,
            |way| way.sealed.packets = 193,
            |way| way.clear.refused = FIGURE_MOST + 1,
            |way| way.sealed.outbound = u64::MAX,
            |way| way.sealed.inbound = u64::MAX,
        ];
        for lie in lies {
            for out in [true, false] {
                let mut proof = proven();
                let way = if out { &mut proof.out } else { &mut proof.incoming };
                way.iter_mut().for_each(lie);
                let taken = MemberProving::found(proof).proof_of(&a, &b, pair()).unwrap();
                assert_eq!((taken.result, taken.out, taken.incoming), (ProofResult::Failed, None, None));
                assert_eq!(taken.reason_code, Some(ProofCode::Contradiction));
            }
        }
        let turned = PairProof { rounds: u32::MAX, family: Family::V6, ..proven() };
        let taken = MemberProving::found(turned).proof_of(&a, &b, pair()).unwrap();
        assert_eq!((taken.result, taken.rounds, taken.family), (ProofResult::Failed, 0, Family::V4));
    }
}
