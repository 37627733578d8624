//! Who is believed: each way to prove oneself, wrong keys, wrong names, and attempts to get away with less.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::net::{Host, Net, SECRET, address, pair, settings};
use crate::identity::{AuthMethod, Credentials, Expected, Identity, KeyKind, PrivateKey, PublicKey};
use crate::ike::auth::Signed;
use crate::ike::auth::peer::Peer;
use crate::ike::auth::signature::Hashes;
use crate::ike::crypto::Hidden;
use crate::ike::reason::{BadProof, Reason};
use crate::ike::wire::codes::{auth, notify};
use crate::ike::wire::{Id, Message, Parts, Payload};
use crate::ike::{FailureCode, Settings};
use crate::types::{NodeName, Prf};

const SECOND: Duration = Duration::from_secs(1);
const BOTH: [AuthMethod; 2] = [AuthMethod::Secret, AuthMethod::PublicKey];

/// A key pair, again and again: a private key cannot be cloned.
pub(super) struct Pem(pub(super) String);

impl Pem {
    pub(super) fn new(kind: KeyKind) -> Self {
        Self(PrivateKey::generate(kind).unwrap().to_string())
    }

    pub(super) fn key(&self) -> PrivateKey {
        PrivateKey::from_pem(&self.0).unwrap()
    }

    pub(super) fn public(&self) -> PublicKey {
        self.key().public().clone()
    }
}

/// What a host that proves itself with `identity` needs: the public keys of hosts 0, 1, … where they have
/// some, and what is accepted from all of them.
pub(super) fn knowing(identity: Identity, keys: &[Option<PublicKey>], accept: &[AuthMethod]) -> Settings {
    let expected = |at: usize, key: &Option<PublicKey>| {
        let node = serde_json::from_str(&format!("\"n{at}\"")).unwrap();
        let addresses = vec![address(at)];
        Arc::new(Expected {
            node,
            methods: accept.to_vec(),
            public_keys: key.clone().into_iter().collect(),
            addresses,
        })
    };
    let peers: HashMap<_, _> =
        keys.iter().enumerate().map(|(at, key)| (address(at), expected(at, key))).collect();
    let credentials =
        Arc::new(Credentials { identity: identity.into(), peers, others: None, ..Credentials::default() });
    let settings = settings(SECRET);
    let secret = settings.secret.filter(|_| accept.contains(&AuthMethod::Secret));
    Settings { credentials, secret, ..settings }
}

/// Two hosts with these keys, which accept nothing else; each believes the other's key to be what
/// `believed` says.
fn by_keys(seed: u64, own: [&Pem; 2], believed: [&Pem; 2]) -> Net {
    let keys = believed.map(|pem| Some(pem.public()));
    let host = |pem: &Pem| knowing(Identity::PublicKey(pem.key()), &keys, &[AuthMethod::PublicKey]);
    Net::new(seed, own.map(host))
}

/// Neither end has a child, and both know why: the end `finds` says `words`, the other one hears of it.
pub(super) fn assert_refused(net: &mut Net, finds: usize, words: &str) {
    net.keep(0, 1);
    net.run(6 * SECOND);
    for (at, host) in net.hosts.iter().enumerate() {
        assert!(host.children.is_empty(), "host {at}");
        assert!(!host.engine.summary(pair(at, 1 - at)).unwrap().established, "host {at}");
        assert!(host.failures.iter().all(|code| *code == FailureCode::AuthFailed), "{:?}", host.failures);
    }
    let said = |at: usize, words: &str| net.hosts[at].log.iter().any(|line| line.contains(words));
    assert!(said(finds, words), "{words:?} is not said by host {finds}");
    assert!(said(1 - finds, "rejected our authentication"), "the other one hears of it");
}

/// ```text
/// a  --- IKE_SA_INIT, N(SIGNATURE_HASH_ALGORITHMS) --->  b
/// a  <-- IKE_SA_INIT, N(SIGNATURE_HASH_ALGORITHMS) ----  b
/// a  --- IKE_AUTH, signed by a ----------------------->  b
/// a  <-- IKE_AUTH, signed by b ------------------------  b
/// ```
#[test]
fn keys_of_each_kind_prove_both_ends() {
    for kinds in [
        [KeyKind::Ed25519; 2],
        [KeyKind::EcdsaP256; 2],
        [KeyKind::EcdsaP384; 2],
        [KeyKind::Ed25519, KeyKind::EcdsaP256],
    ] {
        let pems = kinds.map(Pem::new);
        let mut net = by_keys(70, pems.each_ref(), pems.each_ref());
        net.keep(0, 1);
        net.run(SECOND);
        net.assert_one_pair(0, 1);
        for init in &net.sent[..2] {
            let message = Message::parse(&init.bytes).unwrap();
            assert!(Parts(&message.payloads).notify(notify::SIGNATURE_HASH_ALGORITHMS).is_some());
        }
        assert!(net.hosts.iter().all(|host| host.failures.is_empty()));
    }
}

/// Each proves itself as the other one expects it: with a key, and with the secret to whom has no key. Whoever begins.
/// Of those who may have an address, the one is named whose key has proven it. With the secret that may be anybody.
#[test]
fn who_speaks_for_an_address_that_floats_is_known_by_the_key() {
    let pems = [Pem::new(KeyKind::Ed25519), Pem::new(KeyKind::Ed25519)];
    let keys = pems.each_ref().map(|pem| Some(pem.public()));
    for (by_key, node) in [(true, Some("n1")), (false, None)] {
        let mut hosts = pems.each_ref().map(|pem| {
            let identity = if by_key { Identity::PublicKey(pem.key()) } else { Identity::Secret };
            knowing(identity, &keys, &BOTH)
        });
        let credentials = Arc::get_mut(&mut hosts[0].credentials).unwrap();
        let [n0, n1] = [0, 1].map(|at| credentials.peers[&address(at)].clone());
        credentials.floating.insert(address(1), vec![n0, n1]);
        let mut net = Net::new(52, hosts);
        net.keep(0, 1);
        net.run(SECOND);
        net.assert_one_pair(0, 1);
        assert_eq!(net.hosts[0].engine.node_of(pair(0, 1)).map(NodeName::as_str), node);
    }
}

#[test]
fn who_has_no_key_is_proven_by_the_secret_and_expects_it() {
    for begins in [0, 1] {
        let pem = Pem::new(KeyKind::Ed25519);
        let keys = [Some(pem.public()), None];
        let keyed = knowing(Identity::PublicKey(pem.key()), &keys, &[AuthMethod::Secret]);
        let credentials = Credentials {
            identity: Identity::PublicKey(pem.key()).into(),
            by_secret: [address(1)].into(),
            peers: keyed.credentials.peers.clone(),
            others: None,
            ..Credentials::default()
        };
        let keyed = Settings { credentials: Arc::new(credentials), ..keyed };
        let mut net = Net::new(75, [keyed, knowing(Identity::Secret, &keys, &[AuthMethod::Secret])]);
        net.keep(begins, 1 - begins);
        net.run(SECOND);
        net.assert_one_pair(begins, 1 - begins);
        assert!(net.hosts.iter().all(|host| host.failures.is_empty()));
    }
}

/// What was said before there were keys is said still, octet for octet.
#[test]
fn nothing_is_said_about_signatures_where_there_are_none() {
    let mut net = Net::two(71);
    net.keep(0, 1);
    net.run(SECOND);
    for init in &net.sent[..2] {
        let message = Message::parse(&init.bytes).unwrap();
        assert!(Parts(&message.payloads).notify(notify::SIGNATURE_HASH_ALGORITHMS).is_none());
    }
}

/// A host changes over from one key to another, while the other one accepts both.
#[test]
fn a_host_replaces_its_key_and_nothing_fails() {
    let [old, new, b] = [(); 3].map(|()| Pem::new(KeyKind::Ed25519));
    let host = |own: &Pem, of_a: &[&Pem]| {
        let keys = [Some(of_a[0].public()), Some(b.public())];
        let mut settings = knowing(Identity::PublicKey(own.key()), &keys, &[AuthMethod::PublicKey]);
        let credentials = Arc::get_mut(&mut settings.credentials).unwrap();
        let expected = Arc::get_mut(credentials.peers.get_mut(&address(0)).unwrap()).unwrap();
        expected.public_keys = of_a.iter().map(|pem| pem.public()).collect();
        settings
    };
    let mut net = Net::new(82, [host(&old, &[&old]), host(&b, &[&old])]);
    net.keep(0, 1);
    net.run(SECOND);
    let proves = |net: &Net, pem: &Pem| net.hosts[0].engine.proves_itself_with(&pem.public());
    assert!(proves(&net, &old) && !proves(&net, &new));
    net.call(1, |engine, now| engine.reconfigure(now, host(&b, &[&new, &old])));
    net.run(SECOND);
    assert!(proves(&net, &old));
    net.call(0, |engine, now| engine.reconfigure(now, host(&new, &[&new, &old])));
    assert!(!proves(&net, &new), "a session still rests on the old one");
    net.run(10 * SECOND);
    assert!(proves(&net, &new));
    net.call(1, |engine, now| engine.reconfigure(now, host(&b, &[&new])));
    net.run(10 * SECOND);
    assert!(proves(&net, &new) && net.hosts.iter().all(|host| host.failures.is_empty()));
    net.assert_one_pair(0, 1);
    // Whoever has the old one alone is not believed any more.
    let mut net = Net::new(83, [host(&old, &[&old]), host(&b, &[&new])]);
    assert_refused(&mut net, 1, "the peer's key is not the one configured for node n0");
}

#[test]
fn another_key_is_refused_by_whoever_sees_it() {
    let [a, b, other] = [(); 3].map(|()| Pem::new(KeyKind::Ed25519));
    let mut net = by_keys(72, [&other, &b], [&a, &b]);
    assert_refused(&mut net, 1, "the peer's key is not the one configured for node n0");
    let mut net = by_keys(73, [&a, &other], [&a, &b]);
    assert_refused(&mut net, 0, "the peer's key is not the one configured for node n1");
    let p256 = Pem::new(KeyKind::EcdsaP256);
    let mut net = by_keys(74, [&p256, &b], [&a, &b]);
    assert_refused(&mut net, 1, "the peer's key is not the one configured for node n0");
}

/// No member can pass for another: c has its own key, which all know, and sits at the address of b.
#[test]
fn a_member_cannot_pass_for_another() {
    let [a, b, c] = [(); 3].map(|()| Pem::new(KeyKind::Ed25519));
    let keys = [Some(a.public()), Some(b.public()), Some(c.public())];
    let host = |pem: &Pem| knowing(Identity::PublicKey(pem.key()), &keys, &[AuthMethod::PublicKey]);
    let mut net = Net::new(75, [host(&a), host(&c)]);
    assert_refused(&mut net, 0, "the peer's key is not the one configured for node n1");
    // With the shared secret it can: this is what the keys are for.
    let mut net = Net::two(76);
    net.keep(0, 1);
    net.run(SECOND);
    net.assert_one_pair(0, 1);
}

/// A peer that knows the secret, where keys are expected.
#[test]
fn the_secret_is_no_way_around_a_key() {
    let [a, b] = [(); 2].map(|()| Pem::new(KeyKind::Ed25519));
    let keys = [Some(a.public()), Some(b.public())];
    for (seed, strict) in [(77, 0), (78, 1)] {
        let lax = || knowing(Identity::Secret, &keys, &BOTH);
        let strict_one =
            knowing(Identity::PublicKey([&a, &b][strict].key()), &keys, &[AuthMethod::PublicKey]);
        let hosts = if strict == 0 { [strict_one, lax()] } else { [lax(), strict_one] };
        let mut net = Net::new(seed, hosts);
        let words = "the peer proves itself with the shared secret, and only its public key is accepted";
        assert_refused(&mut net, strict, words);
    }
}

#[test]
fn a_node_without_a_key_is_not_believed_by_one() {
    let [a, b] = [(); 2].map(|()| Pem::new(KeyKind::Ed25519));
    let keys = [Some(a.public()), None];
    let host = |pem: &Pem| knowing(Identity::PublicKey(pem.key()), &keys, &BOTH);
    let mut net = Net::new(79, [host(&a), host(&b)]);
    assert_refused(&mut net, 0, "the file has no public_key of node n1");
}

/// From the secret to keys, host by host: whatever mixture of the steps there is, it works.
#[test]
fn hosts_move_from_the_secret_to_keys_one_by_one() {
    let [a, b] = [(); 2].map(|()| Pem::new(KeyKind::Ed25519));
    let keys = [Some(a.public()), Some(b.public())];
    let step = |at: usize, step: usize| match step {
        // 1: accept keys too; 2: prove by key; 3: accept keys alone.
        1 => knowing(Identity::Secret, &keys, &BOTH),
        2 => knowing(Identity::PublicKey([&a, &b][at].key()), &keys, &BOTH),
        _ => knowing(Identity::PublicKey([&a, &b][at].key()), &keys, &[AuthMethod::PublicKey]),
    };
    let plain = || settings(SECRET);
    for hosts in [
        [plain(), step(1, 1)],
        [step(0, 1), plain()],
        [step(0, 1), step(1, 2)],
        [step(0, 2), step(1, 1)],
        [step(0, 2), step(1, 3)],
        [step(0, 3), step(1, 2)],
    ] {
        let mut net = Net::new(80, hosts);
        net.keep(0, 1);
        net.run(SECOND);
        net.assert_one_pair(0, 1);
        assert!(net.hosts.iter().all(|host| host.failures.is_empty()));
    }
}

/// The same on hosts at work: whatever rests on the secret is replaced, and nothing is lost by it.
#[test]
fn sessions_move_with_the_hosts() {
    let [a, b] = [(); 2].map(|()| Pem::new(KeyKind::Ed25519));
    let keys = [Some(a.public()), Some(b.public())];
    let by_key =
        |at: usize, accept: &[AuthMethod]| knowing(Identity::PublicKey([&a, &b][at].key()), &keys, accept);
    let steps: [&dyn Fn(usize) -> Settings; 3] =
        [&|_| knowing(Identity::Secret, &keys, &BOTH), &|at| by_key(at, &BOTH), &|at| {
            by_key(at, &[AuthMethod::PublicKey])
        }];
    let mut net = Net::two(83);
    net.keep(0, 1);
    net.run(SECOND);
    for step in steps {
        for host in 0..2 {
            net.call(host, |engine, now| engine.reconfigure(now, step(host)));
            net.run(30 * SECOND);
            net.assert_one_pair(0, 1);
        }
    }
    let rests_on = |host: usize| net.hosts[host].engine.secret_of(pair(host, 1 - host), net.child_of(host));
    assert_eq!([rests_on(0), rests_on(1)], [None, None]);
    assert!(net.hosts.iter().all(|host| host.failures.is_empty()));
}

/// ```text
///            a believes another key of b's
/// a  --- IKE_SA_INIT, IKE_AUTH … --->  b     b's proof is not taken; what there is goes on
///            as long as a child lives
/// a  --- D -------------------------->  b     and its keys are gone on both ends
/// ```
#[test]
fn what_rests_on_a_proof_that_is_no_longer_taken_ends() {
    for (strict, other) in [(0, 1), (1, 0)] {
        let pems = [(); 3].map(|()| Pem::new(KeyKind::Ed25519));
        let mut net = by_keys(84, [&pems[0], &pems[1]], [&pems[0], &pems[1]]);
        net.keep(0, 1);
        net.run(SECOND);
        let mut keys = [Some(pems[0].public()), Some(pems[1].public())];
        keys[other] = Some(pems[2].public());
        let own = || Identity::PublicKey(pems[strict].key());
        let summary = |net: &Net| net.hosts[strict].engine.summary(pair(strict, other)).unwrap();
        let life = settings(SECRET).rekey_after;

        let stricter = || knowing(own(), &keys, &[AuthMethod::PublicKey]);
        net.call(strict, |engine, now| engine.reconfigure(now, stricter()));
        let end = net.now + life;
        net.run(life / 2);
        net.call(strict, |engine, now| engine.reconfigure(now, stricter()));
        net.run(life / 2 - 10 * SECOND);
        net.assert_one_pair(0, 1);
        assert_eq!(summary(&net).notice, Some(end), "saying it again gives no more time");
        assert!(matches!(summary(&net).unproven.unwrap().reason, Reason::BadProof(BadProof::Key(_))));
        net.run(20 * SECOND);
        assert!(net.hosts.iter().all(|host| host.children.is_empty()));
        assert_eq!(net.hosts[strict].failures[0], FailureCode::AuthFailed);
        let void = |host: &Host| host.log.iter().any(|line| line.ends_with("void: true)"));
        assert!(net.hosts.iter().all(void), "no kernel goes on with them");
        assert_eq!((summary(&net).established, summary(&net).notice), (false, None));

        keys[other] = Some(pems[other].public());
        net.call(strict, |engine, now| {
            engine.reconfigure(now, knowing(own(), &keys, &[AuthMethod::PublicKey]));
        });
        assert!(net.run_until(120 * SECOND, |net| net.is_one_pair(0, 1)), "and comes back");
    }
}

/// A host's key is replaced: first where others know it, then on the host.
#[test]
fn a_key_is_replaced_while_it_serves() {
    let pems = [(); 3].map(|()| Pem::new(KeyKind::Ed25519));
    let mut net = by_keys(85, [&pems[0], &pems[1]], [&pems[0], &pems[1]]);
    net.keep(0, 1);
    net.run(SECOND);
    let child = net.child_of(0);
    let keys = [Some(pems[0].public()), Some(pems[2].public())];
    for (host, key) in [(0, 0), (1, 2)] {
        let settings = knowing(Identity::PublicKey(pems[key].key()), &keys, &[AuthMethod::PublicKey]);
        net.call(host, |engine, now| engine.reconfigure(now, settings));
        net.run(30 * SECOND);
        net.assert_one_pair(0, 1);
    }
    assert_ne!(net.child_of(0), child, "it rests on the new key");
    net.run(2 * settings(SECRET).rekey_after);
    net.assert_one_pair(0, 1);
    assert!(net.hosts.iter().all(|host| host.failures.is_empty()));
}

/// A peer that says nothing about signatures gets none, and neither end hangs.
#[test]
fn signatures_need_a_peer_that_takes_them() {
    let [a, b] = [(); 2].map(|()| Pem::new(KeyKind::Ed25519));
    let keys = [Some(a.public()), Some(b.public())];
    let mut net = Net::new(81, [knowing(Identity::PublicKey(a.key()), &keys, &BOTH), settings(SECRET)]);
    net.keep(0, 1);
    net.run(20 * SECOND);
    assert!(net.hosts.iter().all(|host| host.children.is_empty()));
    assert!(net.hosts[0].log.iter().any(|line| line.contains("takes no signatures of our kind of key")));
    assert_eq!(net.hosts[0].failures[0], FailureCode::NoProposal);
}

/// What a peer at 10.0.0.1 with `key` signs.
fn verified(pem: &Pem, id: &Id, payloads: &[Payload]) -> Result<(), BadProof> {
    let key = Hidden::new(vec![1; 48]);
    let signed = Signed {
        prf: Prf::HmacSha384,
        message: b"message",
        nonce: &[2; 32],
        key: &key,
        id,
        intermediate: &[],
    };
    let settings = knowing(Identity::Secret, &[Some(pem.public())], &BOTH);
    signed.verify(&settings, address(0), &Parts(payloads), None).map(drop)
}

#[test]
fn the_identity_is_the_address() {
    let pem = Pem::new(KeyKind::Ed25519);
    let proof = |id: &Id| {
        let key = Hidden::new(vec![1; 48]);
        let signed = Signed {
            prf: Prf::HmacSha384,
            message: b"message",
            nonce: &[2; 32],
            key: &key,
            id,
            intermediate: &[],
        };
        let peer = Peer::read(&Parts(&[Hashes::ours()]));
        signed.prove(&Identity::PublicKey(pem.key()), None, &peer).unwrap().0
    };
    let (right, wrong) = (Id::of(address(0)), Id::of(address(1)));
    assert_eq!(verified(&pem, &right, &proof(&right)), Ok(()));
    assert_eq!(verified(&pem, &wrong, &proof(&wrong)), Err(BadProof::Identity));
    let named = Id { kind: 2, data: b"n0".to_vec() };
    assert_eq!(verified(&pem, &named, &proof(&named)), Err(BadProof::Identity));
    // Signed for another identity.
    assert!(matches!(verified(&pem, &right, &proof(&wrong)), Err(BadProof::Key(_))));
    assert_eq!(verified(&pem, &right, &[]), Err(BadProof::Missing));
}

proptest! {
    /// Whatever an AUTH payload holds, it proves nothing and does no harm.
    #[test]
    fn hostile_proofs_are_refused(method: u8, data in prop::collection::vec(any::<u8>(), 0..300), ours: bool) {
        let pem = Pem(ED25519.to_owned());
        let method = match ours {
            true if method & 1 == 0 => auth::SHARED_KEY,
            true => auth::DIGITAL_SIGNATURE,
            false => method,
        };
        let payloads = [Payload::Auth { method, data }];
        prop_assert!(verified(&pem, &Id::of(address(0)), &payloads).is_err());
    }
}

/// RFC 8410 section 10.3.
const ED25519: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
    -----END PRIVATE KEY-----\n";
