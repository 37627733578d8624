//! What others see of the engine: how pairs stand, what children rest on, and the counters.

use std::time::Instant;

use super::Engine;
use super::keep::Keep;
use crate::identity::{AuthMethod, PpkUse, SecretId};
use crate::ike::session::established::Established;
use crate::ike::{Counters, Failure, PairSummary, UnlistedInitiator};
use crate::types::{Bounds, IkeProposal, KeyExchange, Method, NodeName, Pair, Spi};

impl Engine {
    /// What this host tells of itself.
    pub fn about(&self) -> &[u8] {
        &self.settings.about
    }

    /// When a child is due to be replaced; `None` once that is on its way.
    pub fn rekey_at(&self, pair: Pair, in_spi: Spi) -> Option<Instant> {
        self.established_of(pair, in_spi)?.child(in_spi)?.rekey_at()
    }

    /// The secret that a child rests on, because an end has proven itself with it.
    pub fn secret_of(&self, pair: Pair, in_spi: Spi) -> Option<SecretId> {
        let current = || self.settings.secret.as_ref().map(|secret| secret.id());
        self.established_of(pair, in_spi)?.basis().secret(current)
    }

    /// How the keys of a child were made.
    pub fn method_of(&self, pair: Pair, in_spi: Spi) -> Option<Method> {
        Some(self.established_of(pair, in_spi)?.basis().method)
    }

    /// How the peer of a child has proven who it is.
    pub fn proof_of(&self, pair: Pair, in_spi: Spi) -> Option<AuthMethod> {
        Some(self.established_of(pair, in_spi)?.basis().theirs.method())
    }

    /// Which node has proven itself at the other end of a pair: one of several may have an address that floats. `None` where
    /// nobody has, or several know what it was done with.
    pub fn node_of(&self, pair: Pair) -> Option<&NodeName> {
        let keep = self.pairs.get(&pair.into())?;
        let mut sessions = keep.sessions.iter().rev().filter_map(|key| self.established(*key));
        let theirs = &sessions.find(|session| !session.is_closing())?.basis().theirs;
        let mut expected = self.settings.credentials.expected(pair.remote);
        expected.find(|expected| theirs.is_of(expected)).map(|expected| &expected.node)
    }

    /// What PPK is in the keys of a child.
    pub fn ppk_of(&self, pair: Pair, in_spi: Spi) -> Option<PpkUse> {
        Some(self.established(self.session_of(pair, in_spi)?)?.basis().ppk_use())
    }

    /// What the IKE SA of a child is made with, and since when both ends have proven themselves.
    pub fn ike_of(&self, pair: Pair, in_spi: Spi) -> Option<(IkeProposal, Instant)> {
        let session = self.established_of(pair, in_spi)?;
        Some((session.in_use()?.keys.suite.proposal(), session.since()))
    }

    /// The key exchange that made the keys of a child; `None` if they come from its IKE SA alone.
    pub fn key_exchange_of(&self, pair: Pair, in_spi: Spi) -> Option<KeyExchange> {
        self.established_of(pair, in_spi)?.child(in_spi)?.key_exchange()
    }

    /// When the last new and authentic message of the peer came. Its proof counts, an answer in the clear does not.
    pub fn heard(&self, pair: Pair) -> Option<Instant> {
        self.pairs.get(&pair.into())?.heard
    }

    /// Whether the peer leaves a request on each IKE SA of the pair unanswered that was sent several times.
    pub fn is_unanswered(&self, pair: Pair) -> bool {
        let sessions = self.pairs.get(&pair.into()).into_iter().flat_map(|keep| &keep.sessions);
        let mut standing = sessions.filter_map(|key| self.established(*key)).peekable();
        standing.peek().is_some() && standing.all(Established::is_unanswered)
    }

    /// Who began IKE lately between addresses that are no pair, neither kept nor listed; a few of them.
    pub fn unlisted(&self, now: Instant) -> impl Iterator<Item = &UnlistedInitiator> {
        self.unlisted.recent(now)
    }

    /// How a pair stands; `None` for one that is not kept.
    pub fn summary(&self, pair: Pair) -> Option<PairSummary> {
        let keep = self.pairs.get(&pair.into())?;
        let sessions: Vec<_> = self.open_sessions(keep).collect();
        Some(PairSummary {
            posture: keep.posture,
            established: !sessions.is_empty(),
            foreign: sessions.last().is_some_and(|session| session.is_foreign()),
            sessions: sessions.len(),
            children: sessions.iter().map(|session| session.children()).sum(),
            notice: self.notice(pair).map(|(end, _)| end),
            unproven: keep.unproven.clone(),
            last_failure: keep.last_failure.as_ref().map(|(_, failure)| failure.clone()),
        })
    }

    /// When the keys of a pair end because what they rest on is no longer taken, and why no others came, where an attempt has
    /// failed.
    pub fn notice(&self, pair: Pair) -> Option<(Instant, Option<&Failure>)> {
        let keep = self.pairs.get(&pair.into())?;
        let end = self.open_sessions(keep).map(|session| session.notice()).min().flatten()?;
        Some((end, keep.unproven.as_ref()))
    }

    fn open_sessions<'a>(&'a self, keep: &'a Keep) -> impl Iterator<Item = &'a Established> {
        let sessions = keep.sessions.iter().filter_map(|key| self.established(*key));
        sessions.filter(|session| !session.is_closing())
    }

    /// Goes on counting from there.
    pub fn count_on(&mut self, counters: Counters) {
        self.out.counters = counters;
    }

    /// What was refused or dropped, and how full the tables are.
    pub fn counters(&self) -> Counters {
        Counters {
            half_open: self.table.budget().all_unproven() as u64,
            joiners: self.table.joiners() as u64,
            sessions: self.table.len() as u64,
            ike_sas: self.table.spis() as u64,
            fragment_octets: self.table.budget().octets() as u64,
            ..self.out.counters
        }
    }
}

impl From<Counters> for Bounds {
    fn from(counters: Counters) -> Self {
        Self {
            sessions: counters.sessions,
            ike_sas: counters.ike_sas,
            fragment_octets: counters.fragment_octets,
            half_open: counters.half_open,
            cookies: counters.cookies,
            first_requests_late: counters.first_requests_late,
            half_open_dropped: counters.half_open_dropped,
            sessions_dropped: counters.sessions_dropped,
            answers_refused: counters.answers_refused,
            ike_sas_refused: counters.ike_sas_refused,
            children_refused: counters.children_refused,
            fragments_refused: counters.fragments_refused,
            transmits_dropped: counters.transmits_dropped,
            hearsay: counters.hearsay,
            ..Self::default()
        }
    }
}
