//! Keys derived from the secret: IKE_SESSION_RESUME against a ticket that nobody hands out.

use std::time::Duration;

use proptest::prelude::*;

use super::net::{Dice, Net, SECRET, Weather, by, pair, seeds, settings};
use crate::identity::Secret;
use crate::ike::crypto::cipher::{Cipher, unpadded};
use crate::ike::crypto::keys::{Nonces, Seed, Spis, derive};
use crate::ike::crypto::suite::{OwnKe, choose_esp};
use crate::ike::handshake::ticket::{SUITE, Ticket};
use crate::ike::reason::{Incompatible, Reason, Refusal};
use crate::ike::session::exchange::Window;
use crate::ike::session::ike_sa::IkeSa;
use crate::ike::wire::codes::{Exchange, auth, notify, protocol, transform};
use crate::ike::wire::{Id, Message, Parts, Payload, Proposal, Transform, parse_chain};
use crate::ike::{FailureCode, Posture, Settings, Transmit};
use crate::types::{Method, Pair, Prf, Proposals, Spi};

const SECOND: Duration = Duration::from_secs(1);
const RESUME: u8 = 38;

/// Settings that make keys by `method`, and accept both.
fn migrating(method: Method) -> Settings {
    Settings { method, accept: Method::ALL.to_vec(), ..settings(SECRET) }
}

fn reconfigure(net: &mut Net, host: usize, settings: Settings) {
    net.call(host, |engine, now| engine.reconfigure(now, settings));
}

/// How the keys of the only child of each of two hosts were made.
fn methods(net: &Net) -> [Option<Method>; 2] {
    [(0, 1), (1, 0)].map(|(host, other)| {
        let in_spi = net.hosts[host].children.keys().next()?;
        net.hosts[host].engine.method_of(pair(host, other), *in_spi)
    })
}

fn exchanges(sent: &[Transmit]) -> Vec<u8> {
    sent.iter().map(|transmit| transmit.bytes[18]).collect()
}

fn nonce(datagram: &[u8]) -> Vec<u8> {
    Parts(&Message::parse(datagram).unwrap().payloads).nonce().unwrap().to_vec()
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    Prf::HmacSha256.compute(key, parts).expose().to_vec()
}

/// prf+ (RFC 7296 section 2.13) and HKDF-Expand (RFC 5869 section 2.3) are the same.
fn expand(key: &[u8], info: &[u8], octets: usize) -> Vec<u8> {
    let (mut stream, mut last) = (Vec::new(), Vec::new());
    for counter in 1..=8u8 {
        last = hmac(key, &[&last, info, &[counter]]);
        stream.extend(&last);
    }
    stream[..octets].to_vec()
}

/// Everything from the secret to the keys in the kernel once more, by the formulas.
///
/// ```text
/// a  --- HDR, Ni, N(TICKET_OPAQUE), … --->  b
/// a  <-- HDR, Nr, … ----------------------  b
/// a  --- HDR, SK{IDi, IDr, AUTH, …} ------>  b
/// a  <-- HDR, SK{IDr, AUTH, …} -----------  b
/// ```
#[test]
fn the_keys_are_what_the_formulas_say() {
    let mut net = Net::two_by(Method::Derived, 1);
    net.keep(0, 1);
    net.run(Duration::from_millis(20));
    net.assert_one_pair(0, 1);
    assert_eq!(exchanges(&net.sent)[..4], [RESUME, RESUME, 35, 35]);
    let (request, response) = (net.sent[0].bytes.clone(), net.sent[1].bytes.clone());
    let message = Message::parse(&request).unwrap();
    assert!(Parts(&message.payloads).ke().is_none() && Parts(&message.payloads).sa().is_err());

    // The ticket: version, suite, key id, both identities.
    let (i, r) = ([1, 10, 0, 0, 1], [1, 10, 0, 0, 2]);
    let extracted = hmac(&[0; 32], &[&SECRET]);
    let over = |label: &[u8], rest: &[u8]| [label, &[0, 0, 0, 4], b"test", rest].concat();
    let key_id = expand(&extracted, &over(b"hostseal derived 1: key id", &[]), 8);
    let ticket = [&[1, 1][..], &key_id, &i, &r].concat();
    assert_eq!(Parts(&message.payloads).notify(notify::TICKET_OPAQUE).unwrap().data, ticket);

    // RFC 5723 section 5.1, and SK_d | SK_ei | SK_er | SK_pi | SK_pr (RFC 5282 section 7: no SK_a).
    let old = expand(&extracted, &over(b"hostseal derived 1: SK_d", &[i, r].concat()), 32);
    let (ni, nr) = (nonce(&request), nonce(&response));
    let seed = hmac(&old, &[b"Resumption", &ni, &nr]);
    let info = [&ni[..], &nr, &response[..16]].concat();
    let stream = expand(&seed, &info, 3 * 32 + 2 * 36);
    let (sk_d, sk_ei, sk_pi) = (&stream[..32], &stream[32..68], &stream[104..136]);

    // AUTH of the initiator: prf(SK_pi, its message | Nr | prf(SK_pi, IDi)).
    let encrypted = Message::parse(&net.sent[2].bytes).unwrap().encrypted.unwrap();
    let text =
        Cipher::new(&SUITE, sk_ei, &[]).unwrap().decrypt(encrypted.associated, encrypted.body).unwrap();
    let payloads = parse_chain(encrypted.first, unpadded(&text).unwrap()).unwrap();
    let id = hmac(sk_pi, &[&[1, 0, 0, 0, 10, 0, 0, 1]]);
    let expected = hmac(sk_pi, &[&request, &nr, &id]);
    assert_eq!(Parts(&payloads).auth(), Some((auth::SHARED_KEY, &expected[..])));

    // The child: prf+(SK_d, Ni | Nr), first what the initiator sends with.
    let keys = expand(sk_d, &[&ni[..], &nr].concat(), 72);
    let child = &net.hosts[0].children[&net.child_of(0)].child;
    assert!(child.out_key.expose() == &keys[..36] && child.in_key.expose() == &keys[36..]);
}

/// Neither the nonces nor the indexes come twice, so neither do the keys, though the ticket is the same.
#[test]
fn a_ticket_is_used_many_times_and_no_key_is() {
    let mut keys = Vec::new();
    for seed in seeds(5) {
        let mut net = Net::two_by(Method::Derived, seed);
        net.keep(0, 1);
        net.run(SECOND);
        keys.push(net.hosts[0].children[&net.child_of(0)].child.in_key.expose().to_vec());
    }
    for (at, key) in keys.iter().enumerate() {
        assert!(!keys[..at].contains(key));
    }
}

/// The tickets of both directions, of another secret, cluster or pair stand for something else each.
#[test]
fn what_a_ticket_stands_for_is_bound_to_all_of_it() {
    let [secret, other] = [SECRET, [8; 32]].map(Secret::new);
    let [one, two] = [pair(0, 1), pair(0, 2)];
    let back = Pair { local: one.remote, remote: one.local };
    let of = |secret: &Secret, cluster: &str, pair| {
        let ticket = Ticket::to_present(secret, cluster, pair);
        (ticket.to_bytes(), ticket.sk_d(secret, cluster).expose().to_vec())
    };
    let all = [
        of(&secret, "test", one),
        of(&secret, "test", back),
        of(&secret, "test", two),
        of(&secret, "other", one),
        of(&other, "test", one),
    ];
    for (at, (ticket, sk_d)) in all.iter().enumerate() {
        assert!(all[..at].iter().all(|(before, stood_for)| before != ticket && stood_for != sk_d));
    }
}

proptest! {
    #[test]
    fn a_ticket_is_read_as_it_is_written(key_id in any::<[u8; 8]>(), v6 in any::<bool>(), a in any::<[u8; 16]>()) {
        let id = |bytes: [u8; 16]| match v6 {
            true => Id::of(bytes.into()),
            false => Id::of([bytes[0], bytes[1], bytes[2], bytes[3]].into()),
        };
        let ticket = Ticket { key_id, initiator: id(a), responder: id(a.map(|octet| !octet)) };
        let bytes = ticket.to_bytes();
        prop_assert_eq!(Ticket::parse(&bytes), Ok(ticket));
        for cut in 0..bytes.len() {
            prop_assert!(Ticket::parse(&bytes[..cut]).is_err());
        }
        prop_assert!(Ticket::parse(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn what_is_no_ticket_does_not_panic(head in 0u8..3, bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = Ticket::parse(&bytes);
        let likely = [&[1, head][..], &bytes].concat();
        if let Ok(ticket) = Ticket::parse(&likely) {
            prop_assert_eq!(ticket.to_bytes(), likely);
        }
    }
}

/// Host 0 has begun, and nothing has arrived; host 1 waits with `settings`.
fn begun(seed: u64, settings: [Settings; 2]) -> Net {
    let mut net = Net::new(seed, settings);
    net.cut = Box::new(|_| true);
    let now = net.now;
    net.call(0, |engine, now| engine.keep(now, pair(0, 1), Posture::Active));
    net.call(1, |engine, now| engine.keep(now, pair(1, 0), Posture::Passive));
    net.run(Duration::ZERO);
    assert!(net.now == now && net.sent.len() == 1);
    net
}

fn derived() -> [Settings; 2] {
    [Method::Derived; 2].map(|method| by(method, SECRET))
}

/// What a datagram in the clear says by notification.
fn notifies(transmit: &Transmit, kind: u16) -> bool {
    Parts(&Message::parse(&transmit.bytes).unwrap().payloads).notify(kind).is_some()
}

/// ```text
/// a  --- HDR, Ni, N(TICKET_OPAQUE) --->  b   which has another secret, or is not to derive keys
/// a  <-- HDR, N(TICKET_NACK) ----------  b   remembers nothing
/// ```
#[test]
fn a_ticket_that_is_not_taken_leaves_no_trace() {
    let others = [
        by(Method::Derived, [8; 32]),
        by(Method::Ike, SECRET),
        Settings { cluster: "other".to_owned(), ..by(Method::Derived, SECRET) },
    ];
    for other in others {
        let mut net = begun(2, [by(Method::Derived, SECRET), other]);
        let request = net.sent[0].clone();
        net.inject(&request);
        assert!(notifies(&net.sent[1], notify::TICKET_NACK));
        assert_eq!(net.hosts[1].engine.counters().sessions, 0);
        let nack = net.sent[1].clone();
        net.inject(&nack);
        assert_eq!(net.hosts[0].failures, [FailureCode::AuthFailed], "it is told at once");
    }
}

/// Every octet of a ticket counts.
#[test]
fn a_changed_ticket_is_not_taken() {
    let net = begun(3, derived());
    let request = net.sent[0].clone();
    let parsed = Message::parse(&request.bytes).unwrap();
    let ticket = Parts(&parsed.payloads).notify(notify::TICKET_OPAQUE).unwrap().data.clone();
    let at = request.bytes.windows(ticket.len()).position(|window| window == ticket).unwrap();
    for octet in at..at + ticket.len() {
        let mut net = begun(3, derived());
        let mut changed = request.clone();
        changed.bytes[octet] ^= 1;
        net.inject(&changed);
        assert!(notifies(&net.sent[1], notify::TICKET_NACK), "octet {}", octet - at);
        assert_eq!(net.hosts[1].engine.counters().sessions, 0);
    }
}

/// TICKET_NACK in the clear may be anybody's: the true answer still counts.
#[test]
fn a_forged_nack_changes_nothing() {
    let mut net = begun(4, derived());
    let mut bytes = net.sent[0].bytes[..28].to_vec();
    bytes[16] = 41;
    bytes[19] = 0x20;
    bytes.extend([0, 0, 0, 8, 0, 0]);
    bytes.extend(notify::TICKET_NACK.to_be_bytes());
    bytes[24..28].copy_from_slice(&36u32.to_be_bytes());
    let forged = Transmit { local: Net::socket(1), remote: Net::socket(0), bytes };
    net.inject(&forged);
    net.inject(&forged);
    assert_eq!(net.hosts[0].failures, [FailureCode::AuthFailed], "it is told at once, and once");
    net.cut = Box::new(|_| false);
    net.run(SECOND);
    net.assert_one_pair(0, 1);
    assert_eq!(net.hosts[0].engine.summary(pair(0, 1)).unwrap().last_failure, None);
    // Nor does it touch what there is.
    net.inject(&forged);
    net.run(SECOND);
    net.assert_one_pair(0, 1);
}

/// No downgrade: who is to derive keys does not negotiate any, and does no Diffie-Hellman for anybody.
#[test]
fn a_host_that_only_derives_refuses_to_negotiate() {
    let mut net = begun(5, [by(Method::Ike, SECRET), by(Method::Derived, SECRET)]);
    let request = net.sent[0].clone();
    net.inject(&request);
    assert!(notifies(&net.sent[1], notify::NO_PROPOSAL_CHOSEN));
    assert_eq!(net.hosts[1].engine.counters().sessions, 0);
}

/// The end of an exchange that a test makes by itself.
struct Forger {
    sa: IkeSa,
    prove: Vec<u8>,
    request: Vec<u8>,
    nonce: Vec<u8>,
}

impl Forger {
    /// Host 0's end of the exchange that these two messages made.
    fn new(net: &Net, request: &[u8], response: &[u8]) -> Self {
        let ticket = Ticket::to_present(&Secret::new(SECRET), "test", pair(0, 1));
        let sk_d = ticket.sk_d(&Secret::new(SECRET), "test");
        let nonces = Nonces { initiator: nonce(request), responder: nonce(response) };
        let spi = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
        let spis = Spis { initiator: spi(&response[..8]), responder: spi(&response[8..16]) };
        let (keys, proofs) = derive(SUITE, &Seed::Resumed(&sk_d), &nonces, spis, true).unwrap();
        let sa = IkeSa::new(spis, true, keys, Window::new(2, 0), None, net.now);
        let prove = proofs.mine.expose().to_vec();
        Self { sa, prove, request: request.to_vec(), nonce: nonces.responder }
    }

    /// IKE_AUTH with these identities, whose AUTH is changed by `change`.
    fn auth(&mut self, initiator: &Id, responder: Option<&Id>, method: u8, change: u8) -> Transmit {
        let id = hmac(&self.prove, &[&initiator.body()]);
        let mut data = hmac(&self.prove, &[&self.request, &self.nonce, &id]);
        data[0] ^= change;
        let mut payloads = vec![Payload::IdI(initiator.clone())];
        payloads.extend(responder.cloned().map(Payload::IdR));
        payloads.push(Payload::Auth { method, data });
        let encrypted = self.sa.encrypt(&mut Dice(1), Exchange::IKE_AUTH, false, 1, &payloads).unwrap();
        Transmit { local: Net::socket(0), remote: Net::socket(1), bytes: encrypted[0].clone() }
    }

    /// What the answer says that it cannot read.
    fn refusal(&self, answer: &Transmit) -> Option<Refusal> {
        let encrypted = Message::parse(&answer.bytes).unwrap().encrypted.unwrap();
        let text = self.sa.decrypt(&encrypted).unwrap().unwrap();
        Parts(&parse_chain(encrypted.first, &text).unwrap()).refusal()
    }
}

/// Whoever knows the secret and says to be somebody else, or that it talks to somebody else, is refused; so is
/// a proof that is not right in any way.
#[test]
fn auth_must_be_right_in_every_part() {
    let [a, b, c] = [0, 1, 2].map(|host| Id::of(super::net::address(host)));
    let wrong = [
        (&c, Some(&b), auth::SHARED_KEY, 0),
        (&a, Some(&c), auth::SHARED_KEY, 0),
        (&a, None, auth::SHARED_KEY, 0),
        (&a, Some(&b), auth::DIGITAL_SIGNATURE, 0),
        (&a, Some(&b), auth::SHARED_KEY, 1),
    ];
    for (at, (initiator, responder, method, change)) in wrong.into_iter().enumerate() {
        let mut net = begun(6, derived());
        let request = net.sent[0].clone();
        net.inject(&request);
        let response = net.sent[1].clone();
        let mut forger = Forger::new(&net, &request.bytes, &response.bytes);
        let forged = forger.auth(initiator, responder, method, change);
        net.inject(&forged);
        let answer = net.sent.last().unwrap().clone();
        assert_eq!(forger.refusal(&answer), Some(Refusal::Authentication), "{at}");
        assert!(!net.hosts[1].engine.summary(pair(1, 0)).unwrap().established, "{at}");
    }
    // The same without a mistake is believed.
    let mut net = begun(6, derived());
    let request = net.sent[0].clone();
    net.inject(&request);
    let response = net.sent[1].clone();
    let right = Forger::new(&net, &request.bytes, &response.bytes).auth(&a, Some(&b), auth::SHARED_KEY, 0);
    net.inject(&right);
    assert!(net.hosts[1].engine.summary(pair(1, 0)).unwrap().established);
}

/// All that was said is said again to a host that has begun anew: the ticket is good, the nonce is another one.
#[test]
fn a_recorded_session_cannot_be_played_again() {
    let mut net = Net::two_by(Method::Derived, 7);
    net.keep(0, 1);
    net.run(SECOND);
    let recorded: Vec<_> = net.sent.iter().filter(|sent| sent.local == Net::socket(0)).cloned().collect();
    net.cut = Box::new(|_| true);
    net.restart(1, by(Method::Derived, SECRET));
    net.call(1, |engine, now| engine.keep(now, pair(1, 0), Posture::Passive));
    for transmit in &recorded {
        net.inject(transmit);
    }
    assert!(net.hosts[1].children.is_empty());
    assert!(!net.hosts[1].engine.summary(pair(1, 0)).unwrap().established);
    net.run(20 * SECOND);
    assert_eq!(net.hosts[1].engine.counters().sessions, 0, "what nobody completes expires");
}

/// ```text
/// a  --- IKE_SESSION_RESUME, IKE_AUTH --->  b     for its age
/// a  --- D (the session before) --------->  b
/// ```
#[test]
fn an_ike_sa_is_succeeded_by_another_that_resumes() {
    for aged in [0, 1] {
        let mut net = Net::two_by(Method::Derived, 8);
        net.keep(0, 1);
        net.run(SECOND);
        let (child, before) = (net.child_of(0), net.sent.len());
        net.call(aged, |engine, now| engine.rekey_ike(now, pair(aged, 1 - aged)));
        net.run(5 * SECOND);
        net.assert_one_pair(0, 1);
        assert_ne!(net.child_of(0), child, "its child has taken over");
        assert!(exchanges(&net.sent[before..]).iter().all(|exchange| [RESUME, 35, 37].contains(exchange)));
        assert!(net.hosts.iter().all(|host| host.failures.is_empty()));
        // It is done once.
        let sent = net.sent.len();
        net.run(60 * SECOND);
        assert_eq!(net.sent.len(), sent);
    }
}

/// The peer is away when the time has come: what there is goes on, and the successor comes when it is back.
#[test]
fn an_ike_sa_that_cannot_be_succeeded_goes_on() {
    let mut net = Net::two_by(Method::Derived, 9);
    net.keep(0, 1);
    net.run(SECOND);
    let child = net.child_of(0);
    net.cut = Box::new(|_| true);
    net.call(0, |engine, now| engine.rekey_ike(now, pair(0, 1)));
    net.run(120 * SECOND);
    assert_eq!(net.child_of(0), child);
    net.cut = Box::new(|_| false);
    assert!(net.run_until(600 * SECOND, |net| net.is_one_pair(0, 1) && net.child_of(0) != child));
}

/// Who asks for a Diffie-Hellman exchange of a child's own gets none, and no child where it insists.
#[test]
fn a_child_has_no_diffie_hellman_of_its_own() {
    let offer = |groups: &[u16]| {
        let mut transforms = vec![
            Transform::keyed(transform::ENCR, transform::ENCR_AES_GCM_16, 256),
            Transform::new(transform::ESN, transform::ESN_YES),
        ];
        transforms.extend(groups.iter().map(|group| Transform::new(transform::DH, *group)));
        let spi = Spi(0xc000_0000).0.to_be_bytes().to_vec();
        [Proposal { number: 1, protocol: protocol::ESP, spi, transforms }]
    };
    let choose = |groups: &[u16]| {
        let ours = Proposals::default().without_key_exchange();
        let own_ke = OwnKe::Brought(groups.last().copied());
        choose_esp(&ours, &offer(groups), own_ke).map(|choice| choice.key_exchange)
    };
    assert_eq!(choose(&[]), Ok(None));
    assert_eq!(choose(&[transform::DH_NONE, transform::DH_CURVE25519]), Ok(None));
    assert!(matches!(
        choose(&[transform::DH_CURVE25519]),
        Err(Reason::Incompatible(Incompatible::Algorithms(_)))
    ));
}

/// ```text
/// both    accept both methods
/// first   derives: IKE_SESSION_RESUME where it is the one that began
/// second  derives
/// both    accept the new method only
/// ```
#[test]
fn a_method_is_changed_one_host_after_the_other() {
    use Method::{Derived, Ike};
    for (from, to) in [(Ike, Derived), (Derived, Ike)] {
        for (first, second) in [(0, 1), (1, 0)] {
            let mut net = Net::two_by(from, 10);
            net.keep(0, 1);
            net.run(SECOND);
            let child = net.child_of(0);
            for host in [first, second] {
                reconfigure(&mut net, host, migrating(from));
                net.run(30 * SECOND);
            }
            assert_eq!(net.child_of(0), child, "what is only accepted changes nothing");
            for host in [first, second] {
                reconfigure(&mut net, host, migrating(to));
                net.run(30 * SECOND);
                net.assert_one_pair(0, 1);
            }
            assert_eq!(methods(&net), [Some(to); 2]);
            let child = net.child_of(0);
            for host in [first, second] {
                reconfigure(&mut net, host, by(to, SECRET));
                net.run(60 * SECOND);
            }
            assert_eq!(net.child_of(0), child, "nothing is left to do");
            for host in &net.hosts {
                assert!(host.failures.is_empty(), "{from} to {to}: {:?}", host.failures);
                assert!(!host.log.iter().any(|line| line.starts_with("Failed")));
            }
        }
    }
}

#[test]
fn a_change_of_method_under_loss_ends_with_one_session() {
    for seed in seeds(20) {
        let mut net = Net::new(seed, [Method::Ike; 2].map(migrating));
        net.keep(0, 1);
        net.run(SECOND);
        net.weather = Weather { loss: 30, duplication: 20, delay: 50 };
        for host in [0, 1] {
            reconfigure(&mut net, host, migrating(Method::Derived));
            net.run(10 * SECOND);
        }
        net.run(30 * SECOND);
        net.weather = Weather::default();
        let derived = [Some(Method::Derived); 2];
        let done = net.run_until(600 * SECOND, |net| net.is_one_pair(0, 1) && methods(net) == derived);
        assert!(done, "seed {seed}");
    }
}

/// One end drops its earlier method while the other knows no other: the keys there are last as long as a child
/// does, and heal everything if the other end follows in time.
#[test]
fn a_method_that_is_dropped_too_early_costs_nothing_for_a_while() {
    for dropping in [0, 1] {
        let mut net = Net::two(11);
        net.keep(0, 1);
        net.run(SECOND);
        let child = net.child_of(0);
        reconfigure(&mut net, dropping, by(Method::Derived, SECRET));
        net.run(600 * SECOND);
        assert_eq!(net.child_of(0), child);
        let summary = net.hosts[dropping].engine.summary(pair(dropping, 1 - dropping)).unwrap();
        assert!(summary.notice.is_some() && summary.unproven.is_some());
        reconfigure(&mut net, 1 - dropping, by(Method::Derived, SECRET));
        assert!(net.run_until(60 * SECOND, |net| net.is_one_pair(0, 1) && net.child_of(0) != child));
        assert_eq!(methods(&net), [Some(Method::Derived); 2]);
    }
}

/// A session that takes over for the age of another brings a child: that one's is not replaced about then, too.
#[test]
fn no_more_children_are_made_than_their_age_asks_for() {
    const LIFE: Duration = Duration::from_secs(60);
    for seed in 0..8 {
        let derived = || Settings { rekey_after: LIFE, ..by(Method::Derived, SECRET) };
        let mut net = Net::new(800 + seed, [derived(), derived()]);
        net.keep(0, 1);
        net.run(30 * LIFE);
        // One may just be taking over from another.
        assert!(net.run_until(LIFE / 10, |net| net.is_one_pair(0, 1)));
        net.assert_one_pair(0, 1);
        let made = net.hosts[0].log.iter().filter(|line| line.starts_with("ChildAgreed")).count();
        // An SA is replaced at 85 % of its life at the earliest.
        assert!((30..=36).contains(&made), "{made} children in thirty lives");
    }
}
