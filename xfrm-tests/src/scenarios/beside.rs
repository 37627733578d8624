//! What goes on beside the pairs: multicast, broadcast, what hosts forward for others, and addresses that the file does
//! not list.

use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use super::{await_sealed, ensure_pings, seal_all};
use crate::lab::agent::{hostseal, hostseal_all, status, status_until};
use crate::lab::{Cluster, FAMILIES, Family, Host, Kind, Lab, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("beside::multicast_and_broadcast_arrive", 2, multicast_and_broadcast),
    Test::new("beside::a_member_routes_between_members", 3, a_member_routes),
    Test::new("beside::routed_pods_are_left_alone_and_named", 2, routed_pods),
    Test::new("beside::what_is_forwarded_can_be_blocked", 2, forwarded_blocked),
    Test::new("beside::what_gets_the_hosts_address_goes_as_esp", 2, masqueraded),
    Test::new("beside::addresses_without_a_pair_are_blocked_as_they_come_and_go", 2, unlisted_addresses),
    Test::new("beside::a_source_that_the_file_does_not_list_is_named", 2, unlisted_source),
];

/// What hosts send to many: by group, protocol, and port where it is UDP.
const MANY: [(&str, i32, u16); 5] = [
    ("239.192.1.1", 17, 5405),
    ("224.0.0.18", 112, 0),
    ("224.0.0.5", 89, 0),
    ("255.255.255.255", 17, 5406),
    ("ff05::7", 17, 5407),
];

/// Cluster managers, VRRP, OSPF, broadcasts and IPv6 groups between sealed hosts, both ways.
fn multicast_and_broadcast(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    seal_all(&Cluster::of(lab.hosts()), lab.hosts())?;
    for (from, to) in [(&a, &b), (&b, &a)] {
        for (group, protocol, port) in MANY {
            ensure!(reaches(from, to, group.parse()?, protocol, port)?, "{group} by protocol {protocol}");
        }
    }
    ensure_pings(&a, &b, 3)
}

/// Whether what a host sends to a group comes to another that listens to it.
fn reaches(from: &Host, to: &Host, group: IpAddr, protocol: i32, port: u16) -> Result<bool> {
    let ears = to.within(|| member(to, group, protocol, port))??;
    ears.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mouth = from.within(|| member(from, group, protocol, 0))??;
    let sender = from.address(if group.is_ipv4() { Family::V4 } else { Family::V6 });
    for _ in 0..5 {
        from.within(|| mouth.send_to(b"to all", &SocketAddr::new(group, port).into()))??;
        let mut room = [MaybeUninit::uninit(); 128];
        if let Ok((_, source)) = ears.recv_from(&mut room)
            && source.as_socket().is_some_and(|source| source.ip() == sender)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A socket of a host that hears a group.
fn member(host: &Host, group: IpAddr, protocol: i32, port: u16) -> Result<Socket> {
    let kind = if protocol == 17 { Type::DGRAM } else { Type::RAW };
    let domain = Domain::for_address(SocketAddr::new(group, 0));
    let socket = Socket::new(domain, kind, Some(Protocol::from(protocol)))?;
    match group {
        IpAddr::V4(group) => {
            socket.set_broadcast(true)?;
            socket.bind_device(Some(b"eth0"))?;
            socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
            if group.is_multicast() {
                socket.join_multicast_v4(&group, &host.v4())?;
                socket.set_multicast_if_v4(&host.v4())?;
            }
        }
        IpAddr::V6(group) => {
            let index: u32 = std::fs::read_to_string("/sys/class/net/eth0/ifindex")?.trim().parse()?;
            socket.bind(&SocketAddrV6::new([0; 16].into(), port, 0, 0).into())?;
            socket.join_multicast_v6(&group, index)?;
            socket.set_multicast_if_v6(index)?;
        }
    }
    Ok(socket)
}

/// c is between a and b, and sealed with both: it passes their ESP and their IKE on.
fn a_member_routes(lab: &mut Lab) -> Result<()> {
    let [a, b, c] = lab.all();
    lab.wire().route_through(&c, [&a, &b], 1500)?;
    let cluster = Cluster::of(lab.hosts()).with("keying", "rekey_after = \"3s\"");
    seal_all(&cluster, lab.hosts())?;
    let before = newest(&a, &b)?;
    let traffic = super::Traffic::start(&a, &b, 100)?;
    until("a and b have had other keys", Duration::from_secs(20), || {
        ensure!(newest(&a, &b)? != before, "{before} still");
        Ok::<_, anyhow::Error>(())
    })?;
    traffic.ensure_complete()?;
    ensure_pings(&a, &b, 10)?;
    ensure_pings(&c, &b, 3)
}

/// The SA that a host sends to another through.
fn newest(host: &Host, to: &Host) -> Result<String> {
    Ok(status(host)?.peer(to.v4().into())?.at("/sas/0/spi").to_string())
}

/// The network behind [`pod`]'s host.
const PODS: &str = "10.244.0.0/16";
/// The pod.
const POD: &str = "10.244.0.2";

/// A pod behind a host: another network namespace on a bridge of the host's, which routes for it.
fn pod(host: &Host, others: &[&Host]) -> Result<Host> {
    let pod = Host::new("pod", 99)?;
    host.run(&format!(
        "sysctl -qw net.ipv4.ip_forward=1 && ip link add pods type bridge && ip address add 10.244.0.1/16 dev pods && \
         ip link set pods up && ip link add pod0 type veth peer name eth0 netns {} && \
         ip link set pod0 master pods up",
        pod.net_path()
    ))?;
    pod.run(&format!(
        "ip address add {POD}/16 dev eth0 && ip link set eth0 up && ip route add default via 10.244.0.1"
    ))?;
    for other in others {
        other.run(&format!("ip route add {PODS} via {}", host.v4()))?;
    }
    Ok(pod)
}

/// Pods with their own addresses talk to a sealed peer as before, in the clear; the host that forwards says so.
fn routed_pods(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let pod = pod(&a, &[&b])?;
    seal_all(&Cluster::of(lab.hosts()), lab.hosts())?;
    ensure!(pod.ping(&b, Family::V4, 5)? == 5, "the pod reaches b");
    ensure!(b.ping_at(POD.parse()?, 5)? == 5, "b reaches the pod");
    let named = status_until(&a, "what is forwarded is named", Duration::from_secs(5), |status| {
        status.at("/problems").to_string().contains("forwarded_clear")
    })?;
    ensure!(named.at("/problems").to_string().contains("pods"), "{:#}", named.0);
    ensure!(!status(&b)?.at("/problems").to_string().contains("forwarded_clear"), "b forwards nothing");
    ensure_pings(&a, &b, 3)
}

/// The same where the file says that it is not wanted.
fn forwarded_blocked(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let pod = pod(&a, &[&b])?;
    ensure!(pod.ping(&b, Family::V4, 3)? == 3, "the pod reaches b before");
    seal_all(&Cluster::of(lab.hosts()).with("protection", "forwarded = \"block\""), lab.hosts())?;
    ensure!(pod.ping(&b, Family::V4, 3)? == 0 && b.ping_at(POD.parse()?, 3)? == 0, "nothing is forwarded");
    ensure!(!status(&a)?.at("/problems").to_string().contains("forwarded_clear"));
    ensure_pings(&a, &b, 3)?;
    for outcome in hostseal_all(lab.hosts(), "disable")? {
        outcome.expect_code(0)?;
    }
    ensure!(pod.ping(&b, Family::V4, 3)? == 3, "the pod reaches b again");
    Ok(())
}

/// What leaves a pod with the host's address is the host's to the kernel: ESP. There is no NAT with a memory in the
/// lab's kernel, so it is given the address as it enters the host, and answers do not come back to it.
fn masqueraded(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let pod = pod(&a, &[])?;
    a.run(&format!(
        "sysctl -qw net.ipv4.conf.pods.accept_local=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.pods.rp_filter=0 && \
         tc qdisc add dev pods clsact && \
         tc filter add dev pods ingress protocol ip flower src_ip {POD} action nat egress {POD} {}",
        a.v4()
    ))?;
    seal_all(&Cluster::of(lab.hosts()), lab.hosts())?;
    let (capture, sealed) = (lab.capture(&b)?, SystemTime::now());
    let ears = b.within(|| udp(SocketAddr::from((b.v4(), 5300))))??;
    ears.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mouth = pod.within(|| udp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))))??;
    mouth.send_to(b"from the pod", &SocketAddr::from((b.v4(), 5300)).into())?;
    let mut room = [MaybeUninit::uninit(); 64];
    let (_, source) = ears.recv_from(&mut room).context("b hears the pod")?;
    ensure!(source.as_socket().map(|source| source.ip()) == Some(a.v4().into()), "{source:?}");
    let report = capture.stop()?.since(sealed);
    println!("{report}");
    report.ensure_nothing_clear()?;
    ensure!(report.count(Kind::Esp) > 0, "{report}");
    Ok(())
}

fn udp(local: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, None)?;
    socket.bind(&local.into())?;
    Ok(socket)
}

/// Addresses that the file does not list, in both families, before and after sealing.
fn unlisted_addresses(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let unlisted = |number: u8| -> Result<[IpAddr; 2]> {
        Ok([format!("10.99.9.{number}").parse()?, format!("fd99::9:{number}").parse()?])
    };
    let add = |host: &Host, [v4, v6]: [IpAddr; 2]| {
        host.run(&format!(
            "ip address add {v4}/16 dev eth0 && ip address add {v6}/64 dev eth0 nodad \
             preferred_lft 0"
        ))
    };
    let early = unlisted(1)?;
    add(&a, early)?;
    seal_all(&Cluster::of(lab.hosts()), lab.hosts())?;
    let blocked = |own: [IpAddr; 2]| {
        for (own, family) in own.into_iter().zip(FAMILIES) {
            let line = format!("ping -n -q -I {own} -W 1 -c 1 {}", b.address(family));
            ensure!(!a.succeeds(&line)?, "{own} reaches b");
            ensure!(b.ping_at(own, 1)? == 0, "b reaches {own}");
        }
        Ok(())
    };
    until("what was there is blocked", Duration::from_secs(5), || blocked(early))?;
    let late = unlisted(2)?;
    add(&a, late)?;
    until("what has come is blocked", Duration::from_secs(5), || blocked(late))?;
    let named = status(&a)?.at("/problems").to_string();
    ensure!(named.contains("unpaired_address"), "{named}");
    early.iter().chain(&late).try_for_each(|own| {
        ensure!(named.contains(&own.to_string()), "{own}: {named}");
        Ok(())
    })?;
    let guards = || a.run("ip xfrm policy").map(|shown| shown.matches("priority 1200").count());
    let with_both = guards()?;
    a.run(&format!("ip address del {}/16 dev eth0", late[0]))?;
    until("what has gone is forgotten", Duration::from_secs(5), || {
        let left = guards()?;
        ensure!(left == with_both - 2, "{left} of {with_both}");
        Ok::<_, anyhow::Error>(())
    })?;
    await_sealed(&a)?;
    ensure_pings(&a, &b, 3)
}

/// Routing chooses a source that the file does not list: said before anything is sealed, by `enable` and by
/// `config check`, and as soon as it happens afterwards; and the same for IPv6.
fn unlisted_source(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let cluster = Cluster::of(lab.hosts());
    cluster.install_all(lab.hosts())?;
    a.run(
        "ip address add 10.99.7.7/32 dev eth0 && ip address add fd99::7:7/128 dev eth0 nodad preferred_lft 0",
    )?;
    let [v4, v6] = [
        "ip route replace 10.99.0.0/16 dev eth0 src 10.99.7.7",
        "ip -6 route replace fd99::/64 dev eth0 src fd99::7:7 metric 1",
    ];
    a.run(v4)?;
    let check = hostseal(&a, "config check")?.expect_code(0)?;
    ensure!(check.stdout.contains("b (10.99.0.2) from 10.99.7.7 (eth0)"), "{check:?}");
    let enable = hostseal(&a, "enable --no-wait")?.expect_code(0)?;
    ensure!(enable.stderr.contains("from 10.99.7.7 (eth0)"), "{enable:?}");
    a.run("ip route replace 10.99.0.0/16 dev eth0 src 10.99.0.1")?;
    let named = |what: &'static str, is_named: bool, source: &str| {
        status_until(&a, what, Duration::from_secs(10), |status| {
            status.at("/problems").to_string().contains(&format!("from {source} (eth0)")) == is_named
        })
    };
    named("nothing is wrong", false, "10.99.7.7")?;
    seal_all(&cluster, lab.hosts())?;
    for (change, source, undo) in [
        (v4, "10.99.7.7", "ip route replace 10.99.0.0/16 dev eth0 src 10.99.0.1"),
        (v6, "fd99::7:7", "ip -6 route del fd99::/64 dev eth0 metric 1"),
    ] {
        a.run(change)?;
        let status = named("the source is named", true, source)?;
        ensure!(status.at("/problems/0/code") == "unlisted_source", "{:#}", status.0);
        hostseal(&a, "status")?.expect_code(3)?;
        a.run(undo)?;
        named("it is listed again", false, source)?;
    }
    hostseal(&a, "status")?.expect_code(0)?;
    ensure_pings(&a, &b, 3)
}
