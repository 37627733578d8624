//! What `hostseal prove` has found out about a pair: the figures, and what they show.
//!
//! ```text
//! each way   so many packets past all policies:   none is delivered, and the receiving kernel refuses as many
//!            so many as any program sends them:   all are delivered, and the SAs of both ends count as many
//! ```
//! A program's packet that is delivered and counted by both SAs went through ESP; a clear one that came in was refused.
//! Where clear packets may have been lost on the way nothing is shown of what would have become of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::types::{Family, NONCES_LEAST, NONCES_MOST, NodeName, Pair, ROUNDS_MOST};

/// The highest figure of a kernel that a peer may name: every reader of JSON knows it exactly, and sums have room.
pub const FIGURE_MOST: u64 = 1 << 53;

/// What is shown of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProofResult {
    /// Both ends encrypt what they send to each other, and refuse what comes in the clear.
    Proven,
    /// The peer does not know how: it is not hostseal, or an older one.
    Unsupported,
    /// Nothing is wrong as far as could be seen, and something could not be.
    Inconclusive,
    /// It is not as it should be.
    Failed,
}

/// Why a pair is not proven, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofCode {
    /// Clear packets were delivered.
    ClearAccepted,
    /// Packets of programs leave without encryption, or by another SA.
    NotEncrypted,
    /// Something clear passed the interfaces of this host.
    ClearOnWire,
    /// Nothing that was encrypted arrived.
    NotDelivered,
    /// The peer said what cannot be.
    Contradiction,
    /// The pair is in the clear.
    NotSealed,
    /// An end could not send.
    NotSent,
    /// Some of what was encrypted was lost.
    Lost,
    /// What was encrypted came out of the SA, and was dropped before it reached its socket.
    Dropped,
    /// Clear packets were not seen to be refused: they may have been lost on the way.
    NotRefused,
    /// Nothing passes: there are no keys.
    Blocked,
    /// The peer did not answer in time, or an answer was missing in the end.
    NoAnswer,
    /// The peer proves something else all the time.
    Busy,
    /// An end could not begin.
    CannotBegin,
    /// The agent of the host that was to prove it did not say what came of it.
    NotMade,
    /// Keys were replaced meanwhile, and what the old SAs have counted is not known.
    Rekeyed,
    /// What passed the interfaces of this host could not be watched whole.
    NotWatched,
    /// The peer is not hostseal.
    Foreign,
    /// The peer is an older hostseal.
    Older,
}

/// What became of packets that were sent past all policies, one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClearCount {
    /// So many different ones were sent.
    pub sent: u64,
    /// So many of them were delivered.
    pub delivered: u64,
    /// So many packets the receiving kernel refused meanwhile because they were not encrypted (XfrmInTmplMismatch).
    pub refused: u64,
}

/// What became of packets that were sent as those of any program, one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SealedCount {
    /// So many different ones were sent.
    pub sent: u64,
    /// So many packets that was in all rounds together.
    pub packets: u64,
    /// So many of the different ones were delivered.
    pub delivered: u64,
    /// So many packets went through the sender's outbound SAs of the pair meanwhile.
    pub outbound: u64,
    /// So many came through the receiver's inbound SAs of the pair.
    pub inbound: u64,
}

/// One way of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WayProof {
    /// Past all policies.
    pub clear: ClearCount,
    /// As any program's.
    pub sealed: SealedCount,
}

/// What a pair was found to be. It says what the agents of both ends have measured; what the command has seen on the
/// wire is added to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairProof {
    /// The host that has proven it, from which all else is seen; `None` for the one whose report it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<NodeName>,
    /// The name of the other host.
    pub node: NodeName,
    /// The address of this host.
    pub local: IpAddr,
    /// The address of the other one.
    pub remote: IpAddr,
    /// Of both.
    pub family: Family,
    /// What is shown.
    pub result: ProofResult,
    /// Why it is not proven.
    pub reason_code: Option<ProofCode>,
    /// The same in words.
    pub reason: Option<String>,
    /// How often the packets were sent: again, where some were missing.
    pub rounds: u32,
    /// From this host to the other; `None` where it did not come to that.
    pub out: Option<WayProof>,
    /// From the other host to this one.
    #[serde(rename = "in")]
    pub incoming: Option<WayProof>,
    /// What passed the interfaces of this host meanwhile; `None` where nobody watched.
    pub wire: Option<WireCount>,
}

/// What passed the interfaces of this host between the two addresses of a pair.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WireCount {
    /// Packets of ESP, by itself or in UDP, that left.
    pub esp_out: u64,
    /// And that came.
    pub esp_in: u64,
    /// Clear packets that are none of the following, which left; `None` where none was seen of those that could be looked
    /// at, and some could not.
    pub clear_out: Option<u64>,
    /// And that came; `None` also where this kernel shows packets after it has decrypted them.
    pub clear_in: Option<u64>,
    /// The first of them, in words.
    pub examples: Vec<String>,
    /// What was left out: what it is, and how many packets.
    pub left_out: BTreeMap<String, u64>,
    /// Packets that could not be looked at.
    pub missed: u64,
}

/// A reason for a result that is not `proven`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// What is shown then.
    pub result: ProofResult,
    /// Why, for programs.
    pub code: ProofCode,
    /// Why, in words.
    pub words: String,
}

impl Doubt {
    /// It is not as it should be.
    pub fn failed(code: ProofCode, words: impl Into<String>) -> Self {
        Self { result: ProofResult::Failed, code, words: words.into() }
    }

    /// It could not be seen.
    pub fn inconclusive(code: ProofCode, words: impl Into<String>) -> Self {
        Self { result: ProofResult::Inconclusive, code, words: words.into() }
    }

    /// The peer does not know how.
    pub fn unsupported(code: ProofCode, words: impl Into<String>) -> Self {
        Self { result: ProofResult::Unsupported, code, words: words.into() }
    }
}

/// What both ends have measured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProofFigures {
    /// From this host to the peer.
    pub out: WayProof,
    /// From the peer to this host.
    pub incoming: WayProof,
    /// SAs were gone before it was seen what they had counted in the end: those from this host to the peer, and the others.
    pub rekeyed: [bool; 2],
    /// How often the packets were sent.
    pub rounds: u32,
    /// Why this host could not send as any program does.
    pub unsent: Option<String>,
    /// Why the peer could not.
    pub peer_unsent: Option<String>,
    /// What the peer said that cannot be.
    pub contradiction: Option<String>,
    /// The exemption of this host's file that the packets fall under.
    pub exemption: Option<String>,
    /// Why it was not gone through with, where it was not.
    pub broken_off: Option<Doubt>,
}

impl PairProof {
    /// Of a pair with `node` of which these figures were measured.
    pub fn of(node: NodeName, pair: Pair, figures: &ProofFigures) -> Self {
        let mut proof = Self::not_doubted(node, pair);
        let (peer, exemption) = (proof.node.as_str().to_owned(), figures.exemption.as_deref());
        let mut doubts: Vec<Doubt> = Vec::new();
        doubts.extend(figures.contradiction.as_ref().map(|what| {
            let words = format!("what {peer} says of its counters cannot be: {what}");
            Doubt::failed(ProofCode::Contradiction, words)
        }));
        let ways = [
            (&figures.out, "this host", peer.as_str(), &figures.unsent, figures.rekeyed[0]),
            (&figures.incoming, &peer, "this host", &figures.peer_unsent, figures.rekeyed[1]),
        ];
        doubts.extend(ways.into_iter().filter_map(|(way, from, to, unsent, rekeyed)| {
            way.doubt((from, to), (unsent.as_deref(), rekeyed), exemption)
        }));
        doubts.extend(figures.broken_off.clone());
        proof.rounds = figures.rounds;
        (proof.out, proof.incoming) = (Some(figures.out), Some(figures.incoming));
        doubts.into_iter().for_each(|doubt| proof.doubt(doubt));
        proof
    }

    /// Of a pair with `node` of which nothing was measured: there is a reason for that, and it is not proven.
    pub fn without_figures(node: NodeName, pair: Pair, doubt: Doubt) -> Self {
        let mut proof = Self::not_doubted(node, pair);
        proof.doubt(doubt);
        proof
    }

    /// One that is proven, for tests of what becomes of it.
    #[cfg(test)]
    pub(crate) fn proven(node: NodeName, pair: Pair) -> Self {
        Self::not_doubted(node, pair)
    }

    /// Of a pair with `node`, before anything is found.
    fn not_doubted(node: NodeName, pair: Pair) -> Self {
        Self {
            by: None,
            node,
            local: pair.local,
            remote: pair.remote,
            family: Family::of(pair.remote),
            result: ProofResult::Proven,
            reason_code: None,
            reason: None,
            rounds: 0,
            out: None,
            incoming: None,
            wire: None,
        }
    }

    /// Whether there can be such figures: another host may have made them.
    pub fn is_possible(&self) -> bool {
        let ways = [&self.out, &self.incoming];
        self.rounds <= ROUNDS_MOST && ways.into_iter().flatten().all(WayProof::is_possible)
    }

    /// Whether what is said to be proven is so by the figures, and what is not has a reason: another host may have made it.
    pub fn adds_up(&self) -> bool {
        let fine = |way: &WayProof| way.doubt(("", ""), (None, false), None).is_none();
        let ways = [&self.out, &self.incoming];
        match self.result {
            ProofResult::Proven => {
                self.reason_code.is_none()
                    && self.reason.is_none()
                    && ways.iter().all(|it| it.as_ref().is_some_and(fine))
            }
            _ => self.reason_code.is_some(),
        }
    }

    /// There is a reason for doubt. The worst one counts, and the first of those that are as bad.
    pub fn doubt(&mut self, doubt: Doubt) {
        if doubt.result > self.result {
            (self.result, self.reason_code, self.reason) =
                (doubt.result, Some(doubt.code), Some(doubt.words));
        }
    }

    /// This passed the interfaces of this host meanwhile.
    pub fn add_wire(&mut self, wire: WireCount) {
        let clear = wire.clear_out.unwrap_or(0).saturating_add(wire.clear_in.unwrap_or(0));
        if clear > 0 {
            let words = format!(
                "{clear} clear packets between both addresses passed the interfaces of this host, such as {}",
                wire.examples.first().map_or("one that cannot be read", String::as_str)
            );
            self.doubt(Doubt::failed(ProofCode::ClearOnWire, words));
        } else if wire.missed > 0 {
            let words = format!(
                "{} packets that are not ESP passed this host's interfaces too fast to be checked, so some of them may \
                 have been clear: try again under less traffic",
                wire.missed
            );
            self.doubt(Doubt::inconclusive(ProofCode::NotWatched, words));
        }
        self.wire = Some(wire);
    }
}

impl WayProof {
    /// No more was sent than is sent, and no more delivered than was sent.
    fn is_possible(&self) -> bool {
        let Self { clear, sealed } = self;
        let most = u64::from(NONCES_MOST);
        clear.sent.max(sealed.sent) <= most
            && clear.delivered <= clear.sent
            && sealed.delivered <= sealed.sent
            && (sealed.sent..=most * u64::from(ROUNDS_MOST)).contains(&sealed.packets)
            && [clear.refused, sealed.outbound, sealed.inbound].iter().all(|figure| *figure <= FIGURE_MOST)
    }

    /// What of it is not as it should be.
    fn doubt(
        &self,
        (from, to): (&str, &str),
        (unsent, rekeyed): (Option<&str>, bool),
        exemption: Option<&str>,
    ) -> Option<Doubt> {
        let Self { clear, sealed } = self;
        let cause = exemption.map_or_else(String::new, |entry| {
            format!(" The exemption {entry} (protection.exempt) covers the ports that were tried")
        });
        if clear.delivered > 0 {
            let words = format!(
                "{to} took {} of {} clear packets of {from}.{}",
                clear.delivered,
                clear.sent,
                if cause.is_empty() {
                    " Something on it accepts what is not encrypted: compare `ip xfrm policy` there with \
                     `hostseal status`"
                } else {
                    &cause
                }
            );
            return Some(Doubt::failed(ProofCode::ClearAccepted, words));
        }
        let few = clear.sent.min(sealed.sent) < NONCES_LEAST.into();
        if let Some(why) = unsent.or(few.then_some("too few packets left it")) {
            let words = format!("{from} could not send to {to}: {why}");
            return Some(Doubt::inconclusive(ProofCode::NotSent, words));
        }
        let uncounted = sealed.delivered == sealed.sent && sealed.inbound < sealed.sent;
        if rekeyed && (sealed.outbound < sealed.packets || uncounted) {
            let words = format!(
                "the keys from {from} to {to} were replaced meanwhile, and what the old SAs have counted in the end is not \
                 known: try again"
            );
            return Some(Doubt::inconclusive(ProofCode::Rekeyed, words));
        }
        if sealed.outbound < sealed.packets {
            let words = format!(
                "{from} sent {} packets as its programs do, and its SA counted {}: they left without encryption.{cause}",
                sealed.packets, sealed.outbound
            );
            return Some(Doubt::failed(ProofCode::NotEncrypted, words));
        }
        if uncounted {
            let words = format!(
                "{to} got {} packets of {from}, and its SA counted {}: they came in without encryption.{cause}",
                sealed.sent, sealed.inbound
            );
            return Some(Doubt::failed(ProofCode::NotEncrypted, words));
        }
        if sealed.delivered < sealed.sent {
            return Some(sealed.missing(from, to));
        }
        (clear.refused < clear.sent).then(|| {
            let words = format!(
                "{to} has refused {} of {} clear packets of {from}. A firewall may have dropped them on the way, so \
                 nothing shows what {to} does with them",
                clear.refused, clear.sent
            );
            Doubt::inconclusive(ProofCode::NotRefused, words)
        })
    }
}

impl SealedCount {
    /// What it means that some were not delivered.
    fn missing(&self, from: &str, to: &str) -> Doubt {
        let missing = self.sent - self.delivered.min(self.sent);
        if self.inbound >= self.sent {
            let words = format!(
                "the SA of {to} took the packets of {from}, and {missing} of {} did not reach their socket: a firewall on \
                 {to} drops UDP to high ports",
                self.sent
            );
            return Doubt::inconclusive(ProofCode::Dropped, words);
        }
        if self.delivered == 0 {
            let words = format!("none of {} encrypted packets of {from} came to {to}", self.sent);
            return Doubt::failed(ProofCode::NotDelivered, words);
        }
        let words =
            format!("{missing} of {} encrypted packets of {from} were lost on the way to {to}", self.sent);
        Doubt::inconclusive(ProofCode::Lost, words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: WayProof = WayProof {
        clear: ClearCount { sent: 20, delivered: 0, refused: 20 },
        sealed: SealedCount { sent: 30, packets: 30, delivered: 30, outbound: 34, inbound: 33 },
    };

    /// A change, and what it shows.
    type Case = (fn(&mut WayProof), ProofResult, ProofCode);

    fn pair() -> Pair {
        Pair::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).unwrap()
    }

    fn of(change: impl FnOnce(&mut ProofFigures)) -> PairProof {
        let mut figures = ProofFigures { out: FINE, incoming: FINE, rounds: 1, ..ProofFigures::default() };
        change(&mut figures);
        PairProof::of("b".parse().unwrap(), pair(), &figures)
    }

    fn found(proof: &PairProof) -> (ProofResult, Option<ProofCode>) {
        (proof.result, proof.reason_code)
    }

    #[test]
    fn each_figure_that_is_missing_is_a_doubt() {
        use ProofResult::{Failed, Inconclusive};
        assert_eq!(found(&of(|_| {})), (ProofResult::Proven, None));
        let cases: [Case; 7] = [
            (|way| way.clear.delivered = 1, Failed, ProofCode::ClearAccepted),
            (|way| way.clear.refused = 19, Inconclusive, ProofCode::NotRefused),
            (|way| way.sealed.outbound = 29, Failed, ProofCode::NotEncrypted),
            (|way| way.sealed.inbound = 29, Failed, ProofCode::NotEncrypted),
            (|way| way.sealed.delivered = 29, Inconclusive, ProofCode::Dropped),
            (|way| (way.sealed.delivered, way.sealed.inbound) = (29, 29), Inconclusive, ProofCode::Lost),
            (|way| (way.sealed.delivered, way.sealed.inbound) = (0, 3), Failed, ProofCode::NotDelivered),
        ];
        for (change, result, code) in cases {
            assert_eq!(found(&of(|figures| change(&mut figures.out))), (result, Some(code)));
            let incoming = of(|figures| change(&mut figures.incoming));
            assert_eq!(found(&incoming), (result, Some(code)));
            println!("{}", incoming.reason.unwrap());
        }
    }

    /// What an SA has counted goes with it: where one was replaced, too little counted shows nothing.
    #[test]
    fn a_rekey_in_between_is_no_failure() {
        let cases: [fn(&mut WayProof); 2] = [|way| way.sealed.outbound = 29, |way| way.sealed.inbound = 29];
        for change in cases {
            let out = of(|figures| (change(&mut figures.out), figures.rekeyed = [true, false]).0);
            let incoming = of(|figures| (change(&mut figures.incoming), figures.rekeyed = [false, true]).0);
            for proof in [out, incoming] {
                assert_eq!(found(&proof), (ProofResult::Inconclusive, Some(ProofCode::Rekeyed)));
            }
            let other = of(|figures| (change(&mut figures.out), figures.rekeyed = [false, true]).0);
            assert_eq!(found(&other), (ProofResult::Failed, Some(ProofCode::NotEncrypted)));
        }
        assert_eq!(found(&of(|figures| figures.rekeyed = [true; 2])), (ProofResult::Proven, None));
    }

    #[test]
    fn the_worst_is_told() {
        let worst = of(|figures| {
            figures.out.clear.refused = 0;
            figures.incoming.clear.delivered = 20;
            figures.exemption = Some("udp/32768-65535".to_owned());
        });
        assert_eq!(found(&worst), (ProofResult::Failed, Some(ProofCode::ClearAccepted)));
        assert!(worst.reason.unwrap().contains("exemption udp/32768-65535"));
        let lies = of(|figures| figures.contradiction = Some("its counter fell".to_owned()));
        assert_eq!(found(&lies), (ProofResult::Failed, Some(ProofCode::Contradiction)));
        let unsent = of(|figures| {
            figures.peer_unsent = Some("no room".to_owned());
            figures.incoming.sealed = SealedCount::default();
        });
        assert_eq!(found(&unsent), (ProofResult::Inconclusive, Some(ProofCode::NotSent)));
    }

    #[test]
    fn what_is_seen_on_the_wire_counts() {
        let none = (Some(0), Some(0));
        let wire = WireCount {
            esp_out: 30,
            esp_in: 30,
            clear_out: none.0,
            clear_in: none.1,
            ..WireCount::default()
        };
        let with = |wire: WireCount| {
            let mut proof = of(|_| {});
            proof.add_wire(wire);
            found(&proof)
        };
        assert_eq!(with(wire.clone()), (ProofResult::Proven, None));
        let clear = WireCount { clear_out: Some(1), ..wire.clone() };
        assert_eq!(with(clear), (ProofResult::Failed, Some(ProofCode::ClearOnWire)));
        let missed = WireCount { clear_out: None, clear_in: None, missed: 1, ..wire };
        assert_eq!(with(missed), (ProofResult::Inconclusive, Some(ProofCode::NotWatched)));
    }
}
