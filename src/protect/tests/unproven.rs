//! Inbound SAs of parties that have proven nothing.

use std::time::{Duration, Instant};

use super::link::{End, Link, pair, rules};
use crate::protect::{Adopted, AdoptedSa, Indexes, PairMachine, plan};
use crate::types::{Action, Direction, EspSuite, Limits, Op, Reqid, Sa, SaId, Spi, Through};

fn ahead(spi: u32) -> Sa {
    Sa {
        pair: pair(),
        direction: Direction::In,
        spi: Spi(spi),
        reqid: Reqid::COMMON,
        suite: EspSuite { key_bits: 256, esn: true },
        encapsulation: None,
        replay_window: 4096,
        limits: Limits::default(),
    }
}

fn found((id, direction): (SaId, Direction)) -> (SaId, AdoptedSa) {
    (id, AdoptedSa { direction, reqid: Reqid::COMMON })
}

/// What was put in ahead of its child, while clear packets were accepted, goes before the pair is sealed; and a sealed
/// pair takes none.
#[test]
fn no_inbound_sa_of_an_unproven_party_is_there_while_a_pair_is_sealed() {
    let ops_to = |end: &End| plan(&end.machine.desired(), &end.kernel, &mut Indexes::of(&end.kernel)).ops;
    for trial in [None, Some(Duration::from_secs(60))] {
        let mut link = Link::new();
        let now = link.now;
        assert!(link.ends[0].machine.takes_clear());
        assert!(link.ends[0].machine.handle_inbound_ahead(now, ahead(77)));
        link.work();
        assert!(link.ends[0].kernel.sas.contains_key(&ahead(77).id()));
        link.ends[0].machine.enable(now, true, trial.map(|trial| now + trial));
        assert_eq!(ops_to(&link.ends[0]).first(), Some(&Op::DeleteSa(ahead(77).id())), "before all else");
        link.work();
        assert!(link.ends[0].machine.is_sealed() && link.ends[0].kernel.sas.is_empty());
        assert!(!link.ends[0].machine.takes_clear());
        assert!(!link.ends[0].machine.handle_inbound_ahead(now, ahead(78)), "a sealed pair takes none");
        link.work();
        assert!(link.ends[0].kernel.sas.is_empty());
    }
    let mut link = Link::sealed();
    let (now, before) = (link.now, link.ends[0].kernel.sas.clone());
    assert!(!link.ends[0].machine.handle_inbound_ahead(now, ahead(79)));
    link.work();
    assert_eq!(link.ends[0].kernel.sas, before);
}

/// The same of one that an agent which died has left: it serves until the pair is sealed.
#[test]
fn an_adopted_sa_of_an_unproven_party_goes_when_the_pair_is_sealed() {
    let id = |direction, spi| SaId::of(pair(), direction, Spi(spi));
    let (inbound, unproven, outbound) = (id(Direction::In, 5), id(Direction::In, 6), id(Direction::Out, 7));
    for (inbound_action, stays) in [(Action::Accept, true), (Action::Require, false)] {
        let mut machine = PairMachine::new(pair(), rules(pair()), false, Instant::now());
        let sas =
            [(inbound, Direction::In), (unproven, Direction::In), (outbound, Direction::Out)].map(found);
        machine.adopt(Adopted {
            sas: sas.into(),
            unproven: [unproven].into(),
            outbound: Some(Through::Sa(outbound.spi)),
            inbound: Some(inbound_action),
            ..Adopted::default()
        });
        machine.enable(Instant::now(), false, None);
        assert_eq!(machine.desired().keep.contains(&unproven), stays);
        machine.enable(Instant::now(), true, None);
        assert!(machine.is_sealed() && machine.desired().withdrawn == [unproven].into());
        assert!(machine.desired().keep == [inbound, outbound].into());
    }
}

/// Nor does one stay where nothing can be sent: the agent died after it had saved that the pair is sealed, before the SA
/// went.
#[test]
fn an_adopted_sa_of_an_unproven_party_goes_without_an_outbound_one_too() {
    let id = SaId::of(pair(), Direction::In, Spi(6));
    let left = |inbound| Adopted {
        sas: [found((id, Direction::In))].into(),
        unproven: [id].into(),
        inbound,
        ..Adopted::default()
    };
    for inbound in [None, Some(Action::Require)] {
        let mut machine = PairMachine::new(pair(), rules(pair()), true, Instant::now());
        machine.adopt(left(inbound));
        machine.enable(Instant::now(), false, None);
        let desired = machine.desired();
        assert!(machine.is_sealed() && desired.withdrawn == [id].into() && !desired.keep.contains(&id));
    }
}

/// The same where the operator goes back to the clear and thinks better of it: what was put in ahead is adopted, and is
/// still unproven.
#[test]
fn what_was_put_in_ahead_is_unproven_in_the_next_life_too() {
    let mut link = Link::new();
    link.agree(0, false);
    link.work();
    let (now, id) = (link.now, ahead(77).id());
    let machine = &mut link.ends[0].machine;
    assert!(machine.handle_inbound_ahead(now, ahead(77)));
    machine.disable(now);
    machine.enable(now, false, None);
    assert!(machine.desired().keep.contains(&id), "it serves as before");
    machine.enable(now, true, None);
    assert!(machine.is_sealed() && !machine.desired().keep.contains(&id));
}
