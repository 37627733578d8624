//! Child SAs: offering one, accepting one, and what is remembered of one (RFC 7296 sections 1.3 and 2.9).

use std::net::IpAddr;
use std::time::Instant;

use crate::ike::crypto::Hidden;
use crate::ike::crypto::keys::{IkeKeys, Nonces};
use crate::ike::crypto::suite::{EspChoice, OwnKe, choose_esp, concluded_esp, esp_offer};
use crate::ike::limits::PROBE_PATIENCE;
use crate::ike::outbox::Cx;
use crate::ike::path::Path;
use crate::ike::reason::{Incompatible, Reason};
use crate::ike::wire::codes::notify;
use crate::ike::wire::word;
use crate::ike::wire::{Parts, Payload, TrafficSelector};
use crate::types::word::Flags;
use crate::types::{EspProposal, EspSuite, KeyExchange, NewChild, Pair, Proposals, Spi, Word};

/// Our half of a child that is being negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Our inbound SA.
    pub in_spi: Spi,
    /// What a probe through it must carry.
    pub token: [u8; 16],
}

impl Offer {
    /// A new one.
    pub fn new(cx: &mut Cx<'_>) -> Self {
        Self { in_spi: cx.esp_spi(), token: cx.random() }
    }

    /// What we say about it while it is being negotiated.
    pub fn word(&self, now: Instant) -> Payload {
        let flags = Flags::of_new_child();
        word::to_payload(&Word { spi: self.in_spi, token: self.token, revision: 0, flags }, now)
    }

    /// The payloads of a request for it. `fresh` stands between SA and TS: what CREATE_CHILD_SA has of nonce and
    /// public value.
    pub fn request(
        &self,
        proposals: &Proposals<EspProposal>,
        pair: Pair,
        fresh: Vec<Payload>,
    ) -> Vec<Payload> {
        let mut payloads = vec![Payload::Sa(esp_offer(proposals, self.in_spi))];
        payloads.extend(fresh);
        payloads.extend(selectors([pair.local, pair.remote].map(TrafficSelector::host)));
        payloads.push(transport_mode());
        payloads
    }
}

/// RFC 7296 section 2.9: the initiator and the responder.
fn selectors([i, r]: [TrafficSelector; 2]) -> [Payload; 2] {
    [Payload::TsI(vec![i]), Payload::TsR(vec![r])]
}

/// RFC 7296 section 1.3.1.
fn transport_mode() -> Payload {
    Payload::notify(notify::USE_TRANSPORT_MODE, Vec::new())
}

/// Accepts a request for a child on `path`. With it come the selectors of the answer.
pub fn accept(
    path: &Path,
    proposals: &Proposals<EspProposal>,
    request: &Parts<'_>,
    own_ke: OwnKe,
) -> Result<(EspChoice, [TrafficSelector; 2]), Reason> {
    let choice = choose_esp(proposals, request.sa()?, own_ke)?;
    Ok((choice, mode_and_selectors(request, path, path.pair.remote, path.pair.local)?))
}

/// The payloads of the answer to a request that was accepted: SA, then Nr and KEr where the exchange has them
/// (`fresh`), and the rest (RFC 7296 section 1.3).
pub fn answer(
    offer: &Offer,
    choice: &EspChoice,
    fresh: Vec<Payload>,
    both: [TrafficSelector; 2],
) -> Vec<Payload> {
    let mut payloads = vec![Payload::Sa(vec![choice.answer(offer.in_spi)])];
    payloads.extend(fresh);
    payloads.extend(selectors(both));
    payloads.push(transport_mode());
    payloads
}

/// Reads the answer to [`Offer::request`].
pub fn conclude(
    path: &Path,
    proposals: &Proposals<EspProposal>,
    answer: &Parts<'_>,
    own_ke: OwnKe,
) -> Result<EspChoice, Reason> {
    let choice = concluded_esp(proposals, answer.sa()?, own_ke)?;
    mode_and_selectors(answer, path, path.pair.local, path.pair.remote)?;
    Ok(choice)
}

/// What the selectors say of the two hosts.
fn mode_and_selectors(
    parts: &Parts<'_>,
    path: &Path,
    initiator: IpAddr,
    responder: IpAddr,
) -> Result<[TrafficSelector; 2], Reason> {
    if parts.notify(notify::USE_TRANSPORT_MODE).is_none() {
        return Err(Incompatible::TransportMode.into());
    }
    let one = |selectors: &[TrafficSelector], address| {
        let covered = selectors.iter().any(|ts| ts.contains(address)).then(|| TrafficSelector::host(address));
        // RFC 7296 section 2.23.1: behind a NAT a host is called otherwise, by one address. What it is called
        // here stands for that in our policies, and not in what is said.
        let called = || selectors.iter().find(|ts| ts.is_host()).copied().filter(|_| path.nat.is_found());
        covered.or_else(called).ok_or(Incompatible::Selectors)
    };
    Ok([one(parts.ts_i()?, initiator)?, one(parts.ts_r()?, responder)?])
}

/// How a child stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildStage {
    /// The agent knows of it and has not answered yet.
    Announced,
    /// Both SAs are in our kernel.
    Live,
    /// It is being deleted.
    Closing,
}

/// What the peer sends of its own accord through, and about, a new child: a probe, once it knows that we have installed
/// the child. Between peers that heed what probes say, whoever asked for the child begins; the other end answers with
/// a probe that says so, and waits for the first word.
/// ```text
/// initiator  --- probe --------------------->  responder
///            <-- probe: seen ----------------
///            --- word: seen, sending ------->
///            <-- word: seen, sending --------
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstProbe {
    /// The peer does not send it yet.
    Unsent,
    /// It is on its way, and until this time what we have to say waits for it: one word then says that it came, too.
    Awaited(Instant),
    /// It came, or is late.
    Over,
}

/// What is remembered of a child.
#[derive(Debug)]
pub struct ChildSa {
    /// Our inbound SA: the name of the child.
    pub in_spi: Spi,
    /// The peer's inbound SA.
    pub out_spi: Spi,
    /// When it was agreed.
    pub since: Instant,
    /// What its SAs are made with.
    pub suite: EspSuite,
    /// The key exchange of its own that their keys come from, if there was one.
    pub key_exchange: Option<KeyExchange>,
    /// How it stands.
    pub(super) stage: ChildStage,
    /// What a probe through our inbound SA must carry.
    pub token: [u8; 16],
    /// What we have done.
    pub flags: Flags,
    /// Counts the changes of `flags`.
    revision: u16,
    /// The revision of the peer's word that was heard last.
    heard: Option<u16>,
    /// What of that the peer has been told.
    told: Flags,
    /// The peer has told that it has installed it.
    peer_installed: bool,
    /// The peer takes from a probe what a word would say.
    peer_heeds: bool,
    /// Whether this end asked for it.
    asked: bool,
    first: FirstProbe,
    /// The child that replaces it.
    pub successor: Option<Spi>,
    /// The child that it replaces.
    pub(super) predecessor: Option<Spi>,
    /// When it is to be rekeyed; `None` once that is on its way.
    pub rekey_at: Option<Instant>,
    /// A peer without words has yet to show that it has our answer.
    pub(super) unconfirmed: bool,
}

impl ChildSa {
    /// Whether it can carry traffic, now or soon.
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.stage, ChildStage::Announced | ChildStage::Live)
    }

    /// What we say about it.
    pub fn word(&self) -> Word {
        Word { spi: self.in_spi, token: self.token, revision: self.revision, flags: self.flags }
    }

    /// We have done something.
    pub fn say(&mut self, now: Instant, flags: Flags) {
        if self.flags != flags {
            self.flags = flags;
            self.revision = self.revision.wrapping_add(1);
        }
        self.expect_first(now);
    }

    /// The peer has been told `flags`.
    pub(super) fn note_told(&mut self, now: Instant, flags: Flags) {
        self.told = flags;
        self.expect_first(now);
    }

    /// The peer has said `word`, unless we have heard a newer one. Whether that is news.
    pub fn hear(&mut self, now: Instant, word: &Word) -> bool {
        let news = word.is_news(self.heard);
        if news {
            self.heard = Some(word.revision);
            self.peer_installed |= word.flags.installed;
            self.peer_heeds = word.flags.heeds;
            self.expect_first(now);
        }
        news
    }

    /// Whether there is something that the peer has not been told, and that does not wait for what comes first.
    pub(super) fn has_news(&self) -> bool {
        self.stage == ChildStage::Live && self.flags != self.told && !self.awaits_first()
    }

    /// Whether the peer's first probe or word is on its way.
    pub(super) fn awaits_first(&self) -> bool {
        self.is_alive() && matches!(self.first, FirstProbe::Awaited(_))
    }

    /// When that, being on its way, is late.
    pub(super) fn first_is_late_at(&self) -> Option<Instant> {
        match self.first {
            FirstProbe::Awaited(until) => Some(until),
            FirstProbe::Unsent | FirstProbe::Over => None,
        }
    }

    /// Time has passed: what is late is not waited for any longer.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.first_is_late_at().is_some_and(|at| at <= now) {
            self.first = FirstProbe::Over;
        }
    }

    fn expect_first(&mut self, now: Instant) {
        let (seen, said) = (self.flags.seen, self.peer_installed);
        let both_told = self.told.installed && said;
        let (comes, over) = match (self.peer_heeds, self.asked) {
            (true, true) => (self.flags.installed && said, seen),
            (true, false) => (seen || both_told, seen && said),
            (false, _) => (both_told, seen),
        };
        self.first = match self.first {
            _ if over => FirstProbe::Over,
            FirstProbe::Unsent if comes => FirstProbe::Awaited(now + PROBE_PATIENCE),
            first => first,
        };
    }
}

/// A child that both ends agreed on.
pub struct Agreement<'a> {
    /// Between whom.
    pub path: Path,
    /// Our half.
    pub offer: Offer,
    /// What was chosen.
    pub choice: EspChoice,
    /// The exchange's nonces.
    pub nonces: &'a Nonces,
    /// The exchange's own Diffie-Hellman secret.
    pub shared: Option<&'a Hidden>,
    /// The secret of the additional exchange after it.
    pub additional: Option<&'a Hidden>,
    /// Whether this end asked for it.
    pub initiator: bool,
    /// Whether the peer says no words.
    pub foreign: bool,
    /// The child that it replaces.
    pub replaces: Option<Spi>,
}

impl Agreement<'_> {
    /// What to remember of the child.
    pub fn child(&self, cx: &mut Cx<'_>) -> ChildSa {
        ChildSa {
            in_spi: self.offer.in_spi,
            out_spi: self.choice.out_spi,
            since: cx.now,
            suite: self.choice.suite,
            key_exchange: self.choice.key_exchange,
            stage: ChildStage::Announced,
            token: self.offer.token,
            flags: Flags::of_new_child(),
            revision: 0,
            heard: None,
            told: Flags::of_new_child(),
            peer_installed: false,
            peer_heeds: false,
            asked: self.initiator,
            first: FirstProbe::Unsent,
            successor: None,
            predecessor: self.replaces,
            rekey_at: Some(cx.rekey_time(self.path.pair, cx.settings.rekey_after)),
            unconfirmed: false,
        }
    }

    /// What the kernel needs.
    pub(super) fn new_child(&self, keys: &IkeKeys) -> Box<NewChild> {
        let suite = self.choice.suite;
        let (in_key, out_key) =
            keys.child(self.shared, self.additional, self.nonces, suite.key_bits, self.initiator);
        Box::new(NewChild {
            pair: self.path.pair,
            in_spi: self.offer.in_spi,
            out_spi: self.choice.out_spi,
            suite,
            encapsulation: self.path.encapsulation(),
            in_key,
            out_key,
            initiator: self.initiator,
            foreign: self.foreign,
        })
    }
}

/// The word in a message that came in at `now`, about the child whose inbound SA at the peer is `spi`.
pub(super) fn peer_word(parts: &Parts<'_>, spi: Spi, now: Instant) -> Option<Word> {
    parts.notifies().filter_map(|notify| word::from_notify(notify, now)).find(|word| word.spi == spi)
}
