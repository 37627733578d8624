//! The transitions that strongSwan has, with the same suite and the same secret.

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use nix::sys::signal::Signal;

use super::{ABSENT, AFTER, FAR, FORGET, RATE, Scene};
use crate::campaign::measure::{Figures, Measurement, Sealed};
use crate::lab::agent::SECRETS;
use crate::lab::{Connection, Family, Host, Lab, Peer as _, Swan};

/// How the child of `--initiate` and the like is named on a.
const CHILD: &str = "b-v4";

/// A daemon with a connection to the other host, which it may bring up at once.
fn start(host: &Host, other: &Host, starts: bool) -> Result<Swan> {
    let swan = Swan::start(host, &[])?;
    swan.load(&[connection(host, other, SECRETS[0]).starts(starts)])?;
    Ok(swan)
}

fn connection(host: &Host, other: &Host, secret: &str) -> Connection {
    Connection::between(host, other, Family::V4, secret)
}

impl Scene {
    /// strongSwan on the first two hosts, with nothing between them yet.
    fn pair(&mut self, lab: &Lab) -> Result<&[Swan]> {
        let [a, b, _] = lab.all();
        self.swans = vec![start(&a, &b, false)?, start(&b, &a, false)?];
        Ok(&self.swans)
    }
}

pub(super) fn initiate(lab: &Lab, scene: &mut Scene) -> Result<[Figures; 2]> {
    let swans = scene.pair(lab)?;
    let measurement = Measurement::start(lab, [swans[0].host(), swans[1].host()], RATE)?;
    swans[0].initiate(CHILD)?;
    let up = SystemTime::now();
    sleep(AFTER);
    measurement.stop(Sealed { from: Some(up), until: None })
}

pub(super) fn initiate_far(lab: &Lab, scene: &mut Scene) -> Result<[Figures; 2]> {
    lab.hosts().iter().try_for_each(|host| lab.wire().netem(host, FAR))?;
    initiate(lab, scene)
}

/// A transition from up to up.
fn while_up(
    lab: &Lab,
    scene: &mut Scene,
    act: impl FnOnce(&mut Vec<Swan>) -> Result<()>,
) -> Result<[Figures; 2]> {
    scene.pair(lab)?[0].initiate(CHILD)?;
    let [a, b, _] = lab.all();
    let measurement = Measurement::start(lab, [&a, &b], RATE)?;
    act(&mut scene.swans)?;
    sleep(AFTER);
    measurement.stop(Sealed::default())
}

fn command(lab: &Lab, scene: &mut Scene, line: &str) -> Result<[Figures; 2]> {
    while_up(lab, scene, |swans| swans[0].command(line).map(drop))
}

pub(super) fn rekey_child(lab: &Lab, scene: &mut Scene) -> Result<[Figures; 2]> {
    command(lab, scene, "--rekey --child b-v4")
}

pub(super) fn rekey_ike(lab: &Lab, scene: &mut Scene) -> Result<[Figures; 2]> {
    command(lab, scene, "--rekey --ike b-v4")
}

/// Ends the daemon of a host.
fn end(swan: &mut Swan, signal: Signal) -> Result<()> {
    swan.daemon().signal(signal)?;
    swan.daemon().wait(Duration::from_secs(10)).map(drop)
}

/// The daemon of a ends by a signal; another one comes, and connects at once.
fn restart(lab: &Lab, scene: &mut Scene, signal: Signal) -> Result<[Figures; 2]> {
    let [a, b, _] = lab.all();
    while_up(lab, scene, |swans| {
        end(&mut swans[0], signal)?;
        sleep(ABSENT);
        swans[0] = start(&a, &b, true)?;
        Ok(())
    })
}

pub(super) fn kill_and_start(lab: &Lab, scene: &mut Scene) -> Result<[Figures; 2]> {
    restart(lab, scene, Signal::SIGKILL)
}

pub(super) fn stop_and_start(lab: &Lab, scene: &mut Scene) -> Result<[Figures; 2]> {
    restart(lab, scene, Signal::SIGTERM)
}

/// Another connection beside the one that is up.
pub(super) fn comes_beside(lab: &Lab, scene: &mut Scene) -> Result<[Figures; 2]> {
    let [a, b, c] = lab.all();
    while_up(lab, scene, |swans| {
        swans.push(start(&c, &a, false)?);
        swans[0].load(&[connection(&a, &b, SECRETS[0]), connection(&a, &c, SECRETS[0])])?;
        swans[0].initiate("c-v4")
    })
}

pub(super) fn goes_beside(lab: &Lab, scene: &mut Scene) -> Result<[Figures; 2]> {
    let [a, b, c] = lab.all();
    let beside = start(&c, &a, false)?;
    while_up(lab, scene, |swans| {
        swans[0].load(&[connection(&a, &b, SECRETS[0]), connection(&a, &c, SECRETS[0])])?;
        swans[0].initiate("c-v4")?;
        swans[0].load(&[connection(&a, &b, SECRETS[0])])?;
        swans[0].command("--terminate --ike c-v4")?;
        swans.push(beside);
        Ok(())
    })
}

/// On both hosts, and then whatever is up proves itself anew.
pub(super) fn secret(lab: &Lab, scene: &mut Scene) -> Result<[Figures; 2]> {
    let [a, b, _] = lab.all();
    while_up(lab, scene, |swans| {
        swans[0].load(&[connection(&a, &b, SECRETS[1])])?;
        swans[1].load(&[connection(&b, &a, SECRETS[1])])?;
        swans[0].command("--rekey --ike b-v4 --reauth").map(drop)
    })
}

fn flush(lab: &Lab, scene: &mut Scene, tables: &[&str]) -> Result<[Figures; 2]> {
    while_up(lab, scene, |swans| {
        let a = swans[0].host();
        tables.iter().try_for_each(|table| a.run(&format!("ip xfrm {table} flush")).map(drop))
    })
}

pub(super) fn flush_states(lab: &Lab, scene: &mut Scene) -> Result<[Figures; 2]> {
    flush(lab, scene, &["state"])
}

pub(super) fn flush_policies(lab: &Lab, scene: &mut Scene) -> Result<[Figures; 2]> {
    flush(lab, scene, &["policy"])
}

pub(super) fn flush_both(lab: &Lab, scene: &mut Scene) -> Result<[Figures; 2]> {
    flush(lab, scene, &["state", "policy"])
}

/// The kernel of b forgets everything while its network is down. Its daemon starts when that is up, and connects
/// at once.
pub(super) fn reboot(lab: &Lab, scene: &mut Scene) -> Result<[Figures; 2]> {
    let [a, b, _] = lab.all();
    let mut away = None;
    let figures = while_up(lab, scene, |swans| {
        let gone = Instant::now();
        b.run("ip link set eth0 down")?;
        end(&mut swans[1], Signal::SIGKILL)?;
        b.run(FORGET)?;
        sleep(ABSENT);
        b.run("ip link set eth0 up")?;
        away = Some(gone.elapsed());
        swans[1] = start(&b, &a, true)?;
        Ok(())
    });
    scene.yardstick = away;
    figures
}

pub(super) fn terminate(lab: &Lab, scene: &mut Scene) -> Result<[Figures; 2]> {
    let swans = scene.pair(lab)?;
    swans[0].initiate(CHILD)?;
    let measurement = Measurement::start(lab, [swans[0].host(), swans[1].host()], RATE)?;
    let begun = SystemTime::now();
    swans[0].command("--terminate --ike b-v4")?;
    sleep(AFTER);
    measurement.stop(Sealed { from: None, until: Some(begun) })
}
