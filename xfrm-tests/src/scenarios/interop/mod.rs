//! hostseal with stock peers: by one description for both ends ([`course`]), what happens to them ([`event`]), and by
//! what the manual says ([`manual`]). `cargo lab interop` goes through the whole matrix; here is a selection of it.

pub mod course;
pub mod event;
mod manual;
mod own_exchange;
pub mod ppk;

use anyhow::Result;

use self::course::{Auth, Course, Way};
use self::event::Event;
use crate::lab::{Implementation, Lab, Release};
use crate::scenarios::strongswan::Role;
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("interop::strongswan_answers_with_ml_kem", 2, |lab| go(lab, strongswan(Role::Initiator), IKE)),
    Test::new("interop::strongswan_initiates_with_ml_kem", 2, |lab| {
        go(lab, strongswan(Role::Responder), IKE)
    }),
    Test::new("interop::libreswan_answers", 2, |lab| go(lab, libreswan(Role::Initiator), CHILD)),
    Test::new("interop::libreswan_initiates", 2, |lab| go(lab, libreswan(Role::Responder), IKE)),
    Test::new("interop::strongswan_has_keys_of_the_data_exchanged", 2, |lab| {
        own_exchange::insists(lab, Implementation::Strongswan(Release::Stable), "x25519")
    }),
    Test::new("interop::strongswan_has_keys_of_the_data_exchanged_with_ml_kem", 2, |lab| {
        own_exchange::insists(lab, Implementation::Strongswan(Release::Testing), "x25519-ke1_mlkem768")
    }),
    Test::new("interop::libreswan_has_keys_of_the_data_exchanged", 2, |lab| {
        own_exchange::insists(lab, Implementation::Libreswan, "ecp256")
    }),
    Test::new("interop::strongswan_initiates_with_a_ppk", 2, |lab| {
        let plain = Course::plain(Implementation::Strongswan(Release::Stable), Role::Responder, X25519);
        go(lab, Course { way: Way::Ppk, auth: Auth::Ed25519, ..plain }, IKE)
    }),
    Test::new("interop::libreswan_answers_with_a_ppk", 2, |lab| {
        let plain = Course::plain(Implementation::Libreswan, Role::Initiator, X25519);
        go(lab, Course { way: Way::PpkOptional, ..plain }, CHILD)
    }),
    Test::new("interop::libreswan_initiates_with_an_early_ppk", 2, |lab| {
        let plain = Course::plain(Implementation::Libreswan, Role::Responder, X25519);
        go(lab, Course { way: Way::EarlyPpk, ..plain }, IKE)
    }),
    Test::new("interop::libreswan_answers_with_an_early_ppk", 2, |lab| {
        let plain = Course::plain(Implementation::Libreswan, Role::Initiator, X25519);
        go(lab, Course { way: Way::EarlyPpkOptional, ..plain }, CHILD)
    }),
    Test::new("interop::strongswan_has_another_ppk", 2, |lab| {
        let plain = Course::plain(Implementation::Strongswan(Release::Stable), Role::Responder, X25519);
        ppk::differs(lab, Course { way: Way::PpkDiffers, ..plain }).map(drop)
    }),
    Test::new("interop::a_long_chain_comes_in_fragments", 2, a_long_chain_comes_in_fragments),
    Test::new("interop::strongswan_by_the_manual", 2, manual::strongswan),
    Test::new("interop::strongswan_with_keys_by_the_manual", 2, manual::strongswan_with_keys),
    Test::new("interop::libreswan_by_the_manual", 2, manual::libreswan),
];

/// What all of them know.
const X25519: &str = "aes256gcm16-prfsha384-x25519";

/// strongSwan 6.1 with ML-KEM.
fn strongswan(role: Role) -> Course {
    let proposals = "aes256gcm16-prfsha384-x25519-ke1_mlkem768";
    Course::plain(Implementation::Strongswan(Release::Testing), role, proposals)
}

/// Libreswan over IPv6, with a group that hostseal has to be asked for.
fn libreswan(role: Role) -> Course {
    let plain = Course::plain(Implementation::Libreswan, role, "aes128gcm16-prfsha256-ecp256");
    Course { way: Way::Ipv6, ..plain }
}

/// Both replace the IKE SA once, and the peer deletes it.
const IKE: &[Event] = &[Event::Connect, Event::PeerRekeysIke, Event::WeRekeyIke, Event::PeerDeletesIke];
/// Both replace the child once, and the peer deletes it.
const CHILD: &[Event] =
    &[Event::Connect, Event::PeerRekeysChild, Event::WeRekeyChild, Event::PeerDeletesChild];

fn go(lab: &mut Lab, course: Course, events: &[Event]) -> Result<()> {
    let mut ends = course.prepare(lab)?;
    for event in events {
        println!("{event}: {:?}", ends.undergo(lab, *event)?);
    }
    Ok(())
}

fn a_long_chain_comes_in_fragments(lab: &mut Lab) -> Result<()> {
    let course = Course { auth: Auth::Certificates, way: Way::Narrow, ..strongswan(Role::Responder) };
    go(lab, course, &[Event::Connect])
}
