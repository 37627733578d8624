//! How far a cluster is with a wrapped secret, as its settings and its members say.
//!
//! ```text
//! none       nothing is wrapped
//! offered    all members try to unwrap it, and nothing rests on it
//! taken up   it is in force; members take it up, and pairs get keys with the PPK that comes from it
//! in force   all members that answer go by it, and need it
//! ```
//! What a member says here may be a lie. The worst of it: it is waited for, and named; or it has no secret, and its own pairs
//! are blocked.

use super::cluster::{MemberRow, MemberTrouble};
use super::member_key::MemberOffer;
use crate::config::{ClusterKey, SharedSecret};
use crate::types::NodeName;
use crate::types::units::{counted, listed};

/// So many nodes are named.
const NAMED: usize = 4;
/// What goes on.
const GOES_ON: &str = "`hostseal secret wrap` on an admin node goes on";

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WrapStage {
    /// Nothing is wrapped.
    None,
    /// It is offered.
    Offered(WrapWaits),
    /// It is in force, and not taken up by all; or not required yet, which it is to be once nothing is waited for.
    TakenUp {
        /// What is waited for.
        waits: WrapWaits,
        /// Members make no keys without it.
        required: bool,
    },
    /// All that answer go by it, and need it.
    InForce,
}

/// Who is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WrapWaits {
    /// Who has done it.
    pub done: usize,
    /// Who has not, and why.
    pub behind: Vec<(NodeName, String)>,
    /// Who does not answer.
    pub silent: Vec<NodeName>,
}

impl WrapWaits {
    fn of<'r>(
        rows: impl Iterator<Item = &'r MemberRow>,
        behind: impl Fn(&MemberRow) -> Option<String>,
    ) -> Self {
        let mut waits = Self::default();
        for row in rows {
            match behind(row) {
                _ if !row.answers => waits.silent.push(row.name.clone()),
                Some(why) => waits.behind.push((row.name.clone(), why)),
                None => waits.done += 1,
            }
        }
        waits
    }

    /// Whether nobody is behind, nor silent unless it is to go on without those.
    pub fn are_over(&self, partial: bool) -> bool {
        self.behind.is_empty() && (partial || self.silent.is_empty())
    }

    /// A line for each who is waited for.
    pub fn lines(&self) -> Vec<String> {
        let behind = self.behind.iter().map(|(name, why)| format!("{name}: {why}"));
        behind.chain(self.silent.iter().map(|name| format!("{name}: no answer"))).collect()
    }

    fn in_words(&self) -> String {
        let all = self.done + self.behind.len() + self.silent.len();
        let waits = match self.lines().as_slice() {
            [] => String::new(),
            lines => format!("; waiting for {}", listed(lines, NAMED)),
        };
        format!("{} of {}{waits}", self.done, counted(all, "member"))
    }
}

impl WrapStage {
    /// How far a cluster with these settings is.
    pub fn of(key: &ClusterKey, rows: &[MemberRow]) -> Self {
        let members = || rows.iter().filter(|row| is_asked(row));
        if let Some(next) = &key.next {
            return Self::Offered(WrapWaits::of(members(), |row| not_opened(next, row)));
        }
        let Some(in_force) = &key.in_force else { return Self::None };
        let waits = WrapWaits::of(members(), |row| not_by(in_force, row).or_else(|| without_ppk(row, rows)));
        match (key.required, waits.behind.is_empty()) {
            (true, true) => Self::InForce,
            (required, _) => Self::TakenUp { waits, required },
        }
    }

    /// In words, with the command that goes on; nothing where all is done, or nothing was begun.
    pub fn in_words(&self, key: &ClusterKey) -> Option<String> {
        let named = |secret: &Option<SharedSecret>| {
            secret.as_ref().map(|it| format!("{} at {}", it.wrapped.key, it.provider)).unwrap_or_default()
        };
        match self {
            Self::None | Self::InForce => None,
            Self::Offered(waits) => Some(format!(
                "a secret that the key {} has wrapped is offered, and not in force yet. It was unwrapped by {}. {GOES_ON}, and \
                 `hostseal settings set secret.next=` withdraws it",
                named(&key.next),
                waits.in_words()
            )),
            Self::TakenUp { waits, required: true } => Some(format!(
                "the secret that the key {} has wrapped is in force. It is used by {}",
                named(&key.in_force),
                waits.in_words()
            )),
            Self::TakenUp { waits, required: false } => Some(format!(
                "the secret that the key {} has wrapped is in force, and not required {}. It is used with all pairs by {}. \
                 {GOES_ON}",
                named(&key.in_force),
                key.until.map_or_else(|| "yet".to_owned(), |until| format!("before {until}")),
                waits.in_words()
            )),
        }
    }
}

/// Who is to have the secret, and does not say whether he does, in words; `None` where nobody is.
pub fn unheard(rows: &[MemberRow]) -> Option<String> {
    let silent: Vec<_> =
        rows.iter().filter(|row| is_asked(row) && !row.answers).map(|row| &row.name).collect();
    let names = listed(&silent, NAMED);
    (!silent.is_empty()).then(|| {
        format!(
            "not heard of: {names}. Do not revoke a key that was used before, until `hostseal status --cluster` shows that \
             they answer, and no `wrap_unfinished`"
        )
    })
}

/// Whether a node is one that is to have the secret: it has joined, and runs hostseal.
fn is_asked(row: &MemberRow) -> bool {
    let is_none = matches!(row.reason_code, Some(MemberTrouble::HeldOut | MemberTrouble::NotJoined));
    !row.foreign && !is_none
}

fn not_opened(next: &SharedSecret, row: &MemberRow) -> Option<String> {
    let mark = next.mark().to_string();
    let offer = row.wrapped.as_ref().and_then(|wrapped| wrapped.offer.as_ref());
    match offer.filter(|offer| offer.mark == mark) {
        Some(MemberOffer { opened: true, .. }) => None,
        Some(MemberOffer { why: Some(why), .. }) => Some(format!("cannot unwrap it: {why}")),
        Some(_) | None => Some("has not tried it yet".to_owned()),
    }
}

fn not_by(in_force: &SharedSecret, row: &MemberRow) -> Option<String> {
    let wrapped = row.wrapped.as_ref();
    let goes_by = wrapped.and_then(|wrapped| wrapped.mark.as_ref());
    match goes_by {
        Some(mark) if *mark == in_force.mark().to_string() => {
            let refused = wrapped.and_then(|wrapped| wrapped.refused.as_ref());
            refused.map(|why| format!("has not unwrapped it: {why}"))
        }
        Some(_) => Some("goes by another one still".to_owned()),
        None => Some("has not taken it up: `hostseal status` there says why".to_owned()),
    }
}

/// Pairs with nodes that do not answer are waited for no more than those.
fn without_ppk(row: &MemberRow, rows: &[MemberRow]) -> Option<String> {
    let wrapped = row.wrapped.as_ref()?;
    let other = |name: &NodeName| rows.iter().find(|row| row.name == *name);
    let without = wrapped.without_ppk.iter().filter_map(other).filter(|row| row.foreign || row.answers);
    let without: Vec<&MemberRow> = without.collect();
    let hint = match without.iter().any(|row| row.foreign) {
        true => " (software of others needs a PPK of [[ppk.nodes]], in the file of each member)",
        false => "",
    };
    let names = listed(without.iter().map(|row| &row.name), NAMED);
    (!without.is_empty()).then(|| format!("has keys without the PPK with {names}{hint}"))
}

#[cfg(test)]
mod tests;
