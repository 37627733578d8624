//! `status` says what the kernel does, whatever has been done to its tables: with a dead agent nobody puts
//! them right.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::sealed_pair;
use crate::lab::agent::{Status, hostseal, kill_agent, status};
use crate::lab::stream::Shape;
use crate::lab::{Direction, Host, Kind, Lab, Packet, Stream};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("fate::of_flushed_policies_is_clear", 2, |lab| flushed(lab, "ip xfrm policy flush", "clear")),
    Test::new("fate::of_flushed_states_is_blocked", 2, |lab| flushed(lab, "ip xfrm state flush", "blocked")),
    Test::new("fate::of_no_outbound_state_is_blocked", 2, |lab| {
        flushed(lab, "ip xfrm state deleteall src OWN dst OTHER", "blocked")
    }),
    Test::new("fate::of_no_inbound_state_is_blocked", 2, |lab| {
        flushed(lab, "ip xfrm state deleteall src OTHER dst OWN", "blocked")
    }),
    Test::new("fate::of_no_inbound_policy_is_what_the_guard_does", 2, |lab| {
        flushed(lab, "ip xfrm policy delete src OTHER dst OWN dir in", "")
    }),
    Test::new("fate::of_no_outbound_policy_is_what_the_guard_does", 2, |lab| {
        flushed(lab, "ip xfrm policy delete src OWN dst OTHER dir out", "")
    }),
];

/// Whether clear packets between two hosts pass the kernel of `a`, in either direction. The other host has
/// nothing in its kernel.
fn clear_passes(lab: &Lab, a: &Host, b: &Host) -> Result<bool> {
    hostseal(b, "disable --force")?.expect_code(0)?;
    let time = Duration::from_millis(300);
    let shape = Shape { port: 7300, rate: 100, ..Shape::default() };
    let capture = lab.capture(a)?;
    // Where a policy blocks, sending ends with an error.
    let _ = Stream::run(a, b, shape, time);
    let sent = capture.stop()?.filter(|packet| packet.direction == Direction::Out);
    let clear = |packet: &Packet| packet.kind == Kind::Clear && packet.ports.1 == 7300;
    let received = Stream::run(b, a, Shape { port: 7301, ..shape }, time)?.received;
    Ok(sent.packets.iter().any(clear) || received > 0)
}

/// After `line` on a host with a dead agent: the state is `expected`, where that is not empty, and in any case
/// `clear` exactly if clear packets pass.
fn flushed(lab: &mut Lab, line: &str, expected: &str) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    kill_agent(&a)?;
    ensure!(status(&a)?.peer(b.v4().into())?.at("/state") == "protected");
    a.run(&line.replace("OWN", &a.v4().to_string()).replace("OTHER", &b.v4().to_string()))?;
    let after = hostseal(&a, "status --json")?.expect_code(3)?.json()?;
    let row = Status(after).peer(b.v4().into())?;
    let state = row.at("/state").as_str().context("a state")?.to_owned();
    ensure!(expected.is_empty() || state == expected, "{line}: {state}");
    let clear = clear_passes(lab, &a, &b)?;
    ensure!((state == "clear") == clear, "{line}: status says {state}, clear packets pass: {clear}");
    Ok(())
}
