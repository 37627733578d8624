//! Sysctls that let packets past IPsec: named whenever they are set, and no longer than that.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{seal_all, sealed_pair};
use crate::lab::agent::{hostseal, kill_agent};
use crate::lab::{Cluster, Host, Lab, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("holes::are_named_while_they_are_there", 2, are_named),
    Test::new("holes::an_interface_beside_takes_clear_packets_in_a_peers_name", 3, beside),
];

/// The messages of `hole` with that severity, of a status that ends with `code`.
fn holes(host: &Host, code: i32, severity: &str) -> Result<Vec<String>> {
    let json = hostseal(host, "status --json")?.expect_code(code)?.json()?;
    let problems = json["problems"].as_array().cloned().unwrap_or_default();
    let wanted = problems.iter().filter(|it| it["code"] == "hole" && it["severity"] == severity);
    Ok(wanted.map(|it| it["message"].as_str().unwrap_or_default().to_owned()).collect())
}

fn set(host: &Host, sysctl: &str, value: u8) -> Result<()> {
    host.run(&format!("sysctl -qw net/{sysctl}={value}")).map(drop)
}

/// c is no member. It sends a packet in the name of b to an interface of a that no pair uses.
fn beside(lab: &mut Lab) -> Result<()> {
    let [a, b, c] = lab.all();
    seal_all(&Cluster::of(&[a.clone(), b.clone()]), &[a.clone(), b.clone()])?;
    lab.wire().lay_second(&a)?;
    let mac = a.run("cat /sys/class/net/eth1/address")?;
    // Nobody else is to take c for b.
    c.run(&format!(
        "sysctl -qw net.ipv4.conf.all.arp_ignore=8 && ip addr add {}/32 dev eth0 \
         && ip neigh replace {} lladdr {} dev eth0 nud permanent",
        b.v4(),
        a.v4(),
        mac.trim()
    ))?;
    let service = a.within(|| UdpSocket::bind((a.v4(), 5555)))??;
    service.set_read_timeout(Some(Duration::from_secs(1)))?;
    let passes = || -> Result<bool> {
        c.within(|| UdpSocket::bind((b.v4(), 0))?.send_to(b"in the name of b", (a.v4(), 5555)))??;
        Ok(service.recv_from(&mut [0; 64]).is_ok_and(|(_, from)| from.ip() == b.v4()))
    };
    ensure!(!passes()?, "the pair is sealed");
    set(&a, "ipv4/conf/eth1/disable_policy", 1)?;
    ensure!(passes()?, "the kernel lets it in");
    let found = holes(&a, 3, "critical")?;
    ensure!(found.len() == 1 && found[0].contains("interface eth1 is a hole"), "{found:?}");
    set(&a, "ipv4/conf/eth1/rp_filter", 1)?;
    ensure!(!passes()?, "b is not there");
    ensure!(holes(&a, 0, "critical")?.is_empty() && holes(&a, 0, "info")?.len() == 1);
    Ok(())
}

fn are_named(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    ensure!(holes(&a, 0, "critical")?.is_empty());
    for (sysctl, words) in [
        ("ipv4/conf/eth0/disable_xfrm", "interface eth0 is a hole: IPv4 packets leave in the clear"),
        ("ipv4/conf/all/disable_xfrm", "every interface is a hole: IPv4 packets leave in the clear"),
        ("ipv4/conf/eth0/disable_policy", "IPv4 packets are accepted in the clear"),
        ("ipv6/conf/eth0/disable_policy", "IPv6 packets are accepted in the clear"),
    ] {
        set(&a, sysctl, 1)?;
        let found = holes(&a, 3, "critical")?;
        ensure!(found.len() == 1 && found[0].contains(words), "{sysctl}: {found:?}");
        // The agent sees it by itself: nobody has to ask.
        until("the log names it", Duration::from_secs(30), || {
            let log = a.read("/run/hostseal/agent.log")?;
            ensure!(log.contains(&found[0]), "{log}");
            Ok::<_, anyhow::Error>(())
        })?;
        set(&a, sysctl, 0)?;
        ensure!(holes(&a, 0, "critical")?.is_empty(), "{sysctl} is 0 again");
    }

    // One that no pair uses is no gap, until a route to a peer leads there.
    lab.wire().lay_second(&a)?;
    set(&a, "ipv4/conf/eth1/disable_xfrm", 1)?;
    let unused = holes(&a, 0, "info")?;
    ensure!(unused.len() == 1 && unused[0].contains("though no pair uses it now"), "{unused:?}");
    a.run(&format!("ip route add {}/32 dev eth1 src {}", b.v4(), a.v4()))?;
    let used = holes(&a, 3, "critical")?;
    ensure!(used.len() == 1 && used[0].contains("interface eth1 is a hole"), "{used:?}");
    set(&a, "ipv6/conf/lo/disable_policy", 1)?;
    let unused = holes(&a, 3, "info")?;
    ensure!(unused.len() == 1 && unused[0].contains("interface lo is a hole, though"), "{unused:?}");
    kill_agent(&a)?;
    ensure!(holes(&a, 3, "critical")? == used, "it is a hole with a dead agent too");
    a.run(&format!("ip addr add {}/128 dev lo", a.v6()))?;
    let found = holes(&a, 3, "critical")?;
    ensure!(found.len() == 2 && found[1].contains("interface lo is a hole: IPv6 packets"), "{found:?}");
    Ok(())
}
