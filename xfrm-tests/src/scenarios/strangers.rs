//! IPsec of other software on a host: what decides about our traffic is named as long as it is
//! there, and nothing of it is broken unsaid.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{await_protected, ensure_nothing_of_ours, ensure_pings, seal_all, sealed_pair};
use crate::lab::agent::{Outcome, hostseal, hostseal_all, kill_agent};
use crate::lab::stream::Shape;
use crate::lab::{Cluster, Host, Kind, Lab, Stream};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("strangers::in_front_are_named_at_once", 2, in_front_are_named),
    Test::new("strangers::behind_have_no_say", 2, behind_have_no_say),
    Test::new("strangers::in_front_nothing_is_enabled", 2, refused),
    Test::new("strangers::docker_swarm_is_refused_or_left_alone", 2, docker_swarm),
];

/// The reqid and mark of Docker Swarm.
const SWARM: u32 = 13_681_891;

/// The messages of `other_ipsec` with that severity.
fn named(outcome: &Outcome, severity: &str) -> Result<Vec<String>> {
    let json = outcome.json()?;
    let problems = json["problems"].as_array().cloned().unwrap_or_default();
    let wanted = problems.iter().filter(|it| it["code"] == "other_ipsec" && it["severity"] == severity);
    Ok(wanted.map(|it| it["message"].as_str().unwrap_or_default().to_owned()).collect())
}

fn in_front_are_named(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    let (own, other) = (a.v4(), b.v4());
    let strangers = [
        (format!("src 0.0.0.0/0 dst {other} proto 6 dport 5999 dir out priority 1"), "in the clear"),
        ("src 0.0.0.0/0 dst 0.0.0.0/0 dir out priority 1".to_owned(), "in the clear"),
        (format!("src 10.99.0.0/16 dst {own} dir in priority 1099"), "accepted in the clear"),
        (format!("src {other} dst 0.0.0.0/0 dir fwd priority 1"), "accepted in the clear"),
        (format!("src {} dst ::/0 dir out priority 1 mark 7 mask 0xff", a.v6()), "mark 0x7/0xff"),
        (format!("src {own} dst {other} dir out action block priority 2"), "is dropped"),
    ];
    // The last one is where ours stands: it can be put there only instead of ours.
    let (instead, strangers) = strangers.split_last().expect("there are some");
    for (selector, words) in strangers {
        a.run(&format!("ip xfrm policy add {selector}"))?;
        // At once: the very next status says so, with the agent and without.
        let status = hostseal(&a, "status --json")?.expect_code(3)?;
        let found = named(&status, "critical")?;
        ensure!(found.len() == 1 && found[0].contains(words), "{selector}: {found:?}");
        let gone = selector.split(" priority").next().unwrap_or_default();
        let mark = selector.split_once(" mark").map(|(_, mark)| format!(" mark{mark}")).unwrap_or_default();
        a.run(&format!("ip xfrm policy delete {gone}{mark}"))?;
        hostseal(&a, "status --json")?.expect_code(0)?;
    }
    let log = a.read("/run/hostseal/agent.log")?;
    ensure!(log.contains("comes before hostseal's"), "the log says nothing: {log}");

    // What is said is true: what matches leaves in the clear.
    a.run(&format!("ip xfrm policy add src 0.0.0.0/0 dst {other} proto 17 dport 5999 dir out priority 1"))?;
    let capture = lab.capture(&a)?;
    Stream::run(&a, &b, Shape { port: 5999, rate: 100, ..Shape::default() }, Duration::from_millis(300))?;
    let clear = capture.stop()?.filter(|packet| packet.kind == Kind::Clear && packet.ports.1 == 5999);
    ensure!(!clear.packets.is_empty(), "nothing left in the clear");
    kill_agent(&a)?;
    let status = hostseal(&a, "status --json")?.expect_code(3)?;
    ensure!(named(&status, "critical")?.len() == 1, "{status:?}");
    a.run(&format!("ip xfrm policy delete src 0.0.0.0/0 dst {other} proto 17 dport 5999 dir out"))?;
    hostseal(&a, "enable")?.expect_code(0)?;

    let (selector, words) = instead;
    a.run(&format!("ip xfrm policy update {selector}"))?;
    let status = hostseal(&a, "status --json")?.expect_code(3)?;
    let found = named(&status, "critical")?;
    ensure!(found.len() == 1 && found[0].contains(words), "{selector}: {found:?}");
    Ok(())
}

/// IPsec between the same hosts whose policies come after ours, and what is bound to an XFRM interface.
fn behind_have_no_say(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    let template = format!("tmpl src {} dst {} proto esp reqid 42 mode transport", a.v4(), b.v4());
    a.run(&format!("ip xfrm policy add src 10.99.0.0/24 dst 10.99.0.0/24 dir out priority 5000 {template}"))?;
    let status = hostseal(&a, "status --json")?.expect_code(0)?;
    let found = named(&status, "info")?;
    ensure!(found.len() == 1 && found[0].contains("after hostseal's"), "{found:?}");
    a.run("ip xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir out priority 1 if_id 7")?;
    let status = hostseal(&a, "status --json")?.expect_code(0)?;
    ensure!(named(&status, "critical")?.is_empty(), "{status:?}");
    let capture = lab.capture(&a)?;
    ensure_pings(&a, &b, 3)?;
    capture.stop()?.ensure_nothing_clear()?;
    // What becomes of packets that no policy matches is not ours to say, and is named.
    a.run("ip xfrm policy setdefault fwd block")?;
    let status = hostseal(&a, "status --json")?.expect_code(0)?;
    let found = named(&status, "warning")?;
    ensure!(found.len() == 1 && found[0].contains("drops forwarded packets"), "{found:?}");
    let check = hostseal(&a, "config check")?.expect_code(0)?;
    ensure!(check.stdout.contains("setdefault fwd accept"), "{check:?}");
    a.run("ip xfrm policy setdefault fwd accept")?;
    ensure!(named(&hostseal(&a, "status --json")?.expect_code(0)?, "warning")?.is_empty());
    Ok(())
}

fn refused(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts().to_vec();
    Cluster::of(&hosts).install_all(&hosts)?;
    let [a, b] = lab.all();
    a.run("ip xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir in priority 1")?;
    let enable = hostseal(&a, "enable")?.expect_code(1)?;
    for part in ["nothing has been changed", "policy in 0.0.0.0/0 -> 0.0.0.0/0", "delete dir in index"] {
        ensure!(enable.stderr.contains(part), "{enable:?}");
    }
    ensure_nothing_of_ours(&a)?;
    ensure!(!a.run("ps ax")?.contains("hostseal"), "an agent runs");
    ensure_pings(&a, &b, 2)?;
    let check = hostseal(&a, "config check")?.expect_code(0)?;
    ensure!(check.stdout.contains("comes before hostseal's"), "{check:?}");
    a.run("ip xfrm policy delete src 0.0.0.0/0 dst 0.0.0.0/0 dir in")?;
    for outcome in hostseal_all(&hosts, "enable")? {
        outcome.expect_code(0)?;
    }
    // What comes later stops nobody from enabling once more, and is named.
    a.run("ip xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir in priority 1")?;
    hostseal(&a, "enable")?.expect_code(3)?;
    Ok(())
}

/// What Docker Swarm puts on a host for an encrypted overlay network with `peer`: SAs in both directions,
/// and a policy for the VXLAN packets that go out. Its firewall rules mark those; here it is all of them.
fn put_swarm(host: &Host, peer: &Host) -> Result<()> {
    for (from, to) in [(host, peer), (peer, host)] {
        let (source, destination, spi) = (from.v4(), to.v4(), 0x1000 + u32::from(from.number()));
        host.run(&format!(
            "ip xfrm state add src {source} dst {destination} proto esp spi {spi:#x} reqid {SWARM} mode transport \
             aead 'rfc4106(gcm(aes))' 0x{spi:08x}0405060708090a0b0c0d0e0f10111213 64"
        ))?;
    }
    let (source, destination) = (host.v4(), peer.v4());
    let spi = 0x1000 + u32::from(host.number());
    host.run(&format!(
        "ip xfrm policy add src {source} dst {destination} proto 17 dport 4789 dir out priority 0 \
         tmpl src {source} dst {destination} proto esp spi {spi:#x} reqid {SWARM} mode transport"
    ))?;
    Ok(())
}

fn docker_swarm(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts().to_vec();
    let [a, b] = lab.all();
    put_swarm(&a, &b)?;
    put_swarm(&b, &a)?;
    let cluster = Cluster::of(&hosts);
    cluster.install_all(&hosts)?;
    let vxlan = Shape { port: 4789, rate: 200, ..Shape::default() };
    let traffic = Stream::start(&a, &b, vxlan)?;
    for host in [&a, &b] {
        let enable = hostseal(host, "enable")?.expect_code(1)?;
        for part in ["Docker Swarm's encrypted overlay network", "--opt encrypted", "[\"udp/4789\"]"] {
            ensure!(enable.stderr.contains(part), "{enable:?}");
        }
    }
    seal_all(&cluster.with("protection", "exempt = [\"udp/4789\"]"), &hosts)?;
    await_protected(&a)?;
    let status = hostseal(&a, "status --json")?.expect_code(0)?;
    ensure!(named(&status, "info")?.iter().any(|words| words.contains("are left to it")), "{status:?}");
    let capture = lab.capture(&a)?;
    ensure_pings(&a, &b, 3)?;
    traffic.stop()?.ensure_complete()?;
    let report = capture.stop()?;
    println!("{report}");
    report.ensure_nothing_clear()?;
    let theirs = report.packets.iter().filter(|packet| packet.spi == Some(0x1001)).count();
    ensure!(theirs > 10, "its packets do not leave through its SA: {report}");
    Ok(())
}
