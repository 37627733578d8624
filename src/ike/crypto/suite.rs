//! What we offer, and what we take out of an offer (RFC 7296 sections 2.7 and 3.3).
//!
//! The responder chooses what stands first in its own configuration: the order of an offer, which nobody has proven
//! yet, decides nothing.

use super::offered::disjoint;
use crate::ike::reason::{Failed, Incompatible, Misbehaved, OurProposals, Reason};
use crate::ike::wire::codes::{protocol, transform};
use crate::ike::wire::{Proposal, Transform};
use crate::types::{
    AdditionalKe, EspProposal, EspSuite, Group, IkeCipher, IkeProposal, Integrity, KeyExchange, Prf,
    Proposals, Spi,
};

/// What two ends agreed on for an IKE SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suite {
    /// The cipher of its messages.
    pub cipher: IkeCipher,
    /// What authenticates them beside AES-CBC.
    pub integrity: Option<Integrity>,
    /// The pseudo-random function.
    pub prf: Prf,
    /// The Diffie-Hellman group; `None` for keys that are derived from a secret alone.
    pub group: Option<Group>,
    /// The key exchange after it.
    pub additional: Option<AdditionalKe>,
}

impl Suite {
    /// The proposal that names it and nothing else.
    pub fn proposal(&self) -> IkeProposal {
        IkeProposal {
            ciphers: vec![self.cipher],
            integrity: self.integrity.into_iter().collect(),
            prfs: vec![self.prf],
            groups: self.group.into_iter().collect(),
            additional: self.additional.into_iter().collect(),
        }
    }

    /// The group of a suite that was negotiated.
    pub fn negotiated_group(&self) -> Result<Group, Reason> {
        self.group.ok_or(Failed::Cryptography.into())
    }
}

fn of_cipher(cipher: IkeCipher) -> Transform {
    let (id, bits) = match cipher {
        IkeCipher::AesGcm16(bits) => (transform::ENCR_AES_GCM_16, bits),
        IkeCipher::AesCbc(bits) => (transform::ENCR_AES_CBC, bits),
    };
    Transform::keyed(transform::ENCR, id, bits)
}

fn of_integrity(integrity: Integrity) -> Transform {
    let id = match integrity {
        Integrity::HmacSha256 => transform::INTEG_HMAC_SHA2_256_128,
        Integrity::HmacSha384 => transform::INTEG_HMAC_SHA2_384_192,
    };
    Transform::new(transform::INTEG, id)
}

fn of_prf(prf: Prf) -> Transform {
    let id = match prf {
        Prf::HmacSha256 => transform::PRF_HMAC_SHA2_256,
        Prf::HmacSha384 => transform::PRF_HMAC_SHA2_384,
        Prf::HmacSha512 => transform::PRF_HMAC_SHA2_512,
    };
    Transform::new(transform::PRF, id)
}

fn of_group(group: Group) -> Transform {
    Transform::new(transform::DH, group.id())
}

fn of_additional(additional: AdditionalKe) -> Transform {
    Transform::new(transform::ADDKE1, additional.id())
}

fn of_key_bits(key_bits: u16) -> Transform {
    Transform::keyed(transform::ENCR, transform::ENCR_AES_GCM_16, key_bits)
}

fn of_esn(esn: bool) -> Transform {
    Transform::new(transform::ESN, if esn { transform::ESN_YES } else { transform::ESN_NO })
}

impl Group {
    /// Its number in a KE payload and in a transform.
    pub(in crate::ike) fn id(self) -> u16 {
        match self {
            Group::X25519 => transform::DH_CURVE25519,
            Group::EcpP256 => transform::DH_ECP_256,
            Group::EcpP384 => transform::DH_ECP_384,
        }
    }
}

impl AdditionalKe {
    /// Its number in a KE payload and in a transform.
    pub(in crate::ike) fn id(self) -> u16 {
        match self {
            AdditionalKe::MlKem768 => transform::ADDKE_ML_KEM_768,
        }
    }
}

impl Proposals<IkeProposal> {
    /// What is liked best of all; `None` for a proposal that names nothing.
    pub(in crate::ike) fn best(&self) -> Option<Suite> {
        let ours = self.iter().next()?;
        Some(Suite {
            cipher: *ours.ciphers.first()?,
            integrity: ours.integrity.first().copied(),
            prf: *ours.prfs.first()?,
            group: Some(*ours.groups.first()?),
            additional: ours.additional.first().copied(),
        })
    }

    /// Whether one of them has an additional key exchange.
    pub(in crate::ike) fn has_additional(&self) -> bool {
        self.iter().any(|proposal| !proposal.additional.is_empty())
    }
}

/// The groups that proposals name.
pub trait Groups {
    /// All of them, best first.
    fn groups(&self) -> impl Iterator<Item = Group>;

    /// The group of the public value that an offer brings: the best one.
    fn first_group(&self) -> Option<Group> {
        self.groups().next()
    }

    /// The group of that number, if it is one of them.
    fn group(&self, id: u16) -> Option<Group> {
        self.groups().find(|group| group.id() == id)
    }
}

impl Groups for Proposals<IkeProposal> {
    fn groups(&self) -> impl Iterator<Item = Group> {
        self.iter().flat_map(|proposal| proposal.groups.iter().copied())
    }
}

impl Groups for Proposals<EspProposal> {
    fn groups(&self) -> impl Iterator<Item = Group> {
        self.iter().flat_map(|proposal| proposal.groups.iter().copied())
    }
}

/// Whether the proposal lists a transform that may be chosen.
fn lists(offer: &Proposal, wanted: Transform) -> bool {
    offer.transforms.contains(&wanted)
}

/// The first of ours that the proposal lists.
fn first<T: Copy>(offer: &Proposal, ours: &[T], transform: impl Fn(T) -> Transform) -> Option<T> {
    ours.iter().copied().find(|ours| lists(offer, transform(*ours)))
}

/// Whether the proposal can do without a transform of `kind`: it lists none, or lists NONE.
fn optional(offer: &Proposal, kind: u8, none: u16) -> bool {
    let mut listed = offer.transforms.iter().filter(|transform| transform.kind == kind).peekable();
    listed.peek().is_none() || listed.any(|transform| transform.id == none)
}

/// Checks that `answer` chose one transform of each type out of one of `offers`, and nothing else.
fn check_answer<'a>(answer: &'a [Proposal], offers: &[Proposal]) -> Result<&'a Proposal, Reason> {
    let wrong = Reason::Misbehaved(Misbehaved::Choice);
    let [chosen] = answer else { return Err(wrong) };
    let same = |offer: &&Proposal| (chosen.number, chosen.protocol) == (offer.number, offer.protocol);
    let offer = offers.iter().find(same).ok_or(wrong.clone())?;
    let of_kind = |kind| chosen.transforms.iter().filter(move |transform| transform.kind == kind);
    let each_once = offer.transforms.iter().all(|transform| of_kind(transform.kind).count() == 1);
    let all_ours = chosen.transforms.iter().all(|transform| offer.transforms.contains(transform));
    if each_once && all_ours { Ok(chosen) } else { Err(wrong) }
}

/// Proposals of one protocol, numbered from 1 (RFC 7296 section 3.3.1).
fn numbered(protocol: u8, spi: &[u8], all: impl Iterator<Item = Vec<Transform>>) -> Vec<Proposal> {
    let numbers = 1..=u8::MAX;
    let proposal = |(number, transforms)| Proposal { number, protocol, spi: spi.to_vec(), transforms };
    numbers.zip(all).map(proposal).collect()
}

// ---------------------------------------------------------------------- IKE

/// What we offer for an IKE SA. `spi` is empty in IKE_SA_INIT.
pub fn ike_offer(ours: &Proposals<IkeProposal>, spi: &[u8]) -> Vec<Proposal> {
    let transforms = |ours: &IkeProposal| {
        let mut all: Vec<Transform> = ours.ciphers.iter().copied().map(of_cipher).collect();
        all.extend(ours.integrity.iter().copied().map(of_integrity));
        all.extend(ours.prfs.iter().copied().map(of_prf));
        all.extend(ours.groups.iter().copied().map(of_group));
        all.extend(ours.additional.iter().copied().map(of_additional));
        all
    };
    numbered(protocol::IKE, spi, ours.iter().map(transforms))
}

/// The types of additional key exchanges.
const ADDITIONAL: std::ops::RangeInclusive<u8> = transform::ADDKE1..=transform::ADDKE7;

/// The first of `ours` that an offer has; `Some(None)` where neither end needs one.
fn fitting_additional(ours: &[AdditionalKe], offer: &Proposal) -> Option<Option<AdditionalKe>> {
    let additional = match ours {
        [] => None,
        ours => Some(first(offer, ours, of_additional)?),
    };
    // RFC 9370 section 2.2.1: those that are not done must be optional.
    let done = additional.map(|_| transform::ADDKE1);
    let mut others = ADDITIONAL.filter(|kind| Some(*kind) != done);
    others.all(|kind| optional(offer, kind, transform::ADDKE_NONE)).then_some(additional)
}

/// What is chosen of the types of key exchange in `offer` beside what `transforms` have: of each type that was
/// offered one is chosen, and where it is none, that (RFC 7296 section 3.3.6, RFC 9370 section 2.2.1).
fn declined(offer: &Proposal, transforms: &[Transform]) -> Vec<Transform> {
    let has = |all: &[Transform], kind| all.iter().any(|transform| transform.kind == kind);
    let kinds = std::iter::once(transform::DH).chain(ADDITIONAL);
    let kinds = kinds.filter(|kind| has(&offer.transforms, *kind) && !has(transforms, *kind));
    kinds.map(|kind| Transform::new(kind, transform::ADDKE_NONE)).collect()
}

/// The best suite of `ours` that an offer has.
fn fitting_ike(ours: &IkeProposal, offer: &Proposal) -> Option<Suite> {
    let known = |kind| matches!(kind, transform::ENCR..=transform::DH) || ADDITIONAL.contains(&kind);
    if offer.protocol != protocol::IKE || !offer.transforms.iter().all(|transform| known(transform.kind)) {
        return None;
    }
    let additional = fitting_additional(&ours.additional, offer)?;
    let integrity = match ours.is_authenticated() {
        true => optional(offer, transform::INTEG, transform::INTEG_NONE).then_some(None)?,
        false => Some(first(offer, &ours.integrity, of_integrity)?),
    };
    let cipher = first(offer, &ours.ciphers, of_cipher)?;
    let prf = first(offer, &ours.prfs, of_prf)?;
    let group = Some(first(offer, &ours.groups, of_group)?);
    Some(Suite { cipher, integrity, prf, group, additional })
}

impl Suite {
    /// The proposal that answers `offer` with it, without an SPI.
    fn answer(&self, offer: &Proposal) -> Proposal {
        let mut transforms = vec![of_cipher(self.cipher)];
        transforms.extend(self.integrity.map(of_integrity));
        transforms.push(of_prf(self.prf));
        transforms.extend(self.group.map(of_group));
        transforms.extend(self.additional.map(of_additional));
        transforms.extend(declined(offer, &transforms));
        Proposal { number: offer.number, protocol: protocol::IKE, spi: Vec::new(), transforms }
    }
}

/// Chooses from an offer for an IKE SA; `additional`: there can be additional key exchanges. The answer has the offer's number and no SPI yet; the last part is
/// the peer's SPI as it offered it.
pub fn choose_ike<'a>(
    ours: &Proposals<IkeProposal>,
    offers: &'a [Proposal],
    additional: bool,
) -> Result<(Proposal, Suite, &'a [u8]), Reason> {
    let all = ours;
    let ours = ours.iter().filter(|ours| additional || ours.additional.is_empty());
    let mut choices = ours.flat_map(|ours| {
        offers.iter().filter_map(|offer| fitting_ike(ours, offer).map(|suite| (offer, suite)))
    });
    let (offer, suite) = choices.next().ok_or_else(|| disjoint(offers, OurProposals::Ike(all.clone())))?;
    Ok((suite.answer(offer), suite, offer.spi.as_slice()))
}

/// Reads the answer to [`ike_offer`]: the suite and the peer's SPI.
pub fn concluded_ike<'a>(
    ours: &Proposals<IkeProposal>,
    answer: &'a [Proposal],
) -> Result<(Suite, &'a [u8]), Reason> {
    let chosen = check_answer(answer, &ike_offer(ours, &[]))?;
    let (_, suite, spi) = choose_ike(ours, std::slice::from_ref(chosen), true)?;
    Ok((suite, spi))
}

// ---------------------------------------------------------------------- ESP

/// What we offer for a child.
pub fn esp_offer(ours: &Proposals<EspProposal>, spi: Spi) -> Vec<Proposal> {
    let transforms = |ours: &EspProposal| {
        let mut all: Vec<Transform> = ours.key_bits.iter().copied().map(of_key_bits).collect();
        all.extend(ours.groups.iter().copied().map(of_group));
        all.extend(ours.additional.iter().copied().map(of_additional));
        all.extend(ours.esn.iter().copied().map(of_esn));
        all
    };
    numbered(protocol::ESP, &spi.0.to_be_bytes(), ours.iter().map(transforms))
}

/// What was chosen for a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EspChoice {
    /// What the SAs are made with.
    pub suite: EspSuite,
    /// The peer's SPI: our outbound one.
    pub out_spi: Spi,
    /// Its own key exchange, if there is to be one.
    pub key_exchange: Option<KeyExchange>,
    /// The number of the proposal.
    number: u8,
    /// The transforms that decline something optional.
    declined: Vec<Transform>,
}

/// May a child have its own key exchange?
#[derive(Debug, Clone, Copy)]
pub enum OwnKe {
    /// IKE_AUTH has no room for one: groups in its offer do not count (RFC 7296 section 1.2).
    Never,
    /// In CREATE_CHILD_SA, whose request brings a public value of this group, or none.
    Brought(Option<u16>),
}

/// An SPI as it stands in a proposal.
fn esp_spi(offer: &Proposal) -> Option<Spi> {
    let bytes: [u8; 4] = offer.spi.as_slice().try_into().ok()?;
    // 0 is reserved, as are the values up to 255 (RFC 4303 section 2.1).
    Some(u32::from_be_bytes(bytes)).filter(|spi| *spi > 255).map(Spi)
}

/// The best suite of `ours` that an offer has.
fn fitting_esp(ours: &EspProposal, offer: &Proposal, own_ke: OwnKe) -> Option<EspChoice> {
    let known = [transform::ENCR, transform::INTEG, transform::DH, transform::ESN];
    let known = |kind| known.contains(&kind) || ADDITIONAL.contains(&kind);
    let no_integrity = optional(offer, transform::INTEG, transform::INTEG_NONE);
    // One of another type would have to be chosen too (RFC 7296 section 3.3.6).
    let only_known = offer.transforms.iter().all(|transform| known(transform.kind));
    if offer.protocol != protocol::ESP || !only_known || !no_integrity {
        return None;
    }
    let key_bits = first(offer, &ours.key_bits, of_key_bits)?;
    let without = || optional(offer, transform::ESN, transform::ESN_NO) && ours.esn.contains(&false);
    let esn = first(offer, &ours.esn, of_esn).or_else(|| without().then_some(false))?;
    let (suite, out_spi, number) = (EspSuite { key_bits, esn }, esp_spi(offer)?, offer.number);
    let (key_exchange, declined) = match own_ke {
        OwnKe::Never => (None, Vec::new()),
        OwnKe::Brought(brought) => {
            let key_exchange = fitting_key_exchange(ours, offer, brought)?;
            (key_exchange, declined(offer, &of_key_exchange(key_exchange)))
        }
    };
    Some(EspChoice { suite, out_spi, key_exchange, number, declined })
}

/// The key exchange that `ours` require; `Some(None)` where neither end requires one.
fn fitting_key_exchange(
    ours: &EspProposal,
    offer: &Proposal,
    brought: Option<u16>,
) -> Option<Option<KeyExchange>> {
    let additional = fitting_additional(&ours.additional, offer)?;
    if ours.groups.is_empty() {
        return optional(offer, transform::DH, transform::DH_NONE).then_some(None);
    }
    // The one that came, if it may be: another costs one more round trip.
    let came = ours.groups.iter().copied().find(|group| brought == Some(group.id()));
    let came = came.filter(|group| lists(offer, of_group(*group)));
    let group = came.or_else(|| first(offer, &ours.groups, of_group))?;
    Some(Some(KeyExchange { group, additional }))
}

fn of_key_exchange(key_exchange: Option<KeyExchange>) -> Vec<Transform> {
    let of = |it: KeyExchange| [Some(of_group(it.group)), it.additional.map(of_additional)];
    key_exchange.map(of).into_iter().flatten().flatten().collect()
}

/// Chooses from an offer for a child.
pub fn choose_esp(
    ours: &Proposals<EspProposal>,
    offers: &[Proposal],
    own_ke: OwnKe,
) -> Result<EspChoice, Reason> {
    let mut choices =
        ours.iter().flat_map(|ours| offers.iter().filter_map(move |offer| fitting_esp(ours, offer, own_ke)));
    let choice = choices.next().ok_or_else(|| disjoint(offers, OurProposals::Esp(ours.clone())))?;
    // RFC 7296 section 1.3: the group of the public value must be the one chosen.
    match (choice.key_exchange, own_ke) {
        (Some(KeyExchange { group, .. }), OwnKe::Brought(brought)) if brought != Some(group.id()) => {
            Err(Incompatible::Group(group.id()).into())
        }
        _ => Ok(choice),
    }
}

impl EspChoice {
    /// The proposal that answers with this choice, with our SPI.
    pub fn answer(&self, in_spi: Spi) -> Proposal {
        let mut transforms = vec![of_key_bits(self.suite.key_bits)];
        transforms.extend(of_key_exchange(self.key_exchange));
        transforms.extend(&self.declined);
        transforms.push(of_esn(self.suite.esn));
        let spi = in_spi.0.to_be_bytes().to_vec();
        Proposal { number: self.number, protocol: protocol::ESP, spi, transforms }
    }
}

/// Reads the answer to [`esp_offer`]; `own_ke` says which public value came with the offer.
pub fn concluded_esp(
    ours: &Proposals<EspProposal>,
    answer: &[Proposal],
    own_ke: OwnKe,
) -> Result<EspChoice, Reason> {
    let chosen = check_answer(answer, &esp_offer(ours, Spi(0)))?;
    choose_esp(ours, std::slice::from_ref(chosen), own_ke)
}
