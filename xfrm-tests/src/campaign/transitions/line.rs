//! One direction of a transition: a line of the table, and what it says of the promise.

use std::fmt;
use std::time::Duration;

use anyhow::Result;

use super::{Allowed, RATE, Transition};
use crate::campaign::measure::Figures;
use crate::lab::Host;

/// The longest that a stranger's flush may stop packets, or a host that is back takes until they flow again.
const REPAIRED: Duration = Duration::from_secs(1);
/// How much longer than a round trip we may take to follow a peer that requires ESP.
const FOLLOWED: Duration = Duration::from_millis(5);

pub(super) const HEAD: &str = "| transition | way | sent | lost | duplicated | clear | SAs left | \
strongSwan: sent | lost | duplicated | clear | SAs left |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|";
/// What stands where nothing was measured.
const NONE: &str = "| | | |";

/// What became of one direction.
pub(super) struct Line {
    pub(super) figures: Figures,
    /// SAs in this direction, at the sender and at the receiver.
    pub(super) sas: [usize; 2],
    /// As [`super::Scene`] has it.
    pub(super) yardstick: Option<Duration>,
}

impl Line {
    /// What is not as promised.
    pub(super) fn broken(&self, row: &Transition) -> Option<String> {
        let Figures { lost, duplicated, clear, silence, sent, .. } = self.figures;
        let (may_lose, may_leak) = match row.allowed {
            Allowed::Nothing => (lost == 0, false),
            Allowed::LossWhileAway => (self.yardstick.is_some_and(|away| silence <= away + REPAIRED), false),
            Allowed::Repair => (silence <= REPAIRED, true),
            Allowed::RoundTrip => {
                (self.yardstick.is_some_and(|trip| lost <= packets(trip + FOLLOWED)), false)
            }
        };
        let kept =
            sent > 0 && may_lose && duplicated == 0 && (may_leak || clear == 0) && self.sas == [row.sas; 2];
        (!kept).then(|| format!("{}; SAs {:?}", self.figures, self.sas))
    }

    /// What has to be told beside the table, where something is allowed.
    pub(super) fn note(&self, allowed: Allowed) -> Option<String> {
        let Figures { lost, clear, silence, .. } = self.figures;
        let way = self.figures.way();
        let milliseconds = |time: Duration| time.as_millis();
        let most = milliseconds(silence);
        match allowed {
            Allowed::Nothing => None,
            Allowed::LossWhileAway => {
                let away = milliseconds(self.yardstick?);
                Some(format!("{way}: no packet for {most} ms at most, and b was away for {away} ms"))
            }
            Allowed::Repair => Some(format!("{way}: no packet for {most} ms at most, {clear} clear")),
            Allowed::RoundTrip => {
                let (trip, may) = (self.yardstick?, packets(self.yardstick? + FOLLOWED));
                let trip = trip.as_secs_f64() * 1e3;
                Some(format!(
                    "{way}: {lost} lost, and up to {may} may be, as a round trip takes up to {trip:.1} ms"
                ))
            }
        }
    }
}

/// How many packets are sent in a time.
fn packets(time: Duration) -> u64 {
    (time.as_secs_f64() * f64::from(RATE)) as u64
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { sent, lost, duplicated, clear, .. } = self.figures;
        let [here, there] = self.sas;
        write!(f, "{sent} | {lost} | {duplicated} | {clear} | {here}, {there}")
    }
}

/// The cells of a line of the table from the way on.
pub(super) fn cells(ours: Option<&Line>, theirs: Option<&Line>) -> String {
    let way = ours.or(theirs).map(|line| line.figures.way()).unwrap_or_default();
    let [ours, theirs] = [ours, theirs].map(|line| line.map_or_else(|| NONE.to_owned(), Line::to_string));
    format!("{way} | {ours} | {theirs} |")
}

/// The SAs from one end to the other, at each of them.
pub(super) fn count(figures: &Figures) -> Result<[usize; 2]> {
    let Figures { from, to, .. } = figures;
    let list = format!("ip xfrm state list src {} dst {} proto esp", from.address, to.address);
    let spis = |host: &Host| -> Result<usize> {
        Ok(host.run(&list)?.lines().filter(|line| line.contains("proto esp spi 0x")).count())
    };
    Ok([spis(&from.host)?, spis(&to.host)?])
}
