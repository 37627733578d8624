//! What a member says of the wrapped secret of its cluster: by which it goes, and whether it could unwrap the one that the
//! cluster offers.

use serde::{Deserialize, Serialize};

use super::kms::KeyReport;
use super::kms::KeyStanding;
use super::status::{PeerRow, PpkInKeys, Status};
use crate::types::{NodeName, RowState};

/// So many nodes are named.
const NAMED_MAX: usize = 8;
/// The longest mark, and the longest why.
const MARK_MAX: usize = 16;
const WHY_MAX: usize = 200;

/// How a member stands with the wrapped secret. It may have gone bad: what it says decides about its own pairs alone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemberKey {
    /// The mark of the one that it goes by; `None` where it goes by none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
    /// Why it does not have that, or may not use it any more. A KMS that is away for a while takes nothing away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What came of the one that is offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<MemberOffer>,
    /// The hosts with which the keys in use have no PPK, as far as is known, or some of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_ppk: Vec<NodeName>,
}

/// What came of an offered secret on a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberOffer {
    /// Its mark.
    pub mark: String,
    /// It could be unwrapped, and is the secret that it is said to be.
    pub opened: bool,
    /// Why not; `None` where it was not tried yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl MemberOffer {
    /// What came of it, in words that can be told.
    pub fn new(mark: String, outcome: Option<Result<(), String>>) -> Self {
        let opened = matches!(outcome, Some(Ok(())));
        Self { mark, opened, why: outcome.and_then(Result::err).map(|why| told(&why)) }
    }
}

impl MemberKey {
    /// What a member with this status says, which is to go by the secret with this `mark`, and has `opened` that.
    pub fn of(status: &Status, mark: Option<String>, opened: bool, offer: Option<MemberOffer>) -> Self {
        // Without one there is no PPK that comes from it.
        let is_without = |row: &&PeerRow| {
            mark.is_some() && row.state == RowState::Protected && row.ppk != Some(PpkInKeys::Used)
        };
        let mut without_ppk: Vec<NodeName> =
            status.peers.iter().filter(is_without).map(|row| row.node.clone()).collect();
        without_ppk.sort_unstable();
        without_ppk.dedup();
        without_ppk.truncate(NAMED_MAX);
        let refused = match &status.kms {
            Some(kms) if kms.cut || kms.state.is_denial() => Some(kms.in_words()),
            // What was used is another one.
            Some(KeyReport { state: KeyStanding::Valid, .. }) if !opened => {
                Some(KeyStanding::Unasked.word().to_owned())
            }
            Some(kms) if !opened => Some(kms.in_words()),
            _ => None,
        };
        let refused = refused.filter(|_| mark.is_some()).map(|why| told(&why));
        Self { refused, mark, offer, without_ppk }
    }

    /// Whether all of it can be shown.
    pub(super) fn is_plain(&self) -> bool {
        let Self { mark, refused, offer, without_ppk } = self;
        let offered = offer.as_ref();
        let marks = mark.iter().chain(offered.map(|offer| &offer.mark));
        let whys = refused.iter().chain(offered.and_then(|offer| offer.why.as_ref()));
        without_ppk.len() <= NAMED_MAX
            && marks.into_iter().all(|mark| is_shown(mark, MARK_MAX))
            && whys.into_iter().all(|why| is_shown(why, WHY_MAX))
    }
}

/// Words that are told at once: helpers of others have written some of them.
pub(super) fn told(words: &str) -> String {
    words.chars().map(|c| if is_graphic(c) { c } else { '?' }).take(WHY_MAX).collect()
}

fn is_shown(text: &str, most: usize) -> bool {
    text.len() <= most && text.chars().all(is_graphic)
}

fn is_graphic(c: char) -> bool {
    c.is_ascii_graphic() || c == ' '
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_helper_has_said_is_told_plainly() {
        let offer = MemberOffer::new("m".to_owned(), Some(Err(format!("no\u{1b}[2J\"é{}", "x".repeat(900)))));
        assert!(offer.why.as_ref().is_some_and(|why| why.starts_with("no?[2J\"?x") && why.len() == WHY_MAX));
        let key = MemberKey { offer: Some(offer), ..MemberKey::default() };
        assert!(key.is_plain());
        let obeyed = MemberKey { refused: Some("\u{1b}".to_owned()), ..MemberKey::default() };
        assert!(!obeyed.is_plain());
        let long = MemberKey { mark: Some("0".repeat(MARK_MAX + 1)), ..MemberKey::default() };
        assert!(!long.is_plain());
        assert!(MemberOffer::new("m".to_owned(), Some(Ok(()))).opened);
        assert_eq!(MemberOffer::new("m".to_owned(), None).why, None);
    }
}
