//! Captures: what passed the bridge's end of a host's cable.
//!
//! Not inside the host: with ESP offload a receiver's own tap can show packets after decryption.

use std::fmt;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::host::{Family, Host, Process};
use super::net::Wire;
use super::packet::{Cable, Direction, Kind, Packet, read_pcap};
use super::wait::until;

/// The bytes kept of each frame: enough for all headers up to an IKE header behind IPv6.
const SNAP: &str = "160";
/// tcpdump's buffer in KiB, so that a burst does not overrun it.
const BUFFER: &str = "32768";

/// Tells markers apart.
static NEXT_TOKEN: AtomicU64 = AtomicU64::new(1);

/// A capture under way.
pub struct Capture {
    tcpdump: Process,
    stderr: BufReader<std::process::ChildStderr>,
    directory: TempDir,
    cable: Cable,
    host: String,
    wire: Wire,
}

impl Capture {
    /// Starts tcpdump at the bridge's end of `host`'s cable and waits until it listens.
    ///
    /// # Errors
    /// When it does not, with what it says.
    pub fn start(wire: &Wire, host: &Host) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut command = Command::new("tcpdump");
        // As root all the time: it would else give up the right to write into our directory.
        command
            .args(["-i", &Wire::port(host), "--immediate-mode", "-U", "-n", "-Z", "root"])
            .args(["-s", SNAP, "-B", BUFFER, "-w"])
            .arg(directory.path().join("pcap"))
            .stderr(Stdio::piped());
        let mut tcpdump = wire.host().spawn(&mut command)?;
        let mut stderr = BufReader::new(tcpdump.child.stderr.take().context("tcpdump without stderr")?);
        let mut said = String::new();
        while !said.contains("listening on") {
            let before = said.len();
            stderr.read_line(&mut said)?;
            ensure!(said.len() > before, "tcpdump does not listen: {said}");
        }
        let cable = Cable { mac: host.mac(), ike_ports: (500, 4500) };
        let (wire, host) = (wire.clone(), host.name().to_owned());
        Ok(Self { tcpdump, stderr, directory, cable, host, wire })
    }

    /// What has passed so far.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn so_far(&self) -> Result<Report> {
        let bytes = fs::read(self.directory.path().join("pcap"))?;
        let mut packets = if bytes.is_empty() { Vec::new() } else { read_pcap(&bytes, self.cable)? };
        packets.retain(|packet| !matches!(packet.kind, Kind::Marker(_)));
        Ok(Report { host: self.host.clone(), packets })
    }

    /// Ends the capture and hands over all that passed before this call.
    ///
    /// # Errors
    /// When tcpdump lost packets or does not end.
    pub fn stop(mut self) -> Result<Report> {
        // tcpdump stops at the signal and leaves what it has not read; so let it see the end first.
        let token = NEXT_TOKEN.fetch_add(1, Ordering::Relaxed);
        self.wire.mark(token)?;
        until("the capture has caught up", Duration::from_secs(10), || {
            let bytes = fs::read(self.directory.path().join("pcap"))?;
            ensure!(bytes.len() > 24, "nothing captured");
            let packets = read_pcap(&bytes, self.cable)?;
            let seen = packets.iter().any(|packet| packet.kind == Kind::Marker(token));
            ensure!(seen, "{} packets, without the marker", packets.len());
            Ok::<_, anyhow::Error>(())
        })?;
        let report = self.so_far()?;
        self.tcpdump.signal(Signal::SIGINT)?;
        self.tcpdump.wait(Duration::from_secs(10))?;
        let mut said = String::new();
        self.stderr.read_to_string(&mut said)?;
        match said.lines().find(|line| line.contains("dropped by kernel")) {
            Some(line) if line.starts_with("0 ") => Ok(report),
            Some(line) => bail!("tcpdump could not keep up: {line}"),
            None => bail!("tcpdump does not say whether it lost packets: {said}"),
        }
    }
}

/// What a capture saw.
#[derive(Debug, Clone)]
pub struct Report {
    /// The host at the end of the cable.
    pub host: String,
    /// In the order in which they passed.
    pub packets: Vec<Packet>,
}

impl Report {
    /// How many packets of a kind passed, in both directions and families.
    pub fn count(&self, kind: Kind) -> usize {
        self.packets.iter().filter(|packet| packet.kind == kind).count()
    }

    /// How many packets of a kind passed in one family and direction.
    pub fn count_of(&self, kind: Kind, family: Family, direction: Direction) -> usize {
        let wanted = (kind, Some(family), direction);
        self.packets.iter().filter(|packet| (packet.kind, packet.family, packet.direction) == wanted).count()
    }

    /// What passed at `time` or later.
    pub fn since(&self, time: SystemTime) -> Self {
        self.filter(|packet| packet.time >= time)
    }

    /// The packets that satisfy `wanted`.
    pub fn filter(&self, wanted: impl Fn(&Packet) -> bool) -> Self {
        let packets = self.packets.iter().filter(|packet| wanted(packet)).cloned().collect();
        Self { host: self.host.clone(), packets }
    }

    /// Checks that nothing readable passed.
    ///
    /// # Errors
    /// With the first clear packets.
    pub fn ensure_nothing_clear(&self) -> Result<()> {
        self.ensure_none(Kind::Clear)
    }

    /// Checks that no packet of a kind passed.
    ///
    /// # Errors
    /// With the first of them.
    pub fn ensure_none(&self, kind: Kind) -> Result<()> {
        let found = self.filter(|packet| packet.kind == kind);
        let first: Vec<String> = found.packets.iter().take(10).map(ToString::to_string).collect();
        ensure!(
            first.is_empty(),
            "{} {kind:?} packets on the cable of {}, the first:\n  {}\n{self}",
            found.packets.len(),
            self.host,
            first.join("\n  ")
        );
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cable of {}:", self.host)?;
        for kind in [Kind::Esp, Kind::UdpEsp, Kind::Ike, Kind::Discovery, Kind::Clear] {
            write!(f, " {kind:?} {}", self.count(kind))?;
        }
        Ok(())
    }
}
