//! Addresses and interfaces that come and go: the agent goes on, says what is missing, and no packet is lost
//! or clear beyond the outage itself.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};

use super::{Traffic, await_protected, seal_all};
use crate::lab::agent::{Status, kill_agent, start_agent, status, status_until};
use crate::lab::{Capture, Cluster, FAMILIES, Host, Kind, Lab, Packet, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("paths::an_interface_goes_down_and_comes_up", 2, interface_down_and_up),
    Test::new("paths::an_interface_is_taken_out_and_put_in_anew", 2, interface_made_anew),
    Test::new("paths::an_address_moves_to_another_interface", 2, address_moves),
    Test::new("paths::several_addresses_of_which_one_moves", 2, one_of_several_moves),
    Test::new("paths::an_agent_that_is_there_before_its_addresses", 2, agent_before_its_addresses),
];

/// The network has to find the host again: address resolution may wait for its timers.
const NETWORK: Duration = Duration::from_secs(3);

/// Packets a second of each stream.
const RATE: u32 = 250;

/// Whether the row of `remote` misses this host's own address.
fn misses_address(status: &Status, remote: IpAddr) -> bool {
    status.peer(remote).is_ok_and(|row| {
        row.at("/state") == "blocked"
            && row.at("/reason_code") == "no_address"
            && row.at("/reason").is_string()
    })
}

/// Takes away the addresses that a has in `families` and gives them back, under traffic with b. All that is
/// lost is lost in one go, between the last packet before and the first one after; nothing is ever clear.
fn outage(
    [a, b]: [&Host; 2],
    captures: Vec<Capture>,
    take: impl FnOnce() -> Result<()>,
    give: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let (started, agent) = (SystemTime::now(), status(a)?.agent()?);
    let traffic = Traffic::start(a, b, RATE)?;
    take()?;
    for family in FAMILIES {
        let what = format!("the missing address is named by {family:?}");
        status_until(a, &what, Duration::from_secs(5), |status| misses_address(status, b.address(family)))?;
    }
    let before = traffic.arrived();
    give()?;
    until("packets arrive again", NETWORK, || {
        let now = traffic.arrived();
        ensure!(before.iter().zip(&now).all(|(before, now)| now > before), "{before:?}, then {now:?}");
        Ok::<_, anyhow::Error>(())
    })?;
    await_protected(a)?;
    await_protected(b)?;
    for count in traffic.stop()? {
        println!("{count:?}");
        let once = count.lost > 0 && count.gaps == 1 && count.duplicated == 0;
        ensure!(once, "nothing is lost before and after the outage: {count:?}");
    }
    ensure!(status(a)?.agent()? == agent, "it is the same agent");
    for capture in captures {
        // A host without the address says so by its link-local one, which is no member's.
        let of_members = |packet: &Packet| !packet.addresses.is_some_and(|(from, _)| is_link_local(from));
        let report = capture.stop()?.since(started).filter(of_members);
        println!("{report}");
        report.ensure_nothing_clear()?;
        ensure!(report.count(Kind::Esp) > 0);
    }
    Ok(())
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn interface_down_and_up(lab: &mut Lab) -> Result<()> {
    let (a, b) = super::sealed_pair(lab)?;
    let captures = lab.capture_all()?;
    // The kernel takes IPv6 addresses away when their interface goes down.
    let up = format!("ip link set eth0 up && ip address add {}/64 dev eth0 nodad", a.v6());
    outage([&a, &b], captures, || a.run("ip link set eth0 down").map(drop), || a.run(&up).map(drop))
}

fn interface_made_anew(lab: &mut Lab) -> Result<()> {
    let (a, b) = super::sealed_pair(lab)?;
    // The capture of a's own cable would end with the cable.
    let captures = vec![lab.capture(&b)?];
    let wire = lab.wire().clone();
    outage(
        [&a, &b],
        captures,
        || a.run("ip link del eth0").map(drop),
        || wire.lay(&a).and_then(|()| a.network_up()),
    )
}

fn address_moves(lab: &mut Lab) -> Result<()> {
    let (a, b) = super::sealed_pair(lab)?;
    lab.wire().lay_second(&a)?;
    let captures = vec![lab.capture(&b)?];
    outage(
        [&a, &b],
        captures,
        || a.run("ip address flush dev eth0 scope global").map(drop),
        || move_to_second(&a, &[a.v4().into(), a.v6().into()]),
    )
}

/// Gives a host addresses on its second interface, which announces them.
fn move_to_second(host: &Host, addresses: &[IpAddr]) -> Result<()> {
    for address in addresses {
        let length = if address.is_ipv4() { 16 } else { 64 };
        host.run(&format!("ip address add {address}/{length} dev eth1 nodad"))?;
    }
    Ok(())
}

/// Two IPv4 addresses and one IPv6 address on each host make five pairs. What happens to one of the
/// addresses does not touch the pairs of the others.
fn one_of_several_moves(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let second = |host: &Host| format!("10.98.0.{}", host.number());
    for host in [&a, &b] {
        host.run(&format!("ip address add {}/16 dev eth0", second(host)))?;
    }
    let addresses = |host: &Host| vec![host.v4().to_string(), host.v6().to_string(), second(host)];
    let cluster = Cluster::new([(&a, addresses(&a)), (&b, addresses(&b))]);
    // Between networks there is no way without a router.
    for (host, other) in [(&a, &b), (&b, &a)] {
        host.run(&format!("ip route add {}/32 dev eth0 src {}", second(other), second(host)))?;
    }
    seal_all(&cluster, lab.hosts())?;
    ensure!(status(&a)?.number("/summary/protected") == 5, "{:#}", status(&a)?.0);
    lab.wire().lay_second(&a)?;
    let capture = lab.capture(&b)?;
    let started = SystemTime::now();
    let untouched = Traffic::start(&a, &b, RATE)?;
    a.run(&format!("ip address del {}/16 dev eth0", second(&a)))?;
    let moved = status_until(&a, "two rows miss their address", Duration::from_secs(5), |status| {
        status.number("/summary/blocked") == 2 && status.number("/summary/protected") == 3
    })?;
    println!("{:#}", moved.at("/summary"));
    move_to_second(&a, &[second(&a).parse()?])?;
    a.run(&format!("ip route replace {}/32 dev eth1 src {}", second(&b), second(&a)))?;
    await_protected(&a)?;
    until("pings pass between the second addresses", NETWORK, || {
        let passes = a.succeeds(&format!("ping -n -q -i 0.05 -c 5 -W 1 -I {} {}", second(&a), second(&b)))?;
        ensure!(passes, "they do not");
        Ok::<_, anyhow::Error>(())
    })?;
    untouched.ensure_complete()?;
    let report = capture.stop()?.since(started);
    println!("{report}");
    report.ensure_nothing_clear()
}

/// As at boot: the agent starts with nothing but what it remembers.
fn agent_before_its_addresses(lab: &mut Lab) -> Result<()> {
    let (a, b) = super::sealed_pair(lab)?;
    kill_agent(&a)?;
    a.run("ip link set eth0 down && ip xfrm state flush && ip xfrm policy flush")?;
    let _agent = start_agent(&a)?;
    for family in FAMILIES {
        status_until(&a, "the missing address is named", Duration::from_secs(5), |status| {
            status.at("/node") == "a" && misses_address(status, b.address(family))
        })?;
    }
    let capture = lab.capture(&b)?;
    let started = SystemTime::now();
    a.run(&format!("ip link set eth0 up && ip address add {}/64 dev eth0 nodad", a.v6()))?;
    status_until(&a, "protected soon after", Duration::from_secs(3), Status::all_protected)?;
    until("pings pass", NETWORK, || super::ensure_pings(&a, &b, 3))?;
    let report = capture.stop()?.since(started);
    println!("{report}");
    report.ensure_nothing_clear()
}
