//! How soon a cluster takes a node in, and how soon it is rid of one: from the start of the command on one node to what the
//! kernels of all others hold.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::race::{Lap, Table};
use super::{goal, numbers};
use crate::lab::agent::{hostseal, kill_agent, status_until};
use crate::lab::members::{found, place, token};
use crate::lab::session::Show;
use crate::lab::{Host, Lab};
use crate::scenarios::await_sealed;
use crate::scenarios::removal::{await_rid_of, with};

/// How often each is measured.
const ROUNDS: usize = 5;
/// How long anything that is not measured may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a node is cut off.
const CUT: Duration = Duration::from_secs(20);
/// What a join may take.
const JOIN: Duration = Duration::from_secs(5);
/// What a removal may take.
const REMOVE: Duration = Duration::from_secs(2);

/// What was measured in one round.
struct Round {
    join: Duration,
    living: Duration,
    dead: Duration,
    healed: Duration,
    compromised: Duration,
}

/// `cargo lab bench members [HOSTS]`
///
/// # Errors
/// When a command fails, or what it is to bring about does not come.
pub fn show(show: &Show) -> Result<i32> {
    for count in numbers(&show.arguments, &[6])? {
        ensure!(count >= 6, "six hosts at least: three go, and two of the others are parted");
        let rounds = (0..ROUNDS).map(|_| measure(&Lab::new(count)?)).collect::<Result<Vec<_>>>()?;
        println!("{count} hosts with a roster, {ROUNDS} times; median (shortest to longest):");
        report("join: protected with all others", &rounds, |it| it.join, JOIN);
        report("remove a living node: no SA with it anywhere", &rounds, |it| it.living, REMOVE);
        report("remove a dead node", &rounds, |it| it.dead, REMOVE);
        report("the same on one cut off, after the heal", &rounds, |it| it.healed, REMOVE);
        report("remove --compromised", &rounds, |it| it.compromised, REMOVE);
    }
    Ok(0)
}

fn report(what: &str, rounds: &[Round], of: impl Fn(&Round) -> Duration, bound: Duration) {
    let times: Vec<Duration> = rounds.iter().map(of).collect();
    let longest = times.iter().max().copied().unwrap_or_default();
    print!("{}", Table(&[Lap::new(what, times)]));
    goal(&format!("at most {bound:?}"), longest <= bound);
}

fn measure(lab: &Lab) -> Result<Round> {
    let (new, members) = lab.hosts().split_last().context("no hosts")?;
    let [first, cut_off, .., stolen, dead] = members else { unreachable!("there are five at least") };
    found(members)?;
    hostseal(cut_off, "enable --cluster --timeout 50s")?.expect_code(0)?;
    members.iter().try_for_each(await_sealed)?;

    let token = token(first, new.name())?;
    let started = Instant::now();
    hostseal(new, &format!("join {token} {}", place(new)))?.expect_code(0)?;
    status_until(new, "every pair is protected", LIMIT, |status| {
        status.peers().len() == 2 * members.len() && status.all_protected()
    })?;
    let join = started.elapsed();
    lab.hosts().iter().try_for_each(await_sealed)?;

    let but = |gone: &[&Host]| -> Vec<&Host> {
        let stays = |host: &&Host| gone.iter().all(|it| it.number() != host.number());
        lab.hosts().iter().filter(stays).collect()
    };
    let remove = |arguments: &str, gone: &Host, others: &[&Host]| -> Result<Duration> {
        let ordered = Instant::now();
        hostseal(first, &format!("remove {} {arguments}", gone.name()))?.expect_code(0)?;
        await_rid_of(gone, others, ordered)
    };
    let living = remove("", new, &but(&[new]))?;
    kill_agent(dead)?;
    lab.wire().part(&[cut_off], &but(&[cut_off, dead]))?;
    std::thread::sleep(CUT);
    let dead_gone = remove("", dead, &but(&[new, dead, cut_off]))?;
    ensure!(!with(cut_off, dead)?.is_empty(), "who is cut off has heard of it");
    lab.wire().pass_all(cut_off)?;
    let healed = await_rid_of(dead, &[cut_off], Instant::now())?;
    let compromised = remove("--compromised", stolen, &but(&[new, dead, stolen]))?;
    Ok(Round { join, living, dead: dead_gone, healed, compromised })
}
