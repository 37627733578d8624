//! Hosts that prove themselves with certificates.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, date_time_ymd};

use super::net::{Net, SECRET, address, pair, settings};
use super::proof::{Pem, assert_refused, knowing};
use crate::identity::certificate::tests::{Ca, Change, NOW};
use crate::identity::certificate::{Authorities, Chain};
use crate::identity::{AuthMethod, Credentials, Expected, Identity, KeyKind};
use crate::ike::wire::{Message, Parts, Payload};
use crate::ike::{FailureCode, Settings};
use crate::types::{NodeName, UnixTime};

const SECOND: Duration = Duration::from_secs(1);

/// A host that proves itself with `chain`, of the key in `pem`, and takes certificates of `authorities`.
fn host(pem: &Pem, chain: &str, authorities: Authorities, accept: &[AuthMethod]) -> Settings {
    let identity = Identity::Certificate(pem.key(), Chain::from_pem(chain).unwrap());
    certified(knowing(identity, &[None, None], accept), authorities)
}

/// The same settings with `authorities`.
fn certified(settings: Settings, authorities: Authorities) -> Settings {
    let Ok(credentials) = Arc::try_unwrap(settings.credentials) else { unreachable!("nobody else has them") };
    let credentials = Credentials { authorities: Some(authorities.into()), ..credentials };
    Settings { credentials: Arc::new(credentials), ..settings }
}

/// Two hosts with certificates of one CA; `change` makes that of the second one a wrong one, whose names are
/// `names`.
fn two(seed: u64, names: &[&str], change: Change) -> Net {
    let ca = Ca::new("ours");
    let pems = [Pem::new(KeyKind::EcdsaP256), Pem::new(KeyKind::Ed25519)];
    let right = ca.certify(&pems[0].0, &["10.0.0.1"], |_| ());
    let tried = ca.certify(&pems[1].0, names, change);
    let accept = [AuthMethod::Certificate];
    let hosts = [(&pems[0], right), (&pems[1], tried)];
    net(seed, hosts.map(|(pem, chain)| host(pem, &chain, ca.authorities(), &accept)))
}

/// Hosts that know the time.
fn net(seed: u64, hosts: impl IntoIterator<Item = Settings>) -> Net {
    let mut net = Net::new(seed, hosts);
    let now = net.now;
    net.hosts.iter_mut().for_each(|host| host.engine.set_clock(now, NOW));
    net
}

/// ```text
/// a  --- IKE_SA_INIT, N(SIGNATURE_HASH_ALGORITHMS) ------------>  b
/// a  <-- IKE_SA_INIT, N(SIGNATURE_HASH_ALGORITHMS), CERTREQ ----  b
/// a  --- IKE_AUTH, CERTREQ, CERT of a, signed by a ------------>  b
/// a  <-- IKE_AUTH, CERT of b, signed by b ----------------------  b
/// ```
#[test]
fn certificates_prove_both_ends() {
    for names in [["10.0.0.2"], ["n1"]] {
        let mut net = two(90, &names, |_| ());
        net.keep(0, 1);
        net.run(SECOND);
        net.assert_one_pair(0, 1);
        assert!(net.hosts.iter().all(|host| host.failures.is_empty()));
        let response = Message::parse(&net.sent[1].bytes).unwrap();
        let asked = response.payloads.iter().any(|payload| matches!(payload, Payload::CertReq(_)));
        assert!(asked && Parts(&response.payloads).certificates().next().is_none());
    }
}

#[test]
fn a_chain_is_sent_whole() {
    let root = Ca::new("root");
    let below = root.below("below");
    let pems = [Pem::new(KeyKind::Ed25519), Pem::new(KeyKind::Ed25519)];
    let hosts = [("10.0.0.1", &pems[0]), ("10.0.0.2", &pems[1])].map(|(name, pem)| {
        let chain = format!("{}{}", below.certify(&pem.0, &[name], |_| ()), below.pem);
        host(pem, &chain, root.authorities(), &[AuthMethod::Certificate])
    });
    let mut net = net(91, hosts);
    net.keep(0, 1);
    net.run(SECOND);
    net.assert_one_pair(0, 1);
}

#[test]
fn a_wrong_certificate_is_refused_in_words() {
    let cases: [(&[&str], Change, &str); 4] = [
        (&["10.0.0.3"], |_| (), "not for node n1: it has neither that name nor 10.0.0.2"),
        (&["n1"], |params| params.not_after = date_time_ymd(2025, 12, 31), "expired on 2025-12-31T00:00:00Z"),
        (&["n1"], |params| params.not_before = date_time_ymd(2027, 1, 1), "not valid before 2027-01-01"),
        (&["n1"], serves_only, "is not for IKE"),
    ];
    for (at, (names, change, words)) in (92..).zip(cases) {
        assert_refused(&mut two(at, names, change), 0, words);
    }
}

fn serves_only(params: &mut CertificateParams) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
}

#[test]
fn another_ca_a_revoked_one_and_a_stolen_one_are_refused() {
    let (ours, theirs) = (Ca::new("ours"), Ca::new("theirs"));
    let pems = [Pem::new(KeyKind::Ed25519), Pem::new(KeyKind::Ed25519)];
    let accept = [AuthMethod::Certificate];
    let a = |authorities| host(&pems[0], &ours.certify(&pems[0].0, &["n0"], |_| ()), authorities, &accept);
    let b = |chain: &str| host(&pems[1], chain, ours.authorities(), &accept);
    let right = ours.certify(&pems[1].0, &["n1"], |_| ());

    let other = theirs.certify(&pems[1].0, &["n1"], |_| ());
    assert_refused(&mut net(97, [a(ours.authorities()), b(&other)]), 0, "not issued by a CA of auth.ca");
    let mut revoking = ours.authorities();
    revoking.revoke(&ours.revoke(&[7])).unwrap();
    assert_refused(&mut net(98, [a(revoking), b(&right)]), 0, "is revoked");
    // The certificate of n1 is no secret; its key is.
    let stolen = ours.certify(&Pem::new(KeyKind::Ed25519).0, &["n1"], |_| ());
    let words = "does not have the key of its certificate";
    assert_refused(&mut net(99, [a(ours.authorities()), b(&stolen)]), 0, words);
}

/// Of the hosts that may have a floating address, the one that a certificate is for is asked alone: a check for each of
/// them would cost as much as anybody likes to send.
#[test]
fn a_certificate_is_checked_for_one_of_those_who_may_have_an_address() {
    let (ours, theirs) = (Ca::new("ours"), Ca::new("theirs"));
    let pems = [Pem::new(KeyKind::Ed25519), Pem::new(KeyKind::Ed25519)];
    for (ca, words) in [(&ours, None), (&theirs, Some("not issued by a CA of auth.ca"))] {
        let accept = [AuthMethod::Certificate];
        let mut a = host(&pems[0], &ours.certify(&pems[0].0, &["n0"], |_| ()), ours.authorities(), &accept);
        let credentials = Arc::get_mut(&mut a.credentials).unwrap();
        let named = |name: &str| {
            let node = serde_json::from_str(&format!("\"{name}\"")).unwrap();
            Arc::new(Expected {
                node,
                addresses: Vec::new(),
                ..Expected::clone(&credentials.peers[&address(1)])
            })
        };
        let may_have_it = vec![named("n7"), named("n1"), named("n8")];
        credentials.floating.insert(address(1), may_have_it);
        let b = host(&pems[1], &ca.certify(&pems[1].0, &["n1"], |_| ()), ours.authorities(), &accept);
        let mut net = net(106, [a, b]);
        match words {
            Some(words) => assert_refused(&mut net, 0, words),
            None => {
                net.keep(0, 1);
                net.run(SECOND);
                net.assert_one_pair(0, 1);
                let node = net.hosts[0].engine.node_of(pair(0, 1));
                assert_eq!(node.map(NodeName::as_str), Some("n1"));
            }
        }
    }
}

/// Neither the secret nor a bare key is a way around a certificate.
#[test]
fn what_is_not_accepted_is_no_way_around() {
    let ca = Ca::new("ours");
    let pems = [Pem::new(KeyKind::Ed25519), Pem::new(KeyKind::Ed25519)];
    let strict = || {
        let chain = ca.certify(&pems[0].0, &["n0"], |_| ());
        host(&pems[0], &chain, ca.authorities(), &[AuthMethod::Certificate])
    };
    let lax = |identity| certified(knowing(identity, &[None, None], &AuthMethod::ALL), ca.authorities());
    let words = "with the shared secret, and only its certificate is accepted from n1";
    assert_refused(&mut net(100, [strict(), lax(Identity::Secret)]), 0, words);
    let words = "with its public key, and only its certificate is accepted from n1";
    assert_refused(&mut net(101, [strict(), lax(Identity::PublicKey(pems[1].key()))]), 0, words);
}

/// From the secret to certificates, host by host.
#[test]
fn hosts_move_from_the_secret_to_certificates_one_by_one() {
    let ca = Ca::new("ours");
    let pem = Pem::new(KeyKind::Ed25519);
    let both = [AuthMethod::Secret, AuthMethod::Certificate];
    let moved = || host(&pem, &ca.certify(&pem.0, &["n0"], |_| ()), ca.authorities(), &both);
    let prepared = || certified(knowing(Identity::Secret, &[None, None], &both), ca.authorities());
    for hosts in [[settings(SECRET), prepared()], [prepared(), prepared()], [moved(), prepared()]] {
        let mut net = net(102, hosts);
        net.keep(0, 1);
        net.run(SECOND);
        net.assert_one_pair(0, 1);
    }
}

#[test]
fn a_host_that_does_not_know_the_time_takes_no_certificate() {
    let ca = Ca::new("ours");
    let hosts = ["n0", "n1"].map(|name| {
        let pem = Pem::new(KeyKind::Ed25519);
        let chain = ca.certify(&pem.0, &[name], |_| ());
        host(&pem, &chain, ca.authorities(), &[AuthMethod::Certificate])
    });
    let mut net = Net::new(103, hosts);
    assert_refused(&mut net, 1, "this host does not know the time");
}

/// Both hosts learn that it is this late.
fn tick(net: &mut Net, wall: u64) {
    for host in 0..2 {
        net.call(host, |engine, now| engine.set_clock(now, UnixTime(wall)));
    }
    net.run(20 * SECOND);
}

/// The certificate of the second host ends a day after [`NOW`]. A new one takes over before, if there is one.
#[test]
fn a_session_ends_with_the_certificate_that_it_rests_on() {
    let end = NOW.0 + 86_400;
    for renewed in [false, true] {
        let ca = Ca::new("ours");
        let pems = [Pem::new(KeyKind::Ed25519), Pem::new(KeyKind::Ed25519)];
        let of = |at: usize, change: Change| {
            let chain = ca.certify(&pems[at].0, &[["n0", "n1"][at]], change);
            host(&pems[at], &chain, ca.authorities(), &[AuthMethod::Certificate])
        };
        let short = of(1, |params| params.not_after = date_time_ymd(2026, 1, 2));
        let mut net = net(104, [of(0, |_| ()), short]);
        net.keep(0, 1);
        net.run(SECOND);
        let child = net.child_of(0);
        if renewed {
            net.call(1, |engine, now| engine.reconfigure(now, of(1, |_| ())));
        }
        tick(&mut net, end - 10 * 3600);
        assert_eq!(net.child_of(0), child, "there is time enough");
        net.sent.clear();
        tick(&mut net, end - 600);
        net.assert_one_pair(0, 1);
        assert!(
            net.sent.len() < 40,
            "one that does no better is not asked again and again: {}",
            net.sent.len()
        );
        assert_ne!(net.child_of(0), child);
        tick(&mut net, end + 1);
        assert_eq!(net.hosts[0].children.len(), usize::from(renewed));
        assert_eq!(net.hosts[0].failures.contains(&FailureCode::AuthFailed), !renewed);
        assert_eq!(net.hosts[0].engine.summary(pair(0, 1)).unwrap().established, renewed);
    }
}

/// A list that revokes the peer ends what is there at once; one that revokes others changes nothing.
#[test]
fn a_revocation_is_at_once() {
    let ca = Ca::new("ours");
    let pems = [Pem::new(KeyKind::Ed25519), Pem::new(KeyKind::Ed25519)];
    let chains = [0, 1].map(|at| ca.certify(&pems[at].0, &[["n0", "n1"][at]], |_| ()));
    let of = |at: usize, authorities| host(&pems[at], &chains[at], authorities, &[AuthMethod::Certificate]);
    let mut net = net(105, [of(0, ca.authorities()), of(1, ca.authorities())]);
    net.keep(0, 1);
    net.run(SECOND);
    let child = net.child_of(0);
    for (serial, left) in [(8, 1), (7, 0)] {
        let mut authorities = ca.authorities();
        authorities.revoke(&ca.revoke(&[serial])).unwrap();
        net.call(0, |engine, now| engine.reconfigure(now, of(0, authorities)));
        assert_eq!(net.hosts[0].children.len(), left, "{serial}");
        net.run(20 * SECOND);
        assert_eq!(net.hosts[0].children.keys().next(), Some(&child).filter(|_| left > 0), "{serial}");
    }
    assert!(net.hosts[0].log.iter().any(|line| line.contains("is revoked")));
}
