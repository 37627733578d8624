//! Somebody who sees our first message answers it, too, and sooner than the peer.

use std::time::Duration;

use super::net::{Dice, Net, SECRET, by, by_each_method, pair, settings};
use crate::ike::wire::codes::notify;
use crate::ike::{Engine, FailureCode, Posture, Settings, Transmit};
use crate::types::{Method, Proposals};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Where the number of the exchange stands, and those of some.
const EXCHANGE: usize = 18;
const IKE_AUTH: u8 = 35;

/// Somebody in the place of host 1 who knows no secret. An answer to a ticket takes none.
fn forger(method: Method, seed: u64) -> Engine {
    let secret = if method == Method::Ike { [66; 32] } else { SECRET };
    Engine::new(by(method, secret), Box::new(Dice(seed)))
}

/// What the forger answers.
fn answers(net: &Net, forger: &mut Engine, request: &Transmit) -> Vec<Transmit> {
    forger.keep(net.now, pair(1, 0), Posture::Passive);
    forger.handle_datagram(net.now, request.remote, request.local, &request.bytes);
    while forger.poll_event().is_some() {}
    std::iter::from_fn(|| forger.poll_transmit()).collect()
}

/// Host 0 has sent its first message, which host 1 has answered. Gives back both; nothing has arrived at host 0 yet.
fn asked(settings: [Settings; 2]) -> (Net, Transmit, Transmit) {
    let mut net = Net::new(70, settings);
    let (request, answer) = net.hold_first_answer();
    net.cut = Box::new(|_| false);
    (net, request, answer)
}

fn two_by(method: Method) -> [Settings; 2] {
    [0, 1].map(|_| by(method, SECRET))
}

/// Several forged answers come first, and are followed up in vain.
fn the_true_answer_counts_however_late_it_comes(method: Method) {
    for forged in 1..=3 {
        let (mut net, request, answer) = asked(two_by(method));
        for seed in 0..forged {
            let lie = answers(&net, &mut forger(method, 80 + seed), &request).pop().unwrap();
            net.inject(&lie);
            // The same once more is the same.
            net.inject(&lie);
        }
        let tried = net.sent.iter().filter(|it| it.bytes[EXCHANGE] == IKE_AUTH).count();
        assert_eq!(tried as u64, forged, "each is followed up");
        net.inject(&answer);
        assert!(net.run_until(100 * MILLISECOND, |net| net.is_one_pair(0, 1)), "{forged} forged");
        net.run(20 * SECOND);
        net.assert_one_pair(0, 1);
        assert!(
            net.hosts.iter().all(|host| host.failures.is_empty() && host.engine.counters().sessions == 1)
        );
    }
}

/// The same with an additional exchange before IKE_AUTH.
#[test]
fn the_true_answer_counts_with_an_additional_exchange_too() {
    let hybrid = || Settings { ike_proposals: Proposals::default(), ..settings(SECRET) };
    let (mut net, request, answer) = asked([hybrid(), hybrid()]);
    let mut forger = Engine::new(Settings { secret: None, ..hybrid() }, Box::new(Dice(81)));
    for lie in answers(&net, &mut forger, &request) {
        net.inject(&lie);
    }
    net.inject(&answer);
    assert!(net.run_until(100 * MILLISECOND, |net| net.is_one_pair(0, 1)));
}

/// ```text
/// a  <-- IKE_SA_INIT ----        forged
/// a  --- IKE_AUTH ------>
/// a  <-- IKE_AUTH: N(AUTHENTICATION_FAILED) --   by who has made that key exchange
/// a  <-- IKE_SA_INIT ----  b
/// ```
#[test]
fn a_forged_no_does_not_end_an_attempt() {
    let (mut net, request, answer) = asked(two_by(Method::Ike));
    let mut forger = forger(Method::Ike, 82);
    let lie = answers(&net, &mut forger, &request).pop().unwrap();
    net.inject(&lie);
    let auth = net.sent.last().unwrap().clone();
    assert_eq!(auth.bytes[EXCHANGE], IKE_AUTH);
    let no = answers(&net, &mut forger, &auth).pop().unwrap();
    net.inject(&no);
    assert_eq!(net.hosts[0].failures, [FailureCode::AuthFailed], "it is told at once");
    net.inject(&answer);
    assert!(net.run_until(100 * MILLISECOND, |net| net.is_one_pair(0, 1)));
    assert_eq!(net.hosts[0].engine.summary(pair(0, 1)).unwrap().last_failure, None);
}

/// Two secrets are in use, and the peer knows the former one alone. That it says no is not hidden by an answer that nobody
/// goes on with: the former secret is tried.
/// ```text
/// a  <-- IKE_SA_INIT ----        forged
/// a  <-- IKE_SA_INIT ----  b
/// a  --- IKE_AUTH ------>        to each of them
/// a  <-- IKE_AUTH: N(AUTHENTICATION_FAILED) --  b
/// a  --- IKE_AUTH ------>        again, to nobody
/// a  --- IKE_SA_INIT ---->  b    with the former secret
/// ```
#[test]
fn a_forged_answer_that_leads_nowhere_does_not_hide_a_refusal() {
    for sooner in [false, true] {
        let rotating = Settings { previous: settings(SECRET).secret, ..settings([12; 32]) };
        let (mut net, request, answer) = asked([rotating, settings(SECRET)]);
        let lie = answers(&net, &mut forger(Method::Ike, 84), &request).pop().unwrap();
        let order = if sooner { [&lie, &answer] } else { [&answer, &lie] };
        order.into_iter().for_each(|answer| net.inject(answer));
        assert!(net.run_until(10 * SECOND, |net| net.is_one_pair(0, 1)), "sooner: {sooner}");
        assert!(net.hosts[0].failures.is_empty(), "nobody has to do anything");
    }
}

/// A copy of the true answer comes first, with something changed that no key depends on: who it is of, here. What is
/// said with those keys is said once.
fn a_changed_copy_of_the_answer_does_no_harm(method: Method) {
    for foreign in [false, true] {
        let (mut net, _, answer) = asked(two_by(method));
        let at = answer.bytes.windows(8).position(|octets| octets == b"hostseal").unwrap();
        let mut copy = answer.clone();
        // Another version is still ours, another name is not.
        copy.bytes[if foreign { at } else { at + 8 }] ^= 1;
        net.inject(&copy);
        net.inject(&answer);
        assert!(net.run_until(100 * MILLISECOND, |net| net.is_one_pair(0, 1)), "foreign: {foreign}");
        net.run(20 * SECOND);
        net.assert_one_pair(0, 1);
        assert!(!net.hosts[0].engine.summary(pair(0, 1)).unwrap().foreign, "that nobody has proven");
        let auths = net.sent.iter().filter(|it| it.bytes[EXCHANGE] == IKE_AUTH && it.local == Net::socket(0));
        assert_eq!(auths.count(), 1);
        assert!(net.hosts.iter().all(|host| host.failures.is_empty()));
    }
}

/// What was said in answer to such a copy says the life of its sender too: when that begins anew, nothing counts any
/// more that it has said before.
#[test]
fn a_life_is_told_to_who_looks_foreign() {
    let (mut net, _, answer) = asked(two_by(Method::Ike));
    net.hosts.iter_mut().for_each(|host| host.settles = false);
    net.inject(&changed(&answer));
    net.inject(&answer);
    assert!(net.run_until(100 * MILLISECOND, |net| net.is_one_pair(0, 1)));
    let former = net.child_of(1);
    net.call(0, |engine, now| engine.begin_anew(now, pair(0, 1)));
    assert!(net.run_until(10 * SECOND, |net| net.hosts[1].children.keys().any(|child| *child != former)));
    assert_eq!(net.hosts[1].engine.counters().sessions, 1);
}

/// `request` with an octet of who it is of changed, which no key depends on.
fn changed(request: &Transmit) -> Transmit {
    let mut copy = request.clone();
    let at = copy.bytes.windows(8).position(|octets| octets == b"hostseal").unwrap();
    copy.bytes[at] ^= 1;
    copy
}

/// `request` with a cookie in front that nobody has made (RFC 7296 section 2.6).
fn with_any_cookie(request: &Transmit) -> Transmit {
    let kind = notify::COOKIE.to_be_bytes();
    let cookie = [&[request.bytes[16], 0, 0, 16, 0, 0], &kind[..], &[7; 8]].concat();
    let mut bytes = [&request.bytes[..28], &cookie, &request.bytes[28..]].concat();
    bytes[16] = 41;
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    bytes[24..28].copy_from_slice(&length);
    Transmit { bytes, ..request.clone() }
}

/// Somebody who sees our first message sends copies of it to the peer, with something changed that no key depends on,
/// sooner than it arrives or later. The true one counts.
/// ```text
/// a  --- IKE_SA_INIT ---------->  b
///        IKE_SA_INIT, changed ->  b        of somebody on the path
/// a  --- IKE_AUTH ------------->  b        signs the first
/// ```
fn a_changed_copy_of_the_request_does_no_harm(method: Method) {
    for change in [changed, with_any_cookie] {
        for sooner in [false, true] {
            let mut net = Net::two_by(method, 71);
            net.cut = Box::new(|_| true);
            net.hosts[1].engine.keep(net.now, pair(1, 0), Posture::Passive);
            net.hosts[0].engine.keep(net.now, pair(0, 1), Posture::Active);
            net.run(Duration::ZERO);
            let request = net.sent.last().unwrap().clone();
            net.cut = Box::new(|_| false);
            let both = [request.clone(), change(&request)];
            let order = if sooner { [1, 0] } else { [0, 1] };
            order.into_iter().for_each(|at| net.inject(&both[at]));
            assert!(net.run_until(100 * MILLISECOND, |net| net.is_one_pair(0, 1)), "sooner: {sooner}");
            net.run(20 * SECOND);
            net.assert_one_pair(0, 1);
            assert!(net.hosts.iter().enumerate().all(|(at, host)| {
                let summary = host.engine.summary(pair(at, 1 - at)).unwrap();
                !summary.foreign && summary.last_failure.is_none() && host.engine.counters().sessions == 1
            }));
        }
    }
}

/// A flood of answers costs so much and no more, and ends no more than one attempt.
fn a_flood_of_answers_is_bounded(method: Method) {
    let (mut net, request, answer) = asked(two_by(method));
    for seed in 0..200 {
        let lie = answers(&net, &mut forger(method, 200 + seed), &request).pop().unwrap();
        net.inject(&lie);
    }
    net.inject(&answer);
    let counters = net.hosts[0].engine.counters();
    assert_eq!((counters.sessions, counters.answers_refused), (1, 197));
    let auths = net.sent.iter().filter(|it| it.bytes[EXCHANGE] == IKE_AUTH).count();
    assert_eq!(auths, 4);
    assert!(net.run_until(30 * SECOND, |net| net.is_one_pair(0, 1)));
    net.run(20 * SECOND);
    assert!(net.hosts.iter().all(|host| host.engine.counters().sessions == 1), "nothing is left of it");
}

/// The forged answer arrives, and the true one is lost: the peer is asked again.
fn the_peer_is_asked_again_while_a_forged_answer_is_followed_up(method: Method) {
    let (mut net, request, _) = asked(two_by(method));
    let lie = answers(&net, &mut forger(method, 83), &request).pop().unwrap();
    net.inject(&lie);
    assert!(net.run_until(SECOND, |net| net.is_one_pair(0, 1)));
    assert!(net.hosts.iter().all(|host| host.failures.is_empty()));
}

by_each_method![
    the_true_answer_counts_however_late_it_comes,
    a_changed_copy_of_the_answer_does_no_harm,
    a_changed_copy_of_the_request_does_no_harm,
    a_flood_of_answers_is_bounded,
    the_peer_is_asked_again_while_a_forged_answer_is_followed_up,
];
