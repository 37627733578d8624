//! Why a host does not join, in words that say what to do.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::config::STATE_DIR;
use crate::roster::{HeldOutBecause, JOIN_VERSION, JoinRefusal, RefusalCode, Token};
use crate::types::NodeName;
use crate::types::units::{human_duration, listed};

/// How many seeds an error names.
const NAMED: usize = 4;
/// What to do where the token is not taken.
const NEW_TOKEN: &str = "ask an admin for a new one (`hostseal token create`)";

/// Why a host does not join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinError {
    cluster: String,
    kind: JoinErrorKind,
    /// How long ago the token was over by the clock of this host. It may be wrong, so it refuses nothing.
    expired: Option<Duration>,
}

/// The kinds of [`JoinError`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinErrorKind {
    /// Something on this host is not as it must be.
    Here(String),
    /// No address of this host leads to any of these seeds.
    NoWay(Vec<SocketAddr>),
    /// None of the seeds is a member that talks to this host.
    NoMember(Vec<(SocketAddr, SeedTrouble)>),
    /// A member has refused.
    Refused(SocketAddr, JoinRefusal),
    /// Another node has its name.
    NameTaken {
        /// The name.
        name: NodeName,
        /// One that is free.
        free: Option<NodeName>,
    },
    /// The file that this host runs by lists these, and the cluster does not know them.
    PeersUnknown(BTreeSet<IpAddr>),
    /// It has joined, and is no member until an admin decides.
    HeldOut(HeldOutBecause),
    /// It had joined, and was removed.
    Removed,
    /// It had joined with another key for IKE.
    OtherKeys,
}

/// Why a seed is no help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeedTrouble {
    /// It does not answer.
    Silent,
    /// No IKE SA comes about.
    Failed(String),
    /// It does not know the key of the token.
    TokenNotTaken,
    /// It has answered, and did not go on.
    StoppedAnswering,
    /// It speaks another version of this, or none.
    Version(Option<u8>),
    /// It has told of another cluster.
    OtherCluster,
    /// It has told what is no roster.
    Nonsense,
    /// It has told what this version cannot read.
    LaterEntries,
    /// It has told the roster, and has no key of a member.
    NoMember,
    /// Its roster is older than the token.
    OldRoster,
    /// It refuses, and whether it is a member is not known.
    Refused(JoinRefusal),
}

impl JoinError {
    pub(super) fn new(cluster: &str, kind: JoinErrorKind, expired: Option<Duration>) -> Self {
        Self { cluster: cluster.to_owned(), kind, expired }
    }

    /// No address of this host leads to any seed of this token.
    pub fn no_way(token: &Token) -> Self {
        Self::new(&token.cluster, JoinErrorKind::NoWay(token.seeds.clone()), None)
    }

    /// Its kind.
    pub fn kind(&self) -> &JoinErrorKind {
        &self.kind
    }
}

impl std::error::Error for JoinError {}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cluster = &self.cluster;
        let mut hints = true;
        match &self.kind {
            JoinErrorKind::Here(words) => write!(f, "{words}")?,
            JoinErrorKind::NoWay(seeds) => write!(
                f,
                "this host has no address from which it reaches a member of {cluster}: {}. Compare `ip route get` with each \
                 of them",
                listed(seeds, NAMED)
            )?,
            JoinErrorKind::NoMember(seeds) => no_member(f, cluster, seeds)?,
            JoinErrorKind::Refused(by, refusal) => {
                hints = refusal.code != RefusalCode::TokenExpired;
                write!(f, "{}", refused(*by, refusal))?;
            }
            JoinErrorKind::NameTaken { name, free } => {
                write!(f, "another node of {cluster} is called {name}: join with a name that is free")?;
                free.as_ref().map_or(Ok(()), |free| write!(f, ", for example `--node {free}`"))?;
            }
            JoinErrorKind::PeersUnknown(addresses) => write!(
                f,
                "the file of this host lists {}, and {cluster} does not know them: this host would drop them. Take them out \
                 of the file first, or make the cluster from it (`hostseal init --from-file`)",
                listed(addresses, NAMED)
            )?,
            JoinErrorKind::HeldOut(HeldOutBecause::TokenUsedTwice) => write!(
                f,
                "the token was used twice: this node and another one wait until an admin of {cluster} decides. If this is \
                 the right one, have the other removed (`hostseal remove`); else {NEW_TOKEN}"
            )?,
            JoinErrorKind::HeldOut(why) => write!(
                f,
                "this node is in the roster of {cluster} and no member of it: {why}. An admin has to remove one of both \
                 (`hostseal remove`)"
            )?,
            JoinErrorKind::Removed => write!(
                f,
                "this node was a member of {cluster} and was removed: move its keys away ({STATE_DIR}/cluster), and {NEW_TOKEN}"
            )?,
            JoinErrorKind::OtherKeys => write!(
                f,
                "this node is a member of {cluster} with another key for IKE than it has now: put back the one that it had \
                 ({STATE_DIR}/cluster/ike.key), or have it removed (`hostseal remove`) and {NEW_TOKEN}"
            )?,
        }
        if let Some(ago) = self.expired.filter(|_| hints) {
            let ago = human_duration(Duration::from_secs(ago.as_secs()));
            write!(f, ". By the clock of this host the token expired {ago} ago")?;
        }
        Ok(())
    }
}

/// None of the seeds is a member that talks to this host: what says most, and then the others.
fn no_member(f: &mut fmt::Formatter<'_>, cluster: &str, seeds: &[(SocketAddr, SeedTrouble)]) -> fmt::Result {
    let main = seeds.iter().max_by_key(|(_, trouble)| trouble.weight());
    let Some((_, main)) = main else { return Ok(()) };
    let alike = |(_, trouble): &&(SocketAddr, SeedTrouble)| trouble == main;
    let (like, unlike): (Vec<_>, Vec<_>) = seeds.iter().partition(alike);
    let named = |seeds: &[&(SocketAddr, SeedTrouble)]| listed(seeds.iter().map(|(at, _)| *at), NAMED);
    write!(f, "{}", main.words(cluster, &named(&like)))?;
    if !unlike.is_empty() {
        write!(f, " (asked too: {})", named(&unlike))?;
    }
    Ok(())
}

fn refused(by: SocketAddr, JoinRefusal { code, words }: &JoinRefusal) -> String {
    match code {
        RefusalCode::TokenUnknown
        | RefusalCode::TokenUsed
        | RefusalCode::TokenExpired
        | RefusalCode::TokenTakenBack => format!("{by} refuses: {words}"),
        RefusalCode::TokenOfOther => {
            format!("{by} refuses: {words}. Join with what it is for (`--node`, `--address`), or {NEW_TOKEN}")
        }
        RefusalCode::NameTaken => {
            format!("{by} refuses: {words}. Join with another name: `--node NAME`")
        }
        RefusalCode::AddressTaken => format!(
            "{by} refuses: {words}. Join with another address (`--address`), or have that node removed (`hostseal remove`)"
        ),
        RefusalCode::KeyTaken => format!(
            "{by} refuses: {words}. This host is a copy of another one: move {STATE_DIR}/cluster away, so that it gets keys \
             that are its own"
        ),
        RefusalCode::Removed => {
            format!("{by} refuses: {words}. Move {STATE_DIR}/cluster away, and {NEW_TOKEN}")
        }
        RefusalCode::Version => {
            format!("{by} refuses: {words}. Install the version of hostseal that it has")
        }
        RefusalCode::NotReady => {
            format!(
                "{by} refuses: {words}. Try again once it has heard another member (`hostseal status --cluster`)"
            )
        }
        RefusalCode::Full
        | RefusalCode::Entry
        | RefusalCode::NoMember
        | RefusalCode::TooMuch
        | RefusalCode::Other => format!("{by} refuses: {words}"),
    }
}

impl SeedTrouble {
    /// What says more has more.
    fn weight(&self) -> u8 {
        match self {
            SeedTrouble::Silent => 0,
            SeedTrouble::Failed(_) => 1,
            SeedTrouble::StoppedAnswering => 2,
            SeedTrouble::TokenNotTaken => 3,
            SeedTrouble::Nonsense => 4,
            SeedTrouble::Version(_) | SeedTrouble::LaterEntries => 5,
            SeedTrouble::OldRoster => 6,
            SeedTrouble::Refused(_) => 7,
            SeedTrouble::OtherCluster => 8,
            SeedTrouble::NoMember => 9,
        }
    }

    /// What is wrong with the seeds `at`.
    fn words(&self, cluster: &str, at: &str) -> String {
        match self {
            SeedTrouble::Silent => format!(
                "no member of {cluster} answers: asked {at}. Is the agent running there (`hostseal status`), and do UDP \
                 500 and 4500 pass in both directions?"
            ),
            SeedTrouble::Failed(words) => format!("no key exchange with {at}: {words}"),
            SeedTrouble::StoppedAnswering => {
                format!(
                    "no more answers came from {at} in the midst of it: try again, or look at the log there"
                )
            }
            SeedTrouble::TokenNotTaken => format!(
                "the token is not known at {at}: it is of another cluster, was made a moment ago, or has been over for days. \
                 Compare the name of the cluster ({cluster}) there, or {NEW_TOKEN}"
            ),
            SeedTrouble::Nonsense => {
                format!("what is told at {at} is no roster: who answers there may be no member of {cluster}")
            }
            SeedTrouble::Version(Some(theirs)) => format!(
                "who answers at {at} speaks version {theirs} of joining, and this host version {JOIN_VERSION}: install the \
                 version of hostseal that the cluster has"
            ),
            SeedTrouble::Version(None) => {
                format!("hostseal at {at} lets nobody join yet: install the version of this host there")
            }
            SeedTrouble::LaterEntries => format!(
                "the roster at {at} says what this version of hostseal cannot read: install the version that the cluster has"
            ),
            SeedTrouble::OldRoster => format!(
                "the roster at {at} is older than the token: that node was cut off from the others, or restored from a \
                 backup. Try again later, or with a token from another node"
            ),
            SeedTrouble::OtherCluster => {
                format!(
                    "who answers at {at} is of another cluster than {cluster}, which the token is for: {NEW_TOKEN}"
                )
            }
            SeedTrouble::NoMember => format!(
                "somebody answers at {at} who is no member of {cluster}, and knows of the token now. Find out who has that \
                 address, have the token taken back, and {NEW_TOKEN}"
            ),
            SeedTrouble::Refused(refusal) => match at.parse() {
                Ok(one) => refused(one, refusal),
                Err(_) => format!("{at} refuse: {}", refusal.words),
            },
        }
    }
}
