//! How many messages hosts say to each other: as few as can be, since thousands of pairs do it at once.

use std::time::Duration;

use super::cluster::{MILLISECOND, SECOND, seeds};
use super::net::Weather;
use super::world::World;
use crate::types::Method;

/// IKE datagrams until `hosts` are protected from each other and all is said, and how their keys are made.
fn datagrams(hosts: usize, seed: u64, delay: Duration) -> (u64, Method) {
    let mut world = World::new(hosts, seed, Weather { delay: (delay / 2, delay), ..Weather::FAIR });
    (0..hosts).for_each(|host| world.enable(host));
    world.run(10 * SECOND, None);
    assert!(world.all_protected());
    (world.net.ike_sent, world.hosts[0].file.method)
}

/// ```text
/// a  <-> b   IKE_SA_INIT and IKE_INTERMEDIATE, or IKE_SESSION_RESUME
/// a  <-> b   IKE_AUTH
/// a  --- probe -->  b
/// a  <-- probe ---  b
/// a  <-> b   INFORMATIONAL: each tells the other that it sends ESP
/// ```
#[test]
fn one_exchange_of_words_is_enough_for_a_pair() {
    for (hosts, pairs) in [(2, 1), (6, 15)] {
        seeds(4, |seed| {
            for delay in [Duration::from_micros(300), MILLISECOND, 20 * MILLISECOND] {
                let (said, method) = datagrams(hosts, seed, delay);
                let least = if method == Method::Ike { 8 } else { 6 };
                assert_eq!(said, pairs * least, "{hosts} hosts, {delay:?}");
            }
        });
    }
}
