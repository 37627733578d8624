//! Clusters with a roster: one command on one node, nodes that join and go, and what becomes of the packets.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::trial::await_open;
use super::{
    FAMILIES, Traffic, await_sealed, ensure_nothing_of_ours, ensure_only_esp, ensure_pings, ensure_silence,
    every_way, spis,
};
use crate::lab::agent::{hostseal, hostseal_all, kill_agent, start_agent, status_until};
use crate::lab::members::{found, join, place, token};
use crate::lab::prometheus::targets_of_roster;
use crate::lab::{Host, Lab, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("members::one_command_on_any_node_protects_five_hosts", 5, one_command_on_any_node),
    Test::new("members::a_node_that_joins_is_protected_by_itself", 4, a_node_joins).within(240),
    Test::new("members::admins_open_the_cluster_and_nobody_else", 3, admins_open_the_cluster),
    Test::new("members::a_trial_goes_back_with_its_node_dead", 3, a_trial_goes_back),
    Test::new("members::who_was_rebooted_meanwhile_catches_up", 3, who_was_rebooted),
    Test::new("members::a_token_is_good_once", 4, a_token_is_good_once),
    Test::new("members::two_sides_of_a_broken_link_come_to_one_roster", 5, two_sides).within(400),
    Test::new("members::settings_come_to_all", 3, settings_come_to_all),
    Test::new("members::settings_are_shown_before_and_go_back_unless_confirmed", 3, settings_on_trial),
];

/// How long anything of this takes at most, on a busy machine.
pub(super) const LONG: Duration = Duration::from_secs(40);

/// How long two sides of a cluster are parted: IKE gives its sessions up meanwhile.
const PARTED: Duration = Duration::from_secs(60);

pub(super) fn cluster_status(host: &Host) -> Result<Value> {
    let outcome = hostseal(host, "status --cluster --json")?;
    ensure!(matches!(outcome.code, 0 | 3), "{outcome:?}");
    outcome.json()
}

/// Waits until all nodes of the cluster, as `host` sees it, answer and stand so.
pub(super) fn await_cluster(host: &Host, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    until(&format!("{} sees that {what}", host.name()), LONG, || {
        let status = cluster_status(host)?;
        ensure!(wanted(&status), "{status:#}");
        Ok::<_, anyhow::Error>(status)
    })
}

pub(super) fn is_protected(status: &Value, nodes: usize) -> bool {
    let summary = &status["summary"];
    let rows = 2 * nodes * (nodes - 1);
    status["consistent"] == true && summary["answering"] == nodes && summary["protected"] == rows
}

fn one_command_on_any_node(lab: &mut Lab) -> Result<()> {
    found(lab.hosts())?;
    let [a, b, _, d, _] = lab.all();
    let traffic = Traffic::start(&a, &b, 1000)?;
    let started = Instant::now();
    hostseal(&d, "enable --cluster --timeout 50s")?.expect_code(0)?;
    println!("20 pairs of 5 hosts after {:?}", started.elapsed());
    let status = await_cluster(&b, "all is protected", |status| is_protected(status, 5))?;
    ensure!(status["desired"] == "on", "{status:#}");
    lab.hosts().iter().try_for_each(await_sealed)?;
    let captures = vec![lab.capture(&a)?, lab.capture(&b)?];
    let sealed = std::time::SystemTime::now();
    ensure_pings(&a, &b, 5)?;
    ensure_only_esp(captures, sealed)?;
    traffic.ensure_complete()?;
    hostseal(&b, "status --cluster")?.expect_code(0)?;
    let targets: Vec<String> = lab.hosts().iter().map(|host| format!("{}:10931", host.v4())).collect();
    ensure!(targets_of_roster(&b)? == serde_json::json!([{ "targets": targets }]));
    // It lasts.
    kill_agent(&a)?;
    hostseal(&a, "enable --timeout 50s")?.expect_code(0)?;
    await_cluster(&a, "all is protected", |status| is_protected(status, 5)).map(drop)
}

fn a_node_joins(lab: &mut Lab) -> Result<()> {
    let (hosts, new) = (&lab.hosts()[..3], &lab.hosts()[3]);
    found(hosts)?;
    hostseal(&hosts[1], "enable --cluster --timeout 50s")?.expect_code(0)?;
    let traffic = Traffic::of(&every_way(hosts), &FAMILIES, 100)?;
    let token = token(&hosts[0], new.name())?;
    let started = Instant::now();
    // Another member than the one that made the token may let it in.
    hostseal(new, &format!("join {token} {}", place(new)))?.expect_code(0)?;
    // Half a minute was seen on a machine with ten builds; `cargo lab bench members` measures it on a quiet one.
    status_until(new, "every pair is protected", 3 * LONG, |status| status.all_protected())?;
    println!("protected with 3 others after {:?}", started.elapsed());
    await_cluster(&hosts[2], "all is protected", |status| is_protected(status, 4))?;
    traffic.ensure_complete()
}

fn admins_open_the_cluster(lab: &mut Lab) -> Result<()> {
    found(lab.hosts())?;
    let [a, b, c] = lab.all();
    hostseal(&c, "enable --cluster --timeout 50s")?.expect_code(0)?;
    let refused = hostseal(&b, "disable --cluster")?.expect_code(1)?;
    ensure!(refused.stderr.contains("the admins are") && refused.stderr.contains(a.name()), "{refused:?}");
    let traffic = Traffic::start(&a, &b, 500)?;
    hostseal(&a, "admin add b")?.expect_code(0)?;
    until("b is an admin and opens all", LONG, || {
        hostseal(&b, "disable --cluster --timeout 50s")?.expect_code(0)
    })?;
    for host in lab.hosts() {
        status_until(host, "protection is off", LONG, |status| status.at("/protection") == "off")?;
        until("nothing is left", LONG, || ensure_nothing_of_ours(host)).with_context(|| {
            host.run("ip -s xfrm state; ip -d xfrm policy; cat /run/hostseal/agent.log").unwrap_or_default()
        })?;
    }
    traffic.ensure_complete()
}

fn a_trial_goes_back(lab: &mut Lab) -> Result<()> {
    found(lab.hosts())?;
    let [a, b, c] = lab.all();
    let traffic = Traffic::of(&every_way(lab.hosts()), &FAMILIES, 100)?;
    hostseal(&b, "enable --cluster --try 10s --timeout 50s")?.expect_code(0)?;
    kill_agent(&b)?;
    ensure!(!spis(&b)?.is_empty(), "its kernel goes on");
    for host in [&a, &c] {
        status_until(host, "protection is off", LONG, |status| status.at("/protection") == "off")?;
    }
    // The kernel of the dead one lets go by itself, and what its agent left besides goes with the next one.
    await_open(&b, Instant::now() + LONG)?;
    ensure_pings(&a, &b, 3)?;
    let _agent = start_agent(&b)?;
    for host in lab.hosts() {
        status_until(host, "protection is off", LONG, |status| status.at("/protection") == "off")?;
        until("nothing is left", LONG, || ensure_nothing_of_ours(host))?;
    }
    traffic.ensure_complete()?;
    // It confirms what was not.
    ensure!(hostseal(&a, "confirm --cluster")?.code != 0);
    Ok(())
}

fn who_was_rebooted(lab: &mut Lab) -> Result<()> {
    found(lab.hosts())?;
    let [a, b, c] = lab.all();
    hostseal(&a, "enable --cluster --timeout 50s")?.expect_code(0)?;
    lab.hosts().iter().try_for_each(await_sealed)?;
    kill_agent(&c)?;
    hostseal(&a, "disable --cluster --timeout 50s")?;
    let c = lab.reboot(&c)?;
    hostseal(&c, "guard")?.expect_code(0)?;
    c.network_up()?;
    // It is closed until it hears that all are open.
    ensure_silence(&c, &b)?;
    hostseal(&c, "enable --no-wait")?;
    status_until(&c, "protection is off", LONG, |status| status.at("/protection") == "off").map(drop)
}

/// The wire is cut between three hosts and two, and both sides are told different things.
fn two_sides(lab: &mut Lab) -> Result<()> {
    found(lab.hosts())?;
    let [a, b, c, d, e] = lab.all();
    hostseal(&c, "enable --cluster --timeout 50s")?.expect_code(0)?;
    lab.hosts().iter().try_for_each(await_sealed)?;
    let traffic = [Traffic::start(&a, &b, 200)?, Traffic::start(&d, &e, 200)?];
    let captures = vec![lab.capture(&d)?, lab.capture(&e)?];
    let begun = std::time::SystemTime::now();
    lab.wire().part(&[&d, &e], &[&a, &b, &c])?;
    let parted = Instant::now();
    hostseal(&a, "settings set esp.replay_window=128")?.expect_code(0)?;
    // It says who does not follow.
    let opened = hostseal(&a, "disable --cluster --timeout 20s")?.expect_code(3)?;
    ensure!(opened.stderr.contains("not in the clear yet: d, e"), "{opened:?}");
    hostseal(&e, "enable --cluster --partial --timeout 20s")?;
    for host in [&a, &b, &c] {
        status_until(host, "protection is off", LONG, |status| status.at("/protection") == "off")?;
    }
    let differs = cluster_status(&e)?;
    ensure!(differs["desired"] == "on" && differs["summary"]["answering"] == 2, "{differs:#}");
    // What was sealed stays closed, and the two go on as before.
    ensure_silence(&d, &a)?;
    ensure_pings(&d, &e, 3)?;
    sleep(PARTED.saturating_sub(parted.elapsed()));
    ensure_only_esp(captures, begun)?;
    [&d, &e].into_iter().try_for_each(|host| lab.wire().pass_all(host))?;
    // What the admin has ordered counts, and what was lost is shown until an admin settles it.
    for host in lab.hosts() {
        status_until(host, "protection is off", 2 * LONG, |status| status.at("/protection") == "off")?;
    }
    let healed = await_cluster(&e, "all answer", |status| status["summary"]["answering"] == 5)?;
    let conflict = &healed["conflicts"][0];
    ensure!(
        healed["desired"] == "off" && conflict["winner"] == "a" && conflict["loser"] == "e",
        "{healed:#}"
    );
    ensure!(hostseal(&e, "settings")?.stdout.contains("replay_window = 128"));
    traffic.into_iter().try_for_each(Traffic::ensure_complete)?;
    hostseal(&a, "enable --cluster --timeout 50s")?.expect_code(0)?;
    await_cluster(&d, "all is protected", |status| is_protected(status, 5)).map(drop)
}

fn a_token_is_good_once(lab: &mut Lab) -> Result<()> {
    let [a, b, c, d] = lab.all();
    // c is the first of another cluster, and comes over to this one with the same addresses.
    hostseal(&c, &format!("init other {}", place(&c)))?.expect_code(0)?;
    let of_other_cluster = token(&c, "")?;
    hostseal(&c, "disable --force")?.expect_code(0)?;
    c.run("mv /var/lib/hostseal/cluster /run/former")?;
    found(&[a.clone(), b.clone()])?;
    let once = token(&a, "")?;
    hostseal(&c, &format!("join {once} {}", place(&c)))?.expect_code(0)?;
    // Whoever admits d has to have heard of c.
    for member in [&a, &b] {
        await_cluster(member, "c is a member", |status| status["summary"]["nodes"] == 3)?;
    }
    let refused = hostseal(&d, &format!("join {once} {}", place(&d)))?.expect_code(1)?;
    ensure!(refused.stderr.contains("used"), "{refused:?}");
    let refused = hostseal(&d, &format!("join {of_other_cluster} {}", place(&d)))?.expect_code(1)?;
    ensure!(
        refused.stderr.contains("the token is not known at") && refused.stderr.contains("another"),
        "{refused:?}"
    );
    let short = token(&a, "--ttl 1s")?;
    // Until then it could be good: clocks are told by the second.
    sleep(Duration::from_secs(4));
    let refused = hostseal(&d, &format!("join {short} {}", place(&d)))?.expect_code(1)?;
    ensure!(refused.stderr.contains("expired"), "{refused:?}");
    let other = token(&a, "other")?;
    let refused = hostseal(&d, &format!("join {other} {}", place(&d)))?;
    ensure!(refused.code != 0 && refused.stderr.contains("other"), "{refused:?}");
    let altered = format!("{}x", token(&a, "")?);
    hostseal(&d, &format!("join {altered} {}", place(&d)))?.expect_code(2)?;
    join(&b, &d).err().context("b is no admin")?;
    join(&a, &d).map(drop)
}

/// Waits until all keys of a host have so many bits.
fn await_key_bits(host: &Host, bits: usize) -> Result<()> {
    until(&format!("all SAs of {} have {bits} bits", host.name()), LONG, || {
        let states = host.run("ip xfrm state")?;
        let keys = states.lines().filter(|line| line.contains("rfc4106"));
        let lengths: Vec<usize> =
            keys.filter_map(|line| Some(line.split_whitespace().nth(2)?.len())).collect();
        // Hexadecimal, with a salt of four octets.
        let right = |length: &usize| *length == 2 + bits / 4 + 8;
        ensure!(!lengths.is_empty() && lengths.iter().all(right), "{states}");
        Ok::<_, anyhow::Error>(())
    })
}

fn settings_come_to_all(lab: &mut Lab) -> Result<()> {
    found(lab.hosts())?;
    let [a, b, _] = lab.all();
    hostseal(&b, "enable --cluster --timeout 50s")?.expect_code(0)?;
    hostseal(&a, "settings set esp.key_bits=128")?.expect_code(0)?;
    lab.hosts().iter().try_for_each(|host| await_key_bits(host, 128))?;
    let shown = hostseal_all(lab.hosts(), "settings")?;
    ensure!(shown.iter().all(|outcome| outcome.stdout.contains("key_bits = 128")), "{shown:?}");
    let refused = hostseal(&a, "settings set esp.key_bits=127")?;
    ensure!(refused.code != 0 && refused.stderr.contains("127"), "{refused:?}");
    Ok(())
}

fn settings_on_trial(lab: &mut Lab) -> Result<()> {
    const SETTING: &str = "esp.key_bits=128";
    found(lab.hosts())?;
    let [a, b, c] = lab.all();
    hostseal(&b, "enable --cluster --timeout 50s")?.expect_code(0)?;
    let traffic = Traffic::start(&a, &b, 500)?;
    let shown = hostseal(&b, &format!("settings set {SETTING} --dry-run"))?.expect_code(0)?.stdout;
    for host in lab.hosts() {
        ensure!(shown.contains(&format!("{}:\n  esp.proposals: ", host.name())), "{shown}");
    }
    ensure!(hostseal(&c, "settings")?.expect_code(0)?.stdout.starts_with("# every"), "nothing has changed");
    hostseal(&a, &format!("settings set {SETTING} --try 12s"))?.expect_code(0)?;
    [&b, &c].into_iter().try_for_each(|host| await_key_bits(host, 128))?;
    kill_agent(&a)?;
    for host in [&b, &c] {
        until("the settings are those before", LONG, || {
            let shown = hostseal(host, "settings")?.expect_code(0)?.stdout;
            ensure!(shown.starts_with("# every"), "{shown}");
            Ok::<_, anyhow::Error>(())
        })?;
    }
    hostseal(&a, "enable --timeout 50s")?.expect_code(0)?;
    lab.hosts().iter().try_for_each(|host| await_key_bits(host, 256))?;
    await_cluster(&b, "all is protected", |status| is_protected(status, 3))?;
    ensure!(hostseal(&a, "confirm --cluster")?.code != 0, "it is over");
    hostseal(&a, &format!("settings set {SETTING} --try 10s"))?.expect_code(0)?;
    [&b, &c].into_iter().try_for_each(|host| await_key_bits(host, 128))?;
    hostseal(&a, "confirm --cluster")?.expect_code(0)?;
    sleep(Duration::from_secs(12));
    lab.hosts().iter().try_for_each(|host| await_key_bits(host, 128))?;
    traffic.ensure_complete()
}
