//! Child SAs: offering one, accepting one, and what is remembered of one (RFC 7296 sections 1.3 and 2.9).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::telling::Telling;
use crate::ike::crypto::Hidden;
use crate::ike::crypto::keys::{IkeKeys, Nonces};
use crate::ike::crypto::suite::{EspChoice, OwnKe, choose_esp, concluded_esp, esp_offer};
use crate::ike::outbox::Cx;
use crate::ike::path::Path;
use crate::ike::reason::{Incompatible, Reason};
use crate::ike::wire::codes::notify;
use crate::ike::wire::private;
use crate::ike::wire::{Parts, Payload, TrafficSelector};
use crate::types::{EspProposal, EspSuite, KeyExchange, NewChild, Pair, Proposals, Spi};

/// Our half of a child that is being negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Our inbound SA.
    pub in_spi: Spi,
    /// Random octets for [`Settings::first`](crate::ike::Settings::first).
    pub token: [u8; 16],
}

impl Offer {
    /// A new one.
    pub fn new(cx: &mut Cx<'_>) -> Self {
        Self { in_spi: cx.esp_spi(), token: cx.random() }
    }

    /// Tells the peer of it while it is being negotiated.
    pub fn first(&self, cx: &Cx<'_>) -> Option<Payload> {
        private::of_child(self.in_spi, &(cx.settings.first)(self.token, cx.now))
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
        // RFC 7296 section 2.23.1: a host behind a NAT names itself by another single address. Messages have that one,
        // our policies have the one that we know.
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

/// What is remembered of a child.
pub struct ChildSa {
    in_spi: Spi,
    out_spi: Spi,
    since: Instant,
    suite: EspSuite,
    key_exchange: Option<KeyExchange>,
    stage: ChildStage,
    /// What the peer is told of it.
    pub(super) telling: Telling,
    successor: Option<Spi>,
    predecessor: Option<Spi>,
    rekey_at: Option<Instant>,
    unconfirmed: bool,
}

impl ChildSa {
    /// Our inbound SA: the name of the child.
    pub fn in_spi(&self) -> Spi {
        self.in_spi
    }

    /// The peer's inbound SA.
    pub fn out_spi(&self) -> Spi {
        self.out_spi
    }

    /// How long ago it was agreed.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// What its SAs are made with.
    pub(super) fn suite(&self) -> EspSuite {
        self.suite
    }

    /// The key exchange that made its keys; `None` if they come from the IKE SA alone.
    pub fn key_exchange(&self) -> Option<KeyExchange> {
        self.key_exchange
    }

    /// The child that it replaces.
    pub(super) fn predecessor(&self) -> Option<Spi> {
        self.predecessor
    }

    /// The child that replaces it.
    pub(super) fn successor(&self) -> Option<Spi> {
        self.successor
    }

    /// It has a successor.
    pub(super) fn succeed(&mut self, successor: Spi) {
        self.successor = Some(successor);
    }

    /// Whether the agent has yet to answer for it.
    pub(super) fn is_announced(&self) -> bool {
        self.stage == ChildStage::Announced
    }

    /// Whether both SAs are in our kernel, to stay.
    pub(super) fn is_live(&self) -> bool {
        self.stage == ChildStage::Live
    }

    /// Whether it can carry traffic, now or soon.
    pub(super) fn is_alive(&self) -> bool {
        self.is_announced() || self.is_live()
    }

    /// Both SAs are in our kernel.
    pub(super) fn install(&mut self) {
        self.stage = ChildStage::Live;
    }

    /// It is to be deleted.
    pub(super) fn close(&mut self) {
        self.stage = ChildStage::Closing;
    }

    /// Whether a foreign peer has yet to show that it has our answer.
    pub(super) fn is_unconfirmed(&self) -> bool {
        self.unconfirmed
    }

    /// A foreign peer is to show that it has our answer.
    pub(super) fn await_confirmation(&mut self) {
        self.unconfirmed = true;
    }

    /// A foreign peer has our answer.
    pub(super) fn confirm(&mut self) {
        self.unconfirmed = false;
    }

    /// When it is to be rekeyed; `None` once that is on its way.
    pub fn rekey_at(&self) -> Option<Instant> {
        self.rekey_at
    }

    /// Whether its rekey is due. It is then on its way.
    pub(super) fn take_rekey(&mut self, now: Instant) -> bool {
        self.rekey_at.take_if(|at| *at <= now).is_some()
    }

    /// It is to be rekeyed then, whatever was on its way.
    pub(super) fn rekey_again(&mut self, at: Instant) {
        self.rekey_at = Some(at);
    }

    /// Moves its rekey, unless that is on its way.
    pub(super) fn move_rekey(&mut self, to: impl FnOnce(Instant) -> Instant) {
        self.rekey_at = self.rekey_at.map(to);
    }

    /// Whether the peer is to be told of it now.
    pub(super) fn is_to_be_told(&self, now: Instant) -> bool {
        self.is_live() && self.telling.is_due(now)
    }

    /// Whether answers wait to what the peer tells of it.
    pub(super) fn holds_answers(&self, now: Instant) -> bool {
        self.is_alive() && self.telling.is_waiting(now)
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
    /// Whether the peer is not hostseal.
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
            telling: Telling::default(),
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

/// What the peer tells in a message of the child whose inbound SA there is `spi`.
pub(super) fn told(parts: &Parts<'_>, spi: Spi) -> Option<Vec<u8>> {
    parts.notifies().filter_map(private::from_child).find(|(of, _)| *of == spi).map(|(_, octets)| octets)
}
