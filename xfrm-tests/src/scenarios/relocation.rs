//! Nodes of a cluster that get other addresses: what flows goes on, and what is new is protected before it flows.

use std::net::IpAddr;
use std::time::SystemTime;

use anyhow::{Result, ensure};

use super::members::{LONG, await_cluster, is_protected};
use super::{FAMILIES, Traffic, await_sealed, ensure_only_esp, every_way};
use crate::lab::agent::{hostseal, status_until};
use crate::lab::members::found;
use crate::lab::{Host, Lab};
use crate::tests::Test;

pub(super) const ALL: &[Test] =
    &[Test::new("relocation::a_node_moves_under_traffic", 3, moves_under_traffic).within(240)];

/// Where b and c move to.
const OF_B: &str = "10.99.0.201";
const OF_C: &str = "10.99.0.202";

fn moves_under_traffic(lab: &mut Lab) -> Result<()> {
    found(lab.hosts())?;
    let [a, b, c] = lab.all();
    hostseal(&a, "enable --cluster --timeout 50s")?.expect_code(0)?;
    lab.hosts().iter().try_for_each(await_sealed)?;
    let (captures, begun) = (vec![lab.capture(&a)?, lab.capture(&c)?], SystemTime::now());
    let traffic = Traffic::of(&every_way(lab.hosts()), &FAMILIES, 50)?;
    // First b has both, and its old address is in use.
    // A secondary address stays when the first one goes.
    b.run(&format!(
        "sysctl -qw net.ipv4.conf.all.promote_secondaries=1 && ip address add {OF_B}/16 dev eth0"
    ))?;
    let refused = hostseal(&b, &format!("move b --address {OF_B}"))?.expect_code(1)?;
    ensure!(refused.stderr.contains("the admins are a"), "{}", refused.stderr);
    let refused = hostseal(&a, &format!("move b --address {}", c.v4()))?.expect_code(1)?;
    ensure!(refused.stderr.contains("is an address of the node c"), "{}", refused.stderr);
    move_to(&a, &b, &format!("{},{},{OF_B}", b.v4(), b.v6()))?;
    await_protected_with(&[&a, &c], OF_B)?;
    for host in [&a, &c] {
        ensure!(host.ping_at(OF_B.parse()?, 3)? == 3, "{} does not reach b", host.name());
    }
    traffic.ensure_complete()?;
    ensure_only_esp(captures, begun)?;
    // Then it has the new one alone.
    move_to(&a, &b, &format!("{OF_B},{}", b.v6()))?;
    await_cluster(&a, "all is protected", |status| is_protected(status, 3))?;
    b.run(&format!("ip address del {}/16 dev eth0", b.v4()))?;
    // c is renumbered first, and knows nothing of that.
    let traffic = Traffic::of(&[(&a, &b), (&b, &a)], &FAMILIES[1..], 50)?;
    c.run(&format!("ip address del {}/16 dev eth0 && ip address add {OF_C}/16 dev eth0", c.v4()))?;
    move_to(&a, &c, &format!("{OF_C},{}", c.v6()))?;
    await_protected_with(&[&a, &b], OF_C)?;
    await_cluster(&b, "all is protected", |status| is_protected(status, 3))?;
    traffic.ensure_complete()
}

fn move_to(admin: &Host, node: &Host, addresses: &str) -> Result<()> {
    hostseal(admin, &format!("move {} --address {addresses}", node.name()))?.expect_code(0).map(drop)
}

fn await_protected_with(hosts: &[&Host], address: &str) -> Result<()> {
    let address: IpAddr = address.parse()?;
    for host in hosts {
        status_until(host, &format!("its pair with {address} is protected"), LONG, |status| {
            status.peer(address).is_ok_and(|peer| peer.at("/state") == "protected")
        })?;
    }
    Ok(())
}
