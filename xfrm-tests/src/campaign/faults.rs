//! The agent dies after each operation on the kernel of each transition, and the next start repairs it: a
//! point is a transition, the host whose agent dies, and after how many operations.
//!
//! At every point packets flow in both directions meanwhile: none is lost, repeated, or clear between sealed
//! ends; and what is left in the end is what the transition leads to.

use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};

use super::measure::{Measurement, Sealed};
use crate::lab::agent::{hostseal, kill_agent, start_agent, status, status_until};
use crate::lab::session::Show;
use crate::lab::{Cluster, Family, HOSTSEAL, Host, Lab, until};
use crate::scenarios::{
    await_one_pair, await_protected, await_sealed, ensure_nothing_of_ours, seal_all, spis,
};

/// The program whose agents die, inside the place.
pub const MORTAL: &str = "/mnt/hostseal-mortal";
/// Where it looks for how long it has to live (`src/xfrm/fuse.rs`).
const FUSE: &str = "/run/hostseal-fuse";
/// More operations than any transition has.
const IMMORTAL: u64 = 10_000;
/// Packets a second in each direction.
const RATE: u32 = 500;
/// How long a transition takes, with the graces that belong to it.
const TRANSITION: Duration = Duration::from_secs(9);
/// How long nobody starts the next agent.
const DEAD: Duration = Duration::from_secs(1);
/// How long the repair may take.
const REPAIR: Duration = Duration::from_secs(60);

/// What the agent of a host is about to do.
struct Transition {
    name: &'static str,
    /// Whether the pair is sealed before.
    from: bool,
    /// Whether it is to be sealed in the end.
    to: bool,
    /// Sets it going on a host. What an agent does that dies of it is nobody's concern.
    begin: fn(&Host, &Host) -> Result<()>,
}

const ALL: &[Transition] = &[
    Transition { name: "enable", from: false, to: true, begin: |host, _| order(host, "enable --no-wait") },
    // Begins by itself.
    Transition { name: "rekey", from: true, to: true, begin: |_, _| Ok(()) },
    Transition { name: "adopt", from: true, to: true, begin: restart },
    Transition {
        name: "disable",
        from: true,
        to: false,
        begin: |host, _| order(host, "disable --timeout 1s"),
    },
    Transition {
        name: "disabled by the peer",
        from: true,
        to: false,
        begin: |_, other| order(other, "disable --timeout 1s"),
    },
];

/// Gives an order that the agent may not live to answer.
fn order(host: &Host, arguments: &str) -> Result<()> {
    hostseal(host, arguments).map(drop)
}

fn restart(host: &Host, _: &Host) -> Result<()> {
    kill_agent(host)?;
    order(host, "enable --no-wait")
}

/// `cargo lab faults [WORD…]`: the transitions whose name contains one of the words, or all.
///
/// # Errors
/// When there is no such transition.
pub fn show(show: &Show) -> Result<i32> {
    let words = &show.arguments;
    let wanted =
        |it: &&Transition| words.is_empty() || words.iter().any(|word| it.name.contains(word.as_str()));
    let (mut points, mut failed) = (0, 0);
    for transition in ALL.iter().filter(wanted) {
        for victim in 0..2 {
            let operations = count(transition, victim)?;
            println!("{}, host {}: {operations} operations", transition.name, ["a", "b"][victim]);
            for operation in 1..=operations {
                points += 1;
                match die(&Lab::new(2)?, transition, victim, operation) {
                    Ok(said) => println!("  after {operation}: {said}"),
                    Err(error) => {
                        failed += 1;
                        println!("  after {operation}: FAILED: {error:?}");
                    }
                }
            }
        }
    }
    ensure!(points > 0, "no transition is named like {words:?}");
    println!("{points} points, {failed} failed");
    Ok(i32::from(failed > 0))
}

/// One point by the name of the transition, for the ordinary tests.
///
/// # Errors
/// When it does not hold.
pub(crate) fn point(lab: &Lab, name: &str, victim: usize, operation: u64) -> Result<()> {
    let transition =
        ALL.iter().find(|it| it.name == name).with_context(|| format!("no transition {name}"))?;
    println!("{}", die(lab, transition, victim, operation)?);
    Ok(())
}

/// How many operations a transition has at this end.
fn count(transition: &Transition, victim: usize) -> Result<u64> {
    let lab = Lab::new(2)?;
    let (host, other) = prepare(&lab, transition, victim)?;
    host.write(FUSE, &IMMORTAL.to_string(), 0o644)?;
    let before = spis(&host)?;
    (transition.begin)(&host, &other)?;
    until("no earlier SA is left", REPAIR, || {
        let left: Vec<String> = spis(&host)?.into_iter().filter(|spi| before.contains(spi)).collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok::<_, anyhow::Error>(())
    })?;
    await_end(&lab, transition, [&host, &other])?;
    let left: u64 = host.read(FUSE)?.trim().parse()?;
    Ok(IMMORTAL - left)
}

/// Waits until a host and its peer are where the transition leads to. Returns when both ends were sealed, where they
/// are to be.
fn await_end(lab: &Lab, transition: &Transition, [host, other]: [&Host; 2]) -> Result<Option<SystemTime>> {
    if !transition.to {
        until("both are in the clear", REPAIR, || ensure_clear(host, other, transition))?;
        return Ok(None);
    }
    for end in [host, other] {
        status_until(end, "protected", REPAIR, |status| status.all_protected())?;
        await_sealed(end)?;
    }
    let sealed = SystemTime::now();
    let [a, b] = [&lab.hosts()[0], &lab.hosts()[1]];
    await_one_pair(a, b, Family::V4, REPAIR)?;
    await_protected(a)?;
    Ok(Some(sealed))
}

/// Both hosts run the program that can die, and stand where the transition begins.
fn prepare(lab: &Lab, transition: &Transition, victim: usize) -> Result<(Host, Host)> {
    for host in lab.hosts() {
        host.run(&format!("mount --bind {MORTAL} {HOSTSEAL}"))?;
    }
    let mut cluster = Cluster::of_v4(lab.hosts());
    if transition.name == "rekey" {
        cluster = cluster.with("keying", "rekey_after = \"5s\"");
    }
    let (host, other) = (lab.hosts()[victim].clone(), lab.hosts()[1 - victim].clone());
    if transition.from {
        seal_all(&cluster, lab.hosts())?;
    } else {
        cluster.install_all(lab.hosts())?;
        hostseal(&other, "enable --no-wait")?.expect_code(0)?;
    }
    Ok((host, other))
}

/// Lets the agent of a host die, starts the next one and looks at what came of it.
fn die(lab: &Lab, transition: &Transition, victim: usize, operation: u64) -> Result<String> {
    let (host, other) = prepare(lab, transition, victim)?;
    let [a, b] = [&lab.hosts()[0], &lab.hosts()[1]];
    let measurement = Measurement::start(lab, [a, b], RATE)?;
    host.write(FUSE, &operation.to_string(), 0o644)?;
    let begun = SystemTime::now();
    (transition.begin)(&host, &other)?;
    let died = until("the agent has died", 2 * TRANSITION, || {
        ensure!(!host.succeeds(&format!("test -e {FUSE}"))?, "{} operations to go", host.read(FUSE)?.trim());
        Ok::<_, anyhow::Error>(())
    });
    if died.is_err() {
        host.run(&format!("rm -f {FUSE}"))?;
    }
    sleep(DEAD);
    // The next start goes on with what is wanted; what was not persisted yet is ordered again.
    let _agent = start_agent(&host)?;
    until("an agent answers", Duration::from_secs(5), || status(&host)?.agent())?;
    if transition.to {
        order(&host, "enable --no-wait")?;
    }
    let sealed = match await_end(lab, transition, [&host, &other])? {
        Some(sealed) => Sealed { from: (!transition.from).then_some(sealed), until: None },
        None => Sealed { from: None, until: Some(begun) },
    };
    let [there, back] = measurement.stop(sealed)?;
    ensure!(there.is_perfect() && back.is_perfect(), "{there}; {back}");
    let died = if died.is_ok() { "" } else { ", which did not come" };
    Ok(format!("{} and {} packets, none lost or clear{died}", there.sent, back.sent))
}

/// Whoever disabled has nothing left, and the other no SA.
fn ensure_clear(host: &Host, other: &Host, transition: &Transition) -> Result<()> {
    let disabled = if transition.name == "disable" { host } else { other };
    ensure_nothing_of_ours(disabled)?;
    for end in [host, other] {
        let left = end.run("ip xfrm state")?;
        ensure!(left.is_empty(), "on {}:\n{left}", end.name());
    }
    Ok(())
}
