//! Somebody on the path without any credential: keeps what a host says from arriving, and answers in its place with
//! its own key exchanges.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::cluster::{MILLISECOND, SECOND, protected, seeds};
use super::kernel::Leaves;
use super::log::Log;
use super::net::{Packet, Weather};
use super::world::{Seeded, World};
use crate::host::core::Datagram;
use crate::identity::Secret;
use crate::ike::{Engine, Posture, Settings, Transmit};
use crate::types::{Direction, Method, Proposals, RowState};

/// The number of the exchange.
const IKE_AUTH: u8 = 35;
/// What marks an answer.
const RESPONSE: u8 = 0x20;

/// Who answers in the place of a host.
pub(super) struct Imposter {
    /// The host.
    pub(super) instead_of: usize,
    engine: Engine,
    /// Messages of IKE_AUTH that it got.
    asked: u64,
}

impl World {
    /// From now on nobody hears `at`, or is heard by it, but whoever sits in its place.
    pub(super) fn put_imposter(&mut self, at: usize) {
        let mut settings = self.settings(at);
        if settings.method == Method::Ike {
            // It makes its own key exchanges. An answer to a ticket takes nothing but a nonce, and the keys are
            // known to nobody then.
            settings.secret = Some(Arc::new(Secret::new([66; 32])));
        }
        let mut engine = Engine::new(settings, Box::new(Seeded(StdRng::seed_from_u64(0xbad))));
        engine.pass_for_foreign();
        for other in (0..self.hosts.len()).filter(|other| *other != at) {
            engine.keep(self.now, self.pair(at, other), Posture::Passive);
            self.net.cut.insert((self.hosts[at].address, self.hosts[other].address));
        }
        self.imposter = Some(Imposter { instead_of: at, engine, asked: 0 });
    }

    /// The imposter begins a handshake with `victim` in the name of the host in whose place it sits.
    fn knock(&mut self, victim: usize, seed: u64) {
        let Some(Imposter { instead_of, .. }) = self.imposter else { return };
        let secret = Some(Arc::new(Secret::new([66; 32])));
        self.knock_with(victim, seed, Settings { secret, ..self.settings(instead_of) });
    }

    fn knock_with(&mut self, victim: usize, seed: u64, settings: Settings) {
        let Some(Imposter { instead_of, .. }) = self.imposter else { return };
        let pair = self.pair(instead_of, victim);
        let settings = Settings { method: Method::Ike, accept: vec![Method::Ike], ..settings };
        let mut engine = Engine::new(settings, Box::new(Seeded(StdRng::seed_from_u64(seed))));
        engine.keep(self.now, pair, Posture::Active);
        // It would leave the beginning to the other end for a while.
        engine.handle_timeout(self.now + 3 * SECOND);
        let first: Vec<Transmit> = std::iter::from_fn(|| engine.poll_transmit()).collect();
        if let Some(imposter) = &mut self.imposter {
            imposter.engine = engine;
        }
        for Transmit { local, remote, bytes } in first {
            let datagram = Datagram { local: remote, remote: local, arrived: self.now, bytes };
            self.on(victim, |agent, now, kernel| agent.handle_datagrams(now, kernel, &[datagram]));
        }
    }

    /// The true host is there again.
    fn remove_imposter(&mut self) -> Imposter {
        let imposter = self.imposter.take().expect("there is one");
        let own = self.hosts[imposter.instead_of].address;
        self.net.cut.retain(|(from, _)| *from != own);
        imposter
    }

    /// Somebody sits in the place of the host that `packet` goes to.
    pub(super) fn deceive(&mut self, packet: Packet, inboxes: &mut BTreeMap<usize, Vec<Datagram>>) {
        let (Some(imposter), Packet::Ike { from, to, bytes }) = (&mut self.imposter, packet) else { return };
        let victim =
            self.hosts.iter().position(|host| host.address == from.ip()).expect("packets come from hosts");
        imposter.asked += u64::from(bytes[18] == IKE_AUTH);
        for Transmit { local, remote, bytes } in imposter.answer(self.now, to, from, &bytes) {
            let answer = Datagram { local: remote, remote: local, arrived: self.now, bytes };
            inboxes.entry(victim).or_default().push(answer);
        }
    }
}

impl Imposter {
    fn answer(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, bytes: &[u8]) -> Vec<Transmit> {
        if self.engine.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.engine.handle_timeout(now);
        }
        // What it cannot prove it does not answer. To what it has begun this is the answer.
        if bytes[18] != IKE_AUTH || bytes[19] & RESPONSE != 0 {
            self.engine.handle_datagram(now, local, remote, bytes);
        }
        while self.engine.poll_event().is_some() {}
        std::iter::from_fn(|| self.engine.poll_transmit()).collect()
    }
}

/// What the imposter knows keys of is what it has answered: the simulated kernel refuses any of it on a sealed pair.
#[test]
fn nothing_of_an_imposter_reaches_the_kernel_of_a_sealed_pair() {
    seeds(20, |seed| {
        let mut world = protected(2, seed, Weather::FAIR);
        let [victim, peer] = if seed % 2 == 0 { [0, 1] } else { [1, 0] };
        let pair = world.pair(victim, peer);
        let before = world.hosts[victim].kernel.spis(pair, Direction::In);
        world.put_imposter(peer);
        // A restart makes it ask at once; so does a peer that is silent for long.
        if seed % 4 < 2 {
            world.kill(victim);
            world.start(victim);
        }
        world.run(300 * SECOND, Some((SECOND, &[(victim, peer)])));
        let after = world.hosts[victim].kernel.spis(pair, Direction::In);
        assert!(after.iter().all(|spi| before.contains(spi)), "{before:?}, {after:?}");
        assert!(!world.hosts[victim].kernel.accepts_clear(pair));
        assert_ne!(world.hosts[victim].kernel.leaves(pair), Leaves::Clear);
        assert!(world.remove_imposter().asked > 0, "it was believed so far");
        assert!(world.run_until(120 * SECOND, World::all_protected), "{:?}", world.reason(victim, peer));
    });
}

/// On a pair in the clear it may have one, which is gone when that is sealed.
#[test]
fn what_an_imposter_has_on_a_pair_in_the_clear_goes_before_that_is_sealed() {
    seeds(20, |seed| {
        let mut world = World::new(2, seed, Weather::FAIR);
        world.put_imposter(1);
        world.enable(0);
        let pair = world.pair(0, 1);
        let ahead = |world: &World| !world.hosts[0].kernel.spis(pair, Direction::In).is_empty();
        assert!(world.run_until(20 * SECOND, ahead), "nothing is lost by it");
        // An agent that dies leaves it, and the next one does not know whose it is.
        if seed % 2 == 0 {
            world.kill(0);
        }
        world.enable_with(0, true, None);
        assert!(!ahead(&world) && world.state(0, 1) == RowState::Blocked);
        world.run(60 * SECOND, None);
        assert!(!ahead(&world));
        world.remove_imposter();
        world.enable(1);
        assert!(world.run_until(120 * SECOND, World::all_protected));
    });
}

/// Somebody who sees what is sent to a peer's address fails to prove that he is that peer, thousands of times: the pair
/// that is protected shows nothing of it, and the log a line a minute.
#[test]
fn refused_handshakes_change_nothing_that_is_shown_and_fill_no_log() {
    let log = Log::listen();
    // Of a protected pair with an IKE SA, and of one whose agent has just been started anew.
    for restarted in [false, true] {
        let mut world = protected(2, 0, Weather::FAIR);
        world.put_imposter(1);
        if restarted {
            world.kill(0);
            world.start(0);
        }
        let pair = world.pair(0, 1);
        log.take_warnings();
        for seed in 0..1_000 {
            world.knock(0, seed);
            world.run(5 * MILLISECOND, None);
            let core = world.hosts[0].core().unwrap();
            let machine = &core.pairs()[&pair];
            assert_eq!(machine.row_state(), RowState::Protected);
            assert_eq!((machine.reason(), machine.unrenewed()), (None, None), "restarted: {restarted}");
            let [keys, _, sessions, half_open] = core.sizes();
            assert!(keys == 0 && sessions <= 20 && half_open <= 16);
        }
        let lines = log.take_warnings();
        assert!(lines <= 2, "{lines} lines, restarted: {restarted}");
    }
    // A pair that is not protected: the operator hears why, once a minute, and sees it in `status`.
    let mut world = World::new(2, 0, Weather::FAIR);
    world.enable(0);
    world.put_imposter(1);
    log.take_warnings();
    for seed in 0..1_000 {
        world.knock(0, 10_000 + seed);
        world.run(5 * MILLISECOND, None);
    }
    let lines = log.take_warnings();
    assert!((1..=4).contains(&lines), "{lines} lines");
    assert!(world.reason(0, 1).is_some());
}

/// A member gone bad proves who it is again and again, and asks each time for a child that it cannot have: the log gets
/// a line a minute of that.
#[test]
fn a_member_fills_no_log_either() {
    let log = Log::listen();
    let mut world = protected(2, 0, Weather::FAIR);
    world.put_imposter(1);
    log.take_warnings();
    for seed in 0..1_000 {
        let settings = world.settings(1);
        let esp_proposals = Proposals::of_key_bits(128);
        world.knock_with(0, seed, Settings { esp_proposals, ..settings });
        world.run(5 * MILLISECOND, None);
    }
    let lines = log.take_warnings();
    assert!((1..=4).contains(&lines), "{lines} lines");
}
