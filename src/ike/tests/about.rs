//! What hosts tell each other of themselves, and when something authentic of a peer was heard.

use std::sync::Arc;
use std::time::Duration;

use super::net::{Net, SECRET, by, by_each_method, pair, settings};
use crate::ike::Settings;
use crate::types::Method;

fn telling(method: Method, about: &str) -> Settings {
    Settings { about: Arc::from(about.as_bytes()), ..by(method, SECRET) }
}

fn told(net: &Net, host: usize) -> Vec<&str> {
    net.hosts[host].told.iter().map(|bytes| std::str::from_utf8(bytes).unwrap()).collect()
}

by_each_method!(
    each_end_is_told_once_and_again_when_it_changes,
    an_old_agent_is_told_in_vain,
    nothing_is_repeated_or_said_where_nothing_is_set
);

/// a  --- {report, "from a"} --->  b
/// a  <-- {report, "from b"} ----  b
fn each_end_is_told_once_and_again_when_it_changes(method: Method) {
    let mut net = Net::new(1, [telling(method, "from a"), telling(method, "from b")]);
    net.keep(0, 1);
    net.run(Duration::from_secs(5));
    net.assert_one_pair(0, 1);
    assert_eq!((told(&net, 0), told(&net, 1)), (vec!["from b"], vec!["from a"]));
    net.call(0, |engine, now| engine.reconfigure(now, telling(method, "news from a")));
    net.run(Duration::from_secs(1));
    assert_eq!(told(&net, 1), ["from a", "news from a"]);
    net.call(1, |engine, now| engine.check_liveness(now, pair(1, 0)));
    net.call(0, |engine, now| engine.rekey_ike(now, pair(0, 1)));
    net.run(Duration::from_secs(3600 * 4));
    assert_eq!(told(&net, 0).iter().collect::<std::collections::BTreeSet<_>>().len(), 1);
}

/// The other end neither says nor takes anything of the kind: as earlier agents.
fn an_old_agent_is_told_in_vain(method: Method) {
    let mut net = Net::new(1, [telling(method, "from a"), by(method, SECRET)]);
    net.keep(0, 1);
    net.run(Duration::from_secs(5));
    net.assert_one_pair(0, 1);
    assert_eq!(told(&net, 0), [""; 0]);
}

fn nothing_is_repeated_or_said_where_nothing_is_set(method: Method) {
    let mut net = Net::two_by(method, 1);
    net.keep(0, 1);
    net.run(Duration::from_secs(5));
    net.assert_one_pair(0, 1);
    assert!(net.hosts.iter().all(|host| host.told.is_empty()));
}

/// More than a peer may tell is not taken in, and harms nothing.
#[test]
fn too_much_is_ignored() {
    let long = Settings { about: vec![b'x'; 5000].into(), ..settings(SECRET) };
    let mut net = Net::new(1, [long, settings(SECRET)]);
    net.keep(0, 1);
    net.run(Duration::from_secs(5));
    net.assert_one_pair(0, 1);
    assert_eq!(told(&net, 1), [""; 0]);
}

/// Only what the peer alone can have said, and says for the first time, shows that it is there.
#[test]
fn a_repeated_message_and_one_in_the_clear_are_not_heard() {
    let mut net = Net::two(1);
    net.keep(0, 1);
    net.run(Duration::from_secs(5));
    let heard = |net: &Net| net.hosts[1].engine.heard(pair(1, 0));
    net.sent.clear();
    net.call(0, |engine, now| engine.check_liveness(now, pair(0, 1)));
    net.run(Duration::from_secs(5));
    let at = heard(&net).expect("the question was heard");
    let recorded: Vec<_> = net.sent.iter().filter(|sent| sent.remote == Net::socket(1)).cloned().collect();
    assert!(!recorded.is_empty());
    net.run(Duration::from_secs(60));
    recorded.iter().for_each(|question| net.inject(question));
    for octet in 0..recorded[0].bytes.len() {
        let mut flipped = recorded[0].clone();
        flipped.bytes[octet] ^= 1;
        net.inject(&flipped);
    }
    assert_eq!(heard(&net), Some(at), "the same once more says nothing");
    net.call(0, |engine, now| engine.check_liveness(now, pair(0, 1)));
    net.run(Duration::from_secs(1));
    assert!(heard(&net) > Some(at));
}

/// Who has not proven who it is was not heard.
#[test]
fn an_answer_without_a_proof_is_not_heard() {
    let mut net = Net::new(1, [settings(SECRET), settings([8; 32])]);
    net.keep(0, 1);
    net.run(Duration::from_secs(30));
    for (host, other) in [(0, 1), (1, 0)] {
        assert_eq!(net.hosts[host].engine.heard(pair(host, other)), None);
    }
}
