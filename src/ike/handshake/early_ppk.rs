//! Post-quantum preshared keys in IKE_INTERMEDIATE (RFC 9867 section 3.1), both roles: all keys have one before either end
//! says who it is.
//!
//! Each end shows of its PPK what only an end with the same one can check, so a wrong one is found out at once. Nobody has
//! proven anything yet: AUTH covers what was said here, as all of IKE_INTERMEDIATE.

use std::sync::Arc;

use subtle::ConstantTimeEq;

use super::half_open::HalfOpen;
use super::ppk::{MixedIn, known_ppk_numbers, named, ppk_id, shown};
use crate::identity::Ppk;
use crate::ike::crypto::keys::{PPK_CONFIRMATION, ppk_confirmation};
use crate::ike::outbox::Cx;
use crate::ike::reason::{BadPpk, Reason, Refusal};
use crate::ike::wire::codes::notify;
use crate::ike::wire::{Parts, Payload};

/// A PPK that a request names, and what it shows of it.
struct ShownPpk<'a> {
    id: &'a [u8],
    confirmation: &'a [u8],
}

impl<'a> ShownPpk<'a> {
    /// Reads PPK_IDENTITY_KEY. What cannot be read names nothing that is known here.
    fn read(data: &'a [u8]) -> Option<Self> {
        let (name, confirmation) = data.split_at_checked(data.len().checked_sub(PPK_CONFIRMATION)?)?;
        Some(Self { id: ppk_id(name)?, confirmation })
    }
}

/// A responder's word for the PPK that it has chosen.
pub(super) fn ppk_choice(ppk: &Ppk) -> Payload {
    Payload::notify(notify::PPK_IDENTITY, named(ppk))
}

impl HalfOpen {
    /// Whether a PPK comes in there.
    fn is_early(&self) -> bool {
        self.mixing.mixed_in() == MixedIn::Intermediate
    }

    fn confirmation(&self, ppk: &Ppk) -> [u8; PPK_CONFIRMATION] {
        ppk_confirmation(self.sa.keys.suite.prf, ppk, &self.nonces, self.sa.spis())
    }

    /// Whether there is an exchange before IKE_AUTH.
    pub(super) fn needs_intermediate(&self) -> bool {
        self.sa.keys.suite.additional.is_some() || self.is_early()
    }

    /// What our request says of PPKs: all that are taken here, the one that is wanted first.
    ///
    /// It says so whatever the answer to the first message says of PPKs: that may be a copy which was changed on the way,
    /// and the responder takes one request alone. One that knows nothing of them there ignores them (RFC 7296 section
    /// 3.10.1).
    pub(super) fn name_ppks(&mut self, cx: &Cx<'_>) -> Result<Vec<Payload>, Reason> {
        let Some(numbers) = self.mixing.numbers() else { return Ok(Vec::new()) };
        // The settings may have changed since the first message.
        let rule = self.ppks(cx).filter(|rule| !rule.keys.is_empty()).ok_or(BadPpk::Changed)?;
        self.mixing.offer(rule);
        let payload = |ppk: &Arc<Ppk>| {
            let data = [named(ppk), self.confirmation(ppk).to_vec()].concat();
            Payload::notify(numbers.name(), data)
        };
        Ok(rule.keys.iter().map(payload).collect())
    }

    /// The first PPK of a request that this end has, too. `None`: it has none of them, and none is required. One that is
    /// called the same and is another is none of them either (RFC 9867 section 3.1).
    ///
    /// Whoever asks has proven nothing: however many it names, which are as many as a message may have payloads, it costs
    /// one computation for each PPK of ours.
    pub(super) fn choose_ppk(&mut self, cx: &Cx<'_>, parts: &Parts<'_>) -> Result<Option<Arc<Ppk>>, Reason> {
        if !self.is_early() {
            return Ok(None);
        }
        let rule = self.ppks(cx).ok_or(BadPpk::Changed)?;
        self.mixing.wish(rule);
        // By any numbers: a copy of our answer may have told the initiator others.
        let numbers = known_ppk_numbers(self.path.pair.local);
        let is_name = |kind| numbers.iter().any(|numbers| numbers.name() == kind);
        let ours: Vec<_> = rule.keys.iter().map(|ppk| (ppk, self.confirmation(ppk))).collect();
        let shows = parts.notifies().filter(|notify| is_name(notify.kind));
        let shows: Vec<_> = shows.filter_map(|notify| ShownPpk::read(&notify.data)).collect();
        let of = |it: &ShownPpk<'_>| {
            let same = |(ppk, confirmation): &&(&Arc<Ppk>, [u8; PPK_CONFIRMATION])| {
                ppk.id().as_bytes() == it.id && bool::from(confirmation[..].ct_eq(it.confirmation))
            };
            ours.iter().find(same).map(|(ppk, _)| Arc::clone(ppk))
        };
        if let Some(ppk) = shows.iter().find_map(of) {
            return Ok(Some(ppk));
        }
        if !rule.required {
            return Ok(None);
        }
        let differs = shows.iter().find_map(|it| rule.named(it.id));
        let differs = differs.map(|ours| BadPpk::Differs(ours.id().to_owned()));
        let unknown = || shows.first().map(|it| BadPpk::Unknown(shown(it.id)));
        Err(differs.or_else(unknown).unwrap_or(BadPpk::Missing).into())
    }

    /// The one that the responder has chosen. `None`: it has none of ours and goes on without, or one comes with IKE_AUTH.
    ///
    /// Copies of its first message may differ in what they say of that. Here speaks who has made the keys: what it does
    /// says which of them is gone by from here on, and AUTH covers that one.
    pub(super) fn chosen_ppk(&mut self, cx: &Cx<'_>, parts: &Parts<'_>) -> Result<Option<Arc<Ppk>>, Reason> {
        if self.mixing.offered().is_empty() {
            return Ok(None);
        }
        let rule = self.ppks(cx).ok_or(BadPpk::Changed)?;
        let Some(choice) = parts.notify(notify::PPK_IDENTITY) else {
            // Where one is required, it must come later. Else the answer that came first is as good as another: whoever sends
            // a copy of it afterwards is to change nothing.
            let is_missing = rule.required && !self.go_by(MixedIn::Auth);
            return if is_missing { Err(BadPpk::Missing.into()) } else { Ok(None) };
        };
        let id = ppk_id(&choice.data).filter(|_| self.go_by(MixedIn::Intermediate));
        let chosen = self.mixing.offered().iter().find(|tag| Some(tag.id().as_bytes()) == id);
        let unknown = || BadPpk::Unknown(shown(choice.data.get(1..).unwrap_or_default()));
        let chosen = chosen.ok_or_else(unknown)?;
        // The settings may have changed since the request.
        let ppk = rule.keys.iter().find(|ppk| ppk.tag() == *chosen).ok_or(BadPpk::Changed)?;
        Ok(Some(Arc::clone(ppk)))
    }

    /// What it means that the responder refused our request.
    pub(super) fn refused_ppks(&self, refusal: Refusal) -> Reason {
        let ids: Vec<_> = self.mixing.offered().iter().map(|tag| tag.id().to_owned()).collect();
        let takes_none = !ids.is_empty() && refusal == Refusal::Authentication;
        if takes_none { BadPpk::NoneTaken(ids).into() } else { refusal.into() }
    }
}
