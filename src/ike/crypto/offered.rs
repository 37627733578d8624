//! A peer's offer with nothing that can be taken, as it is told to whoever may change that.

use crate::ike::reason::{Algorithm, Disjoint, Offered, OfferedProposal, OurProposals};
use crate::ike::wire::codes::transform;
use crate::ike::wire::{Proposal, Transform};

/// So many proposals are told, and so many algorithms of each: anybody can offer more.
const PROPOSALS: usize = 3;
const ALGORITHMS: usize = 16;

/// That `offers` have nothing in common with what is `taken` here.
pub(super) fn disjoint(offers: &[Proposal], taken: OurProposals) -> Disjoint {
    let proposals = offers.iter().take(PROPOSALS).map(proposal).collect();
    let offered = Offered { proposals, more: offers.len().saturating_sub(PROPOSALS) };
    Disjoint { offered, taken }
}

fn proposal(offer: &Proposal) -> OfferedProposal {
    let algorithms = offer.transforms.iter().filter(|transform| transform.is_said());
    let algorithm = |it: &Transform| Algorithm { kind: it.kind, id: it.id, key_bits: it.key_bits };
    OfferedProposal {
        protocol: offer.protocol,
        algorithms: algorithms.take(ALGORITHMS).map(algorithm).collect(),
    }
}

impl Transform {
    /// NONE, number 0, is not told of; for sequence numbers 0 is a choice.
    fn is_said(&self) -> bool {
        self.id != 0 || self.kind == transform::ESN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::crypto::suite::{esp_offer, ike_offer};
    use crate::ike::reason::Reason;
    use crate::ike::wire::codes::protocol;
    use crate::observe::explain;
    use crate::types::{EspProposal, IkeProposal, Proposals, Spi};

    /// What is told of `offers`.
    fn told(offers: &[Proposal]) -> String {
        let taken = OurProposals::Esp(Proposals::default());
        let words = explain::words(&Reason::from(disjoint(offers, taken)));
        let (_, told) = words.split_once("offers ").unwrap();
        told.split_once(", and this host").unwrap().0.to_owned()
    }

    #[test]
    fn what_is_known_here_is_told_as_the_file_says_it() {
        for text in ["aes256gcm16-prfsha384-x25519-ke1_mlkem768", "aes256-sha256-prfsha256-ecp384"] {
            let ours = Proposals::new(vec![text.parse::<IkeProposal>().unwrap()]).unwrap();
            assert_eq!(told(&ike_offer(&ours, &[])), text);
        }
        let default = Proposals::<EspProposal>::default();
        assert_eq!(told(&esp_offer(&default, Spi(300))), default.to_string());
    }

    #[test]
    fn others_are_told_too_but_not_without_end() {
        let of = |transforms| Proposal { number: 1, protocol: protocol::IKE, spi: Vec::new(), transforms };
        let [sha1, modp, none, odd] = [
            Transform::new(transform::INTEG, 2),
            Transform::new(transform::DH, 14),
            Transform::new(transform::ADDKE1, 0),
            Transform::keyed(transform::ENCR, 999, 64),
        ];
        let old = of(vec![Transform::keyed(transform::ENCR, 12, 128), sha1, modp, none]);
        assert_eq!(told(&[old.clone(), of(vec![odd])]), "aes128-sha1-modp2048, 1/999/64");
        assert_eq!(told(&[]), "nothing");
        assert_eq!(told(&[of(vec![])]), "protocol 1");
        let many = vec![of(vec![odd; 1000]); 1000];
        assert!(told(&many).len() < 600 && told(&many).ends_with("997 more"));
        let Disjoint { offered, .. } = disjoint(&many, OurProposals::Esp(Proposals::default()));
        let kept: usize = offered.proposals.iter().map(|proposal| proposal.algorithms.len()).sum();
        assert_eq!(kept, PROPOSALS * ALGORITHMS, "no more is kept than is told");
    }
}
