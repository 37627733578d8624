//! The transitions of hostseal.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};

use super::{ABSENT, AFTER, FAR, FORGET, RATE, Scene};
use crate::campaign::measure::{Figures, Measurement, Sealed};
use crate::lab::agent::{hostseal, hostseal_all, kill_agent, start_agent, status};
use crate::lab::{Cluster, HOSTSEAL, Host, Lab, until};
use crate::scenarios::{await_protected, await_sealed, seal_all};

/// All hosts of a lab, by IPv4.
pub(super) fn cluster(lab: &Lab) -> Cluster {
    Cluster::of_v4(lab.hosts())
}

/// All hosts are protected and sealed; then the streams begin.
pub(super) fn sealed(lab: &Lab, cluster: &Cluster) -> Result<Measurement> {
    seal_all(cluster, lab.hosts())?;
    let [a, b, _] = lab.all();
    Measurement::start(lab, [&a, &b], RATE)
}

/// A transition from sealed to sealed.
fn while_sealed(lab: &Lab, act: impl FnOnce(&Host, &Host) -> Result<()>) -> Result<[Figures; 2]> {
    while_sealed_by(lab, &cluster(lab), act)
}

/// The same, from the files of `cluster` on.
pub(super) fn while_sealed_by(
    lab: &Lab,
    cluster: &Cluster,
    act: impl FnOnce(&Host, &Host) -> Result<()>,
) -> Result<[Figures; 2]> {
    let measurement = sealed(lab, cluster)?;
    let [a, b, _] = lab.all();
    act(&a, &b)?;
    sleep(AFTER);
    await_protected(&a)?;
    await_protected(&b)?;
    measurement.stop(Sealed::default())
}

fn expect_all(lab: &Lab, arguments: &str) -> Result<()> {
    hostseal_all(lab.hosts(), arguments)?.into_iter().try_for_each(|outcome| outcome.expect_code(0).map(drop))
}

/// Waits until every host requires ESP. Returns when that is.
pub(super) fn await_all_sealed(lab: &Lab) -> Result<SystemTime> {
    lab.hosts().iter().try_for_each(await_protected)?;
    lab.hosts().iter().try_for_each(await_sealed)?;
    Ok(SystemTime::now())
}

/// Waits until every host requires ESP, goes on for a while and counts what was clear from then on.
pub(super) fn until_sealed(lab: &Lab, measurement: Measurement) -> Result<[Figures; 2]> {
    let sealed = await_all_sealed(lab)?;
    sleep(AFTER);
    measurement.stop(Sealed { from: Some(sealed), until: None })
}

pub(super) fn enable(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    cluster(lab).install_all(lab.hosts())?;
    let [a, b, _] = lab.all();
    let measurement = Measurement::start(lab, [&a, &b], RATE)?;
    expect_all(lab, "enable")?;
    until_sealed(lab, measurement)
}

pub(super) fn enable_apart(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    cluster(lab).install_all(lab.hosts())?;
    let [a, b, c] = lab.all();
    let measurement = Measurement::start(lab, [&a, &b], RATE)?;
    for host in [&a, &b, &c] {
        hostseal(host, "enable --no-wait")?.expect_code(0)?;
        sleep(Duration::from_secs(3));
    }
    until_sealed(lab, measurement)
}

pub(super) fn enable_far(lab: &Lab, scene: &mut Scene) -> Result<[Figures; 2]> {
    lab.hosts().iter().try_for_each(|host| lab.wire().netem(host, FAR))?;
    enable(lab, scene)
}

pub(super) fn rekey(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    rekeys(lab, "rekey_after = \"8s\"", Duration::from_secs(12))
}

/// The IKE SA lasts for three of its children.
pub(super) fn rekey_all(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    rekeys(lab, "rekey_after = \"6s\"", Duration::from_secs(26))
}

fn rekeys(lab: &Lab, keying: &str, time: Duration) -> Result<[Figures; 2]> {
    let measurement = sealed(lab, &cluster(lab).with("keying", keying))?;
    sleep(time);
    measurement.stop(Sealed::default())
}

pub(super) fn kill_and_start(lab: &Lab, scene: &mut Scene) -> Result<[Figures; 2]> {
    while_sealed(lab, |a, _| {
        kill_agent(a)?;
        sleep(ABSENT);
        scene.agents.push(start_agent(a)?);
        Ok(())
    })
}

fn stop_agent(host: &Host) -> Result<()> {
    let agent = status(host)?.agent()?;
    kill(agent, Signal::SIGTERM)?;
    until("the agent has ended", Duration::from_secs(5), || {
        ensure!(!host.processes()?.contains(&agent), "it runs");
        Ok::<_, anyhow::Error>(())
    })
}

pub(super) fn stop_and_start(lab: &Lab, scene: &mut Scene) -> Result<[Figures; 2]> {
    while_sealed(lab, |a, _| {
        stop_agent(a)?;
        sleep(ABSENT);
        scene.agents.push(start_agent(a)?);
        Ok(())
    })
}

/// Host by host, as packages do it: the new file takes the place of the old one, then the service restarts.
pub(super) fn upgrade(lab: &Lab, scene: &mut Scene) -> Result<[Figures; 2]> {
    while_sealed(lab, |a, b| {
        for host in [a, b] {
            host.run(&format!("cp {HOSTSEAL} /run/hostseal.new && mv /run/hostseal.new /run/hostseal-bin"))?;
            stop_agent(host)?;
            let mut command = Command::new("/run/hostseal-bin");
            scene.agents.push(host.spawn(command.arg("agent").stdout(Stdio::null()).stderr(Stdio::null()))?);
            await_protected(host)?;
        }
        Ok(())
    })
}

fn flush(lab: &Lab, tables: &[&str]) -> Result<[Figures; 2]> {
    while_sealed(lab, |a, _| {
        tables.iter().try_for_each(|table| a.run(&format!("ip xfrm {table} flush")).map(drop))
    })
}

pub(super) fn flush_states(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    flush(lab, &["state"])
}

pub(super) fn flush_policies(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    flush(lab, &["policy"])
}

pub(super) fn flush_both(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    flush(lab, &["state", "policy"])
}

/// The kernel of b forgets everything while its network is down, and its agent starts before that is up.
pub(super) fn reboot(lab: &Lab, scene: &mut Scene) -> Result<[Figures; 2]> {
    while_sealed(lab, |_, b| {
        let gone = Instant::now();
        b.run("ip link set eth0 down")?;
        kill_agent(b)?;
        b.run(FORGET)?;
        sleep(ABSENT);
        scene.agents.push(start_agent(b)?);
        until("the policies are there before the network is", Duration::from_secs(5), || {
            let policies = b.run("ip xfrm policy")?;
            ensure!(policies.contains("dir out"), "{policies}");
            Ok::<_, anyhow::Error>(())
        })?;
        b.run("ip link set eth0 up")?;
        scene.yardstick = Some(gone.elapsed());
        Ok(())
    })
}

fn to_clear(lab: &Lab, act: impl FnOnce() -> Result<()>) -> Result<[Figures; 2]> {
    let measurement = sealed(lab, &cluster(lab))?;
    let begun = SystemTime::now();
    act()?;
    sleep(AFTER);
    measurement.stop(Sealed { from: None, until: Some(begun) })
}

pub(super) fn disable(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    to_clear(lab, || expect_all(lab, "disable"))
}

pub(super) fn disable_one(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    let [_, b, _] = lab.all();
    to_clear(lab, || hostseal(&b, "disable")?.expect_code(0).map(drop))
}

pub(super) fn disable_far(lab: &Lab, scene: &mut Scene) -> Result<[Figures; 2]> {
    lab.hosts().iter().try_for_each(|host| lab.wire().netem(host, FAR))?;
    disable(lab, scene)
}
