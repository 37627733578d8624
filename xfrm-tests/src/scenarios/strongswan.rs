//! Stock strongSwan with the same secret is a full member.

use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};

use super::{await_one_pair, await_protected, ensure_pings, spis_sent};
use crate::lab::agent::{SECRETS, hostseal, status_until};
use crate::lab::{Cluster, Connection, FAMILIES, Family, Host, Kind, Lab, Swan, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("strongswan::answers", 3, |lab| full_member(lab, 2, &[])),
    Test::new("strongswan::initiates", 3, |lab| full_member(lab, 0, &["start_action = start"])),
    Test::new("strongswan::rekeys_and_deletes", 2, strongswan_rekeys_and_deletes),
    Test::new("strongswan::is_rekeyed_by_us", 2, strongswan_is_rekeyed_by_us),
];

/// Starts strongSwan on a host, with connections to all `others`.
fn start(host: &Host, others: &[&Host], child: &[&str]) -> Result<Swan> {
    let swan = Swan::start(host, &[])?;
    let connection = |other: &Host, family| {
        let connection = Connection::between(host, other, family, SECRETS[0]);
        child.iter().fold(connection, |connection, setting| connection.child(setting))
    };
    let connections: Vec<Connection> =
        others.iter().flat_map(|other| FAMILIES.map(|family| connection(other, family))).collect();
    swan.load(&connections)?;
    Ok(swan)
}

/// Three hosts, of which number `foreign` runs strongSwan.
fn full_member(lab: &mut Lab, foreign: usize, child: &[&str]) -> Result<()> {
    let cluster = Cluster::of(lab.hosts());
    let foreigner = lab.hosts()[foreign].clone();
    let ours: Vec<&Host> = lab.hosts().iter().filter(|host| host.number() != foreigner.number()).collect();
    for host in &ours {
        cluster.install(host, SECRETS[0])?;
        hostseal(host, "enable --no-wait")?.expect_code(0)?;
    }
    let _swan = start(&foreigner, &ours, child)?;
    for host in &ours {
        status_until(host, "every pair is protected", Duration::from_secs(40), |status| {
            status.all_protected()
        })?;
    }
    let protected = SystemTime::now();
    let captures = lab.capture_all()?;
    for host in &ours {
        ensure_pings(host, &foreigner, 10)?;
        ensure_pings(&foreigner, host, 10)?;
    }
    ensure_pings(ours[0], ours[1], 3)?;
    super::ensure_only_esp(captures, protected)?;
    for host in &ours {
        for family in FAMILIES {
            await_one_pair(host, &foreigner, family, Duration::from_secs(30))?;
        }
    }
    Ok(())
}

/// A pair of hostseal on a and strongSwan on b, IPv4, up.
fn mixed_pair(lab: &Lab, keying: &str, child: &[&str]) -> Result<(Host, Host, Swan)> {
    let [a, b] = lab.all();
    let cluster = Cluster::of_v4(lab.hosts()).with("keying", keying);
    cluster.install(&a, SECRETS[0])?;
    let swan = start(&b, &[&a], child)?;
    hostseal(&a, "enable")?.expect_code(0)?;
    ensure!(a.ping(&b, Family::V4, 5)? == 5);
    Ok((a, b, swan))
}

/// The one SPI that a sends to b with, by the kernel.
fn outbound_spi(a: &Host, b: &Host) -> Result<String> {
    let states = a.run(&format!("ip xfrm state list src {} dst {} proto esp", a.v4(), b.v4()))?;
    let spi = states.split("spi ").nth(1).and_then(|rest| rest.split_whitespace().next());
    Ok(spi.unwrap_or_default().to_owned())
}

fn strongswan_rekeys_and_deletes(lab: &mut Lab) -> Result<()> {
    let (a, b, swan) = mixed_pair(lab, "rekey_after = \"1h\"", &[])?;
    let capture = lab.capture(&a)?;
    let started = SystemTime::now();
    for command in ["--rekey --child a-v4", "--rekey --ike a-v4", "--rekey --child a-v4"] {
        let before = outbound_spi(&a, &b)?;
        swan.command(command)?;
        if command.contains("--child") {
            until("another SA", Duration::from_secs(10), || {
                let now = outbound_spi(&a, &b)?;
                ensure!(now != before, "{now}");
                Ok::<_, anyhow::Error>(())
            })?;
        }
        await_one_pair(&a, &b, Family::V4, Duration::from_secs(30))?;
        until("one IKE SA is left", Duration::from_secs(10), || {
            let listed = swan.list()?;
            ensure!(listed.len() == 1 && listed[0].state == "ESTABLISHED", "{listed:?}");
            ensure!(listed[0].children == ["INSTALLED"], "{listed:?}");
            Ok::<_, anyhow::Error>(())
        })?;
        ensure!(a.ping(&b, Family::V4, 5)? == 5, "after {command}");
    }
    for command in ["--terminate --child a-v4", "--terminate --ike a-v4"] {
        swan.command(command)?;
        status_until(&a, "protected again", Duration::from_secs(30), |status| status.all_protected())?;
        await_one_pair(&a, &b, Family::V4, Duration::from_secs(30))?;
        until("pings pass again", Duration::from_secs(5), || {
            let answered = a.ping(&b, Family::V4, 5)?;
            ensure!(answered == 5, "{answered} of 5");
            Ok::<_, anyhow::Error>(())
        })?;
    }
    let report = capture.stop()?.since(started);
    println!("{report}");
    // strongSwan itself takes its policies away when it deletes a child, so what it sends may be clear.
    report.filter(|packet| packet.direction == crate::lab::Direction::Out).ensure_nothing_clear()
}

fn strongswan_is_rekeyed_by_us(lab: &mut Lab) -> Result<()> {
    let (a, b, swan) = mixed_pair(lab, "rekey_after = \"8s\"", &[])?;
    let capture = lab.capture(&a)?;
    let traffic = super::Traffic::of(&[(&a, &b), (&b, &a)], &[Family::V4], 200)?;
    std::thread::sleep(Duration::from_secs(30));
    for count in traffic.stop()? {
        println!("{count:?}");
        // strongSwan deletes its old SA with the answer, and its kernel refuses what holds the route to it.
        let (on_the_way, by_us) = (count.lost - count.refused, count.duplicated + count.reordered);
        ensure!((on_the_way, by_us) == (0, 0) && count.refused <= 10, "{count:?}");
    }
    let report = capture.stop()?;
    println!("{report}");
    report.ensure_nothing_clear()?;
    ensure!(spis_sent(&report, b.v4().into()).len() >= 3, "rekeys by us: {report}");
    ensure!(report.count(Kind::Ike) > 0);
    await_protected(&a)?;
    await_one_pair(&a, &b, Family::V4, Duration::from_secs(20))?;
    ensure!(swan.list()?.len() == 1, "{:?}", swan.list()?);
    Ok(())
}
