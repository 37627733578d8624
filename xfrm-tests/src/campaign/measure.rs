//! What a transition does to packets: a stream in each direction between two addresses, and a capture of the
//! cable of one of the hosts.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};

use crate::lab::stream::Shape;
use crate::lab::{Capture, Count, End, Family, Host, Kind, Lab, Packet, Stream, until};

/// What became of the packets of one direction.
#[derive(Clone)]
pub(super) struct Figures {
    pub(super) from: End,
    pub(super) to: End,
    pub(super) sent: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    /// Packets of any kind that were readable on the cable although they should not have been.
    pub(super) clear: u64,
    /// The longest time in which nothing arrived.
    pub(super) silence: Duration,
}

impl Figures {
    /// Such as `a to b`.
    pub(super) fn way(&self) -> String {
        format!("{} to {}", self.from.host.name(), self.to.host.name())
    }

    /// Whether packets flowed, and each arrived once and unreadable.
    pub(super) fn is_perfect(&self) -> bool {
        self.sent > 0 && (self.lost, self.duplicated, self.clear) == (0, 0, 0)
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sent, lost, duplicated, clear, silence, .. } = self;
        let silence = silence.as_millis();
        write!(
            f,
            "{}: {sent} sent, {lost} lost, {duplicated} duplicated, {clear} clear, nothing for {silence} ms at most",
            self.way()
        )
    }
}

/// The time in which nothing may be clear. `None` is an end that is open.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sealed {
    /// From when on; before the measurement began if not given.
    pub(super) from: Option<SystemTime>,
    /// Until when.
    pub(super) until: Option<SystemTime>,
}

/// A measurement under way.
pub(super) struct Measurement {
    streams: [Stream; 2],
    capture: Capture,
    ends: [End; 2],
}

impl Measurement {
    /// Starts the streams of `rate` packets a second each between the IPv4 addresses of two hosts, and returns
    /// when both flow.
    pub(super) fn start(lab: &Lab, [a, b]: [&Host; 2], rate: u32) -> Result<Self> {
        Self::between(lab, [a.end(Family::V4), b.end(Family::V4)], rate)
    }

    /// The same between two IPv4 addresses. The capture is of the first one's host.
    pub(super) fn between(lab: &Lab, ends: [End; 2], rate: u32) -> Result<Self> {
        let [a, b] = &ends;
        // The first packets would be lost while the neighbour is being looked for.
        let ping = format!("ping -n -q -c 1 -W 1 -I {} {}", a.address, b.address);
        ensure!(a.host.succeeds(&ping)?, "{} does not reach {}", a.address, b.address);
        let shape = Shape { rate, ..Shape::default() };
        let capture = lab.capture(&a.host)?;
        let streams = [Stream::between([a, b], shape)?, Stream::between([b, a], shape)?];
        until("both streams flow", Duration::from_secs(5), || {
            let arrived = [streams[0].arrived(), streams[1].arrived()];
            ensure!(arrived.iter().all(|count| *count > 0), "{arrived:?} packets arrived");
            Ok::<_, anyhow::Error>(())
        })?;
        Ok(Self { streams, capture, ends })
    }

    /// What passes the cable of the first host.
    pub(super) fn capture(&self) -> &Capture {
        &self.capture
    }

    /// Ends the streams and counts: from the first end to the second, and back.
    pub(super) fn stop(self, sealed: Sealed) -> Result<[Figures; 2]> {
        let [there, back] = self.streams;
        let counts = [there.stop()?, back.stop()?];
        let report = self.capture.stop()?;
        let in_time = |time: SystemTime| {
            sealed.from.is_none_or(|from| time >= from) && sealed.until.is_none_or(|until| time < until)
        };
        let clear = |from: IpAddr, to: IpAddr| {
            let wanted = |packet: &&Packet| {
                packet.kind == Kind::Clear && packet.addresses == Some((from, to)) && in_time(packet.time)
            };
            report.packets.iter().filter(wanted).count() as u64
        };
        let figures = |count: Count, from: &End, to: &End| Figures {
            from: from.clone(),
            to: to.clone(),
            sent: count.sent,
            lost: count.lost,
            duplicated: count.duplicated,
            clear: clear(from.address, to.address),
            silence: count.longest_silence,
        };
        let ([there, back], [a, b]) = (counts, &self.ends);
        Ok([figures(there, a, b), figures(back, b, a)])
    }
}
