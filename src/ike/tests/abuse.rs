//! What those do who mean harm: floods, replays, and proofs with something wrong in them.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use super::net::{Dice, Net, by_each_method, pair};
use crate::ike::reason::Refusal;
use crate::ike::wire::codes::{Exchange, notify};
use crate::ike::wire::{Id, Parts, Payload, Proposal, TrafficSelector, Transform, parse_chain, write_chain};
use crate::ike::{Draft, FailureCode, Posture, stop_tampering, tamper};
use crate::types::{Method, Pair};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

// ---------------------------------------------------------------------- floods

/// Requests of a flood.
const FLOOD: u32 = 50_000;
/// In so many milliseconds.
const FLOOD_TIME: u32 = 2_500;
/// The members whose addresses it forges, besides that of the one who means well.
const FORGED: u8 = 250;

fn forged(at: u8) -> IpAddr {
    IpAddr::from([10, 1, 0, at])
}

/// A host that has a member at each forged address, and is flooded with first requests from all of them, while
/// one member, whose address is forged too, begins in the middle of it. With `receives` the flooder sees what is
/// sent to the forged addresses and returns each cookie.
fn flooded(method: Method, receives: bool) -> Net {
    let mut net = Net::two_by(method, 60);
    let (now, local) = (net.now, Net::socket(1));
    net.hosts[0].engine.keep(now, pair(0, 1), Posture::Active);
    net.run(Duration::ZERO);
    let mut request = net.sent[0].clone();
    net.hosts[0].engine.forget(now, pair(0, 1));
    net.run(20 * SECOND);
    let now = net.now;
    net.hosts[1].engine.keep(now, pair(1, 0), Posture::Passive);
    for remote in (0..FORGED).map(forged) {
        net.hosts[1].engine.keep(now, Pair { local: local.ip(), remote }, Posture::Passive);
    }
    let mut dice = Dice(61);
    for count in 0..FLOOD {
        let by = u8::try_from(dice.below(u64::from(FORGED) + 1)).unwrap();
        let remote = SocketAddr::new(if by == FORGED { Net::socket(0).ip() } else { forged(by) }, 500);
        request.bytes[..8].copy_from_slice(&dice.roll().to_be_bytes());
        let victim = &mut net.hosts[1].engine;
        victim.handle_datagram(net.now, local, remote, &request.bytes);
        let answer = victim.poll_transmit();
        if let Some(cookie) = answer.filter(|answer| receives && by != FORGED && has_cookie(&answer.bytes)) {
            let with_cookie = with_cookie(&request.bytes, &cookie.bytes);
            victim.handle_datagram(net.now, local, remote, &with_cookie);
            while victim.poll_transmit().is_some() {}
        }
        if count % (FLOOD / FLOOD_TIME) == 0 {
            net.run(MILLISECOND);
            net.sent.clear();
        }
        if count == FLOOD / 4 {
            net.hosts[0].engine.keep(net.now, pair(0, 1), Posture::Active);
        }
        let counters = net.hosts[1].engine.counters();
        let most = if receives { u64::from(FORGED) * 16 + 16 } else { 64 + u64::from(FORGED) };
        assert!(counters.half_open <= most && counters.sessions <= most + 1, "{counters:?}");
    }
    net
}

/// Its only payload is N(COOKIE).
pub(super) fn has_cookie(answer: &[u8]) -> bool {
    answer[16] == 41 && answer[34..36] == notify::COOKIE.to_be_bytes()
}

/// The request with the cookie of `answer` in front (RFC 7296 section 2.6).
pub(super) fn with_cookie(request: &[u8], answer: &[u8]) -> Vec<u8> {
    let mut cookie = answer[28..].to_vec();
    cookie[0] = request[16];
    let mut bytes = [&request[..28], &cookie, &request[28..]].concat();
    bytes[16] = 41;
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    bytes[24..28].copy_from_slice(&length);
    bytes
}

fn a_peer_connects_within_three_seconds_through_a_flood(method: Method) {
    for receives in [false, true] {
        let mut net = flooded(method, receives);
        // It began when a quarter of the flood had come.
        let begun = FLOOD_TIME * 3 / 4 * MILLISECOND;
        assert!(net.run_until(3 * SECOND - begun, |net| net.is_one_pair(0, 1)), "receives: {receives}");
        net.run(20 * SECOND);
        net.assert_one_pair(0, 1);
        let counters = net.hosts[1].engine.counters();
        assert_eq!((counters.half_open, counters.sessions), (0, 1), "all of it is forgotten: {counters:?}");
        // A ticket names its two hosts: the others are refused, and nothing is kept of them.
        let least = if method == Method::Ike { u64::from(FLOOD / 2) } else { 100 };
        assert!(counters.cookies > least, "{counters:?}");
        assert_eq!(net.hosts[0].engine.counters().sessions, 1);
    }
}

// ---------------------------------------------------------------------- replays

/// All that two hosts have said through rekeys of everything comes again, in any order, several times.
fn old_messages_in_any_order_change_nothing(method: Method) {
    let mut net = Net::two_by(method, 62);
    net.keep(0, 1);
    net.run(SECOND);
    for host in [0, 1, 0] {
        let child = net.child_of(host);
        net.call(host, |engine, now| engine.rekey_child(now, pair(host, 1 - host), child));
        net.run(3 * SECOND);
        net.call(host, |engine, now| engine.rekey_ike(now, pair(host, 1 - host)));
        net.run(3 * SECOND);
        net.call(host, |engine, now| engine.check_liveness(now, pair(host, 1 - host)));
        net.run(3 * SECOND);
    }
    net.run(60 * SECOND);
    let child = net.child_of(0);
    let recorded = std::mem::take(&mut net.sent);
    assert!(recorded.len() > 40, "{}", recorded.len());
    let log = net.hosts.iter().map(|host| host.log.len()).sum::<usize>();
    let mut dice = Dice(63);
    for _ in 0..5 * recorded.len() {
        let old = &recorded[usize::try_from(dice.below(recorded.len() as u64)).unwrap()];
        net.inject(old);
        net.run(MILLISECOND);
    }
    // Old first requests may be answered, and are forgotten.
    net.run(30 * SECOND);
    net.assert_one_pair(0, 1);
    assert_eq!(net.child_of(0), child);
    assert_eq!(net.hosts.iter().map(|host| host.log.len()).sum::<usize>(), log, "nothing happened");
    assert!(net.hosts.iter().all(|host| host.engine.counters().sessions == 1));
    // It is still the same IKE SA, in which numbers go on.
    net.call(0, |engine, now| engine.rekey_child(now, pair(0, 1), child));
    net.run(3 * SECOND);
    net.assert_one_pair(0, 1);
    assert_ne!(net.child_of(0), child);
}

// ---------------------------------------------------------------------- proofs

type Change = fn(&mut Vec<Payload>);

/// The errors that answers say, by exchange.
type Said = Rc<RefCell<Vec<(u8, Refusal)>>>;

/// IKE_AUTH, the request or the answer, is changed before it is encrypted. Gives back what is said of it.
fn auth_changed(answer: bool, change: Change) -> Said {
    let said = Said::default();
    let heard = said.clone();
    tamper(move |draft: &mut Draft| {
        let mut payloads = parse_chain(draft.first, &draft.text).unwrap();
        if draft.exchange == Exchange::IKE_AUTH.0 && draft.response == answer {
            change(&mut payloads);
            draft.text.clear();
            write_chain(&payloads, &mut draft.text);
            draft.first = payloads.first().map_or(0, Payload::kind);
        } else if let Some(error) = Parts(&payloads).refusal() {
            heard.borrow_mut().push((draft.exchange, error));
        }
    });
    said
}

/// Changes the payloads that `pattern` matches.
macro_rules! in_each {
    ($payloads:expr, $pattern:pat => $change:expr) => {
        $payloads.iter_mut().for_each(|payload| {
            if let $pattern = payload {
                $change;
            }
        })
    };
}

fn elsewhere() -> Id {
    Id::of(IpAddr::from([10, 9, 9, 9]))
}

fn by_name() -> Id {
    Id { kind: 2, data: b"b.example".to_vec() }
}

/// What is wrong with who the sender says to be and how it proves it.
const WRONG_PROOFS: [(&str, Change); 9] = [
    ("one bit of AUTH", |all| in_each!(all, Payload::Auth { data, .. } => data[7] ^= 1)),
    ("AUTH cut short", |all| in_each!(all, Payload::Auth { data, .. } => data.truncate(16))),
    ("AUTH empty", |all| in_each!(all, Payload::Auth { data, .. } => data.clear())),
    ("AUTH of another method", |all| in_each!(all, Payload::Auth { method, .. } => *method = 1)),
    ("AUTH as a signature", |all| in_each!(all, Payload::Auth { method, .. } => *method = 14)),
    ("no AUTH", |all| all.retain(|payload| !matches!(payload, Payload::Auth { .. }))),
    ("another address", |all| in_each!(all, Payload::IdI(id) | Payload::IdR(id) => *id = elsewhere())),
    ("a name", |all| in_each!(all, Payload::IdI(id) | Payload::IdR(id) => *id = by_name())),
    ("no identity", |all| all.retain(|payload| !matches!(payload, Payload::IdI(_) | Payload::IdR(_)))),
];

/// ```text
/// a  --- IKE_AUTH: IDi, IDr, AUTH, …, one of them wrong --->  b
/// a  <-- IKE_AUTH: N(AUTHENTICATION_FAILED) ---------------  b
/// ```
fn a_wrong_proof_is_refused_by_either_end(method: Method) {
    for (what, change) in WRONG_PROOFS {
        for answer in [false, true] {
            let said = auth_changed(answer, change);
            let mut net = Net::two_by(method, 64);
            let now = net.now;
            net.hosts[1].engine.keep(now, pair(1, 0), Posture::Passive);
            net.hosts[0].engine.keep(now, pair(0, 1), Posture::Active);
            net.run(200 * MILLISECOND);
            stop_tampering();
            // The initiator of a session that the responder takes for established says so in its own
            // (RFC 7296 section 2.21.2).
            let exchange = if answer { Exchange::INFORMATIONAL } else { Exchange::IKE_AUTH };
            assert_eq!(said.borrow().first(), Some(&(exchange.0, Refusal::Authentication)), "{what}");
            assert_eq!(net.hosts[0].failures.first(), Some(&FailureCode::AuthFailed), "{what} {answer}");
            assert!(net.hosts[0].children.is_empty() && net.hosts[0].ahead.is_empty(), "{what} {answer}");
            assert!(!net.hosts[0].engine.summary(pair(0, 1)).unwrap().established, "{what} {answer}");
            if !answer {
                assert!(net.hosts[1].children.is_empty(), "{what}");
                assert!(!net.hosts[1].engine.summary(pair(1, 0)).unwrap().established, "{what}");
            }
            // It is no more than this attempt.
            net.run(60 * SECOND);
            assert!(net.is_one_pair(0, 1), "{what} {answer}");
        }
    }
}

fn only(transforms: Vec<Transform>) -> Vec<Proposal> {
    vec![Proposal { number: 1, protocol: 3, spi: vec![0xc0, 0, 0, 1], transforms }]
}

/// What is wrong with the child in a request, and how that is answered.
const WRONG_CHILDREN: [(&str, Change, Refusal); 8] = [
    (
        "a cipher that nobody has",
        |all| in_each!(all, Payload::Sa(offers) => *offers = only(vec![Transform::new(1, 3), Transform::new(5, 0)])),
        Refusal::Proposals,
    ),
    (
        "no transform at all",
        |all| in_each!(all, Payload::Sa(offers) => *offers = only(Vec::new())),
        Refusal::Proposals,
    ),
    (
        "an SPI that is reserved",
        |all| in_each!(all, Payload::Sa(offers) => offers.iter_mut().for_each(|offer| offer.spi = vec![0, 0, 0, 9])),
        Refusal::Proposals,
    ),
    ("no proposals", |all| all.retain(|payload| !matches!(payload, Payload::Sa(_))), Refusal::Syntax),
    (
        "selectors of others",
        |all| in_each!(all, Payload::TsI(ts) | Payload::TsR(ts) => *ts = vec![TrafficSelector::host(forged(1))]),
        Refusal::Selectors,
    ),
    (
        "selectors of one port",
        |all| in_each!(all, Payload::TsI(ts) => ts[0].ports = (80, 80)),
        Refusal::Selectors,
    ),
    ("no selectors", |all| all.retain(|payload| !matches!(payload, Payload::TsI(_))), Refusal::Selectors),
    (
        "tunnel mode",
        |all| all.retain(|it| !matches!(it, Payload::Notify(it) if it.kind == notify::USE_TRANSPORT_MODE)),
        Refusal::Proposals,
    ),
];

/// RFC 7296 section 1.2: the IKE SA is made, the child is not.
fn a_wrong_child_is_refused(method: Method) {
    for (what, change, error) in WRONG_CHILDREN {
        let said = auth_changed(false, change);
        let mut net = Net::two_by(method, 65);
        net.hosts[1].engine.keep(net.now, pair(1, 0), Posture::Passive);
        net.hosts[0].engine.keep(net.now, pair(0, 1), Posture::Active);
        net.run(200 * MILLISECOND);
        stop_tampering();
        assert_eq!(said.borrow().first(), Some(&(Exchange::IKE_AUTH.0, error)), "{what}");
        assert!(net.hosts[1].engine.summary(pair(1, 0)).unwrap().established, "{what}");
        assert!(net.hosts[1].log.iter().all(|line| !line.starts_with("ChildAgreed")), "{what}");
        net.run(60 * SECOND);
        assert!(net.is_one_pair(0, 1), "{what}");
    }
}

by_each_method![
    a_peer_connects_within_three_seconds_through_a_flood,
    old_messages_in_any_order_change_nothing,
    a_wrong_proof_is_refused_by_either_end,
    a_wrong_child_is_refused,
];
