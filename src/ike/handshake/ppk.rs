//! Post-quantum preshared keys in IKE_AUTH (RFC 8784 section 3), both roles.
//!
//! Whatever is said of PPKs in IKE_SA_INIT is in the clear, and AUTH covers it: an end that has none required can be made
//! to go on without by nobody but who can forge AUTH. Where one is required, there is no way without.

use super::half_open::HalfOpen;
use crate::identity::{Ppk, PpkRule, PpkTag};
use crate::ike::crypto::Hidden;
use crate::ike::crypto::keys::AuthKeys;
use crate::ike::outbox::Cx;
use crate::ike::reason::{BadPpk, BadProof, Reason, Refusal};
use crate::ike::wire::codes::{notify, ppk};
use crate::ike::wire::{Parts, Payload};

/// The longest part of a peer's name of a PPK that is shown.
const SHOWN_OCTETS: usize = 64;

/// What a half-open IKE SA has to do with PPKs.
#[derive(Default)]
pub struct Mixing {
    /// Both ends have said that they have some.
    agreed: bool,
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
    /// One at the end of IKE_SA_INIT. `rule`: what this end said it has, `theirs`: that the peer has some.
    pub fn new(rule: Option<&PpkRule>, theirs: bool) -> Self {
        let wished = rule.and_then(PpkRule::wanted);
        Self { agreed: rule.is_some() && theirs, wished, ..Self::default() }
    }

    /// Both ends have said that they have PPKs.
    pub(super) fn is_agreed(&self) -> bool {
        self.agreed
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

/// That this end has PPKs.
pub(super) fn use_ppk() -> Payload {
    Payload::notify(notify::USE_PPK, Vec::new())
}

/// What the peer calls a PPK, for people. It has proven nothing, so it gets no words in.
fn shown(id: &[u8]) -> String {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b".-_".contains(&octet);
    id.iter().take(SHOWN_OCTETS).map(|octet| if plain(*octet) { char::from(*octet) } else { '?' }).collect()
}

/// Whether a wrong PPK can be the cause: then nothing that is made with SK_p is as it must be.
fn may_be_ppk(unproven: &BadProof) -> bool {
    matches!(unproven, BadProof::Secret | BadProof::Key(_) | BadProof::OtherSigner)
}

impl HalfOpen {
    fn ppks<'s>(&self, cx: &Cx<'s>) -> Option<&'s PpkRule> {
        cx.settings.ppks(self.path.bond())
    }

    fn mix(&mut self, ppk: &Ppk) {
        let keys = self.keys.with_ppk(self.sa.keys.suite.prf, ppk);
        let without = (self.sa.keys.mix(ppk), std::mem::replace(&mut self.keys, keys));
        (self.mixing.used, self.mixing.without) = (Some(ppk.tag()), Some(without));
    }

    /// What our request says of PPKs. From then on the keys have the one that it names.
    pub(super) fn offer_ppk(&mut self, cx: &Cx<'_>) -> Result<Vec<Payload>, Reason> {
        if !self.mixing.agreed {
            self.ensure_ppk(cx)?;
            return Ok(Vec::new());
        }
        // The settings may have changed since the first message.
        let rule = self.ppks(cx).ok_or(BadPpk::Changed)?;
        let chosen = rule.choice(self.fallback).ok_or(BadPpk::Changed)?;
        self.mixing.wished = rule.wanted();
        let name = [&[ppk::FIXED], chosen.id().as_bytes()].concat();
        let mut payloads = vec![Payload::notify(notify::PPK_IDENTITY, name)];
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
        let used = parts.notify(notify::PPK_IDENTITY).is_some();
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
        if !self.mixing.agreed {
            return Ok(());
        }
        let rule = self.ppks(cx).ok_or(BadPpk::Changed)?;
        self.mixing.wished = rule.wanted();
        let parts = Parts(payloads);
        // RFC 8784 section 3: whoever has heard that both have PPKs names one.
        let unnamed = if rule.required { BadPpk::Missing } else { BadPpk::NotNamed };
        let name = parts.notify(notify::PPK_IDENTITY).ok_or(unnamed)?;
        let named = match name.data.split_first() {
            Some((&(ppk::OPAQUE | ppk::FIXED), id)) => rule.named(id),
            _ => None,
        };
        if let Some(named) = named {
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
        self.mixing.used.as_ref().map(|_| Payload::notify(notify::PPK_IDENTITY, Vec::new()))
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
        let id = self.mixing.used.as_ref().map(|tag| tag.id().to_owned());
        match (id, reason) {
            (Some(id), Reason::BadProof(unproven)) if may_be_ppk(&unproven) => {
                BadPpk::Wrong(id, unproven).into()
            }
            (Some(id), Reason::Refused(Refusal::Authentication)) => BadPpk::Refused(id).into(),
            (_, reason) => reason,
        }
    }
}
