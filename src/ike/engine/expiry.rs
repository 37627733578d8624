//! When proofs end: certificates do, and a new agent asks what the SAs that it found rest on.

use std::time::Instant;

use super::Engine;
use crate::identity::{AuthMethod, PpkTag, PrivateKey, Proof, Proven, PublicKey};
use crate::ike::reason::Lapsed;
use crate::ike::session::established::Established;
use crate::types::{Pair, Spi, UnixTime};

impl Engine {
    /// Ends the sessions with peers whose certificates are over, and has those go on anew in time whose will be.
    pub(super) fn end_expired(&mut self, now: Instant, wall: UnixTime) {
        let certified = |session: &Established| {
            let live = Some(session).filter(|session| !session.is_closing());
            live.and_then(|session| session.basis().theirs.until())
        };
        let mut ends: Vec<_> = Vec::new();
        for (bond, keep) in &self.pairs {
            let sessions =
                keep.sessions.iter().filter_map(|key| Some((*bond, *key, self.established(*key)?)));
            ends.extend(sessions.filter_map(|(bond, key, it)| Some((bond, key, certified(it)?))));
        }
        ends.sort();
        for (bond, key, until) in ends {
            if until < wall {
                let expired = Lapsed::Expired(until);
                self.with_established(now, key, |session, cx| session.end_unproven(cx, expired));
            }
            self.reconsider(now, bond);
        }
    }

    /// What the keys of a child rest on, to be remembered beyond this agent.
    pub fn proven(&self, now: Instant, pair: Pair, in_spi: Spi) -> Option<Proven> {
        let session = self.established_of(pair, in_spi)?;
        let theirs = &session.basis().theirs;
        let notice = session
            .notice()
            .zip(self.wall(now))
            .map(|(at, wall)| wall.after(at.saturating_duration_since(now)));
        let ppk = session.basis().ppk.as_ref().map(PpkTag::to_string);
        Some(Proven { proof: theirs.fingerprint(), ppk, until: theirs.until(), notice })
    }

    /// Whether this host proves itself with `key` where it does so with a key, and no session rests on another one.
    pub fn proves_itself_with(&self, key: &PublicKey) -> bool {
        let control = self.settings.control.as_ref().map(|control| control.key.public());
        let own = self.settings.credentials.identity.key().map(PrivateKey::public);
        let rests = |session: &Established| {
            session.is_closing() || session.basis().ours.key().is_none_or(|ours| ours == key)
        };
        let mut sessions = self.pairs.values().flat_map(|keep| &keep.sessions);
        [control, own].into_iter().flatten().all(|ours| ours == key)
            && sessions.all(|session| self.established(*session).is_none_or(rests))
    }

    /// When SAs of `pair` that another agent left are to end, since their proofs are over then or not accepted any
    /// more. `None` where nothing is wrong with them.
    pub fn end_of(&self, now: Instant, pair: Pair, proven: &mut Proven) -> Option<Instant> {
        let wall = self.wall(now);
        let rekeyed = now + self.settings.rekey_after;
        let at = |time: UnixTime| Some(now + time.since(wall?));
        let accepted = self.accepts_still(pair, &proven.proof) && self.takes_ppk_still(pair, proven);
        let notice = (!accepted).then(|| proven.notice.and_then(at).map_or(rekeyed, |end| end.min(rekeyed)));
        proven.notice = notice.zip(wall).map(|(end, wall)| wall.after(end.saturating_duration_since(now)));
        [notice, proven.until.and_then(at)].into_iter().flatten().min()
    }

    /// Whether keys with that PPK, or without any, would be taken today.
    fn takes_ppk_still(&self, pair: Pair, proven: &Proven) -> bool {
        let Some(rule) = self.settings.ppks(pair.into()) else { return true };
        let known = |words: &String| rule.keys.iter().any(|ppk| ppk.tag().to_string() == *words);
        proven.ppk.as_ref().map_or(!rule.required, known)
    }

    /// Whether a proof with that fingerprint would be taken today from the peer of `pair`.
    fn accepts_still(&self, pair: Pair, fingerprint: &str) -> bool {
        let credentials = &self.settings.credentials;
        credentials.expected(pair.remote).any(|expected| {
            expected.methods.iter().any(|method| match method {
                AuthMethod::Secret => {
                    let mut secrets = self.settings.secrets().map(|secret| Proof::Secret(secret.id()));
                    secrets.any(|proof| proof.fingerprint() == fingerprint)
                }
                AuthMethod::PublicKey => {
                    let mut keys = expected.public_keys.iter().cloned().map(Proof::Key);
                    keys.any(|proof| proof.fingerprint() == fingerprint)
                }
                AuthMethod::Certificate => {
                    let trust = credentials.authorities.as_ref().map(|it| format!("certificate {}", it.id()));
                    trust.as_deref() == Some(fingerprint)
                }
            })
        })
    }
}
