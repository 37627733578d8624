//! Post-quantum preshared keys, both roles: what IKE_SA_INIT says of them, and those that come in with IKE_AUTH (RFC 8784
//! section 3). Where both ends know how, one comes in before (`early_ppk`).
//!
//! Whatever is said of PPKs in IKE_SA_INIT is in the clear, and AUTH covers it: an end that has none required can be made
//! to go on without, or to have it later, by nobody but who can forge AUTH. Where one is required, there is no way without.

use std::net::IpAddr;

use super::half_open::HalfOpen;
use crate::identity::{Ppk, PpkRule, PpkTag};
use crate::ike::crypto::Hidden;
use crate::ike::crypto::keys::AuthKeys;
#[cfg(any(test, fuzzing))]
pub(super) use crate::ike::insider::known_ppk_numbers;
use crate::ike::outbox::Cx;
use crate::ike::reason::{BadPpk, BadProof, Reason, Refusal};
use crate::ike::wire::codes::{notify, ppk};
use crate::ike::wire::{Parts, Payload};

/// The longest part of a peer's name of a PPK that is shown.
const SHOWN_OCTETS: usize = 64;

/// By which numbers ends speak of PPKs in IKE_INTERMEDIATE. Nothing else differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PpkNumbers {
    /// Those of RFC 9867.
    Rfc,
    /// Those of draft-ietf-ipsecme-ikev2-qr-alt-04 as Libreswan 5.2 has it.
    Draft,
}

/// The exchange in which two ends mix a PPK into their keys.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum MixedIn {
    /// None: not both have said that they have some.
    #[default]
    Nothing,
    /// IKE_INTERMEDIATE (RFC 9867): all keys have it from then on.
    Intermediate,
    /// IKE_AUTH (RFC 8784): the keys of children have it, and those of the successors of the IKE SA.
    Auth,
}

/// What a half-open IKE SA has to do with PPKs.
#[derive(Default)]
pub struct Mixing {
    /// What both ends have agreed on.
    mixed_in: MixedIn,
    /// By which numbers this end speaks of early PPKs, where it has PPKs and knows of early ones.
    numbers: Option<PpkNumbers>,
    /// Those that our request in IKE_INTERMEDIATE names.
    offered: Vec<PpkTag>,
    /// The one that this end would have had in the keys, by what it has said itself in this handshake: settings may change
    /// under way, and what came too late is to be said in another one.
    wished: Option<PpkTag>,
    /// The one in the keys.
    used: Option<PpkTag>,
    /// What is without it: SK_d', and SK_pi' with SK_pr'.
    without: Option<(Hidden, AuthKeys)>,
    /// It was in the keys, until the responder went on without.
    left_out: bool,
}

impl Mixing {
    /// One at the end of IKE_SA_INIT of the host `local`. `rule`: what this end said it has, `theirs`: what the peer's
    /// message says.
    pub fn new(rule: Option<&PpkRule>, local: IpAddr, theirs: &Parts<'_>) -> Self {
        let Some(rule) = rule else { return Self::default() };
        let (known, says) = (known_ppk_numbers(local), |kind| theirs.notify(kind).is_some());
        // RFC 9867 section 3.1: it needs the exchange.
        let early = known.iter().find(|it| says(notify::INTERMEDIATE_EXCHANGE_SUPPORTED) && says(it.wish()));
        let mixed_in = match early {
            Some(_) => MixedIn::Intermediate,
            None if says(notify::USE_PPK) => MixedIn::Auth,
            None => MixedIn::Nothing,
        };
        let numbers = early.or(known.first()).copied();
        Self { mixed_in, numbers, wished: rule.wanted(), ..Self::default() }
    }

    /// What a responder says of it in IKE_SA_INIT.
    pub(super) fn payload(&self) -> Option<Payload> {
        let kind = match self.mixed_in {
            MixedIn::Nothing => return None,
            MixedIn::Intermediate => self.numbers?.wish(),
            MixedIn::Auth => notify::USE_PPK,
        };
        Some(Payload::notify(kind, Vec::new()))
    }

    /// Where the PPK comes in.
    pub(super) fn mixed_in(&self) -> MixedIn {
        self.mixed_in
    }

    /// Takes over what another answer to the same request says. Gives back what this one says.
    pub(super) fn replace_mixed_in(&mut self, mixed_in: MixedIn) -> MixedIn {
        std::mem::replace(&mut self.mixed_in, mixed_in)
    }

    /// By which numbers this end speaks of early PPKs, where it does.
    pub(super) fn numbers(&self) -> Option<PpkNumbers> {
        self.numbers
    }

    /// The rule of this end by now: its settings may have changed since IKE_SA_INIT.
    pub(super) fn wish(&mut self, rule: &PpkRule) {
        self.wished = rule.wanted();
    }

    /// Our request in IKE_INTERMEDIATE names those of `rule`.
    pub(super) fn offer(&mut self, rule: &PpkRule) {
        self.wish(rule);
        self.offered = rule.keys.iter().map(|ppk| ppk.tag()).collect();
    }

    /// What that request names.
    pub(super) fn offered(&self) -> &[PpkTag] {
        &self.offered
    }

    /// All keys have this one now.
    pub(super) fn took(&mut self, ppk: &Ppk) {
        self.used = Some(ppk.tag());
    }

    /// The PPK that this end would have had in the keys.
    pub(super) fn wished(&self) -> Option<&PpkTag> {
        self.wished.as_ref()
    }

    /// The PPK in the keys.
    pub(super) fn used(&self) -> Option<&PpkTag> {
        self.used.as_ref()
    }

    /// Whether a PPK was in the keys when the request was sent, and is not any more.
    pub(super) fn was_left_out(&self) -> bool {
        self.left_out
    }
}

impl PpkNumbers {
    /// All, the preferred ones first.
    pub(in crate::ike) const ALL: [Self; 2] = [Self::Rfc, Self::Draft];

    /// That an end would have it so.
    fn wish(self) -> u16 {
        match self {
            Self::Rfc => notify::USE_PPK_INT,
            Self::Draft => notify::DRAFT_USE_PPK_INT,
        }
    }

    /// That it has one, and what shows that.
    pub(super) fn name(self) -> u16 {
        match self {
            Self::Rfc => notify::PPK_IDENTITY_KEY,
            Self::Draft => notify::DRAFT_PPK_IDENTITY_KEY,
        }
    }
}

/// By which numbers the host `local` speaks of PPKs in IKE_INTERMEDIATE: all of this version do by any.
#[cfg(not(any(test, fuzzing)))]
pub(super) fn known_ppk_numbers(_local: IpAddr) -> &'static [PpkNumbers] {
    &PpkNumbers::ALL
}

/// What the first message of the host `local` says, which has PPKs.
pub(super) fn ppk_offer(local: IpAddr) -> impl Iterator<Item = Payload> {
    let early = known_ppk_numbers(local).iter().map(|numbers| numbers.wish());
    std::iter::once(notify::USE_PPK).chain(early).map(|kind| Payload::notify(kind, Vec::new()))
}

/// What the peer calls a PPK, for people. It has proven nothing, so it gets no words in.
pub(super) fn shown(id: &[u8]) -> String {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b".-_".contains(&octet);
    id.iter().take(SHOWN_OCTETS).map(|octet| if plain(*octet) { char::from(*octet) } else { '?' }).collect()
}

/// How a PPK is named (RFC 8784 section 5.1).
pub(super) fn named(ppk: &Ppk) -> Vec<u8> {
    [&[ppk::FIXED], ppk.id().as_bytes()].concat()
}

/// What a PPK is called that is named so, where that is a kind of name that is known here.
pub(super) fn ppk_id(name: &[u8]) -> Option<&[u8]> {
    match name.split_first() {
        Some((&(ppk::OPAQUE | ppk::FIXED), id)) => Some(id),
        _ => None,
    }
}

/// Whether a wrong PPK can be the cause: then nothing that is made with SK_p is as it must be.
fn may_be_ppk(unproven: &BadProof) -> bool {
    matches!(unproven, BadProof::Secret | BadProof::Key(_) | BadProof::OtherSigner)
}

impl HalfOpen {
    /// The PPKs that this end may use with the peer.
    pub(super) fn ppks<'s>(&self, cx: &Cx<'s>) -> Option<&'s PpkRule> {
        cx.settings.ppks(self.path.bond())
    }

    fn mix(&mut self, ppk: &Ppk) {
        let keys = self.keys.with_ppk(self.sa.keys.suite.prf, ppk);
        let without = (self.sa.keys.mix(ppk), std::mem::replace(&mut self.keys, keys));
        (self.mixing.used, self.mixing.without) = (Some(ppk.tag()), Some(without));
    }

    /// What our request says of PPKs. From then on the keys have the one that it names.
    pub(super) fn offer_ppk(&mut self, cx: &Cx<'_>) -> Result<Vec<Payload>, Reason> {
        if self.mixing.mixed_in != MixedIn::Auth {
            self.ensure_ppk(cx)?;
            return Ok(Vec::new());
        }
        // The settings may have changed since the first message.
        let rule = self.ppks(cx).ok_or(BadPpk::Changed)?;
        let chosen = rule.choice(self.fallback).ok_or(BadPpk::Changed)?;
        self.mixing.wish(rule);
        let mut payloads = vec![Payload::notify(notify::PPK_IDENTITY, named(chosen))];
        if !rule.required {
            // RFC 8784 section 3: what AUTH would be without the PPK, for a responder that does not know it.
            let (proof, _) = self.prove(cx, cx.settings.signing(self.fallback), None)?;
            let plain = proof.into_iter().find_map(|payload| match payload {
                Payload::Auth { data, .. } => Some(data),
                _ => None,
            });
            payloads.extend(plain.map(|data| Payload::notify(notify::NO_PPK_AUTH, data)));
        }
        self.mix(chosen);
        if rule.required {
            self.mixing.without = None;
        }
        Ok(payloads)
    }

    /// RFC 8784 section 3: a responder says PPK_IDENTITY where it has used the PPK. One that does not goes on without,
    /// if this end has said how.
    pub(super) fn read_ppk_answer(&mut self, parts: &Parts<'_>) -> Result<(), Reason> {
        let used = self.mixing.mixed_in != MixedIn::Auth || parts.notify(notify::PPK_IDENTITY).is_some();
        if used || parts.auth().is_none() || self.mixing.used.is_none() {
            return Ok(());
        }
        let (derive, keys) = self.mixing.without.take().ok_or(BadPpk::Missing)?;
        self.sa.keys.unmix(derive);
        (self.keys, self.mixing.used, self.mixing.left_out) = (keys, None, true);
        Ok(())
    }

    /// Takes in what an initiator's request says of PPKs: the keys have the one that it names from then on. Where that is
    /// unknown here and none is required, the proof without it takes the place of AUTH.
    pub(super) fn take_ppk(&mut self, cx: &Cx<'_>, payloads: &mut [Payload]) -> Result<(), Reason> {
        if self.mixing.mixed_in != MixedIn::Auth {
            return Ok(());
        }
        let rule = self.ppks(cx).ok_or(BadPpk::Changed)?;
        self.mixing.wish(rule);
        let parts = Parts(payloads);
        // RFC 8784 section 3: whoever has heard that both have PPKs names one.
        let unnamed = if rule.required { BadPpk::Missing } else { BadPpk::NotNamed };
        let name = parts.notify(notify::PPK_IDENTITY).ok_or(unnamed)?;
        if let Some(named) = ppk_id(&name.data).and_then(|id| rule.named(id)) {
            self.mix(named);
            self.mixing.without = None;
            return Ok(());
        }
        let unknown = || BadPpk::Unknown(shown(name.data.get(1..).unwrap_or_default()));
        let plain = parts.notify(notify::NO_PPK_AUTH).filter(|_| !rule.required).ok_or_else(unknown)?;
        let plain = plain.data.clone();
        for payload in payloads {
            if let Payload::Auth { data, .. } = payload {
                data.clone_from(&plain);
            }
        }
        Ok(())
    }

    /// That the responder has used it.
    pub(super) fn ppk_used(&self) -> Option<Payload> {
        let used = self.mixing.used.as_ref().filter(|_| self.mixing.mixed_in == MixedIn::Auth);
        used.map(|_| Payload::notify(notify::PPK_IDENTITY, Vec::new()))
    }

    /// The last word, however it came about: no IKE SA goes on without a PPK where one is required, or with one that was
    /// taken back under way.
    pub(super) fn ensure_ppk(&self, cx: &Cx<'_>) -> Result<(), Reason> {
        let Some(rule) = self.ppks(cx) else { return Ok(()) };
        match &self.mixing.used {
            None if rule.required => Err(BadPpk::Missing.into()),
            Some(tag) if !rule.has(tag) => Err(BadPpk::Changed.into()),
            _ => Ok(()),
        }
    }

    /// What went wrong with AUTH, where a PPK may be the cause.
    pub(super) fn blame_ppk(&self, reason: Reason) -> Reason {
        // One that came in before was shown to be the same at both ends.
        let used = self.mixing.used.as_ref().filter(|_| self.mixing.mixed_in == MixedIn::Auth);
        match (used.map(|tag| tag.id().to_owned()), reason) {
            (Some(id), Reason::BadProof(unproven)) if may_be_ppk(&unproven) => {
                BadPpk::Wrong(id, unproven).into()
            }
            (Some(id), Reason::Refused(Refusal::Authentication)) => BadPpk::Refused(id).into(),
            (_, reason) => reason,
        }
    }
}
