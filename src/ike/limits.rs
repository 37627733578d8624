//! Every timeout and every bound of the engine, in one place.

use std::time::Duration;

/// The first wait for an answer; each further wait is twice as long.
pub(super) const RETRANSMIT_FIRST: Duration = Duration::from_millis(250);
/// The longest wait for an answer.
pub(super) const RETRANSMIT_MAX: Duration = Duration::from_secs(4);
/// How often a request on an established IKE SA is sent before the peer counts as gone: 15.75 s in all.
pub(super) const TRIES_ESTABLISHED: u32 = 7;
/// The longest wait for an answer on a control IKE SA: after a broken path is mended, members hear soon what they have
/// missed, such as who was removed. Each has few of these.
pub(super) const RETRANSMIT_CONTROL: Duration = Duration::from_secs(1);
/// How often a request on a control IKE SA is sent: until the same 15.75 s have passed.
pub(super) const TRIES_CONTROL: u32 = 17;
/// A peer that has not answered when a request has been sent so often does not answer in time: 0.75 s have passed.
pub(super) const COPIES_UNANSWERED: u32 = 3;
/// How often IKE_AUTH is sent: 7.75 s in all. And IKE_SA_INIT, after it was knocked.
pub(super) const TRIES_HANDSHAKE: u32 = 5;
/// How often IKE_SA_INIT is sent before that: hosts that are enabled at the same time do not come up at the same
/// moment.
pub(super) const TRIES_KNOCKING: u32 = 5;
/// The first wait of those; they grow up to [`RETRANSMIT_FIRST`]. Where one command enables all hosts, the others
/// listen some milliseconds later.
pub(super) const KNOCK_FIRST: Duration = Duration::from_millis(60);
/// How often the Delete of a pair that was forgotten is sent.
pub(super) const TRIES_FAREWELL: u32 = 2;

/// How long the end that does not initiate by rule waits before it does.
pub(super) const SECOND_INITIATOR_WAIT: Duration = Duration::from_millis(1500);
/// The first wait after a failure; each further one is twice as long.
pub(super) const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// The longest wait after failures.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// How many times longer than after other failures the wait is for a peer to learn the current secret or
/// key, while an IKE SA that rests on another one serves, or to know of control IKE SAs at all.
pub(super) const PROOF_PATIENCE: u32 = 10;
/// How far below its nominal length a wait after a failure is jittered, in percent.
pub(super) const BACKOFF_JITTER: u32 = 50;

/// When the initiator by rule rekeys, in percent of the configured time.
pub(super) const REKEY_WINDOW_FIRST: (u32, u32) = (85, 92);
/// When the other end rekeys, should the first not have done so.
pub(super) const REKEY_WINDOW_SECOND: (u32, u32) = (93, 100);
/// An IKE SA lives this many times as long as a child.
pub(super) const IKE_REKEY_FACTOR: u32 = 3;

/// So many IKE SAs this end initiates at a time: the answers must find room in its socket. A peer that is silent when
/// the first message is sent again takes no room any more.
pub(super) const INITIATING_MAX: usize = 256;
/// And so many at least, however late this end is.
pub(super) const INITIATING_LEAST: usize = 16;
/// So many are begun for each datagram or timeout: their keys take time, in which nothing is read.
pub(super) const BEGUN_AT_ONCE: usize = 32;
/// A host that reads what comes within that time is not late.
pub(super) const ON_TIME: Duration = Duration::from_millis(20);
/// No host counts as later than that: the clock that tells when a datagram came can be set.
pub(super) const LATE_MOST: Duration = Duration::from_secs(2);
/// After so many failures in a row a peer is knocked at sparsely.
pub(super) const SPARSE_AFTER: u32 = 3;
/// How often the first message is sent then: at once, after 0.06 s and 0.66 s. It is given up after 4.66 s.
pub(super) const TRIES_SPARSE: u32 = 3;
/// How much longer each wait is then.
pub(super) const GROWTH_SPARSE: u32 = 10;
/// Peers that did not answer last time share this pace, whatever their number: one of them is tried each time. Where
/// there are fewer than fit into [`BACKOFF_MAX`], none of them waits for it.
pub(super) const PACE_UNKNOWN: Duration = Duration::from_millis(50);
/// The pace of those that are missed.
pub(super) const PACE_KNOWN: Duration = Duration::from_millis(20);

/// How long an answer to our first message has time to lead to a proof before that message is sent again: it may have
/// been somebody else's.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_millis(500);
/// So many answers to one first message are followed up at a time.
pub(super) const CANDIDATES_MAX: usize = 4;
/// And so many in all: each costs a key exchange.
pub(super) const ANSWERS_MAX: usize = 16;
/// How long an attempt listens, from its beginning, whose answers so far have come to nothing.
pub(super) const LISTEN_LIFE: Duration = Duration::from_secs(10);

/// So many of one pair do so beside the next attempt.
pub(super) const LISTENING_MAX_PAIR: usize = 3;

/// How long a responder keeps what an unproven initiator made it remember.
pub(super) const HALF_OPEN_LIFE: Duration = Duration::from_secs(10);
/// How long a responder holds an answer for the kernel's answer about the new SAs.
pub(super) const HOLD_LIFE: Duration = Duration::from_secs(5);
/// How long a responder keeps a successor of an IKE SA that is half made.
pub(super) const FOLLOW_UP_LIFE: Duration = Duration::from_secs(20);
/// From this many half-open sessions on, and requests that were refused lately, an initiator must first return a cookie.
pub(super) const COOKIE_THRESHOLD: usize = 64;
/// The same for one pair alone: its addresses may be forged.
pub(super) const COOKIE_THRESHOLD_PAIR: usize = 4;
/// Where cookies are asked for, few of the first requests without one are answered that have waited for so long. A flood
/// so fills this host's socket with what is quickly read, and the messages of those who go on do not wait behind answers
/// to everybody else.
pub(super) const FIRST_REQUEST_PATIENCE: Duration = Duration::from_millis(500);
/// So many of them are answered in a [`LATE_WINDOW`]: this host may be late for another reason.
pub(super) const LATE_ANSWERS_MOST: u32 = 32;
/// The time in which these are counted.
pub(super) const LATE_WINDOW: Duration = Duration::from_millis(100);
/// How often at most the operator hears of offers that nobody has proven, of one pair.
pub(super) const HINT_PAUSE: Duration = Duration::from_secs(10);
/// More sessions than this whose initiator has not proven itself there never are: the oldest goes.
pub(super) const HALF_OPEN_MAX: usize = 4096;
/// And of one pair.
pub(super) const HALF_OPEN_MAX_PAIR: usize = 16;
/// Sessions of one pair with a proven peer.
pub(super) const SESSIONS_MAX_PAIR: usize = 8;
/// How long a cookie's secret is used for new cookies; it is accepted as long again.
pub(super) const COOKIE_SECRET_LIFE: Duration = Duration::from_secs(60);
/// How often an initiator returns a cookie in one attempt.
pub(super) const COOKIES_MAX: u32 = 3;
/// So many copies of a first request with other cookies than the first a responder remembers.
pub(super) const COPIES_MAX: usize = 2;
/// Octets of a cookie (RFC 7296 section 2.6).
pub(super) const COOKIE_LENGTH: std::ops::RangeInclusive<usize> = 1..=64;

/// How often an end behind a NAT reminds it of the way to the peer (RFC 3948 section 4).
pub(super) const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);

/// Octets of what a peer may tell at once of a child, or of itself, and of its mark. All of it fits into a message, in
/// fragments where it must: its user makes pages of what is longer.
pub const TOLD_MAX: usize = 4096;

/// So many joiners are let in at a time.
pub const JOINERS_MAX: usize = 16;
/// How long a joiner may be silent.
pub(super) const JOINER_SILENCE: Duration = Duration::from_secs(60);
/// And how long it may take in all.
pub(super) const JOINER_LIFE: Duration = Duration::from_secs(600);
/// How long a proven peer waits to be admitted: no longer than it asks.
pub(super) const VERDICT_LIFE: Duration = Duration::from_secs(7);

/// IKE SAs of one session: the one in use, and those that are on their way out.
pub(super) const IKE_SAS_MAX: usize = 8;
/// Octets of fragments whose messages are not whole yet, of all sessions. As with the next one, those who have not proven
/// themselves cannot use up all of it: there are not so many.
pub(super) const FRAGMENTS_HELD_MAX: usize = 2 * HALF_OPEN_MAX * REASSEMBLED_MAX;
/// And of those of one pair.
pub(super) const FRAGMENTS_HELD_MAX_PAIR: usize = 2 * HALF_OPEN_MAX_PAIR * REASSEMBLED_MAX;
/// Children of one session.
pub(super) const CHILDREN_MAX: usize = 8;
/// The longest datagram that is looked at.
pub const DATAGRAM_MAX: usize = 8192;
/// The most fragments of one message.
pub(super) const FRAGMENTS_MAX: usize = 32;
/// The longest message that comes in fragments, in octets of its payloads.
pub(super) const REASSEMBLED_MAX: usize = 16_384;
/// A packet of so many octets, with its IP header, passes every path that we support: it is what IPv6
/// guarantees (RFC 8200 section 5), and IPv4 in practice.
pub(super) const PACKET_MAX: usize = 1280;
/// Datagrams that wait to be sent. Retransmission makes up for those beyond.
pub(super) const TRANSMITS_MAX: usize = 65_536;
/// Octets of our nonces: at least half the size of the prf's key (RFC 7296 section 2.10).
pub(super) const NONCE_OCTETS: usize = 32;
