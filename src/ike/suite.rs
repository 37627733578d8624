//! What we offer, and what we take out of an offer (RFC 7296 sections 2.7 and 3.3).

use super::crypto::{Group, Prf};
use super::error::Error;
use super::keys::Suite;
use super::wire::codes::{protocol, transform};
use super::wire::{Proposal, Transform};
use crate::model::{EspSuite, Spi};

/// Key length of the cipher of IKE itself.
const IKE_KEY_BITS: u16 = 256;
/// The prfs that we offer and take, best first.
const PRFS: [Prf; 1] = [Prf::HmacSha384];
/// The groups that we offer and take, best first.
pub(super) const GROUPS: [Group; 1] = [Group::X25519];

/// The transforms of one type that a proposal lists.
fn of_kind(proposal: &Proposal, kind: u8) -> impl Iterator<Item = &Transform> {
    proposal.transforms.iter().filter(move |transform| transform.kind == kind && !transform.unknown_attribute)
}

/// The first of `wanted` that the proposal lists.
fn pick(proposal: &Proposal, wanted: &[Transform]) -> Option<Transform> {
    wanted.iter().find(|wanted| of_kind(proposal, wanted.kind).any(|offered| offered == *wanted)).copied()
}

/// Whether the proposal can do without a transform of `kind`: it lists none, or lists NONE.
fn optional(proposal: &Proposal, kind: u8, none: u16) -> bool {
    let mut listed = proposal.transforms.iter().filter(|transform| transform.kind == kind).peekable();
    listed.peek().is_none() || listed.any(|transform| transform.id == none)
}

/// Whether every transform is of a type in `known`: one of another type would have to be chosen too
/// (RFC 7296 section 3.3.6).
fn only_kinds(proposal: &Proposal, known: &[u8]) -> bool {
    proposal.transforms.iter().all(|transform| known.contains(&transform.kind))
}

/// An SPI as it stands in a proposal.
fn esp_spi(proposal: &Proposal) -> Option<Spi> {
    let bytes: [u8; 4] = proposal.spi.as_slice().try_into().ok()?;
    // 0 is reserved, as are the values up to 255 (RFC 4303 section 2.1).
    Some(u32::from_be_bytes(bytes)).filter(|spi| *spi > 255).map(Spi)
}

/// What we offer for an IKE SA. `spi` is empty in IKE_SA_INIT.
pub(super) fn ike_offer(spi: Vec<u8>) -> Proposal {
    let mut transforms = vec![Transform::keyed(transform::ENCR, transform::ENCR_AES_GCM_16, IKE_KEY_BITS)];
    transforms.extend(PRFS.map(prf_transform));
    transforms.extend(GROUPS.map(group_transform));
    Proposal { number: 1, protocol: protocol::IKE, spi, transforms }
}

fn prf_transform(prf: Prf) -> Transform {
    let id = match prf {
        Prf::HmacSha256 => transform::PRF_HMAC_SHA2_256,
        Prf::HmacSha384 => transform::PRF_HMAC_SHA2_384,
        Prf::HmacSha512 => transform::PRF_HMAC_SHA2_512,
    };
    Transform::new(transform::PRF, id)
}

fn group_transform(group: Group) -> Transform {
    Transform::new(transform::DH, group.id())
}

/// Chooses from an offer for an IKE SA. The answer has the offer's number and no SPI yet; the last part is
/// the peer's SPI as it offered it.
pub(super) fn choose_ike(offers: &[Proposal]) -> Result<(Proposal, Suite, &[u8]), Error> {
    let known = [transform::ENCR, transform::PRF, transform::INTEG, transform::DH];
    offers
        .iter()
        .filter(|offer| offer.protocol == protocol::IKE && only_kinds(offer, &known))
        .filter(|offer| optional(offer, transform::INTEG, transform::INTEG_NONE))
        .find_map(|offer| {
            let cipher = pick(offer, &ike_offer(Vec::new()).transforms[..1])?;
            let prf = pick(offer, &PRFS.map(prf_transform))?;
            let group = pick(offer, &GROUPS.map(group_transform))?;
            let suite = Suite { prf: Prf::from_id(prf.id)?, group: Group::from_id(group.id)? };
            let answer = Proposal {
                number: offer.number,
                protocol: protocol::IKE,
                spi: Vec::new(),
                transforms: vec![cipher, prf, group],
            };
            Some((answer, suite, offer.spi.as_slice()))
        })
        .ok_or(Error::PeerIncompatible("no IKE proposal with AES-GCM-16-256, PRF-HMAC-SHA2-384 and X25519"))
}

/// Checks that `answer` chose one transform of each type out of `offer`, and nothing else.
fn check_answer<'a>(answer: &'a [Proposal], offer: &Proposal) -> Result<&'a Proposal, Error> {
    let wrong = Error::PeerMisbehaved("its choice is not one of ours");
    let [chosen] = answer else { return Err(wrong) };
    let mut kinds: Vec<u8> = offer.transforms.iter().map(|transform| transform.kind).collect();
    kinds.dedup();
    let each_once = kinds.iter().all(|kind| of_kind(chosen, *kind).count() == 1);
    let all_ours = chosen.transforms.iter().all(|transform| offer.transforms.contains(transform));
    let same = (chosen.number, chosen.protocol) == (offer.number, offer.protocol);
    if each_once && all_ours && same { Ok(chosen) } else { Err(wrong) }
}

/// Reads the answer to [`ike_offer`]: the suite and the peer's SPI.
pub(super) fn concluded_ike(answer: &[Proposal]) -> Result<(Suite, &[u8]), Error> {
    let chosen = check_answer(answer, &ike_offer(Vec::new()))?;
    let (_, suite, spi) = choose_ike(std::slice::from_ref(chosen))?;
    Ok((suite, spi))
}

/// What an offer for a child leaves to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freedom {
    /// Extended sequence numbers or ordinary ones.
    Either,
    /// Nothing: the inbound SA can be made before the answer, and whoever cannot have it so refuses.
    None,
}

/// What we offer for a child: extended sequence numbers first, and ordinary ones too where there is freedom.
pub(super) fn esp_offer(spi: Spi, key_bits: u16, freedom: Freedom) -> Proposal {
    let mut transforms = vec![
        Transform::keyed(transform::ENCR, transform::ENCR_AES_GCM_16, key_bits),
        Transform::new(transform::ESN, transform::ESN_YES),
    ];
    if freedom == Freedom::Either {
        transforms.push(Transform::new(transform::ESN, transform::ESN_NO));
    }
    Proposal { number: 1, protocol: protocol::ESP, spi: spi.0.to_be_bytes().to_vec(), transforms }
}

/// What was chosen for a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EspChoice {
    /// What the SAs are made with.
    pub(super) suite: EspSuite,
    /// The peer's SPI: our outbound one.
    pub(super) out_spi: Spi,
    /// The group of a Diffie-Hellman exchange of its own, if there is to be one.
    pub(super) group: Option<Group>,
    /// The number of the proposal.
    number: u8,
}

/// May a child have a Diffie-Hellman exchange of its own?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnKe {
    /// In IKE_AUTH there is no room for one: groups in the offer do not count (RFC 7296 section 1.2).
    Never,
    /// In CREATE_CHILD_SA it is used if the request brings a public value; this is its group.
    Brought(Option<u16>),
}

/// Chooses from an offer for a child.
pub(super) fn choose_esp(offers: &[Proposal], key_bits: u16, own_ke: OwnKe) -> Result<EspChoice, Error> {
    let known = [transform::ENCR, transform::INTEG, transform::DH, transform::ESN];
    let mut refusal = Error::PeerIncompatible("no ESP proposal with AES-GCM-16 of our key length");
    let fitting = offers
        .iter()
        .filter(|offer| offer.protocol == protocol::ESP && only_kinds(offer, &known))
        .filter(|offer| optional(offer, transform::INTEG, transform::INTEG_NONE));
    for offer in fitting {
        let cipher = Transform::keyed(transform::ENCR, transform::ENCR_AES_GCM_16, key_bits);
        let Some(out_spi) = pick(offer, &[cipher]).and(esp_spi(offer)) else { continue };
        let esn = [transform::ESN_YES, transform::ESN_NO].map(|id| Transform::new(transform::ESN, id));
        let esn = match pick(offer, &esn) {
            Some(chosen) => chosen.id == transform::ESN_YES,
            None if optional(offer, transform::ESN, transform::ESN_NO) => false,
            None => continue,
        };
        match choose_group(offer, own_ke) {
            Ok(group) => {
                let suite = EspSuite { key_bits, esn };
                return Ok(EspChoice { suite, out_spi, group, number: offer.number });
            }
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

/// RFC 7296 section 1.3: the group of the public value must be the one chosen.
fn choose_group(offer: &Proposal, own_ke: OwnKe) -> Result<Option<Group>, Error> {
    let OwnKe::Brought(brought) = own_ke else { return Ok(None) };
    let chosen = pick(offer, &GROUPS.map(group_transform)).and_then(|chosen| Group::from_id(chosen.id));
    match (chosen, brought) {
        (Some(group), Some(brought)) if group.id() == brought => Ok(Some(group)),
        _ if optional(offer, transform::DH, transform::DH_NONE) => Ok(None),
        (Some(group), _) => Err(Error::OtherGroup(group.id())),
        (None, _) => Err(Error::PeerIncompatible("no Diffie-Hellman group in common for the child")),
    }
}

impl EspChoice {
    /// The proposal that answers with this choice, with our SPI.
    pub(super) fn answer(&self, in_spi: Spi) -> Proposal {
        let esn = if self.suite.esn { transform::ESN_YES } else { transform::ESN_NO };
        let mut transforms =
            vec![Transform::keyed(transform::ENCR, transform::ENCR_AES_GCM_16, self.suite.key_bits)];
        transforms.extend(self.group.map(group_transform));
        transforms.push(Transform::new(transform::ESN, esn));
        Proposal {
            number: self.number,
            protocol: protocol::ESP,
            spi: in_spi.0.to_be_bytes().to_vec(),
            transforms,
        }
    }
}

/// Reads the answer to [`esp_offer`].
pub(super) fn concluded_esp(
    answer: &[Proposal],
    key_bits: u16,
    freedom: Freedom,
) -> Result<EspChoice, Error> {
    let chosen = check_answer(answer, &esp_offer(Spi(0), key_bits, freedom))?;
    choose_esp(std::slice::from_ref(chosen), key_bits, OwnKe::Never)
}
