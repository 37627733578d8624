//! What a host stands on beside its kernel, as traits of values: real in the agent, simulated in tests. What is behind
//! them may be another process one day, so nothing but values passes them, and what takes time comes back as an input.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::core::{ProbeDatagram, Unsent};
use super::ledger::Save;
use super::prover::word::ProofPorts;
use super::prover::{NonceArrival, NonceSet};
use super::setup::{IkePorts, Secrets, Setup};
use super::{Host, ProbeFate};
use crate::host::system::System;
use crate::identity::Secret;
use crate::ike::Transmit;
use crate::types::Pair;

/// The UDP sockets of a host. What comes in is an input: [`Host::handle_datagrams`].
pub trait Sockets {
    /// Binds some to each of `addresses`, where there are none yet.
    ///
    /// # Errors
    /// One cannot be bound; all is as before then.
    fn bind(&mut self, addresses: Vec<IpAddr>, ports: IkePorts) -> anyhow::Result<()>;

    /// The same for addresses of no pair: those that cannot be bound are left out.
    fn bind_besides(&mut self, addresses: &BTreeSet<IpAddr>, ports: IkePorts);

    /// Tries again to bind ports that somebody else had.
    fn bind_missing(&mut self);

    /// Closes those of addresses that are not `wanted`.
    fn retain(&mut self, wanted: &BTreeSet<IpAddr>);

    /// No probe leaves for a while: what they leave through is closed.
    fn rest(&mut self);

    /// Closes all of them for good.
    fn close(&mut self);

    /// Sends datagrams in turn. Returns those that did not leave this host.
    fn send(&mut self, transmits: Vec<Transmit>) -> Vec<Unsent>;

    /// Sends a probe through its SA; says what became of it.
    fn probe(&mut self, probe: &ProbeDatagram) -> ProbeFate;
}

/// The sockets of a proof of a pair (`host::prover`), one at a time, and what the kernel counts of it.
pub trait ProofPort {
    /// Opens them at this host's end of `pair`; says their UDP ports.
    ///
    /// # Errors
    /// The system has none.
    fn open_proof(&mut self, pair: Pair) -> io::Result<ProofPorts>;

    /// Closes them.
    fn close_proof(&mut self);

    /// Sends the clear ones past all policies, and then the others as any program does. Returns what has left, and why the
    /// rest has not.
    fn send_proof(&mut self, to: SocketAddr, nonces: &NonceSet) -> (NonceSet, Option<String>);

    /// What has come from the peer's address of `pair` since the last call, a bounded part of what waits.
    fn proof_came(&mut self, pair: Pair) -> Vec<NonceArrival>;

    /// How many packets the kernel has refused because they were not encrypted (XfrmInTmplMismatch).
    ///
    /// # Errors
    /// It does not count them.
    fn refused_clear(&mut self) -> io::Result<u64>;
}

/// Where a host writes what survives.
pub trait Store {
    /// Begins to write `save` after the write that is under way. The end is an input: [`Host::handle_written`].
    fn begin(&mut self, now: Instant, save: Save);
}

/// Where a host gets the secrets that a configuration names.
pub trait SecretSource {
    /// What it has of them now. `root` is the secret that a KMS has unwrapped, as long as this host may have it. `None`: it
    /// gives them when it has them, and may withdraw them, which are inputs ([`Host::handle_secret`],
    /// [`Host::handle_unwrapped`]); those in force stay.
    ///
    /// # Errors
    /// It has none, and will not have any before somebody does something.
    fn read(&mut self, setup: &Setup, root: Option<&Arc<Secret>>) -> anyhow::Result<Option<Secrets>>;
}

impl Host {
    /// Sends everything that waits, all probes before the messages that ask whether they came through.
    pub fn send(&mut self, now: Instant, system: &mut dyn System) {
        self.go_on_with_cluster(now, system);
        self.go_on_proving(now, system);
        loop {
            while let Some(probe) = self.poll_probe() {
                let fate = system.probe(&probe);
                self.handle_probe(now, &probe, fate);
            }
            let transmits: Vec<Transmit> = std::iter::from_fn(|| self.poll_transmit()).collect();
            if transmits.is_empty() {
                return;
            }
            let unsent = system.send(transmits);
            if !unsent.is_empty() {
                self.handle_unsent(now, system, unsent);
            }
        }
    }

    /// Has everything written that is due.
    pub fn write(&mut self, now: Instant, store: &mut dyn Store) {
        while let Some(save) = self.poll_save(now) {
            store.begin(now, save);
        }
    }
}
