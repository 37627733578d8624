//! Why pairs are not protected: what the pairs know, and what the key exchange and the sockets say of keys.

use std::sync::Arc;

use super::{Core, Unsent, line};
use crate::ike::FailureCode;
use crate::ike::reason::{BadPpk, Reason};
use crate::observe::explain::{self, Ends};
use crate::protect::PairMachine;
use crate::protect::reason::PairReason;
use crate::types::{Pair, ReasonCode};

/// A code of the contract with programs, and words.
pub type ToldReason = (ReasonCode, String);

/// Why this host has no secret, or gets no keys with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withholding {
    /// For programs.
    pub code: ReasonCode,
    /// For people.
    pub words: Arc<str>,
}

impl Withholding {
    /// One for which programs have no word.
    pub fn internal(words: impl Into<Arc<str>>) -> Self {
        Self { code: ReasonCode::Internal, words: words.into() }
    }
}

/// Why the last attempt at keys failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// The key exchange says so.
    Exchange(Reason),
    /// This host did not let it out.
    Unsent(Unsent),
    /// This host has no secret, for this reason.
    Withheld(Withholding),
    /// The peer has said that it was cut off from its key, which is this in words.
    PeerCutOff(String),
}

impl Cause {
    pub(super) fn code(&self) -> ReasonCode {
        match self {
            Cause::Exchange(reason) => reason_code(reason),
            Cause::Unsent(_) => ReasonCode::KernelError,
            Cause::Withheld(why) => why.code,
            Cause::PeerCutOff(_) => ReasonCode::PeerCutOff,
        }
    }

    /// In words about these hosts.
    fn words(&self, ends: Ends<'_>) -> String {
        match self {
            Cause::Exchange(reason) => explain::words_between(reason, ends),
            Cause::Withheld(why) => why.words.to_string(),
            Cause::PeerCutOff(words) => words.clone(),
            Cause::Unsent(Unsent { local, remote, why }) => explain::unsent(local.ip(), *remote, why),
        }
    }
}

impl Core {
    /// Why the pair of `machine` is neither protected nor off.
    pub fn why(&self, machine: &PairMachine) -> Option<ToldReason> {
        machine.reason().map(|reason| self.told(machine.pair(), &reason))
    }

    /// Why the keys that protect it could not be renewed.
    pub fn why_unrenewed(&self, machine: &PairMachine) -> Option<ToldReason> {
        machine.unrenewed().map(|reason| self.told(machine.pair(), reason))
    }

    /// Why keys of a pair could not be agreed, in words.
    pub(super) fn words(&self, pair: Pair, cause: &Cause) -> String {
        let (own, peer) = (self.scheme.name.as_str(), line::node(&self.scheme, pair));
        let words = cause.words(Ends::Named { own, peer: &peer });
        match self.vrfs.get(&pair.local) {
            Some(vrf) => format!("{words}. {}", explain::in_vrf(pair.local, vrf)),
            None => words,
        }
    }

    fn told(&self, pair: Pair, reason: &PairReason) -> ToldReason {
        let of_keys = || self.causes.get(&pair).map(|cause| self.words(pair, cause)).unwrap_or_default();
        (reason.code(), explain::of_pair(pair, reason).unwrap_or_else(of_keys))
    }
}

fn reason_code(reason: &Reason) -> ReasonCode {
    match reason {
        Reason::BadPpk(BadPpk::Missing) => return ReasonCode::PpkMissing,
        Reason::BadPpk(BadPpk::Unknown(_)) => return ReasonCode::PpkUnknown,
        Reason::BadPpk(BadPpk::Differs(_) | BadPpk::Wrong(..)) => return ReasonCode::PpkWrong,
        _ => {}
    }
    match reason.code() {
        FailureCode::NoAnswer => ReasonCode::NoAnswer,
        FailureCode::AuthFailed => ReasonCode::AuthFailed,
        FailureCode::NoProposal => ReasonCode::NoProposal,
        FailureCode::PeerRefused => ReasonCode::PeerRefused,
        FailureCode::Internal => ReasonCode::Internal,
    }
}
