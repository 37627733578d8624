//! The channel for whoever uses the engines: when octets go, and to whom.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::net::{Net, SECRET, by, by_each_method, octets, pair};
use crate::ike::wire::codes::{Exchange, notify};
use crate::ike::{Settings, Topic, stop_tampering, tamper};
use crate::types::{Method, Spi};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

by_each_method!(
    what_is_told_arrives_and_is_not_told_again,
    the_latest_takes_the_place_of_what_has_not_gone,
    what_waits_is_neither_asked_nor_answered,
    octets_are_as_of_their_message,
    a_question_goes_at_once_and_is_not_kept,
    the_last_word_goes_with_the_delete,
    nobody_else_is_told,
);

/// INFORMATIONAL messages so far.
fn messages(net: &Net) -> usize {
    net.sent.iter().filter(|transmit| transmit.bytes[18] == Exchange::INFORMATIONAL.0).count()
}

/// What a host was told of children last.
fn told(net: &Net, host: usize) -> (Spi, String) {
    let (in_spi, octets) = net.hosts[host].words.last().unwrap().clone();
    (in_spi, String::from_utf8(octets).unwrap())
}

/// Two hosts that have said all that they say by themselves, and the names of their child.
fn settled(method: Method) -> (Net, Spi, Spi) {
    let mut net = Net::two_by(method, 3);
    net.keep(0, 1);
    net.run(SECOND);
    let (a, b) = (net.child_of(0), net.child_of(1));
    net.sent.clear();
    (net, a, b)
}

impl Net {
    /// A host tells the other something of their child.
    fn tell(&mut self, host: usize, in_spi: Spi, text: &str) {
        let pair = pair(host, 1 - host);
        self.call(host, |engine, now| engine.tell(now, pair, Topic::Child(in_spi), octets(text)));
    }
}

fn what_is_told_arrives_and_is_not_told_again(method: Method) {
    let (mut net, a, b) = settled(method);
    net.tell(0, a, "sending");
    net.run(SECOND);
    assert_eq!(told(&net, 1), (b, "sending".to_owned()));
    assert_eq!(told(&net, 0), (a, "seen".to_owned()), "the answer says what there is to say");
    assert_eq!(messages(&net), 2);
    net.tell(0, a, "sending");
    net.run(SECOND);
    assert_eq!(messages(&net), 2, "what is known is not told again");
}

fn the_latest_takes_the_place_of_what_has_not_gone(method: Method) {
    let (mut net, a, _) = settled(method);
    net.cut = Box::new(|_| true);
    net.tell(0, a, "first");
    net.run(20 * MILLISECOND);
    assert_eq!(net.sent.len(), 1, "the window is not free any more");
    net.tell(0, a, "second");
    net.tell(0, a, "third");
    net.cut = Box::new(|_| false);
    net.run(SECOND);
    let arrived: Vec<&[u8]> = net.hosts[1].words.iter().rev().take(2).map(|(_, told)| &told[..]).collect();
    assert_eq!(arrived, [b"third", b"first"]);
    // What the peer asks meanwhile is answered with the latest, which then is told by that.
    net.cut = Box::new(|transmit| transmit.local == Net::socket(0) && transmit.bytes[19] & 0x20 == 0);
    net.tell(0, a, "fourth");
    net.tell(0, a, "fifth");
    net.tell(1, net.child_of(1), "what now?");
    net.run(20 * MILLISECOND);
    assert_eq!(told(&net, 1).1, "fifth");
    net.cut = Box::new(|_| false);
    net.run(SECOND);
    assert_eq!(told(&net, 1).1, "fourth", "the request was made before");
    let sent = net.sent.len();
    net.run(10 * SECOND);
    assert_eq!(net.sent.len(), sent);
}

/// ```text
/// a  --- told ------------->  b   b: waits
/// a  <-- answer, with what came meanwhile ---  b
/// ```
fn what_waits_is_neither_asked_nor_answered(method: Method) {
    for comes in [true, false] {
        let (mut net, a, b) = settled(method);
        let until = net.now + 200 * MILLISECOND;
        net.call(1, |engine, now| engine.hold(now, pair(1, 0), b, Some(until)));
        net.tell(1, b, "before");
        net.tell(0, a, "what now?");
        net.run(150 * MILLISECOND);
        assert_eq!((told(&net, 1).1, messages(&net)), ("what now?".to_owned(), 1));
        if comes {
            net.tell(1, b, "after");
            net.call(1, |engine, now| engine.hold(now, pair(1, 0), b, None));
        }
        net.run(SECOND);
        let said = if comes { "after" } else { "before" };
        assert_eq!(told(&net, 0), (a, said.to_owned()));
        let answers = net.sent.iter().filter(|sent| sent.local == Net::socket(1)).count();
        assert_eq!(answers, 1, "one message says all of it");
    }
}

/// They may say how long ago something was, however long they wait for the window.
fn octets_are_as_of_their_message(method: Method) {
    let (mut net, a, b) = settled(method);
    let begun = net.now;
    let age = Arc::new(move |now| format!("{:?} ago", now - begun).into_bytes());
    net.cut = Box::new(|_| true);
    net.call(0, |engine, now| engine.check_liveness(now, pair(0, 1)));
    net.call(0, |engine, now| engine.tell(now, pair(0, 1), Topic::Child(a), age.clone()));
    net.run(300 * MILLISECOND);
    net.cut = Box::new(|_| false);
    net.run(SECOND);
    let (child, said) = told(&net, 1);
    assert_eq!(child, b);
    let waited: u64 = said.split(['m', '.']).next().unwrap().parse().unwrap();
    assert!((750..760).contains(&waited), "{said}");
}

/// ```text
/// a  --- question ---------->  b   b: "answer"
/// a  <-- answer -------------  b
/// ```
fn a_question_goes_at_once_and_is_not_kept(method: Method) {
    let (mut net, _, _) = settled(method);
    let say = |net: &mut Net, host: usize, topic: Topic, text: &str| {
        net.call(host, |engine, now| engine.tell(now, pair(host, 1 - host), topic, octets(text)));
    };
    say(&mut net, 0, Topic::Question, "question");
    net.run(SECOND);
    assert_eq!((net.hosts[1].said.last().map(Vec::as_slice), messages(&net)), (Some(&b"question"[..]), 2));
    say(&mut net, 1, Topic::Answer, "answer");
    net.run(SECOND);
    assert_eq!((net.hosts[0].said.last().map(Vec::as_slice), messages(&net)), (Some(&b"answer"[..]), 4));
    // What was heard is not kept: the same is a question once more.
    say(&mut net, 0, Topic::Question, "question");
    net.run(SECOND);
    assert_eq!((net.hosts[1].said.len(), messages(&net)), (2, 6));
    // Whoever is asked may ask at the same time.
    say(&mut net, 0, Topic::Question, "one");
    say(&mut net, 0, Topic::Answer, "other");
    net.run(SECOND);
    assert_eq!(net.hosts[1].said[2..], [b"one".to_vec(), b"other".to_vec()]);
    net.run(3600 * SECOND);
    assert_eq!(net.hosts.iter().map(|host| host.said.len()).sum::<usize>(), 5, "rekeys tell nothing of it");
}

/// Whoever ends a session has one message for it.
/// ```text
/// a  --- last word, D ------->  b
/// a  <-- nothing -------------  b
/// ```
fn the_last_word_goes_with_the_delete(method: Method) {
    let (mut net, _, _) = settled(method);
    let before = net.hosts[1].told.len();
    net.call(0, |engine, now| {
        engine.tell(now, pair(0, 1), Topic::Session, octets("last"));
        engine.forget(now, pair(0, 1));
    });
    // Even if nothing of it is sent once more.
    let first = messages(&net);
    net.run(MILLISECOND);
    assert_eq!(first, 1);
    net.run(SECOND);
    assert_eq!(net.hosts[1].told[before..], [b"last".to_vec()]);
    assert!(net.hosts[1].children.is_empty(), "the session is over");
    assert_eq!(messages(&net), 2);
}

/// Neither who is not hostseal nor who has not proven who it is; and what these tell is not taken in.
fn nobody_else_is_told(method: Method) {
    let telling = |secret| Settings { about: Arc::from(&b"from a host"[..]), ..by(method, secret) };
    for (foreign, other) in [(true, SECRET), (false, [8; 32])] {
        let mut net = Net::new(5, [telling(SECRET), telling(other)]);
        if foreign {
            net.hosts.iter_mut().for_each(|host| host.engine.pass_for_foreign());
        }
        let (said, seen) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let (say, see) = (said.clone(), seen.clone());
        tamper(move |draft| {
            let kinds = [notify::HOSTSEAL_CHILD, notify::HOSTSEAL_SESSION].map(u16::to_be_bytes);
            see.set(see.get() + 1);
            say.set(
                say.get() + usize::from(kinds.iter().any(|kind| draft.text.windows(2).any(|it| it == kind))),
            );
        });
        net.keep(0, 1);
        net.run(20 * SECOND);
        stop_tampering();
        // The first octets of a child go with IKE_AUTH, to whom may turn out to be nobody.
        assert!(!foreign || (seen.get() > 2 && said.get() == 0), "{} of {}", said.get(), seen.get());
        assert!(net.hosts.iter().all(|host| host.words.is_empty() && host.told.is_empty()));
        assert_eq!(net.hosts.iter().any(|host| !host.children.is_empty()), foreign);
    }
}
