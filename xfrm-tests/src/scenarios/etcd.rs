//! A roster that is kept in three stock etcds too: what is ordered comes to all by these alone, while their leaders die,
//! and nothing depends on them.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};

use super::{Traffic, await_sealed};
use crate::lab::agent::{Status, hostseal, hostseal_all, status, status_until};
use crate::lab::etcd::{Etcds, start_helper};
use crate::lab::host::Process;
use crate::lab::members::found;
use crate::lab::session::Show;
use crate::lab::{FAMILIES, Host, Kind, Lab, Packet, Toward, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] =
    &[Test::new("etcd::members_need_no_more_than_etcd_and_not_even_that", 6, |lab| run(lab, ROUNDS))
        .within(400)];

/// How many etcds there are.
const ETCDS: usize = 3;
/// How often a leader dies in the test.
const ROUNDS: usize = 2;
/// How long anything of this takes at most, on a busy machine.
const LONG: Duration = Duration::from_secs(120);

/// `cargo lab etcd [MEMBERS [ROUNDS]]`
///
/// # Errors
/// When something is lost.
pub fn show(show: &Show) -> Result<i32> {
    let number = |at: usize, otherwise: usize| {
        let given =
            show.arguments.get(at).map(|text| text.parse().with_context(|| format!("`{text}` is no number")));
        given.unwrap_or(Ok(otherwise))
    };
    let (members, rounds) = (number(0, 20)?, number(1, 20)?);
    run(&mut Lab::new(members + ETCDS)?, rounds)?;
    println!("nothing was lost");
    Ok(0)
}

/// The problem of a store in a status, or null.
fn store_problem(status: &Status) -> bool {
    let problems = status.at("/problems").as_array();
    let of_store = |code: &serde_json::Value| code.as_str().is_some_and(|code| code.starts_with("store_"));
    problems.is_some_and(|problems| problems.iter().any(|problem| of_store(&problem["code"])))
}

fn run(lab: &mut Lab, rounds: usize) -> Result<()> {
    let hosts = lab.hosts().to_vec();
    let (members, stores) = hosts.split_at(hosts.len() - ETCDS);
    let (first, last) = (&members[0], &members[members.len() - 1]);
    found(members)?;
    let mut etcds = Etcds::start(stores)?;
    let mut helpers = members.iter().map(|host| etcds.serve(host)).collect::<Result<Vec<Process>>>()?;
    for outcome in hostseal_all(members, "reload")? {
        outcome.expect_code(0)?;
    }
    for host in members {
        status_until(host, "etcd answers", LONG, |status| !store_problem(status))?;
    }
    // That which founds the cluster, and three for each that has joined.
    let least = 1 + 3 * (members.len() - 1);
    let entries = until("all that was signed is stored", LONG, || {
        let stored = etcds.stored()?;
        ensure!(stored >= least, "{stored} of {least}");
        Ok::<_, anyhow::Error>(stored)
    })?;
    println!("{} members have {entries} entries in {ETCDS} etcds", members.len());
    etcds.save()?;

    // No member hears another one.
    for host in members {
        for family in ["ip", "ipv6"] {
            for port in [500, 4500] {
                let matching = format!("protocol {family} flower ip_proto udp dst_port {port}");
                lab.wire().drop_matching(host, Toward::Wire, &matching)?;
            }
        }
    }
    for round in 0..rounds {
        order_while_a_leader_dies(&mut etcds, members, round)?;
    }
    // A helper that dies or hangs is nobody's concern.
    helpers[0].signal(nix::sys::signal::Signal::SIGSTOP)?;
    helpers[1] = start_helper(&members[1])?;
    ensure!(status(first)?.at("/agent/answering") == true);
    helpers[0] = start_helper(first)?;

    // Without any etcd they hear each other, and what is ordered goes that way.
    members.iter().try_for_each(|host| lab.wire().pass_all(host))?;
    (0..etcds.count()).for_each(|at| etcds.kill(at));
    let away = status_until(last, "etcd is away", LONG, store_problem)?;
    ensure!(away.at("/problems").to_string().contains("https://"), "{}", away.at("/problems"));
    // It changes nothing while somebody does not answer yet.
    until("all hear each other again", LONG, || {
        hostseal(last, "enable --cluster --no-wait")?.expect_code(0).map(drop)
    })?;
    for host in members {
        status_until(host, "every pair is protected", LONG, |status| status.all_protected())?;
    }
    println!("without etcd, all are protected");
    until("each says so of itself", LONG, || {
        let shown = hostseal(last, "status --cluster")?;
        ensure!(shown.code == 0 && shown.stdout.contains("etcd"), "{shown:?}");
        Ok::<_, anyhow::Error>(())
    })?;

    // They come back as they were before all of that, under traffic, and get what was signed since.
    members.iter().try_for_each(await_sealed)?;
    // Few packets: the etcds start on the same processor.
    let traffic = Traffic::start(first, last, 50)?;
    let captures = vec![lab.capture(first)?, lab.capture(last)?];
    let begun = SystemTime::now();
    let known = hostseal(last, "settings")?.expect_code(0)?.stdout;
    let restored = Instant::now();
    etcds.restore()?;
    for host in members {
        status_until(host, "etcd answers again", LONG, |status| !store_problem(status))?;
    }
    println!("etcd answers all {:?} after it was restored from a snapshot", restored.elapsed());
    until("etcd has what was ordered since the snapshot", LONG, || {
        let stored = etcds.stored()?;
        ensure!(stored > entries + rounds, "{stored} of {entries} + {rounds} + 1");
        Ok::<_, anyhow::Error>(())
    })?;
    println!("and has what was signed since then {:?} after that", restored.elapsed());
    for host in members {
        ensure!(hostseal(host, "settings")?.stdout == known, "{} goes back to older settings", host.name());
        status_until(host, "every pair is protected", LONG, |status| status.all_protected())?;
    }
    // What they say to the etcds is in TLS, and to hosts that are no members.
    let of_member = |address: IpAddr| {
        FAMILIES.iter().any(|family| members.iter().any(|host| host.address(*family) == address))
    };
    for capture in captures {
        let report = capture.stop()?.since(begun);
        let among = |packet: &&Packet| {
            packet.addresses.is_some_and(|(source, target)| of_member(source) && of_member(target))
        };
        let clear = report.packets.iter().filter(among).find(|packet| packet.kind == Kind::Clear);
        ensure!(clear.is_none() && report.count(Kind::Esp) > 0, "{report}: {clear:?}");
    }
    traffic.ensure_complete()
}

/// An admin changes a setting, and the leader dies before, while or after that comes to the others.
fn order_while_a_leader_dies(etcds: &mut Etcds, members: &[Host], round: usize) -> Result<()> {
    let leader = etcds.leader()?;
    let wanted = format!("{}s", 3600 + round);
    if round.is_multiple_of(2) {
        etcds.kill(leader);
    }
    let started = Instant::now();
    hostseal(&members[0], &format!("settings set keying.rekey_after={wanted}"))?.expect_code(0)?;
    etcds.kill(leader);
    for host in members {
        until(&format!("{} has the setting of round {round}", host.name()), LONG, || {
            let shown = hostseal(host, "settings")?;
            ensure!(shown.stdout.contains(&wanted), "{shown:?} {}", status(host)?.at("/problems"));
            Ok::<_, anyhow::Error>(())
        })?;
    }
    println!("round {round}: all have it {:?} after the order, with a dead leader", started.elapsed());
    etcds.run(leader)
}
