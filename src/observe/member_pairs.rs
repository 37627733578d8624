//! What members say to each other of their pairs, and what becomes of it: how all pairs of a cluster stand.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use super::cluster::DesiredState;
use super::status::{Encapsulation, PeerRow, Status};
use crate::types::{NodeName, ReasonCode, RowState, UnixTime};

/// The pairs of so many nodes are gathered at most.
pub const NODES_MAX: usize = 64;
/// The octets of the pairs in one word: with what is around them, they are told at once.
const WORD_MAX: usize = 3800;
/// The longest name of a node.
const NAME_MAX: usize = 64;

/// How a pair stands, as one of its ends says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairWord {
    /// The other end.
    pub node: NodeName,
    /// How it stands, if this version knows that state; where two hosts have several pairs, the worst of them.
    #[serde(default, deserialize_with = "known")]
    pub state: Option<RowState>,
    /// Why, where there is something to say, and this version knows that reason.
    #[serde(default, deserialize_with = "known", skip_serializing_if = "Option::is_none")]
    pub reason: Option<ReasonCode>,
    /// For how many seconds it has stood so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_s: Option<u64>,
    /// ESP goes in UDP.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub udp: bool,
    /// Payload bytes that this end has sent.
    #[serde(default)]
    pub tx: u64,
    /// Payload bytes that it has received.
    #[serde(default)]
    pub rx: u64,
    /// How many seconds ago it heard the other end last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_s: Option<u64>,
}

/// What a member says of its pairs, or a part of that. It may have gone bad: nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemberPairs {
    /// The pairs.
    pub pairs: Vec<PairWord>,
    /// Another part follows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// How many pairs all parts have; `None` from an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<usize>,
}

/// How all pairs of a cluster stand, each as its ends say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPairs {
    /// When the nodes were asked.
    pub time: UnixTime,
    /// What people call the cluster.
    pub cluster: String,
    /// What the cluster is to do.
    pub desired: DesiredState,
    /// How many nodes it has.
    pub total: usize,
    /// The nodes, by their names; none where there are more than [`NODES_MAX`].
    pub nodes: Vec<NodePairs>,
}

/// A node of a cluster, and what it says of its pairs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePairs {
    /// Its name.
    pub node: NodeName,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether it can say anything.
    pub voice: NodeVoice,
    /// What it says; `None` where it says nothing.
    pub said: Option<Vec<PairWord>>,
    /// It has not said all: parts of it were lost, or came too late.
    #[serde(default)]
    pub is_partial: bool,
}

/// Whether a node can say anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeVoice {
    /// It is asked.
    Member,
    /// It is reached, and does not answer this question.
    Mute,
    /// It has not joined yet.
    NotJoined,
    /// It runs other software.
    Foreign,
}

/// A word that only a later version knows is none.
///
/// # Errors
/// This is no word at all.
pub fn known<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    let code = Option::<serde_json::Value>::deserialize(deserializer)?;
    Ok(code.and_then(|code| serde_json::from_value(code).ok()))
}

impl PairWord {
    fn of(row: &PeerRow, now: UnixTime) -> Self {
        Self {
            node: row.node.clone(),
            state: Some(row.state),
            reason: row.reason_code,
            for_s: row.since.map(|since| now.since(since).as_secs()),
            udp: row.encapsulation == Encapsulation::Udp,
            tx: row.tx.bytes,
            rx: row.rx.bytes,
            heard_s: row.last_heard.map(|heard| now.since(heard).as_secs()),
        }
    }

    /// How bad it is; `None` where that is not known.
    pub fn standing(&self) -> Option<PairStanding> {
        self.state.map(|state| PairStanding::of(state, self.reason))
    }

    /// Of two pairs of the same hosts one: it stands as the worse one does.
    fn with(self, other: Self) -> Self {
        let (worse, better) = if other.standing() > self.standing() { (other, self) } else { (self, other) };
        Self {
            udp: worse.udp || better.udp,
            tx: worse.tx.saturating_add(better.tx),
            rx: worse.rx.saturating_add(better.rx),
            heard_s: [worse.heard_s, better.heard_s].into_iter().flatten().min(),
            ..worse
        }
    }
}

/// How a pair stands, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PairStanding {
    /// ESP in both directions, and the other end is there.
    Protected,
    /// Protected, and the other end shows no sign of life.
    Silent,
    /// Being agreed.
    Negotiating,
    /// In the clear, on purpose. An end that is off sends plaintext, whatever the other end waits for.
    Off,
    /// Plaintext flows, though it should not.
    Clear,
    /// Everything is dropped.
    Blocked,
}

impl PairStanding {
    /// That of a pair in this state for this reason.
    pub fn of(state: RowState, reason: Option<ReasonCode>) -> Self {
        match state {
            RowState::Protected if reason == Some(ReasonCode::Silent) => PairStanding::Silent,
            RowState::Protected => PairStanding::Protected,
            RowState::Off => PairStanding::Off,
            RowState::Negotiating => PairStanding::Negotiating,
            RowState::Clear => PairStanding::Clear,
            RowState::Blocked => PairStanding::Blocked,
        }
    }
}

impl MemberPairs {
    /// What a member with this status says, in as many parts as that takes.
    pub fn of(status: &Status) -> Vec<Self> {
        let (mut parts, mut part, mut room) = (Vec::new(), Vec::new(), WORD_MAX);
        let pairs = pairs_of(status);
        let all = Some(pairs.len());
        for pair in pairs {
            // Plain data: writing it to memory has nothing to fail at.
            let octets = serde_json::to_vec(&pair).map_or(WORD_MAX, |octets| octets.len() + 1);
            if octets > room {
                parts.push(Self { pairs: std::mem::take(&mut part), more: true, all });
                room = WORD_MAX;
            }
            room = room.saturating_sub(octets);
            part.push(pair);
        }
        parts.push(Self { pairs: part, more: false, all });
        parts
    }

    /// Takes in the next part.
    pub fn join(&mut self, next: Self) {
        self.pairs.extend(next.pairs);
        self.pairs.truncate(NODES_MAX);
        (self.more, self.all) = (next.more, next.all);
    }

    /// Whether no part of it is missing.
    pub fn is_whole(&self) -> bool {
        !self.more && self.all.is_none_or(|all| self.pairs.len() >= all)
    }

    /// Whether all of it can be shown: names are checked nowhere else.
    pub(super) fn is_plain(&self) -> bool {
        let plain = |name: &str| name.len() <= NAME_MAX && name.bytes().all(|byte| byte.is_ascii_graphic());
        self.pairs.len() <= NODES_MAX && self.pairs.iter().all(|pair| plain(pair.node.as_str()))
    }
}

/// What a host with this status says of its pairs, of up to [`NODES_MAX`] others, by their names.
pub fn pairs_of(status: &Status) -> Vec<PairWord> {
    let mut pairs: BTreeMap<&NodeName, PairWord> = BTreeMap::new();
    for row in &status.peers {
        let word = PairWord::of(row, status.time);
        let word = match pairs.remove(&row.node) {
            Some(other) => other.with(word),
            None if pairs.len() < NODES_MAX => word,
            None => continue,
        };
        pairs.insert(&row.node, word);
    }
    pairs.into_values().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::MemberWord;
    use super::*;
    use crate::roster::ASIDE_MAX;

    /// A host with so many pairs, of which each says as much as can be.
    fn wordy(pairs: usize) -> Status {
        let figures = json!({ "bytes": u64::MAX, "packets": u64::MAX });
        let row = |at: usize| {
            json!({
                "node": format!("{at:0>64}"), "local": "fd99::1", "remote": "fd99::2", "family": "ipv6",
                "state": "negotiating", "since": "1970-01-01T00:00:00Z", "reason_code": "peer_disabled",
                "reason": null, "keying": "ike", "cipher": null, "key_bits": null, "encapsulation": "udp",
                "tx": figures, "rx": figures, "totals_since": null, "last_heard": "1970-01-01T00:00:00Z",
                "errors": { "replay": 0, "replay_window": 0, "integrity": 0 }, "sas": []
            })
        };
        let status = json!({
            "schema": 1, "time": "9999-01-01T00:00:00Z", "cluster": "c", "node": "a", "protection": "on",
            "mode": "require", "config_id": "", "secret_id": null, "kernel": {},
            "agent": { "running": true, "pid": null, "version": null, "uptime_s": null },
            "summary": { "peers": 0, "protected": 0, "negotiating": 0, "clear": 0, "blocked": 0, "off": 0 },
            "peers": (0..pairs).map(row).collect::<Vec<_>>(),
        });
        serde_json::from_value(status).unwrap()
    }

    fn word(node: &str, state: RowState) -> PairWord {
        let node = node.parse().unwrap();
        PairWord {
            node,
            state: Some(state),
            reason: None,
            for_s: Some(7),
            udp: false,
            tx: 1,
            rx: 2,
            heard_s: Some(3),
        }
    }

    #[test]
    fn several_pairs_of_two_hosts_are_one_that_stands_as_the_worst() {
        let silent = PairWord { reason: Some(ReasonCode::Silent), ..word("b", RowState::Protected) };
        let blocked = PairWord {
            reason: Some(ReasonCode::AuthFailed),
            udp: true,
            heard_s: None,
            ..word("b", RowState::Blocked)
        };
        let all = word("b", RowState::Protected).with(silent.clone()).with(blocked).with(silent);
        assert_eq!((all.standing(), all.reason), (Some(PairStanding::Blocked), Some(ReasonCode::AuthFailed)));
        assert_eq!((all.tx, all.rx, all.udp, all.heard_s), (4, 8, true, Some(3)));
    }

    /// One page of the carriage holds each part, whatever the names and figures.
    #[test]
    fn the_longest_pairs_are_told_in_parts_that_fit() {
        let status = wordy(100);
        let parts = MemberPairs::of(&status);
        assert!((2..=5).contains(&parts.len()), "{}", parts.len());
        let mut joined = MemberPairs::default();
        for (at, part) in parts.iter().enumerate() {
            let octets = MemberWord::Pairs(u64::MAX, part.clone()).to_bytes();
            assert!(octets.len() <= ASIDE_MAX, "{}", octets.len());
            assert_eq!(MemberWord::from_bytes(&octets), Some(MemberWord::Pairs(u64::MAX, part.clone())));
            assert_eq!(part.more, at + 1 < parts.len());
            joined.join(part.clone());
            assert_eq!(joined.is_whole(), !part.more);
        }
        assert_eq!(joined.pairs, pairs_of(&status));
        assert_eq!(joined.pairs.len(), NODES_MAX);
        joined.join(parts[0].clone());
        assert_eq!(joined.pairs.len(), NODES_MAX, "nobody fills the memory with his words");
    }

    #[test]
    fn an_answer_is_not_whole_without_one_of_its_parts() {
        let parts = MemberPairs::of(&wordy(NODES_MAX));
        for lost in 0..parts.len() {
            let mut joined = MemberPairs::default();
            let came = parts.iter().enumerate().filter(|(at, _)| *at != lost);
            came.for_each(|(_, part)| joined.join(part.clone()));
            assert!(!joined.is_whole(), "without {lost}");
        }
        let early: MemberPairs = serde_json::from_str(r#"{"pairs":[]}"#).unwrap();
        assert!(early.is_whole(), "an earlier version does not count");
    }

    #[test]
    fn a_later_state_is_not_known_and_takes_no_other_pair_with_it() {
        let said =
            r#"{"pairs":[1,{"pairs":[{"node":"b","state":"pondering"},{"node":"c","state":"blocked"}]}]}"#;
        let Some(MemberWord::Pairs(1, heard)) = MemberWord::from_bytes(said.as_bytes()) else {
            panic!("it is heard")
        };
        let standings: Vec<_> = heard.pairs.iter().map(PairWord::standing).collect();
        assert_eq!(standings, [None, Some(PairStanding::Blocked)]);
    }

    #[test]
    fn a_later_reason_is_none_and_a_name_that_a_terminal_would_obey_is_not_heard() {
        let said = |node: &str, reason: &str| {
            format!(
                r#"{{"pairs":[1,{{"pairs":[{{"node":"{node}","state":"blocked","reason":"{reason}"}}]}}]}}"#
            )
        };
        let Some(MemberWord::Pairs(1, heard)) = MemberWord::from_bytes(said("b", "kms_lease").as_bytes())
        else {
            panic!("it is heard")
        };
        assert_eq!((heard.pairs[0].reason, heard.pairs[0].state), (None, Some(RowState::Blocked)));
        assert_eq!(MemberWord::from_bytes(said("\\u001b[2J", "silent").as_bytes()), None);
        assert_eq!(MemberWord::from_bytes(said(&"n".repeat(65), "silent").as_bytes()), None);
    }
}
