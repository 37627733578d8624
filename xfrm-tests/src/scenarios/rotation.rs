//! All nodes of a cluster get new keys under traffic, while agents are killed at random.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use super::members::{LONG, await_cluster, is_protected};
use super::{Traffic, await_sealed, ensure_only_esp};
use crate::lab::agent::{hostseal, kill_agent};
use crate::lab::members::found;
use crate::lab::session::Show;
use crate::lab::{Host, Lab, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] =
    &[Test::new("rotation::all_get_new_keys_while_agents_die_at_random", NODES, |lab| run(lab, SEED))
        .within(300)];

/// How many nodes there are.
const NODES: usize = 4;
/// How many agents are killed, one each second.
const KILLS: u64 = 6;
/// By which the test draws whose, and when.
const SEED: u64 = 16;

/// `cargo lab rotate [ROUNDS [SEED]]`
///
/// # Errors
/// When something is lost, or a node keeps its old keys.
pub fn show(show: &Show) -> Result<i32> {
    let given = |at: usize| {
        let number = |text: &String| text.parse::<u64>().with_context(|| format!("`{text}` is no number"));
        show.arguments.get(at).map(number).transpose()
    };
    let by_clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let (rounds, first) = (given(0)?.unwrap_or(10), given(1)?.unwrap_or_else(by_clock));
    for seed in (first..).take(usize::try_from(rounds)?) {
        println!("seed {seed} (again: cargo lab rotate 1 {seed})");
        run(&mut Lab::new(NODES)?, seed).with_context(|| format!("seed {seed}"))?;
    }
    println!("nothing was lost or clear, and all have new keys");
    Ok(0)
}

/// A number below `bound`, another one for each `what`.
fn draw(seed: u64, what: u64, bound: u64) -> u64 {
    let digest = Sha256::digest([seed.to_be_bytes(), what.to_be_bytes()].concat());
    digest.iter().take(4).fold(0, |number, octet| number << 8 | u64::from(*octet)) % bound
}

fn run(lab: &mut Lab, seed: u64) -> Result<()> {
    found(lab.hosts())?;
    let [a, b, c, d] = lab.all();
    hostseal(&b, "enable --cluster --timeout 50s")?.expect_code(0)?;
    lab.hosts().iter().try_for_each(await_sealed)?;
    let before = keys(lab.hosts())?;
    let traffic = [Traffic::start(&a, &b, 300)?, Traffic::start(&c, &d, 100)?];
    let captures = vec![lab.capture(&a)?, lab.capture(&b)?];
    let begun = SystemTime::now();
    let refused = hostseal(&b, "rotate")?.expect_code(1)?;
    ensure!(refused.stderr.contains("the admins are a"), "{refused:?}");
    ensure!(matches!(hostseal(&a, "rotate --no-wait")?.code, 0 | 6));
    for kill in 0..KILLS {
        let pause = draw(seed, 2 * kill, 1000);
        sleep(Duration::from_millis(pause));
        let victim = &lab.hosts()[usize::try_from(draw(seed, 2 * kill + 1, NODES as u64))?];
        println!("seed {seed}: the agent of {} dies", victim.name());
        kill_agent(victim)?;
        hostseal(victim, "enable --no-wait")?;
        sleep(Duration::from_millis(1000 - pause));
    }
    for host in lab.hosts() {
        until("all keys are new", LONG, || hostseal(host, "rotate --status")?.expect_code(0))?;
    }
    let status = await_cluster(&d, "all is protected", |status| is_protected(status, NODES))?;
    let rosters: BTreeSet<String> = field(&status, "roster_id").collect();
    ensure!(rosters.len() == 1 && field(&status, "keys").all(|keys| keys == "\"current\""), "{status:#}");
    let after = keys(lab.hosts())?;
    ensure!(before.iter().zip(&after).all(|(before, after)| before != after), "{before:?} {after:?}");
    // Once more, with all there; who starts anew has the newest.
    hostseal(&a, "rotate")?.expect_code(0)?;
    ensure!(keys(lab.hosts())?.iter().zip(&after).all(|(now, before)| now != before));
    kill_agent(&c)?;
    hostseal(&c, "enable --timeout 50s")?.expect_code(0)?;
    await_cluster(&b, "all is protected", |status| is_protected(status, NODES))?;
    ensure_only_esp(captures, begun)?;
    traffic.into_iter().try_for_each(Traffic::ensure_complete)
}

/// What each node says under this name in the status of a cluster.
fn field<'a>(status: &'a serde_json::Value, name: &'static str) -> impl Iterator<Item = String> + 'a {
    status["nodes"].as_array().into_iter().flatten().map(move |node| node[name].to_string())
}

/// The keys of each host, as one line tells them from others.
fn keys(hosts: &[Host]) -> Result<Vec<String>> {
    let files = |host: &Host| host.run("cd /var/lib/hostseal/cluster; sha256sum ike.key signing.key");
    hosts.iter().map(files).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_names_victims_and_moments() {
        let drawn = |seed| (0..2 * KILLS).map(|what| draw(seed, what, 1000)).collect::<Vec<_>>();
        assert_eq!(drawn(SEED), drawn(SEED));
        assert_ne!(drawn(SEED), drawn(SEED + 1));
        let victims: BTreeSet<u64> = (0..KILLS).map(|kill| draw(SEED, 2 * kill + 1, NODES as u64)).collect();
        assert!(victims.len() >= 3, "{victims:?}");
    }
}
