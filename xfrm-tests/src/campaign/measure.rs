//! What a transition does to packets: a stream in each direction between two hosts, and a capture of the
//! cable of one of them.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};

use crate::lab::stream::Shape;
use crate::lab::{Capture, Count, Family, Host, Kind, Lab, Stream, until};

/// What became of the packets of one direction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Figures {
    pub(super) sent: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    /// Packets of any kind that were readable on the cable although they should not have been.
    pub(super) clear: u64,
    /// The longest time in which nothing arrived.
    pub(super) silence: Duration,
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
    hosts: [Host; 2],
}

impl Measurement {
    /// Starts the streams of `rate` packets a second each, and returns when both flow.
    pub(super) fn start(lab: &Lab, hosts: [&Host; 2], rate: u32) -> Result<Self> {
        let [a, b] = hosts;
        // The first packets would be lost while the neighbour is being looked for.
        ensure!(a.ping(b, Family::V4, 1)? == 1, "{} does not reach {}", a.name(), b.name());
        let shape = Shape { rate, ..Shape::default() };
        let capture = lab.capture(a)?;
        let streams = [Stream::start(a, b, shape)?, Stream::start(b, a, shape)?];
        until("both streams flow", Duration::from_secs(5), || {
            let arrived = [streams[0].arrived(), streams[1].arrived()];
            ensure!(arrived.iter().all(|count| *count > 0), "{arrived:?} packets arrived");
            Ok::<_, anyhow::Error>(())
        })?;
        Ok(Self { streams, capture, hosts: [a.clone(), b.clone()] })
    }

    /// Ends the streams and counts: from the first host to the second, and back.
    pub(super) fn stop(self, sealed: Sealed) -> Result<[Figures; 2]> {
        let [there, back] = self.streams;
        let counts = [there.stop()?, back.stop()?];
        let report = self.capture.stop()?;
        let in_time = |time: SystemTime| {
            sealed.from.is_none_or(|from| time >= from) && sealed.until.is_none_or(|until| time < until)
        };
        let clear = |from: IpAddr, to: IpAddr| {
            let wanted = |packet: &&crate::lab::Packet| {
                packet.kind == Kind::Clear && packet.addresses == Some((from, to)) && in_time(packet.time)
            };
            report.packets.iter().filter(wanted).count() as u64
        };
        let [a, b] = self.hosts.map(|host| IpAddr::from(host.v4()));
        let [there, back] = counts;
        Ok([figures(there, clear(a, b)), figures(back, clear(b, a))])
    }
}

fn figures(count: Count, clear: u64) -> Figures {
    Figures {
        sent: count.sent,
        lost: count.lost,
        duplicated: count.duplicated,
        clear,
        silence: count.longest_silence,
    }
}
