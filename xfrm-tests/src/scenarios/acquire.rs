//! Packets that find no SA: whom the kernel asks for one, and what that does to others.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use hostseal::types::{Pair, PolicyDirection, ours};
use hostseal::xfrm::{Monitor, Notification};

use super::sealed_pair;
use crate::lab::{Host, Lab};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("acquire::one_is_heard_for_each_pair_of_ours_and_none_of_others", 2, heard),
    Test::new("acquire::an_agent_leaves_what_others_lack_to_them", 2, left_alone),
];

/// A policy through an SA that is not there. `more` says where the policy is.
fn lacking(from: &Host, to: IpAddr, more: &str) -> Result<()> {
    let from_v4 = from.v4();
    from.run(&format!(
        "ip xfrm policy add src {from_v4} dst {to} dir out {more} \
         tmpl src {from_v4} dst {to} proto esp spi 0xc1d2e3f4 reqid 42 mode transport"
    ))?;
    Ok(())
}

/// Packets for which there is no SA are dropped.
fn send(from: &Host, to: IpAddr) -> Result<()> {
    let _ = from.output(&format!("ping -c 5 -i 0.2 -W 1 {to}"))?;
    Ok(())
}

fn heard(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let (ours, other) = (IpAddr::from(b.v4()), IpAddr::from([10, 99, 0, 77]));
    let mut events = a.within(|| Monitor::open_beside(u32::MAX))??;
    events.hear_acquires()?;
    lacking(
        &a,
        ours,
        &format!("index {} priority {}", ours::policy_index(PolicyDirection::Out, 0), ours::priority::PAIR),
    )?;
    lacking(&a, other, "priority 7")?;
    for to in [other, ours, ours] {
        send(&a, to)?;
    }
    let events = std::iter::from_fn(|| events.next());
    let wanted: Vec<Notification> =
        events.filter(|event| matches!(event, Notification::SaWanted { .. })).collect();
    println!("{wanted:?}");
    let pair = Pair { local: a.v4().into(), remote: ours };
    ensure!(wanted == [Notification::SaWanted { pair }], "heard of {wanted:?}");
    Ok(())
}

/// Who listens for ACQUIREs makes the kernel put a larval SA in the place of one that a stranger is about to add.
fn left_alone(lab: &mut Lab) -> Result<()> {
    let (a, _) = sealed_pair(lab)?;
    let other = IpAddr::from([10, 99, 0, 77]);
    lacking(&a, other, "priority 7")?;
    send(&a, other)?;
    let (from, found) = (a.v4(), a.run("ip xfrm state list reqid 42")?);
    ensure!(found.is_empty(), "a larval SA:\n{found}");
    a.run(&format!(
        "ip xfrm state add src {from} dst {other} proto esp spi 0xc1d2e3f4 reqid 42 mode transport \
         aead 'rfc4106(gcm(aes))' 0x000102030405060708090a0b0c0d0e0f10111213 128"
    ))?;
    Ok(())
}
