//! Proves pairs one after the other: the kernel counts what it refuses for all of them together. What goes wrong with one is
//! a finding about that one, and takes nothing from the others.

use std::io;
use std::sync::Arc;

use super::watch::WireWatch;
use super::wire::ClearOnPurpose;
use crate::cli::client::{AskError, Client};
use crate::control::{ProveOrder, ProvenPair};
use crate::observe::pair_proof::{Doubt, PairProof, ProofCode};
use crate::types::{NodeName, Pair};

/// Why a pair was not proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotMade {
    pub(super) why: String,
    /// The same would be said of all others.
    pub(super) ends: bool,
}

impl NotMade {
    /// What is said of the pair.
    pub(super) fn doubt(&self) -> Doubt {
        Doubt::inconclusive(ProofCode::NotMade, format!("the proof was not made: {}", self.why))
    }

    /// What is said of those that come after it, where it is so with all of them.
    pub(super) fn ended_at(&self, node: &NodeName, pair: Pair) -> Self {
        Self { why: format!("the run ended at {node} ({}): {}", pair.remote, self.why), ends: true }
    }
}

impl From<AskError> for NotMade {
    fn from(error: AskError) -> Self {
        // An agent that is gone or hangs answers nothing else either.
        let ends = !matches!(error, AskError::Refused { .. });
        Self { why: error.to_string(), ends }
    }
}

/// Has each pair proven by `prove`, until that says that no other can be. `done` hears how many are.
pub(super) fn prove_all(
    pairs: Vec<(NodeName, Pair)>,
    done: impl Fn(usize),
    mut prove: impl FnMut(Pair) -> Result<PairProof, NotMade>,
) -> Vec<PairProof> {
    let mut ended: Option<NotMade> = None;
    let mut proofs = Vec::new();
    for (node, pair) in pairs {
        let made = match &ended {
            Some(why) => Err(why.clone()),
            None => prove(pair),
        };
        proofs.push(made.unwrap_or_else(|not_made| {
            if not_made.ends && ended.is_none() {
                ended = Some(not_made.ended_at(&node, pair));
            }
            PairProof::without_figures(node, pair, not_made.doubt())
        }));
        done(proofs.len());
    }
    proofs
}

/// Has this host's agent prove a pair, and watches the wire meanwhile.
pub(super) fn prove_here(
    client: &Client,
    ground: &Arc<ClearOnPurpose>,
    pair: Pair,
    nat_port: u16,
) -> Result<PairProof, NotMade> {
    let watching = |error: io::Error| format!("watching this host's interfaces: {error}");
    let watch = WireWatch::open(ground, pair, nat_port)
        .map_err(|error| NotMade { why: watching(error), ends: false })?;
    let ProvenPair { mut proof, clear } =
        client.prove(ProveOrder { local: pair.local, remote: pair.remote })?;
    if proof.out.is_some() {
        let inbound = proof.incoming.map_or(0, |way| way.sealed.inbound);
        match watch.finish(&clear, inbound) {
            Ok(wire) => proof.add_wire(wire),
            Err(error) => proof.doubt(Doubt::inconclusive(ProofCode::NotWatched, watching(error))),
        }
    }
    Ok(proof)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::pair_proof::ProofResult;

    /// The second of four pairs fails.
    fn run(ends: bool) -> (Vec<(ProofResult, String)>, usize) {
        let pair = |last: u8| Pair::new([10, 0, 0, 1].into(), [10, 0, 0, last].into()).unwrap();
        let name = |last: u8| format!("n{last}").parse::<NodeName>().unwrap();
        let mut asked = 0;
        let proofs = prove_all(
            (2..6).map(|last| (name(last), pair(last))).collect(),
            |_| {},
            |it| {
                asked += 1;
                match it == pair(3) {
                    true => Err(NotMade { why: "no agent runs".to_owned(), ends }),
                    false => Ok(PairProof::proven(name(0), it)),
                }
            },
        );
        (proofs.into_iter().map(|it| (it.result, it.reason.unwrap_or_default())).collect(), asked)
    }

    #[test]
    fn an_error_is_a_finding_about_its_pair_and_takes_nothing_from_the_others() {
        use ProofResult::{Inconclusive, Proven};
        for (ends, results, all) in [
            (false, [Proven, Inconclusive, Proven, Proven], 4),
            (true, [Proven, Inconclusive, Inconclusive, Inconclusive], 2),
        ] {
            let (proofs, asked) = run(ends);
            assert_eq!((proofs.iter().map(|it| it.0).collect::<Vec<_>>(), asked), (results.to_vec(), all));
            assert_eq!(proofs[1].1, "the proof was not made: no agent runs");
            let last = "the proof was not made: the run ended at n3 (10.0.0.3): no agent runs";
            assert_eq!(proofs[3].1, if ends { last } else { "" });
        }
    }
}
