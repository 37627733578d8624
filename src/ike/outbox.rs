//! What a state machine is handed besides its input: time, entropy, settings, and where its output goes.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::limits::{
    BACKOFF_FIRST, BACKOFF_JITTER, BACKOFF_MAX, NONCE_OCTETS, REKEY_WINDOW_FIRST, REKEY_WINDOW_SECOND,
    TRANSMITS_MAX,
};
use super::path::Path;
use super::reason::{Reason, Unanswered};
use super::wire::Payload;
use super::{Counters, Entropy, Event, Failure, FailureCode, Settings, Transmit};
use crate::ike::session::exchange::{Datagrams, Retransmission, Retry};
use crate::types::{Pair, Spi, UnixTime};

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureScope {
    /// Getting or keeping an IKE SA.
    Ike,
    /// Getting a child on an IKE SA.
    Child,
    /// An attempt of the peer's.
    Answer,
    /// An attempt of ours will probably fail, or one of the peer's has. Whoever says so need not be the peer.
    Hint,
}

/// Where output goes.
#[derive(Default)]
pub(super) struct Outbox {
    /// For the agent.
    pub(super) events: VecDeque<Event>,
    /// For the socket.
    pub(super) transmits: VecDeque<Transmit>,
    /// For the engine, which backs off and tells the agent.
    pub(super) failures: Vec<(Pair, FailureScope, Failure)>,
    /// Something authentic of a peer was taken in that it had not sent before.
    pub(super) heard: bool,
    /// For the operator.
    pub(super) counters: Counters,
}

impl Outbox {
    /// Queues all datagrams of a message.
    pub(super) fn transmit_all(&mut self, path: &Path, message: &Datagrams) {
        message.iter().for_each(|datagram| self.transmit(path, datagram.clone()));
    }

    /// Queues a datagram; beyond the bound it is dropped, as the network might have done.
    pub(super) fn transmit(&mut self, path: &Path, bytes: Vec<u8>) {
        if self.transmits.len() >= TRANSMITS_MAX {
            self.counters.transmits_dropped += 1;
            return;
        }
        self.transmits.push_back(Transmit { local: path.local, remote: path.remote, bytes });
    }
}

impl Counters {
    /// Something failed that was tried, by this end or by the peer.
    pub(super) fn note_failure(&mut self, scope: FailureScope, failure: &Failure) {
        // These end what a handshake has made.
        let later = matches!(failure.reason, Reason::Unanswered(Unanswered::AnyMore(_)) | Reason::Lapsed(_));
        let of_handshake = matches!(scope, FailureScope::Ike | FailureScope::Answer) && !later;
        self.handshakes.failed += u64::from(of_handshake);
        *match failure.code() {
            FailureCode::NoAnswer => &mut self.failures.no_answer,
            FailureCode::AuthFailed => &mut self.failures.auth_failed,
            FailureCode::NoProposal => &mut self.failures.no_proposal,
            FailureCode::PeerRefused => &mut self.failures.peer_refused,
            FailureCode::Internal => &mut self.failures.internal,
        } += 1;
    }
}

/// What comes with every input.
pub(super) struct Cx<'a> {
    /// The time.
    pub(super) now: Instant,
    /// The time of day, where it is known.
    pub(super) wall: Option<UnixTime>,
    /// How late this host reads what comes.
    pub(super) late: Duration,
    /// What to offer and what to accept.
    pub(super) settings: &'a Settings,
    /// How we introduce ourselves in IKE_SA_INIT.
    pub(super) vendor_id: &'a Payload,
    /// The most octets of a packet of ours, with its IP header.
    pub(super) packet_max: usize,
    /// Our socket and the peer's, where a datagram that came between them is taken in.
    pub(super) came: Option<(SocketAddr, SocketAddr)>,
    /// The pairs whose inbound SA may be in the kernel before the peer has proven itself.
    pub(super) ahead: &'a HashSet<Pair>,
    /// So many more octets may be held of fragments of the pair.
    pub(super) fragment_room: usize,
    /// Random bytes.
    pub(super) entropy: &'a mut dyn Entropy,
    /// Output.
    pub(super) out: &'a mut Outbox,
}

impl Cx<'_> {
    /// Random bytes.
    pub(super) fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.entropy.fill(&mut bytes);
        bytes
    }

    /// A nonce.
    pub(super) fn nonce(&mut self) -> Vec<u8> {
        self.random::<NONCE_OCTETS>().to_vec()
    }

    /// An SPI for an IKE SA; zero is reserved (RFC 7296 section 2.6).
    pub(super) fn ike_spi(&mut self) -> u64 {
        u64::from_be_bytes(self.random()).max(1)
    }

    /// An SPI for an inbound SA.
    pub(super) fn esp_spi(&mut self) -> Spi {
        Spi::from_random(u32::from_be_bytes(self.random()))
    }

    /// Sends a message again by `path` when that is due. Says whether an answer may still come.
    pub(super) fn retransmit(&mut self, path: &Path, sent: &mut Retransmission) -> bool {
        match sent.handle_timeout(self.now) {
            Retry::Wait => true,
            Retry::Send(message) => {
                self.out.counters.retransmits += 1;
                self.out.transmit_all(path, &message);
                true
            }
            Retry::GiveUp => false,
        }
    }

    /// When something that lives for `life` is to be rekeyed: the end that initiates by rule does it first,
    /// so that the two seldom cross.
    pub(super) fn rekey_time(&mut self, pair: Pair, life: Duration) -> Instant {
        let (low, high) =
            if self.settings.inside.initiates(pair) { REKEY_WINDOW_FIRST } else { REKEY_WINDOW_SECOND };
        self.now + life * low / 100 + up_to(self.entropy, life * (high - low) / 100)
    }

    /// Something failed for that reason.
    pub(super) fn fail(&mut self, pair: Pair, scope: FailureScope, reason: impl Into<Reason>) {
        self.out.failures.push((pair, scope, reason.into().failure()));
    }
}

/// How long to wait after that many failures in a row.
pub(super) fn backoff(failures: u32, entropy: &mut dyn Entropy) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let nominal = BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MAX);
    nominal - up_to(entropy, nominal * BACKOFF_JITTER / 100)
}

/// A time between zero and `limit`.
pub(super) fn up_to(entropy: &mut dyn Entropy, limit: Duration) -> Duration {
    let mut bits = [0; 4];
    entropy.fill(&mut bits);
    limit.mul_f64(f64::from(u32::from_be_bytes(bits)) / f64::from(u32::MAX))
}
