//! What both ends of a proof say to each other inside IKE, as JSON. Fields that are not known are of a later version and
//! are ignored; so is a word whose kind is not known.
//!
//! ```text
//! asker                                             answerer
//!   begin { ports }                    -->
//!                                      <--          ready { ports, gauges }, or busy, or cannot
//!   (sends)  sent { sealed }           -->          (looks until all that were encrypted are there)
//!                                      <--          report { what it sent itself, what it saw, gauges }
//!   (looks)  sent { sealed }           -->          again, where something is missing
//!   over { its clear ones }            -->
//!                                      <--          closed { what it saw, gauges }
//! ```
//! How many clear packets there were the asker does not say before it has heard what came to the other end, and which ones
//! either. So who names packets that it has not seen is found out. A counter of refused packets that is too high is not:
//! others may have caused it.

use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::observe::pair_proof::FIGURE_MOST;
use crate::types::{Direction, NONCES_MOST, Nonce, Spi};

/// The version of the words.
const VERSION: u8 = 1;
/// The most octets of one.
const LENGTH_MAX: usize = 4096;
/// The most SAs of a pair that are told of: there are two to four, and a few more while keys are replaced.
pub const SAS_MOST: usize = 12;
/// The longest text in one.
const TEXT_MAX: usize = 160;

/// One word of a proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofWord {
    v: u8,
    /// Which proof: a random number of the asker's.
    pub proof: u64,
    /// What the asker counts up with each word. The answer has the number of what it answers.
    pub step: u32,
    /// What it says.
    pub says: Says,
}

/// What a word says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Says {
    /// Prove this pair with me: my packets will go to the port that you tell, and yours come to this one.
    Begin {
        /// The asker's.
        ports: ProofPorts,
    },
    /// All packets have been sent, so many different ones by the policies. Look, and send yours.
    Sent {
        /// The number of those that should be encrypted.
        sealed: u16,
    },
    /// That was all.
    Over {
        /// What the asker has sent past all policies: whoever watches the wire there has seen it, too.
        #[serde(default, with = "joined")]
        clear: Vec<Nonce>,
    },
    /// Begin.
    Ready {
        /// The answerer's.
        ports: ProofPorts,
        /// What its kernel has counted before.
        gauges: Gauges,
    },
    /// Not now: another proof is under way.
    Busy {},
    /// Not at all.
    Cannot {
        /// Why, in words.
        why: String,
    },
    /// What came of a round.
    Report(RoundReport),
    /// It is over here, too.
    Closed {
        /// What has come in the end.
        #[serde(with = "joined")]
        seen: Vec<Nonce>,
        /// What the kernel has counted in the end.
        gauges: Gauges,
    },
}

/// UDP ports of one end. What comes from others is nobody's: any local user of the other host can send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProofPorts {
    /// Where the other end sends to, and from where this one sends as any program does.
    pub ordinary: u16,
    /// From where it sends past all policies.
    pub past: u16,
}

/// What came of a round.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RoundReport {
    /// What the answerer has sent past all policies.
    #[serde(with = "joined")]
    pub clear: Vec<Nonce>,
    /// What it has sent as any program does.
    #[serde(with = "joined")]
    pub sealed: Vec<Nonce>,
    /// Why some of it did not leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsent: Option<String>,
    /// What has come to it so far.
    #[serde(with = "joined")]
    pub seen: Vec<Nonce>,
    /// What its kernel has counted by now.
    pub gauges: Gauges,
}

/// What a kernel has counted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Gauges {
    /// Packets that were refused because they were not encrypted, of all hosts.
    pub refused: u64,
    /// Packets through each SA of the pair.
    pub sas: Vec<SaGauge>,
}

/// Packets through one SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaGauge {
    /// Its index.
    pub spi: Spi,
    /// Which way they flow, as whoever says it sees it.
    pub direction: Direction,
    /// How many.
    pub packets: u64,
}

impl ProofWord {
    /// A word of the proof with that number.
    pub fn new(proof: u64, step: u32, says: Says) -> Self {
        Self { v: VERSION, proof, step, says }
    }

    /// As it is told.
    pub fn to_octets(&self) -> Vec<u8> {
        // Plain data: writing it to memory has nothing to fail at.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What a peer told; `None` where it is not that, or more than a peer may say.
    pub fn from_octets(octets: &[u8]) -> Option<Self> {
        let word: Self = (octets.len() <= LENGTH_MAX).then(|| serde_json::from_slice(octets).ok())??;
        (word.v == VERSION && word.says.is_bounded()).then_some(word)
    }
}

impl Says {
    /// Whether the end that was asked says it.
    pub fn answers(&self) -> bool {
        !matches!(self, Self::Begin { .. } | Self::Sent { .. } | Self::Over { .. })
    }

    /// What people read of it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Begin { .. } => "begin",
            Self::Sent { .. } => "sent",
            Self::Over { .. } => "over",
            Self::Ready { .. } => "ready",
            Self::Busy {} => "busy",
            Self::Cannot { .. } => "cannot",
            Self::Report(_) => "report",
            Self::Closed { .. } => "closed",
        }
    }

    fn is_bounded(&self) -> bool {
        match self {
            Self::Begin { .. } | Self::Sent { .. } | Self::Busy {} => true,
            Self::Over { clear } => clear.len() <= NONCES_MOST.into(),
            Self::Ready { gauges, .. } => gauges.is_bounded(),
            Self::Cannot { why } => is_plain(why),
            Self::Report(report) => {
                let sent = [&report.clear, &report.sealed];
                sent.iter().all(|nonces| nonces.len() <= NONCES_MOST.into())
                    && is_seen(&report.seen)
                    && report.unsent.iter().all(|why| is_plain(why))
                    && report.gauges.is_bounded()
            }
            Self::Closed { seen, gauges } => is_seen(seen) && gauges.is_bounded(),
        }
    }
}

impl Gauges {
    fn is_bounded(&self) -> bool {
        let packets = self.sas.iter().map(|sa| sa.packets);
        self.sas.len() <= SAS_MOST && packets.chain([self.refused]).all(|figure| figure <= FIGURE_MOST)
    }

    /// What an SA has counted.
    pub fn of(&self, spi: Spi, direction: Direction) -> Option<u64> {
        self.sas.iter().find(|sa| sa.spi == spi && sa.direction == direction).map(|sa| sa.packets)
    }
}

/// What somebody may have seen: no more than was sent.
fn is_seen(seen: &[Nonce]) -> bool {
    seen.len() <= 2 * usize::from(NONCES_MOST)
}

/// Whether a text of a peer would look well on a terminal.
fn is_plain(text: &str) -> bool {
    text.len() <= TEXT_MAX && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

/// A text of this host as it may be told.
pub(super) fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    text.chars().map(shown).take(TEXT_MAX).collect()
}

/// Nonces as one text in base64.
mod joined {
    use base64::Engine as _;

    use super::{Deserialize, Deserializer, Nonce, STANDARD, Serializer};

    pub(super) fn serialize<S: Serializer>(nonces: &[Nonce], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(Nonce::join(nonces.iter().copied())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Nonce>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let octets = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        Nonce::split(&octets).ok_or_else(|| serde::de::Error::custom("part of a nonce"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nonces(count: usize) -> Vec<Nonce> {
        (0..count as u64).map(|number| Nonce(number.to_be_bytes())).collect()
    }

    #[test]
    fn the_longest_word_fits() {
        let sa = SaGauge { spi: Spi(u32::MAX), direction: Direction::Out, packets: FIGURE_MOST };
        let gauges = Gauges { refused: FIGURE_MOST, sas: vec![sa; SAS_MOST] };
        let all = nonces(NONCES_MOST.into());
        let report = RoundReport {
            clear: all.clone(),
            sealed: all.clone(),
            unsent: Some("x".repeat(TEXT_MAX)),
            seen: nonces(2 * usize::from(NONCES_MOST)),
            gauges: gauges.clone(),
        };
        let word = ProofWord::new(u64::MAX, u32::MAX, Says::Report(report.clone()));
        let octets = word.to_octets();
        println!("{} octets", octets.len());
        assert_eq!(ProofWord::from_octets(&octets), Some(word));
        let more = |report| ProofWord::new(1, 1, Says::Report(report)).to_octets();
        let long = RoundReport { clear: nonces(usize::from(NONCES_MOST) + 1), ..report.clone() };
        let painted = RoundReport { unsent: Some("\x1b[31m".to_owned()), ..report.clone() };
        let many = Gauges { refused: FIGURE_MOST + 1, ..gauges.clone() };
        let through = SaGauge { packets: FIGURE_MOST + 1, ..sa };
        let high = [many, Gauges { sas: vec![through], ..gauges }];
        let high = high.map(|gauges| RoundReport { gauges, ..report.clone() });
        for report in high.into_iter().chain([long, painted]) {
            assert_eq!(ProofWord::from_octets(&more(report)), None);
        }
    }

    #[test]
    fn what_a_later_version_adds_is_ignored() {
        let later = br#"{"v":1,"proof":7,"step":2,"says":{"begin":{"ports":{"ordinary":9,"past":8},"colour":"red"}},"more":true}"#;
        assert_eq!(
            ProofWord::from_octets(later),
            Some(ProofWord::new(7, 2, Says::Begin { ports: ProofPorts { ordinary: 9, past: 8 } }))
        );
        assert_eq!(ProofWord::from_octets(br#"{"v":1,"proof":7,"step":2,"says":{"sing":{}}}"#), None);
        assert_eq!(ProofWord::from_octets(br#"{"v":2,"proof":7,"step":2,"says":{"over":{}}}"#), None);
    }

    fn some_nonces(most: u8) -> impl Strategy<Value = Vec<Nonce>> {
        prop::collection::vec(any::<[u8; 8]>().prop_map(Nonce), 0..=usize::from(most))
    }

    fn some_gauges() -> impl Strategy<Value = Gauges> {
        let direction = prop_oneof![Just(Direction::In), Just(Direction::Out)];
        let sa = (any::<u32>(), direction, 0..=FIGURE_MOST).prop_map(|(spi, direction, packets)| SaGauge {
            spi: Spi(spi),
            direction,
            packets,
        });
        (0..=FIGURE_MOST, prop::collection::vec(sa, 0..=SAS_MOST))
            .prop_map(|(refused, sas)| Gauges { refused, sas })
    }

    /// Whatever may be said.
    fn says() -> impl Strategy<Value = Says> {
        let ports = || any::<[u16; 2]>().prop_map(|[ordinary, past]| ProofPorts { ordinary, past });
        let report = (
            some_nonces(NONCES_MOST),
            some_nonces(NONCES_MOST),
            prop::option::of("[ -~]{0,160}"),
            some_nonces(2 * NONCES_MOST),
            some_gauges(),
        );
        prop_oneof![
            ports().prop_map(|ports| Says::Begin { ports }),
            any::<u16>().prop_map(|sealed| Says::Sent { sealed }),
            some_nonces(NONCES_MOST).prop_map(|clear| Says::Over { clear }),
            (ports(), some_gauges()).prop_map(|(ports, gauges)| Says::Ready { ports, gauges }),
            Just(Says::Busy {}),
            "[ -~]{0,160}".prop_map(|why| Says::Cannot { why }),
            report.prop_map(|(clear, sealed, unsent, seen, gauges)| {
                Says::Report(RoundReport { clear, sealed, unsent, seen, gauges })
            }),
            (some_nonces(2 * NONCES_MOST), some_gauges())
                .prop_map(|(seen, gauges)| Says::Closed { seen, gauges }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(proof in any::<u64>(), step in any::<u32>(), says in says()) {
            let word = ProofWord::new(proof, step, says);
            prop_assert_eq!(ProofWord::from_octets(&word.to_octets()), Some(word));
        }

        #[test]
        fn whatever_comes_is_read_or_is_no_word(
            octets in prop::collection::vec(any::<u8>(), 0..200),
            says in says(),
            at in any::<prop::sample::Index>(),
        ) {
            let _ = ProofWord::from_octets(&octets);
            // A word of which a part is something else.
            let mut word = ProofWord::new(1, 1, says).to_octets();
            let at = at.index(word.len());
            let end = word.len().min(at + octets.len());
            word.splice(at..end, octets);
            let _ = ProofWord::from_octets(&word);
        }
    }
}
