//! Enabling where the other host runs strongSwan, which requires ESP as soon as it has its SAs, and
//! sends no report of ours.

use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};

use super::{AFTER, RATE, Scene};
use crate::campaign::measure::{Figures, Measurement, Sealed};
use crate::lab::{Host, Lab, Peer as _};
use crate::scenarios::strongswan::{DELAY, Mixed, Role};

/// What was sent before a host went over is on its way for so long.
const UNDER_WAY: Duration = DELAY.saturating_mul(4);

pub(super) fn enable_towards(lab: &Lab, scene: &mut Scene) -> Result<[Figures; 2]> {
    enable(lab, scene, Role::Initiator)
}

pub(super) fn enable_by(lab: &Lab, scene: &mut Scene) -> Result<[Figures; 2]> {
    enable(lab, scene, Role::Responder)
}

fn enable(lab: &Lab, scene: &mut Scene, role: Role) -> Result<[Figures; 2]> {
    let mixed = Mixed::start(lab, role)?;
    let measurement = Measurement::start(lab, [&mixed.ours, mixed.swan.host()], RATE)?;
    scene.yardstick = Some(slowest_round_trip(&mixed.ours, mixed.swan.host())?);
    mixed.enable(measurement.capture())?;
    let sealed = SystemTime::now() + UNDER_WAY;
    sleep(AFTER);
    let figures = measurement.stop(Sealed { from: Some(sealed), until: None });
    scene.swans.push(mixed.swan);
    figures
}

/// The slowest of fifty round trips.
fn slowest_round_trip(from: &Host, to: &Host) -> Result<Duration> {
    let said = from.run(&format!("ping -n -q -i 0.02 -W 1 -c 50 {}", to.v4()))?;
    // `rtt min/avg/max/mdev = 20.1/20.4/22.3/0.2 ms`
    let slowest = said.split(" = ").nth(1).and_then(|figures| figures.split('/').nth(2)?.parse::<f64>().ok());
    Ok(Duration::from_secs_f64(slowest.with_context(|| said)? / 1e3))
}
