//! A member that has gone bad sends others what they do not take, and its operator is not the one who finds out.

use super::cluster::{MILLISECOND, SECOND};
use super::members::{row, talking};
use super::world::World;
use crate::host::membership::tests::refused::{forged, page};
use crate::observe::cluster::MemberTrouble;

impl World {
    /// Member `at` tells member `other` forged entries, ten pages a second.
    fn forge(&mut self, at: usize, other: usize, pages: u32) {
        let roster = self.hosts[at].agent.as_ref().and_then(|agent| agent.roster());
        let roster = roster.expect("it is a member").0.clone();
        for number in 0..pages {
            let page = page(number, &[forged(&roster, &format!("x = {number}"))]);
            let pair = self.pair(at, other);
            self.on(at, |agent, now, _| {
                agent.core.as_mut().expect("it is at work").tell_page(now, pair, page);
            });
            self.run(100 * MILLISECOND, None);
        }
    }
}

#[test]
fn the_status_of_those_who_hear_it_names_a_member_that_forges_as_long_as_it_goes_on() {
    let mut world = talking(3, 7);
    assert!(world.cluster_status(0).is_healthy());
    world.forge(1, 0, 30);
    let status = world.cluster_status(0);
    let named = row(&status, 1);
    assert_eq!(named.reason_code, Some(MemberTrouble::Forges), "{status:?}");
    let reason = named.reason.as_deref().unwrap();
    assert!(reason.contains("(30 in 2s)") && reason.contains("hostseal remove n1 --compromised"), "{reason}");
    assert!(row(&status, 2).reason_code.is_none() && status.consistent);
    assert_eq!(world.hosts[0].core().unwrap().bounds().entries_refused, 30);
    assert!(world.cluster_status(2).is_healthy(), "it has heard nothing of that");
    world.run(62 * SECOND, None);
    assert!(world.cluster_status(0).is_healthy());
}
