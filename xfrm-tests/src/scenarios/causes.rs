//! What could not be written, and what stands in the way of a pair, is named as what it is.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{await_protected, ensure_nothing_of_ours, ensure_pings, seal_all, sealed_pair};
use crate::lab::agent::{CONFIG, SECRETS, Status, hostseal, kill_agent, start_agent, status, status_until};
use crate::lab::{Cluster, Family, Host, Lab, Toward};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("causes::a_full_disk_is_named_until_there_is_room", 2, disk_fills),
    Test::new("causes::enable_is_refused_where_what_will_be_sealed_has_no_room", 2, no_room),
    Test::new("causes::a_broken_state_file_hides_nothing", 2, broken_state),
    Test::new("causes::a_lost_state_file_hides_nothing", 2, lost_state),
    Test::new("causes::whoever_takes_the_port_of_esp_in_udp_keeps_no_agent_away", 2, port_taken),
    Test::new("causes::what_routing_refuses_is_no_silence", 2, routing_refuses),
    Test::new("causes::a_peer_whose_file_dropped_this_host_says_so", 3, removed),
    Test::new("causes::a_host_that_the_file_forgot_is_named_by_those_it_asks", 3, forgotten),
    Test::new("causes::blocked_esp_is_named_with_its_direction", 2, one_way),
];

const SOON: Duration = Duration::from_secs(20);

pub(super) fn problem<'a>(status: &'a Status, code: &str) -> Option<&'a serde_json::Value> {
    let problems = status.at("/problems").as_array().map(Vec::as_slice).unwrap_or_default();
    problems.iter().find(|problem| problem["code"] == code)
}

/// A state directory of 64 KiB.
fn small_disk(host: &Host) -> Result<()> {
    host.run("mkdir -p /var/lib/hostseal && mount -t tmpfs -o size=64k,mode=0700 none /var/lib/hostseal")?;
    Ok(())
}

/// Fills it, but for so many bytes.
fn fill(host: &Host, left: u32) -> Result<()> {
    host.run(&format!(
        "dd if=/dev/zero of=/var/lib/hostseal/fill bs=4096 2>/dev/null; truncate -s -{left} /var/lib/hostseal/fill"
    ))?;
    Ok(())
}

fn disk_fills(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts();
    small_disk(&hosts[0])?;
    seal_all(&Cluster::of(hosts), hosts)?;
    let a = &hosts[0];
    ensure!(problem(&status(a)?, "state_not_saved").is_none());
    fill(a, 0)?;
    // New keys take the place of those that are gone, which is to be remembered.
    a.run("ip xfrm state flush")?;
    let named = status_until(a, "it is named", SOON, |it| problem(it, "state_not_saved").is_some())?;
    println!("{:#}", problem(&named, "state_not_saved").unwrap_or(&serde_json::Value::Null));
    await_protected(a)?;
    hostseal(a, "status")?.expect_code(3)?;
    a.run("rm /var/lib/hostseal/fill")?;
    status_until(a, "it is written at last", SOON, |it| problem(it, "state_not_saved").is_none())?;
    hostseal(a, "status")?.expect_code(0)?;
    Ok(())
}

/// There is room for what is written first, and not for what is written once pairs are sealed.
fn no_room(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts();
    let cluster = Cluster::of(hosts);
    cluster.install_all(hosts)?;
    let a = &hosts[0];
    small_disk(a)?;
    fill(a, 4096)?;
    let refused = hostseal(a, "enable --timeout 10s")?.expect_code(1)?;
    println!("{}", refused.stderr);
    ensure!(refused.stderr.contains("no room"), "{}", refused.stderr);
    ensure!(status(a)?.at("/protection") == "off");
    ensure_nothing_of_ours(a)?;
    a.run("rm /var/lib/hostseal/fill")?;
    seal_all(&cluster, hosts)
}

/// What the last agent left is broken: the kernel is shown all the same.
fn broken_state(lab: &mut Lab) -> Result<()> {
    let (a, _) = sealed_pair(lab)?;
    kill_agent(&a)?;
    a.write("/var/lib/hostseal/state.json", "{", 0o600)?;
    let outcome = hostseal(&a, "status --json")?.expect_code(3)?;
    let seen = Status(outcome.json()?);
    ensure!(seen.all_protected(), "{:#}", seen.0);
    let named = problem(&seen, "state_not_saved").map(ToString::to_string).unwrap_or_default();
    ensure!(named.contains("state.json") && named.contains("critical"), "{named}");
    hostseal(&a, "disable --force")?.expect_code(0)?;
    ensure!(status(&a)?.at("/protection") == "off");
    // Nothing of ours is there, and nobody knows what was wanted.
    a.write("/var/lib/hostseal/state.json", "{", 0o600)?;
    let outcome = hostseal(&a, "status --json")?.expect_code(3)?;
    ensure!(problem(&Status(outcome.json()?), "state_not_saved").is_some());
    Ok(())
}

/// What the last agent left is lost, and then the mark too: what is in the kernel is shown all the same.
fn lost_state(lab: &mut Lab) -> Result<()> {
    let (a, _) = sealed_pair(lab)?;
    kill_agent(&a)?;
    a.run("rm -r /var/lib/hostseal")?;
    let seen = Status(hostseal(&a, "status --json")?.expect_code(3)?.json()?);
    ensure!(seen.all_protected() && seen.at("/protection") == "on", "{:#}", seen.0);
    let named = problem(&seen, "state_not_saved").map(ToString::to_string).unwrap_or_default();
    ensure!(named.contains("state.json is lost") && named.contains("critical"), "{named}");
    a.run("rm /etc/hostseal/hostseal.toml.enabled")?;
    let seen = Status(hostseal(&a, "status --json")?.expect_code(3)?.json()?);
    ensure!(seen.all_protected() && seen.at("/protection") == "disabling", "{:#}", seen.0);
    let words = hostseal(&a, "status")?.expect_code(3)?.stdout;
    ensure!(words.contains("finishes the way to the clear"), "{words}");
    hostseal(&a, "disable --force")?.expect_code(0)?;
    ensure_nothing_of_ours(&a)
}

/// Any local user can take UDP 4500 while no agent runs.
fn port_taken(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    kill_agent(&a)?;
    let taken = a.within(|| UdpSocket::bind("0.0.0.0:4500"))??;
    let _agent = start_agent(&a)?;
    let named =
        |status: &Status| problem(status, "port_taken").is_some_and(|it| it.to_string().contains(":4500"));
    let limit = Duration::from_secs(30);
    status_until(&a, "it goes on without the port", limit, |status| status.all_protected() && named(status))?;
    hostseal(&a, "status")?.expect_code(0)?;
    drop(taken);
    status_until(&a, "it takes the port", limit, |status| problem(status, "port_taken").is_none())?;
    ensure!(a.run("ss -ulnH 'sport = :4500'")?.contains(&a.address(Family::V4).to_string()));
    ensure_pings(&a, &b, 3)
}

fn row_says(host: &Host, remote: IpAddr, code: &str, words: &str) -> Result<()> {
    let seen = status_until(host, words, Duration::from_secs(40), |status| {
        status.peer(remote).is_ok_and(|row| {
            row.at("/reason_code") == code && row.at("/reason").as_str().is_some_and(|it| it.contains(words))
        })
    })?;
    println!("{}", seen.peer(remote)?.at("/reason"));
    Ok(())
}

/// What routing makes of packets to a peer: how it comes and goes, and what the peer's row says meanwhile.
fn routing_refuses(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts();
    let cluster = Cluster::of_v4(hosts);
    cluster.install_all(hosts)?;
    let (a, b) = (&hosts[0], &hosts[1]);
    let (own, peer) = (a.v4(), b.v4());
    hostseal(b, "enable --no-wait")?.expect_code(0)?;
    let special =
        |kind: &str| [format!("ip route add {kind} {peer}/32"), format!("ip route del {kind} {peer}/32")];
    let no_route = format!("no route leads from this host to b ({peer})");
    let network = format!("10.99.0.0/16 dev eth0 scope link src {own}");
    let without = [format!("ip route del {network}"), format!("ip route add {network}")];
    let in_vrf = [
        "modprobe vrf; ip link add red type vrf table 10 && ip link set red up && ip link set eth0 master red",
        "ip link set eth0 nomaster && ip link del red",
    ];
    for ([comes, goes], in_row, beside) in [
        (special("prohibit"), "Permission denied", no_route.clone()),
        (special("unreachable"), "No route to host", no_route.clone()),
        (without, "Network is unreachable", no_route),
        (in_vrf.map(str::to_owned), "is in the VRF red", format!("{own} is in the VRF red")),
    ] {
        a.run(&comes)?;
        let check = hostseal(a, "config check")?.expect_code(0)?.stdout;
        ensure!(check.contains(&beside), "{comes}: {check}");
        hostseal(a, "enable --timeout 10s")?.expect_code(3)?;
        row_says(a, peer.into(), "kernel_error", in_row)?;
        status_until(a, "the way is named", SOON, |status| {
            problem(status, "no_route").is_some_and(|told| told.to_string().contains(&beside))
        })?;
        a.run(&goes)?;
        status_until(a, "protected once the way is free", Duration::from_secs(60), Status::all_protected)?;
        status_until(a, "no way is missing", SOON, |status| problem(status, "no_route").is_none())?;
        hostseal(a, "disable")?.expect_code(0)?;
        hostseal(b, "disable")?.expect_code(0)?;
        hostseal(b, "enable --no-wait")?.expect_code(0)?;
    }
    Ok(())
}

fn removed(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts();
    seal_all(&Cluster::of_v4(hosts), hosts)?;
    let (a, b) = (&hosts[0], &hosts[1]);
    b.write(CONFIG, &Cluster::of_v4(&hosts[1..]).text(), 0o644)?;
    hostseal(b, "reload")?.expect_code(0)?;
    row_says(a, b.v4().into(), "peer_disabled", "does not list this host any more")?;
    let other = status(a)?.peer(hosts[2].v4().into())?;
    ensure!(other.at("/state") == "protected");
    Ok(())
}

fn forgotten(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts();
    let (a, b) = (&hosts[0], &hosts[1]);
    Cluster::of_v4(&hosts[..2]).install(a, SECRETS[0])?;
    let others = Cluster::of_v4(&hosts[1..]);
    others.install_all(&hosts[1..])?;
    for host in hosts {
        hostseal(host, "enable --no-wait")?.expect_code(0)?;
    }
    let seen = status_until(b, "a is named", SOON, |it| problem(it, "unlisted_peer").is_some())?;
    let named = problem(&seen, "unlisted_peer").map(ToString::to_string).unwrap_or_default();
    println!("{named}");
    ensure!(named.contains(&a.v4().to_string()) && named.contains("info"), "{named}");
    await_protected(b)?;
    hostseal(b, "status")?.expect_code(0)?;
    row_says(a, b.v4().into(), "no_answer", "No answer since 20")?;
    // Listed, it is nobody strange any more.
    Cluster::of_v4(hosts).install_all(hosts)?;
    for host in hosts {
        status_until(host, "all know each other", Duration::from_secs(90), |it| {
            it.all_protected() && it.peers().len() == 2
        })?;
    }
    Ok(())
}

fn one_way(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts();
    let (a, b) = (&hosts[0], &hosts[1]);
    Cluster::of_v4(hosts).with("esp", "encapsulation = \"never\"").install_all(hosts)?;
    lab.wire().drop_matching(b, Toward::Wire, "protocol ip flower ip_proto 0x32")?;
    for host in hosts {
        hostseal(host, "enable --no-wait")?.expect_code(0)?;
    }
    row_says(a, b.v4().into(), "esp_blocked", "does not get through from the other host to this one")?;
    row_says(b, a.v4().into(), "esp_blocked", "does not get through from this host to the other")?;
    Ok(())
}
