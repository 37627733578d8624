//! A stateful firewall that forgets ESP while no traffic flows.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::causes::problem;
use super::{await_logged, seal_all};
use crate::lab::agent::{hostseal, status_until};
use crate::lab::stream::Shape;
use crate::lab::{Cluster, Family, Lab, Stream, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] =
    &[Test::new("firewall::that_forgets_esp_is_named_and_reminded", 2, forgets_esp).within(240)];

/// After so long the firewall has forgotten: shorter than what agents let a pause be before they are told better.
const FORGETS: Duration = Duration::from_secs(8);
/// A pause after which it has.
const PAUSE: Duration = Duration::from_secs(18);

/// b is behind it: what b sends passes only in answer to a. The time is the subject here.
fn forgets_esp(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    seal_all(&Cluster::of_v4(lab.hosts()), lab.hosts())?;
    lab.wire().stateful_firewall(&b, FORGETS)?;
    for _ in 0..2 {
        sleep(PAUSE);
        ensure!(b.ping(&a, Family::V4, 1)? == 0, "the firewall has forgotten nothing");
        let stream = Stream::start(&b, &a, Shape { rate: 20, ..Shape::default() })?;
        until("what b sends arrives", Duration::from_secs(30), || {
            ensure!(stream.arrived() > 0, "nothing yet");
            Ok::<_, anyhow::Error>(())
        })?;
        println!("{:?}", stream.stop()?);
    }
    let seen = status_until(&b, "the firewall is named", Duration::from_secs(20), |status| {
        status.all_protected() && problem(status, "path_forgets").is_some()
    })?;
    let named = problem(&seen, "path_forgets").map(ToString::to_string).unwrap_or_default();
    ensure!(named.contains("\"warning\"") && named.contains("ESP (IP protocol 50)"), "{named}");
    ensure!(
        named.contains("dropped what this host sent to a until a sent something. This host now sends"),
        "{named}"
    );
    hostseal(&b, "status")?.expect_code(0)?;
    let doctor = hostseal(&b, "doctor")?.expect_code(0)?.stdout;
    ensure!(doctor.contains("warn     path_forgets"), "{doctor}");
    await_logged(&b, "it", |line| line.contains("a firewall on the path forgets ESP"))?;
    // By then it has found out by itself how long a pause may be.
    sleep(2 * PAUSE);
    for _ in 0..2 {
        sleep(PAUSE);
        let answered = b.ping(&a, Family::V4, 3)?;
        ensure!(answered == 3, "{answered} of 3 after a pause");
    }
    ensure!(
        problem(&status_until(&a, "it is protected", PAUSE, |it| it.all_protected())?, "path_forgets")
            .is_none()
    );
    Ok(())
}
