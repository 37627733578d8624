//! The transitions that strongSwan has, with the same suite and the same secret.

use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use nix::sys::signal::Signal;

use super::super::measure::{Figures, Measurement, Sealed};
use super::{Daemons, RATE};
use crate::lab::agent::SECRETS;
use crate::lab::{Connection, Family, Host, Lab, Swan};

/// How long packets flow on after a transition.
const AFTER: Duration = Duration::from_secs(4);
/// How long the host is without its daemon.
const ABSENT: Duration = Duration::from_secs(2);

/// A daemon with a connection to the other host. `settings` are the child's.
fn start(host: &Host, other: &Host, settings: &[&str]) -> Result<Swan> {
    let swan = Swan::start(host, &[])?;
    load(&swan, other, settings)?;
    Ok(swan)
}

fn load(swan: &Swan, other: &Host, settings: &[&str]) -> Result<()> {
    let connection = Connection::between(swan.host(), other, Family::V4, SECRETS[0]);
    swan.load(&[settings.iter().fold(connection, |connection, setting| connection.child(setting))])
}

impl Daemons {
    /// On the first two hosts, with nothing between them yet.
    fn pair(&mut self, lab: &Lab) -> Result<&[Swan]> {
        let [a, b, _] = lab.all();
        self.swans = vec![start(&a, &b, &[])?, start(&b, &a, &[])?];
        Ok(&self.swans)
    }
}

pub(super) fn initiate(lab: &Lab, daemons: &mut Daemons) -> Result<[Figures; 2]> {
    let swans = daemons.pair(lab)?;
    let measurement = Measurement::start(lab, [swans[0].host(), swans[1].host()], RATE)?;
    swans[0].initiate("b-v4")?;
    let up = SystemTime::now();
    sleep(AFTER);
    measurement.stop(Sealed { from: Some(up), until: None })
}

pub(super) fn initiate_far(lab: &Lab, daemons: &mut Daemons) -> Result<[Figures; 2]> {
    lab.hosts().iter().try_for_each(|host| lab.wire().netem(host, "delay 50ms"))?;
    initiate(lab, daemons)
}

/// A transition from up to up.
fn while_up(
    lab: &Lab,
    daemons: &mut Daemons,
    act: impl FnOnce(&mut Vec<Swan>) -> Result<()>,
) -> Result<[Figures; 2]> {
    daemons.pair(lab)?[0].initiate("b-v4")?;
    let [a, b, _] = lab.all();
    let measurement = Measurement::start(lab, [&a, &b], RATE)?;
    act(&mut daemons.swans)?;
    sleep(AFTER);
    measurement.stop(Sealed::default())
}

fn command(lab: &Lab, daemons: &mut Daemons, line: &str) -> Result<[Figures; 2]> {
    while_up(lab, daemons, |swans| swans[0].command(line).map(drop))
}

pub(super) fn rekey_child(lab: &Lab, daemons: &mut Daemons) -> Result<[Figures; 2]> {
    command(lab, daemons, "--rekey --child b-v4")
}

pub(super) fn rekey_ike(lab: &Lab, daemons: &mut Daemons) -> Result<[Figures; 2]> {
    command(lab, daemons, "--rekey --ike b-v4")
}

/// The daemon of a ends by a signal; another one comes, and connects at once.
fn restart(lab: &Lab, daemons: &mut Daemons, signal: Signal) -> Result<[Figures; 2]> {
    let [a, b, _] = lab.all();
    while_up(lab, daemons, |swans| {
        swans[0].daemon().signal(signal)?;
        swans[0].daemon().wait(Duration::from_secs(10))?;
        sleep(ABSENT);
        swans[0] = start(&a, &b, &["start_action = start"])?;
        Ok(())
    })
}

pub(super) fn kill_and_start(lab: &Lab, daemons: &mut Daemons) -> Result<[Figures; 2]> {
    restart(lab, daemons, Signal::SIGKILL)
}

pub(super) fn stop_and_start(lab: &Lab, daemons: &mut Daemons) -> Result<[Figures; 2]> {
    restart(lab, daemons, Signal::SIGTERM)
}

pub(super) fn terminate(lab: &Lab, daemons: &mut Daemons) -> Result<[Figures; 2]> {
    let swans = daemons.pair(lab)?;
    swans[0].initiate("b-v4")?;
    let measurement = Measurement::start(lab, [swans[0].host(), swans[1].host()], RATE)?;
    let begun = SystemTime::now();
    swans[0].command("--terminate --ike b-v4")?;
    sleep(AFTER);
    measurement.stop(Sealed { from: None, until: Some(begun) })
}
