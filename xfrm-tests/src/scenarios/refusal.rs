//! What cannot be protected is not, says why, and harms nobody.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};

use super::{Traffic, await_logged, ensure_pings};
use crate::lab::agent::{SECRETS, hostseal, hostseal_all, status, status_until};
use crate::lab::stream::Shape;
use crate::lab::{Cluster, FAMILIES, Family, HOSTSEAL, Lab, Stream, Toward};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("refusal::another_secret", 3, |lab| another_secret(lab, "ike")),
    Test::new("refusal::protocol_50_is_dropped_in_between", 2, protocol_50_is_dropped),
    Test::new("refusal::protocol_50_stops_getting_through", 2, protocol_50_stops),
    Test::new("refusal::a_peer_that_does_not_answer", 2, a_peer_that_does_not_answer),
    Test::new("refusal::who_is_not_root_is_told_so", 1, who_is_not_root),
    Test::new("refusal::a_secret_that_others_can_read", 1, a_secret_that_others_can_read),
];

pub(super) fn another_secret(lab: &mut Lab, method: &str) -> Result<()> {
    let [a, b, c] = lab.all();
    let cluster = Cluster::of(lab.hosts()).by(method);
    cluster.install_all(lab.hosts())?;
    cluster.install(&c, SECRETS[1])?;
    let traffic = Traffic::start(&a, &b, 250)?;
    let to_stranger = Traffic::of(&[(&a, &c), (&c, &a)], &FAMILIES, 50)?;
    for outcome in hostseal_all(lab.hosts(), "enable --timeout 5s")? {
        outcome.expect_code(3)?;
    }
    for (host, other) in [(&a, &c), (&b, &c), (&c, &a), (&c, &b)] {
        for family in FAMILIES {
            let what = format!("the row of {} by {family:?} names the reason", other.name());
            status_until(host, &what, Duration::from_secs(10), |status| {
                status.peer(other.address(family)).is_ok_and(|row| {
                    row.at("/state") != "protected" && row.at("/reason_code") == "auth_failed"
                })
            })?;
        }
    }
    for family in FAMILIES {
        let row = status(&a)?.peer(b.address(family))?;
        ensure!(row.at("/state") == "protected", "the others do not notice: {:#}", row.0);
    }
    traffic.ensure_complete()?;
    to_stranger.ensure_complete()
}

fn protocol_50_is_dropped(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let cluster = Cluster::of_v4(lab.hosts()).with("esp", "encapsulation = \"never\"");
    cluster.install_all(lab.hosts())?;
    lab.wire().drop_matching(&a, Toward::Wire, "protocol ip flower ip_proto 0x32")?;
    lab.wire().drop_matching(&b, Toward::Wire, "protocol ip flower ip_proto 0x32")?;
    let traffic = Traffic::of(&[(&a, &b), (&b, &a)], &[Family::V4], 500)?;
    for outcome in hostseal_all(lab.hosts(), "enable --timeout 10s")? {
        outcome.expect_code(3)?;
    }
    for (host, other) in [(&a, &b), (&b, &a)] {
        let row = status(host)?.peer(other.v4().into())?;
        ensure!(row.at("/reason_code") == "esp_blocked", "{:#}", row.0);
        ensure!(row.at("/state") != "protected" && row.at("/state") != "blocked", "{:#}", row.0);
    }
    traffic.ensure_complete()?;
    // Once the way is free, the pair is protected without anybody's help.
    for host in [&a, &b] {
        lab.wire().pass_all(host)?;
    }
    for host in [&a, &b] {
        status_until(host, "protected at last", Duration::from_secs(60), |status| status.all_protected())?;
    }
    ensure!(a.ping(&b, Family::V4, 3)? == 3);
    Ok(())
}

/// Noticed by the counters within half a minute, and healed within ten seconds: the time is the subject here.
fn protocol_50_stops(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let cluster = Cluster::of_v4(lab.hosts()).with("esp", "encapsulation = \"never\"");
    super::seal_all(&cluster, lab.hosts())?;
    let captures = lab.capture_all()?;
    let started = SystemTime::now();
    lab.wire().drop_matching(&a, Toward::Wire, "protocol ip flower ip_proto 0x32")?;
    let traffic = Traffic::of(&[(&b, &a)], &[Family::V4], 20)?;
    let lost = Stream::start(&a, &b, Shape { rate: 20, ..Shape::default() })?;
    for (host, other) in [(&a, &b), (&b, &a)] {
        status_until(host, "the row says what is the matter", Duration::from_secs(40), |status| {
            status
                .peer(other.v4().into())
                .is_ok_and(|row| row.at("/state") == "blocked" && row.at("/reason_code") == "esp_blocked")
        })?;
        hostseal(host, "status")?.expect_code(3)?;
    }
    println!("named after {:?}", started.elapsed()?);
    ensure!(lost.arrived() == 0);
    await_logged(&a, "the cause", |line| line.contains("ESP (IP protocol 50) does not get through"))?;
    lab.wire().pass_all(&a)?;
    let passes = Instant::now();
    for host in [&a, &b] {
        status_until(host, "protected by itself", Duration::from_secs(20), |status| status.all_protected())?;
    }
    println!("healed after {:?}", passes.elapsed());
    ensure!(a.ping(&b, Family::V4, 3)? == 3);
    traffic.ensure_complete()?;
    ensure!(lost.stop()?.received > 0);
    super::ensure_only_esp(captures, started)
}

fn a_peer_that_does_not_answer(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let cluster = Cluster::of(lab.hosts());
    cluster.install_all(lab.hosts())?;
    let traffic = Traffic::start(&a, &b, 100)?;
    hostseal(&a, "enable --timeout 3s")?.expect_code(3)?;
    hostseal(&a, "enable --timeout 50s")?.expect_code(6)?;
    let row = status(&a)?.peer(b.v4().into())?;
    ensure!(row.at("/state") != "protected", "{:#}", row.0);
    ensure!(row.at("/reason").is_string(), "a reason in words: {:#}", row.0);
    hostseal(&b, "enable")?.expect_code(0)?;
    super::await_protected(&a)?;
    traffic.ensure_complete()?;
    ensure_pings(&a, &b, 3)
}

/// With an agent, and without.
fn who_is_not_root(lab: &mut Lab) -> Result<()> {
    let [a] = lab.all();
    Cluster::of(lab.hosts()).install_all(lab.hosts())?;
    let ask = || -> Result<()> {
        let asked = a.output(&format!("setpriv --reuid=65534 --clear-groups {HOSTSEAL} status"))?;
        let said = String::from_utf8_lossy(&asked.stderr).into_owned();
        ensure!(asked.status.code() == Some(5), "{asked:?}");
        ensure!(
            said.contains("only root may ask the agent") && said.contains("`sudo hostseal status`"),
            "{said}"
        );
        Ok(())
    };
    ask()?;
    hostseal(&a, "enable --no-wait")?.expect_code(0)?;
    ask()
}

fn a_secret_that_others_can_read(lab: &mut Lab) -> Result<()> {
    let [a] = lab.all();
    Cluster::of(lab.hosts()).install_all(lab.hosts())?;
    a.run("chmod 0644 /etc/hostseal/secret")?;
    let outcome = hostseal(&a, "enable")?.expect_code(2)?;
    ensure!(outcome.stderr.contains("/etc/hostseal/secret"), "{}", outcome.stderr);
    super::ensure_nothing_of_ours(&a)
}
