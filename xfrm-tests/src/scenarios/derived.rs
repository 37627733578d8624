//! Keys derived from the secret, without Diffie-Hellman: what holds for the other method holds here, and a cluster
//! moves from one to the other.

use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};

use super::reload::{give_all, spis};
use super::{
    Traffic, await_one_pair, crash, disable, enable, ensure_only_esp, reboot, refusal, rekey, seal_all,
};
use crate::lab::agent::{hostseal, status_until};
use crate::lab::{Cluster, Family, Host, Lab};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("derived::nothing_is_clear_from_then_on", 3, |lab| {
        enable::nothing_is_clear_from_then_on(lab, DERIVED)
    }),
    Test::new("derived::rekeys_lose_nothing", 2, |lab| rekey::rekeys_lose_nothing(lab, DERIVED, 8)),
    Test::new("derived::a_killed_agent_loses_nothing", 2, |lab| {
        crash::a_killed_agent_loses_nothing(lab, DERIVED, Duration::from_secs(8))
    }),
    Test::new("derived::a_guarded_host_boots_without_a_clear_packet", 2, |lab| {
        reboot::boots_without_a_clear_packet(lab, DERIVED)
    }),
    Test::new("derived::disable_leaves_nothing_of_ours", 2, |lab| {
        disable::everywhere_leaves_nothing_of_ours(lab, DERIVED)
    }),
    Test::new("derived::another_secret", 3, |lab| refusal::another_secret(lab, DERIVED)),
    Test::new("derived::a_cluster_moves_there_and_back", 3, a_cluster_moves_there_and_back),
];

const DERIVED: &str = "derived";
/// How long a move may take on one host.
const MOVED: Duration = Duration::from_secs(20);

/// From one method to the other and back, host by host under traffic: what is only accepted changes nothing, and
/// nothing is lost or clear.
fn a_cluster_moves_there_and_back(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts().to_vec();
    let [a, b, _] = lab.all();
    let cluster = || Cluster::of_v4(&hosts);
    let both = |method: &str| cluster().by(method).with("keying", "accept = [\"ike\", \"derived\"]");
    seal_all(&cluster().by("ike"), &hosts)?;
    let (sealed, captures) = (SystemTime::now(), lab.capture_all()?);
    let traffic = Traffic::of(&[(&a, &b), (&b, &a)], &[Family::V4], 250)?;
    for (from, to) in [("ike", DERIVED), (DERIVED, "ike")] {
        // What came before has gone.
        await_one_pair(&a, &b, Family::V4, MOVED)?;
        let before = spis(&a, &b)?;
        give_all(&both(from), &hosts)?;
        ensure!(spis(&a, &b)? == before, "what is accepted changes nothing");
        hosts[0].write("/tmp/next.toml", &both(to).text(), 0o644)?;
        let planned = hostseal(&a, "plan --with /tmp/next.toml")?.expect_code(0)?.stdout;
        ensure!(planned.contains("a successor takes over"), "{planned}");
        give_all(&both(to), &hosts)?;
        hosts.iter().try_for_each(|host| await_made(host, to))?;
        give_all(&cluster().by(to), &hosts)?;
    }
    traffic.ensure_complete()?;
    ensure_only_esp(captures, sealed)?;
    await_one_pair(&a, &b, Family::V4, MOVED)
}

/// Waits until the keys of all rows of a host were made so.
fn await_made(host: &Host, method: &str) -> Result<()> {
    status_until(host, "all keys are made the other way", MOVED, |status| {
        status.all_protected() && status.peers().iter().all(|row| row["keying"] == method)
    })
    .map(drop)
}
