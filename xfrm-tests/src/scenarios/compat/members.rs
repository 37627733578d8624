//! Nodes of this revision and of an older one in one cluster with a roster. The older one has to be of an older generation
//! (0.1 against 0.2), and to know what clusters are.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::super::members::{await_cluster, is_protected};
use super::super::{await_sealed, ensure_nothing_of_ours};
use super::{Mixed, older, run_older, update};
use crate::lab::agent::{hostseal, kill_agent, start_agent, status_until};
use crate::lab::members::{found, join, place, token};
use crate::lab::session::Show;
use crate::lab::{Host, Lab};

/// How long anything of this takes at most, on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// a, d and e run this revision, b and c the older one; a and b are admins, and e joins later.
pub(super) fn show(show: &Show) -> Result<i32> {
    let lab = Lab::new(5)?;
    let [a, b, c, d, e] = lab.all();
    [&b, &c].into_iter().try_for_each(run_older)?;
    println!("a, d, e: this revision\nb, c:    {}\n", older(show));
    let ways = vec![(&a, &b), (&b, &a), (&b, &c), (&c, &b), (&c, &d), (&d, &c)];
    let mut mixed = Mixed::new(&lab, ways);
    let mut agents = Vec::new();

    mixed.step("init, join; the older ones are named", false, || {
        found(&lab.hosts()[..4])?;
        hostseal(&a, "admin add b")?.expect_code(0)?;
        let seen = await_cluster(&a, "all have one roster", |seen| is_whole(seen, 4))?;
        let named = problem(&seen, "older than hostseal");
        ensure!(named.contains("b (") && named.contains("c (") && !named.contains("d ("), "{seen:#}");
        await_cluster(&b, "all have one roster", |seen| is_whole(seen, 4)).map(drop)
    })?;
    mixed.step("enable --cluster asks first", false, || {
        let refused = hostseal(&a, "enable --cluster")?.expect_code(3)?;
        ensure!(refused.stderr.contains("which is older"), "{refused:?}");
        hostseal(&a, "enable --cluster --partial --timeout 50s")?.expect_code(0)?;
        await_cluster(&a, "all is protected", |seen| is_protected(seen, 4))?;
        lab.hosts()[..4].iter().try_for_each(await_sealed)
    })?;
    mixed.step("settings, from this one and the older one", true, || {
        for (host, bits) in [(&a, 128), (&b, 256)] {
            hostseal(host, &format!("settings set esp.key_bits={bits}"))?.expect_code(0)?;
            for other in &lab.hosts()[..4] {
                status_until(other, "all keys are so long", LONG, |status| {
                    status.peers().iter().all(|row| row["key_bits"] == bits)
                })?;
            }
        }
        Ok(())
    })?;
    mixed.step("agents killed, started again", true, || {
        for host in [&b, &a] {
            kill_agent(host)?;
            agents.push(start_agent(host)?);
            await_cluster(&c, "all is protected", |seen| is_protected(seen, 4))?;
        }
        Ok(())
    })?;
    mixed.step("a node joins by a token of the older one", true, || {
        let token = token(&b, e.name())?;
        hostseal(&e, &format!("join {token} {}", place(&e)))?.expect_code(0)?;
        await_cluster(&c, "all is protected", |seen| is_protected(seen, 5)).map(drop)
    })?;
    mixed.step("it is removed by the older one, and comes back", true, || {
        hostseal(&b, "remove e")?.expect_code(0)?;
        await_cluster(&a, "four are left", |seen| is_protected(seen, 4))?;
        // It goes to the clear in stages, and joins nothing before that is done.
        await_nothing_of_ours(&e)?;
        join(&a, &e)?;
        await_cluster(&b, "all is protected", |seen| is_protected(seen, 5)).map(drop)
    })?;
    mixed.step("disable and enable, ordered by the older one", false, || {
        hostseal(&b, "disable --cluster --timeout 50s")?.expect_code(0)?;
        lab.hosts().iter().try_for_each(await_nothing_of_ours)?;
        hostseal(&c, "enable --cluster --timeout 50s")?.expect_code(0)?;
        await_cluster(&a, "all is protected", |seen| is_protected(seen, 5))?;
        lab.hosts().iter().try_for_each(await_sealed)
    })?;
    mixed.step("b and c go on with this revision", true, || {
        for host in [&b, &c] {
            agents.push(update(host)?);
            await_cluster(&d, "all is protected", |seen| is_protected(seen, 5))?;
        }
        let seen = await_cluster(&d, "all is protected", |seen| is_protected(seen, 5))?;
        ensure!(problem(&seen, "older than hostseal").is_empty(), "{seen:#}");
        Ok(())
    })?;
    mixed.step("new keys for all, and disable --cluster", false, || {
        hostseal(&a, "rotate --timeout 50s")?.expect_code(0)?;
        hostseal(&a, "disable --cluster --timeout 50s")?.expect_code(0)?;
        lab.hosts().iter().try_for_each(await_nothing_of_ours)
    })?;
    Ok(mixed.verdict())
}

/// All of so many nodes answer, and have one roster.
fn is_whole(seen: &Value, nodes: usize) -> bool {
    seen["consistent"] == true && seen["summary"]["answering"] == nodes
}

/// The problem that says so; empty where there is none.
fn problem<'a>(seen: &'a Value, words: &str) -> &'a str {
    let problems = seen["problems"].as_array().into_iter().flatten();
    problems.filter_map(|it| it["message"].as_str()).find(|it| it.contains(words)).unwrap_or_default()
}

fn await_nothing_of_ours(host: &Host) -> Result<()> {
    status_until(host, "protection is off", LONG, |status| status.at("/protection") == "off")?;
    crate::lab::until("nothing is left", LONG, || ensure_nothing_of_ours(host))
}
