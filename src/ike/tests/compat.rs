//! What agents of different versions say to each other: the bytes of each version are pinned.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::ike::auth::peer::{Peer, vendor_id};
use crate::ike::session::life::{Greeted, Greeting, Life};
use crate::ike::wire::codes::notify;
use crate::ike::wire::{Notify, Parts, Payload, private};
use crate::ike::{Draft, Entropy, Purpose, stop_tampering, tamper};
use crate::protect::report::{Flags, Report, Rounds};
use crate::types::Spi;

const FLAGS: Flags = Flags {
    installed: true,
    seen: false,
    sending: true,
    open: false,
    unheard: false,
    heeds: false,
    trial: None,
    rounds: None,
};
const SPI: Spi = Spi(0xc123_4567);
const REPORT: Report = Report { token: [5; 16], revision: 0x0102, flags: FLAGS };

/// What every agent from the first one on says and understands.
const FIRST: [u8; 24] =
    [1, 0b101, 1, 2, 0xc1, 0x23, 0x45, 0x67, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5];

fn notification(kind: u16, data: &[u8]) -> Notify {
    Notify { about: None, kind, data: data.to_vec() }
}

fn report(data: &[u8], now: Instant) -> Option<Report> {
    let (spi, octets) = private::from_child(&notification(notify::HOSTSEAL_CHILD, data))?;
    assert_eq!(spi, SPI);
    Report::from_octets(&octets, now)
}

/// One after the other the fields came that stand behind the first ones.
#[test]
fn the_bytes_of_a_word() {
    let now = Instant::now();
    let trial = Some(now + Duration::from_millis(0x0001_0203));
    let counted = Rounds { round: 0x0304, passed: 0x0203, ..Rounds::default() };
    let rounds = Some(Rounds { came: now.checked_sub(Duration::from_micros(0x0201_0003)), ..counted });
    let all = Flags { unheard: true, heeds: true, trial, rounds, ..FLAGS };
    let mut longest = [&FIRST[..], &[0, 1, 2, 3], &[3, 4, 2, 3], &[2, 1, 0, 3]].concat();
    longest[1] |= 0b11_0000;
    let said = |flags| private::of_child(SPI, &Report { flags, ..REPORT }.to_octets(now)).unwrap();
    let bytes = |bytes: &[u8]| Payload::Notify(notification(notify::HOSTSEAL_CHILD, bytes));
    assert_eq!(notify::HOSTSEAL_CHILD, 40_960 + 0x5ea1);
    assert_eq!(said(all), bytes(&longest));
    assert_eq!(said(FLAGS), bytes(&[&FIRST[..], &[0; 4]].concat()));
    assert_eq!(report(&FIRST, now), Some(REPORT));
    let flags = Flags { unheard: true, heeds: true, trial, ..FLAGS };
    assert_eq!(report(&longest[..28], now), Some(Report { flags, ..REPORT }));
    let flags = Flags { rounds: Some(counted), ..flags };
    assert_eq!(report(&longest[..32], now), Some(Report { flags, ..REPORT }));
    assert_eq!(report(&longest, now), Some(Report { flags: all, ..REPORT }));
}

/// The first one, which travels with the request for a child.
#[test]
fn the_bytes_of_the_first_report() {
    let said = private::of_child(SPI, &Report::first([5; 16]).to_octets(Instant::now()));
    let mut first = [&FIRST[..], &[0; 4]].concat();
    first[1..4].copy_from_slice(&[0b10_0000, 0, 0]);
    assert_eq!(said, Some(Payload::Notify(notification(notify::HOSTSEAL_CHILD, &first))));
}

/// What a host tells of itself.
#[test]
fn the_bytes_of_what_is_told_of_a_host() {
    let said = private::of_session(b"anything".to_vec());
    assert_eq!(said, Payload::Notify(notification(40_960 + 0x5ea2, b"anything")));
}

#[test]
fn what_is_unknown_of_a_word_is_ignored() {
    let now = Instant::now();
    let mut later = FIRST.to_vec();
    later[1] |= 0b1100_0000;
    later.extend([9; 3]);
    assert_eq!(report(&later, now), Some(REPORT), "flags and octets that are not known");
    let longest = [&later[..24], &[0; 4], &[3, 4, 2, 3], &[0; 4], &[7; 100]].concat();
    let rounds = Some(Rounds { round: 0x0304, passed: 0x0203, came: Some(now) });
    assert_eq!(report(&longest, now), Some(Report { flags: Flags { rounds, ..FLAGS }, ..REPORT }));
}

#[test]
fn other_versions_and_other_notifications_are_no_words() {
    let (now, mut later) = (Instant::now(), FIRST);
    later[0] = 2;
    assert_eq!(report(&later, now), None);
    assert_eq!(report(&FIRST[..23], now), None);
    assert_eq!(report(&[], now), None);
    for kind in [0, 1, notify::INITIAL_CONTACT, 40_960, notify::HOSTSEAL_SESSION, u16::MAX] {
        assert_eq!(private::from_child(&notification(kind, &FIRST)), None);
    }
    let unknown = [Payload::Notify(notification(50_000, &[1, 2, 3]))];
    assert_eq!(Parts(&unknown).refusal(), None, "it is no refusal either");
}

struct Sevens;

impl Entropy for Sevens {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

/// Earlier agents say nothing of lives, and so begin none anew.
#[test]
fn the_bytes_of_a_life() {
    let greeting = Greeting { initial_contact: true, life: Life::begin(&mut Sevens) };
    let life = notification(40_960 + 0x5ea3, &[7; 8]);
    let said: Vec<_> = greeting.payloads().collect();
    assert_eq!(said, [Payload::notify(notify::INITIAL_CONTACT, Vec::new()), Payload::Notify(life.clone())]);
    let earlier = Instant::now();
    let later = earlier + Duration::from_millis(1);
    let heard = |data: &[u8], met| {
        let data = [&life.data[..7], data].concat();
        Greeted::read(&Parts(&[Payload::Notify(Notify { data, ..life.clone() })]), met)
    };
    let (seven, eight) = (heard(&[7], earlier), heard(&[8, 9, 9], later));
    assert!(seven.is_former_to(&eight) && !eight.is_former_to(&seven));
    assert!(!seven.is_former_to(&heard(&[7, 9], later)), "what follows is of a later version");
    for silent in [heard(&[], later), Greeted::read(&Parts(&[]), later)] {
        assert!(!seven.is_former_to(&silent) && !silent.is_former_to(&eight));
    }
}

/// What the first message of a control IKE SA says of it, and what its ends say of themselves. Agents before there were
/// any skip both.
#[test]
fn the_bytes_of_a_purpose_and_a_mark() {
    let said = |purpose| private::of_purpose(purpose);
    assert_eq!(said(Purpose::Data), None);
    assert_eq!(said(Purpose::Control), Some(Payload::notify(40_960 + 0x5ea4, vec![1])));
    assert_eq!(said(Purpose::Join), Some(Payload::notify(40_960 + 0x5ea4, vec![2])));
    let read = |data: &[u8]| private::purpose(&Parts(&[Payload::notify(40_960 + 0x5ea4, data.to_vec())]));
    assert_eq!(
        [read(&[1]), read(&[2, 7])],
        [Purpose::Control, Purpose::Join],
        "what follows is of a later version"
    );
    assert_eq!([read(&[]), read(&[0]), read(&[3, 1])], [Purpose::Data; 3], "and so is another purpose");
    let mark = private::of_mark(b"anything");
    assert_eq!(mark, Payload::notify(40_960 + 0x5ea5, b"anything".to_vec()));
    assert_eq!(private::mark(&Parts(&[mark])), b"anything");
    assert_eq!(private::mark(&Parts(&[])), b"");
    assert_eq!(private::mark(&Parts(&[private::of_mark(&[7; 5000])])), b"", "it is too long");
}

/// What two agents say of a PPK before IKE_AUTH. Earlier ones hear nothing of it but a word in the first message, which they
/// skip: `ppk` has both kinds with each other.
#[test]
fn the_bytes_of_an_early_ppk() {
    assert_eq!([notify::USE_PPK, notify::USE_PPK_INT], [16_435, 16_445]);
    assert_eq!([notify::DRAFT_USE_PPK_INT, notify::DRAFT_PPK_IDENTITY_KEY], [50_209, 50_208]);
    let said = Rc::new(RefCell::new(Vec::new()));
    let heard = Rc::clone(&said);
    tamper(move |draft: &mut Draft| heard.borrow_mut().push(draft.clone()));
    let mut net = super::ppk::two(84, [Some((super::ppk::ONE, true)); 2]);
    net.hosts[0].engine.keep(net.now, super::net::pair(0, 1), crate::ike::Posture::Active);
    net.hosts[1].engine.keep(net.now, super::net::pair(1, 0), crate::ike::Posture::Passive);
    net.run(Duration::from_secs(1));
    stop_tampering();
    let said = said.borrow();
    let [request, answer] = &said[..2] else { panic!("two messages") };
    assert_eq!([request, answer].map(|it| (it.exchange, it.first)), [(43, 41); 2]);
    let (named, shown) = request.text.split_at(12);
    assert_eq!(named, [&[0, 0, 0, 20, 0, 0, 0x40, 0x3e, 2][..], b"one"].concat());
    assert_eq!(shown.len(), 8);
    assert_eq!(answer.text, [&[0, 0, 0, 12, 0, 0, 0x40, 0x34, 2][..], b"one"].concat());
}

/// A later version introduces itself with another last octet, and is no stranger for that.
#[test]
fn a_later_version_is_hostseal_too() {
    let Payload::VendorId(ours) = vendor_id() else { panic!("it is a vendor ID") };
    let introduced = |id: Vec<u8>| !Peer::read(&Parts(&[Payload::VendorId(id)])).foreign;
    let (_, name) = ours.split_last().unwrap();
    assert!(introduced(ours.clone()));
    assert!(introduced([name, &[2]].concat()));
    assert!(!introduced([name, &[2, 2]].concat()));
    assert!(!introduced(name.to_vec()));
}
