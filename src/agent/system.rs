//! The system that a host runs on, as its [`Host`](crate::host::Host) sees it.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use anyhow::Context as _;
use nix::libc::EMSGSIZE;
use tokio::io::unix::AsyncFd;

#[cfg(feature = "key-export")]
use super::export;
use super::hearing::hear;
use super::proof_sockets::ProofSockets;
use super::routes::Routes;
use super::sockets::{UdpSockets, has_no_room};
use crate::host::core::{ProbeDatagram, Unsent};
use crate::host::kernel::{Kernel, Unreadable};
use crate::host::prover::word::ProofPorts;
use crate::host::prover::{NonceArrival, NonceSet};
use crate::host::setup::{IkePorts, Setup};
use crate::host::system::{Facts, Here, KernelEvent, Moment, System};
use crate::host::{ProbeFate, ports};
use crate::ike::Transmit;
use crate::machine::{self, Network, uptime};
use crate::observe::{client_ports, default_blocks, forwarding, holes};
use crate::types::{
    Family, KernelState, KeySource, Op, OpError, Pair, PolicyReading, Problem, SaId, SaReading, SaTable,
    UnixTime, Unready,
};
use crate::xfrm::{self, PreflightError};

/// This moment; `now` was read already.
pub(super) fn moment(now: Instant) -> Moment {
    Moment { now, wall: UnixTime::from(SystemTime::now()), uptime: uptime() }
}

/// The kernel's tables, the sockets and the routes of this system.
pub(super) struct Linux {
    kernel: xfrm::Tables,
    pub(super) monitor: AsyncFd<xfrm::Monitor>,
    /// `None` while none are wanted.
    pub(super) sockets: Option<UdpSockets>,
    pub(super) routes: Routes,
    network: Network,
    run_dir: PathBuf,
    /// Those of the proof that is being made.
    proof: Option<ProofSockets>,
}

impl Linux {
    /// Opens the kernel's tables and hears of their changes; no sockets yet.
    ///
    /// # Errors
    /// The kernel does not let us.
    pub(super) fn open(run_dir: PathBuf) -> anyhow::Result<Self> {
        let kernel = xfrm::Tables::open().context("the kernel's IPsec tables cannot be opened")?;
        // Before the first look at the tables, so that nothing falls between (docs/kernel.md, fact 15).
        let monitor = xfrm::Monitor::open_beside(kernel.port())
            .context("cannot subscribe to the kernel's IPsec events")?;
        let network = Network::open().context("the kernel does not tell of its network")?;
        let routes = Routes::open();
        Ok(Self { kernel, monitor: hear(monitor)?, sockets: None, routes, network, run_dir, proof: None })
    }
}

impl Kernel for Linux {
    fn apply(&mut self, ops: &[Op], keys: &dyn KeySource) -> Vec<Result<(), OpError>> {
        #[cfg(feature = "key-export")]
        export::sas(ops, keys);
        self.kernel.apply(ops, keys)
    }

    fn read(&mut self) -> Result<KernelState, Unreadable> {
        self.kernel.read().map_err(|error| Unreadable(error.to_string()))
    }

    fn read_all_sas(&mut self) -> Result<SaTable, Unreadable> {
        self.kernel.read_all_sas().map_err(|error| Unreadable(error.to_string()))
    }

    fn read_sa(&mut self, id: SaId) -> Result<Option<SaReading>, Unreadable> {
        self.kernel.read_sa(id).map_err(|error| Unreadable(error.to_string()))
    }

    fn unused(&mut self, policies: &[PolicyReading]) -> Vec<bool> {
        self.kernel.unused(policies)
    }
}

impl ports::Sockets for Linux {
    fn bind(&mut self, addresses: Vec<IpAddr>, ports: IkePorts) -> anyhow::Result<()> {
        if let Some(sockets) = &mut self.sockets {
            return sockets.bind(addresses, ports);
        }
        let mut sockets = UdpSockets::new(&self.run_dir);
        sockets.bind(addresses, ports)?;
        self.sockets = Some(sockets);
        Ok(())
    }

    fn bind_besides(&mut self, addresses: &BTreeSet<IpAddr>, ports: IkePorts) {
        self.sockets.iter_mut().for_each(|sockets| sockets.bind_besides(addresses, ports));
    }

    fn bind_missing(&mut self) {
        self.sockets.iter_mut().for_each(UdpSockets::bind_missing);
    }

    fn retain(&mut self, wanted: &BTreeSet<IpAddr>) {
        self.sockets.iter_mut().for_each(|sockets| sockets.retain(|address| wanted.contains(&address)));
    }

    fn rest(&mut self) {
        self.sockets.iter_mut().for_each(UdpSockets::rest);
    }

    fn close(&mut self) {
        self.sockets.take().into_iter().for_each(UdpSockets::close);
    }

    fn send(&mut self, transmits: Vec<Transmit>) -> Vec<Unsent> {
        self.sockets.as_mut().map(|sockets| sockets.send(&transmits)).unwrap_or_default()
    }

    fn probe(&mut self, probe: &ProbeDatagram) -> ProbeFate {
        let Some(sockets) = &mut self.sockets else { return ProbeFate::Lost };
        // The kernel counts some of those over IPv6 that it refuses: it learns their size as it encrypts them.
        let counts = |kernel: &mut xfrm::Tables| {
            let reading = probe.may_count().then(|| kernel.read_sa(probe.sa.id()));
            reading.and_then(Result::ok).flatten()
        };
        let before = counts(&mut self.kernel);
        match sockets.probe(probe) {
            Ok(()) => ProbeFate::Sent,
            Err(error) if error.raw_os_error() == Some(EMSGSIZE) => {
                ProbeFate::TooLarge(before.zip(counts(&mut self.kernel)).map(Box::new))
            }
            Err(error) => {
                tracing::debug!("a probe through {}: {error}", probe.sa.id());
                if has_no_room(&error) { ProbeFate::NoRoom } else { ProbeFate::Lost }
            }
        }
    }
}

impl ports::ProofPort for Linux {
    fn open_proof(&mut self, pair: Pair) -> io::Result<ProofPorts> {
        let opened = ProofSockets::open(pair)?;
        let ports = opened.ports()?;
        self.proof = Some(opened);
        Ok(ports)
    }

    fn close_proof(&mut self) {
        self.proof = None;
    }

    fn send_proof(&mut self, to: SocketAddr, nonces: &NonceSet) -> (NonceSet, Option<String>) {
        let sent = self.proof.as_ref().map(|proof| proof.send(to, nonces));
        sent.unwrap_or_else(|| (NonceSet::default(), Some("its socket is closed".to_owned())))
    }

    fn proof_came(&mut self, pair: Pair) -> Vec<NonceArrival> {
        self.proof.as_ref().map(|proof| proof.came(pair)).unwrap_or_default()
    }

    fn refused_clear(&mut self) -> io::Result<u64> {
        let counted = xfrm::statistics()?.get("XfrmInTmplMismatch").copied();
        counted.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

impl System for Linux {
    fn poll_event(&mut self) -> Option<KernelEvent> {
        let own = self.kernel.port();
        Some(match self.monitor.get_mut().next()? {
            xfrm::Notification::SaDeleted { reading, port } => {
                KernelEvent::SaEnded { reading, by_us: port == own }
            }
            xfrm::Notification::SaExpired { reading, hard: true } => {
                KernelEvent::SaEnded { reading, by_us: false }
            }
            xfrm::Notification::SaExpired { reading, hard: false } => KernelEvent::SaDying(reading),
            xfrm::Notification::SaMapped { id, remote } => KernelEvent::SaMapped { id, remote },
            xfrm::Notification::SaWanted { pair } => KernelEvent::SaWanted(pair),
            xfrm::Notification::Changed { port } | xfrm::Notification::Flushed { port } => {
                KernelEvent::Changed { by_us: port == own }
            }
            xfrm::Notification::Overrun => KernelEvent::Overrun,
        })
    }

    fn sweep(&mut self) -> Result<(), String> {
        xfrm::sweep(&mut self.kernel).map(drop).map_err(|error| error.to_string())
    }

    fn try_esp(&mut self, family: Family) -> Result<(), Unready> {
        self.kernel.probe_esp(family).map_err(|error| match error {
            PreflightError::NotPermitted => Unready::NotPermitted,
            PreflightError::NoEsp { .. } => Unready::NoEsp,
            PreflightError::NoCipher { .. } => Unready::NoCipher,
            PreflightError::Other { .. } => Unready::Other,
        })
    }

    fn here(&mut self) -> io::Result<Here> {
        let there = self.network.own_addresses()?;
        let present = there.iter().filter(|(_, is_up)| **is_up).map(|(address, _)| *address).collect();
        Ok(Here { own: there.into_keys().collect(), present })
    }

    fn holes(&mut self, pairs: &[Pair]) -> Vec<Problem> {
        holes::problems(&machine::holes(&mut self.network, pairs))
    }

    fn facts(&mut self, setup: &Setup) -> io::Result<Facts> {
        let forwarded = machine::forwarding(&mut self.network);
        let forwarding = forwarding::problem(&setup.config, &setup.node, &forwarded);
        let clients = machine::first_client_port();
        let clients = clients.and_then(|first| client_ports::problem(&setup.config, &setup.node, first));
        let sockets = self.sockets.iter().filter_map(UdpSockets::problem);
        let blocks = default_blocks::problem(self.kernel.default_blocks()?);
        let problems = forwarding.into_iter().chain(blocks).chain(clients).chain(sockets).collect();
        Ok(Facts { pid: std::process::id(), statistics: xfrm::statistics()?, problems })
    }
}
