//! The kernel's SAs and policies: to read, and to change by [`Op`]s.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use netlink_packet_xfrm::{XFRM_MSG_GETPOLICY, XFRM_MSG_GETSA, XFRM_MSG_NEWPOLICY, XFRM_MSG_NEWSA};
use nix::libc;

use super::batch::BATCH;
use super::connection::{Connection, Dump};
use super::decode::{self, Ack};
use super::encode;
use super::preflight::Features;
use super::strangers;
use super::wire::{Malformed, NetlinkMessage};
use crate::types::stranger::{DefaultBlocks, StrangerPolicy, Strangers};
use crate::types::{
    KernelState, KeySource, Op, OpError, PolicyId, PolicyReading, SaId, SaReading, SaTable, ours,
};

/// How often a dump is tried anew when something changed under it.
const ATTEMPTS: usize = 5;

/// Policies by what identifies them, and those of strangers.
type Policies = (BTreeMap<PolicyId, PolicyReading>, Vec<StrangerPolicy>);

/// Why the kernel's tables could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The kernel refused, or its answer made no sense.
    #[error("cannot read the kernel's IPsec tables: {0}")]
    Refused(#[from] io::Error),
    /// The tables changed each time while they were read, or parts were lost for want of memory.
    #[error("cannot read the kernel's IPsec tables: interrupted {attempts} times in a row")]
    Unsettled {
        /// How often it was tried.
        attempts: usize,
    },
}

/// The IPsec tables of the network namespace in which it was opened. Nothing here ever blocks.
pub struct Tables {
    connection: Connection,
    features: Features,
}

impl Tables {
    /// Opens a socket to the kernel of this thread's network namespace and finds out what it can do.
    /// Fails where this process lacks `CAP_NET_ADMIN`, or the kernel the `xfrm_user` module.
    pub fn open() -> io::Result<Self> {
        let mut connection = Connection::open()?;
        let features = Features::probe(&mut connection)?;
        Ok(Self { connection, features })
    }

    /// The netlink port of its socket: notifications that carry it tell of changes made through this object.
    pub fn port(&self) -> u32 {
        self.connection.port()
    }

    /// What this kernel can do.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Carries out `ops` in their order and says of each whether it was done. An op that fails does not
    /// keep those after it from being tried. What it would change or delete is read before, and left
    /// alone unless it is ours.
    pub fn apply(&mut self, ops: &[Op], keys: &dyn KeySource) -> Vec<Result<(), OpError>> {
        // The process is to be able to die after every single one.
        let most = if cfg!(feature = "fault-injection") { 1 } else { BATCH };
        let mut results = Vec::with_capacity(ops.len());
        while let Some(left) = ops.get(results.len()..).filter(|left| !left.is_empty()) {
            let run = independent(&left[..left.len().min(most)]);
            results.extend(self.apply_batch(run, keys));
            #[cfg(feature = "fault-injection")]
            super::fuse::burn();
        }
        results
    }

    /// Applies ops that can all be proven before the first is done.
    fn apply_batch(&mut self, ops: &[Op], keys: &dyn KeySource) -> Vec<Result<(), OpError>> {
        if ops.len() == BATCH {
            // The kernel grows its hash tables in a worker on this CPU. Not let in between, it falls so far
            // behind that adding 10,000 policies takes half as long again.
            std::thread::yield_now();
        }
        let mut results = self.prove(ops);
        let mut sent = Vec::with_capacity(ops.len());
        for (op, result) in ops.iter().zip(&mut results).filter(|(_, result)| result.is_ok()) {
            match self.encode(op, keys) {
                Ok(()) => sent.push((op, result)),
                Err(reason) => *result = Err(OpError::Refused { op: op.to_string(), reason }),
            }
        }
        match self.connection.transact(|_, _| {}) {
            Ok(verdicts) => {
                for ((op, result), verdict) in sent.into_iter().zip(verdicts) {
                    *result = verdict.map_or(Ok(()), |verdict| Err(refusal(op, &verdict)));
                }
            }
            Err(error) => {
                for (op, result) in sent {
                    *result = Err(unanswered(op, &error));
                }
            }
        }
        results
    }

    fn encode(&mut self, op: &Op, keys: &dyn KeySource) -> Result<(), String> {
        let batch = &mut self.connection.batch;
        match op {
            Op::AddSa(sa) => {
                let key = keys.key(sa.id()).ok_or("its key is not known")?;
                encode::add_sa(batch, sa, key, self.features)
            }
            Op::DeleteSa(id) => {
                encode::delete_sa(batch, *id);
                Ok(())
            }
            Op::AddPolicy { policy, index } => encode::add_policy(batch, policy, *index),
            Op::UpdatePolicy { policy, index } => encode::update_policy(batch, policy, *index),
            Op::DeletePolicy { id, index } => {
                encode::delete_policy(batch, id.direction, *index);
                Ok(())
            }
        }
    }

    /// Reads what `ops` would change or delete, and passes those whose object is there and ours, and
    /// additions. A policy is added only where its index is free: the kernel would silently choose
    /// another, and the policy would not be ours.
    fn prove(&mut self, ops: &[Op]) -> Vec<Result<(), OpError>> {
        let mut asked = Vec::new();
        for (position, op) in ops.iter().enumerate() {
            let batch = &mut self.connection.batch;
            match op {
                Op::AddSa(_) => continue,
                Op::AddPolicy { policy, index } => encode::get_policy(batch, policy.direction, *index),
                Op::DeleteSa(id) => encode::get_sa(batch, *id),
                Op::UpdatePolicy { policy, index } => encode::get_policy(batch, policy.direction, *index),
                Op::DeletePolicy { id, index } => encode::get_policy(batch, id.direction, *index),
            }
            asked.push(position);
        }
        let mut results = vec![Ok(()); ops.len()];
        let mut proven = vec![false; asked.len()];
        let verdicts = self.connection.transact(|at, message| {
            proven[at] = match &ops[asked[at]] {
                Op::DeleteSa(id) => {
                    matches!(decode::sa(message), Ok(Some(found)) if found.id == *id)
                }
                op => matches!(decode::policy(message), Ok(Some(found)) if is_target(op, &found)),
            };
        });
        for (at, position) in asked.into_iter().enumerate() {
            let op = &ops[position];
            results[position] = match &verdicts {
                Err(error) => Err(unanswered(op, error)),
                Ok(verdicts) => match &verdicts[at] {
                    Some(verdict) if verdict.errno == libc::ENOENT && !needs_object(op) => Ok(()),
                    Some(verdict) => Err(refusal(op, verdict)),
                    None if proven[at] => Ok(()),
                    None => Err(not_proven(op)),
                },
            };
        }
        results
    }

    /// Reads all SAs and policies. Not a snapshot: what changes meanwhile may or may not be in it,
    /// and the notifications tell (docs/kernel.md, fact 15).
    pub fn read(&mut self) -> Result<KernelState, ReadError> {
        let SaTable { ours: sas, strangers } = self.read_all_sas()?;
        let (policies, others) = self.read_policies()?;
        Ok(KernelState { sas, policies, strangers: Strangers { policies: others, sas: strangers } })
    }

    /// Reads our SAs with their counters.
    pub fn read_sas(&mut self) -> Result<BTreeMap<SaId, SaReading>, ReadError> {
        self.read_all_sas().map(|sas| sas.ours)
    }

    /// Reads our SAs with their counters, and what SAs other software has.
    pub fn read_all_sas(&mut self) -> Result<SaTable, ReadError> {
        self.collect(XFRM_MSG_GETSA, XFRM_MSG_NEWSA, |sas: &mut SaTable, message| {
            match decode::sa(message)? {
                Some(sa) if has_cipher(&sa) => drop(sas.ours.insert(sa.id, sa)),
                Some(_) => {}
                None => sas.strangers.extend(strangers::sa(message)?),
            }
            Ok(())
        })
    }

    /// Reads one SA, `None` if there is none or it is not ours.
    pub fn read_sa(&mut self, id: SaId) -> Result<Option<SaReading>, ReadError> {
        encode::get_sa(&mut self.connection.batch, id);
        let mut found = Ok(None);
        let verdicts = self.connection.transact(|_, message| found = decode::sa(message))?;
        match verdicts.into_iter().flatten().next() {
            None => Ok(found.map_err(io::Error::from)?.filter(has_cipher)),
            Some(verdict) if verdict.errno == libc::ESRCH => Ok(None),
            Some(verdict) => Err(ReadError::Refused(io::Error::other(verdict.reason()))),
        }
    }

    /// Whether no packet has met each of `policies` since it was written; `false` if that cannot be told, or if the
    /// policy is gone or changed.
    pub fn unused(&mut self, policies: &[PolicyReading]) -> Vec<bool> {
        policies.chunks(BATCH).flat_map(|policies| self.unused_batch(policies)).collect()
    }

    fn unused_batch(&mut self, policies: &[PolicyReading]) -> Vec<bool> {
        for policy in policies {
            encode::get_policy(&mut self.connection.batch, policy.id.direction, policy.index);
        }
        let mut unused = vec![false; policies.len()];
        let answered = self.connection.transact(|at, message| {
            let same = matches!(decode::policy(message), Ok(Some(found)) if found == policies[at]);
            unused[at] = same && decode::is_unused_policy(message);
        });
        if answered.is_err() {
            unused.fill(false);
        }
        unused
    }

    /// All policies that one of ours can collide with, and all of strangers that packets of ours can meet.
    fn read_policies(&mut self) -> Result<Policies, ReadError> {
        self.collect(XFRM_MSG_GETPOLICY, XFRM_MSG_NEWPOLICY, |(policies, others): &mut Policies, message| {
            let policy = decode::policy(message)?;
            if !policy.as_ref().is_some_and(ours::is_our_policy) {
                others.extend(strangers::policy(message)?);
            }
            policies.extend(policy.map(|policy| (policy.id, policy)));
            Ok(())
        })
    }

    /// Which packets the kernel drops that no policy matches. Those before Linux 5.15 drop none.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn default_blocks(&mut self) -> io::Result<DefaultBlocks> {
        encode::get_default(&mut self.connection.batch);
        let mut said = Ok(DefaultBlocks::default());
        self.connection.transact(|_, message| said = strangers::default_blocks(message))?;
        said.map_err(io::Error::from)
    }

    /// Every object of ours: unlike [`Tables::read`] with the larval SAs that a template of ours made.
    pub(super) fn ours(&mut self) -> Result<(Vec<PolicyReading>, Vec<SaReading>), ReadError> {
        let policies = self.read_policies()?.0.into_values().filter(ours::is_our_policy).collect();
        let sas = self.collect(XFRM_MSG_GETSA, XFRM_MSG_NEWSA, |sas: &mut Vec<_>, message| {
            sas.extend(decode::sa(message)?);
            Ok(())
        })?;
        Ok((policies, sas))
    }

    /// Adds up what a dump reports.
    fn collect<T: Default>(
        &mut self,
        request: u16,
        report: u16,
        add: impl Fn(&mut T, NetlinkMessage<'_>) -> Result<(), Malformed>,
    ) -> Result<T, ReadError> {
        for _ in 0..ATTEMPTS {
            let mut all = T::default();
            let dump = self.connection.dump(request, |message| {
                if message.kind == report { add(&mut all, message) } else { Ok(()) }
            })?;
            if dump == Dump::Whole {
                return Ok(all);
            }
        }
        Err(ReadError::Unsettled { attempts: ATTEMPTS })
    }

    /// The connection, for requests that are no ops.
    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

/// The first of `ops` up to one that touches what another before it does: what it finds there cannot be proven
/// before that one is done.
pub(super) fn independent(ops: &[Op]) -> &[Op] {
    let mut touched = BTreeSet::new();
    &ops[..ops.iter().take_while(|op| touched.insert(object(op))).count()]
}

/// What an op touches.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Object {
    Sa(SaId),
    /// By its index, which also tells the direction.
    Policy(u32),
}

fn object(op: &Op) -> Object {
    match op {
        Op::AddSa(sa) => Object::Sa(sa.id()),
        Op::DeleteSa(id) => Object::Sa(*id),
        Op::AddPolicy { index, .. } | Op::UpdatePolicy { index, .. } | Op::DeletePolicy { index, .. } => {
            Object::Policy(*index)
        }
    }
}

/// Whether an op touches something that is there, so that it must first be proven ours.
fn needs_object(op: &Op) -> bool {
    !matches!(op, Op::AddSa(_) | Op::AddPolicy { .. })
}

/// Whether `found` is ours and what `op` means.
pub(super) fn is_target(op: &Op, found: &PolicyReading) -> bool {
    let (id, index) = match op {
        Op::UpdatePolicy { policy, index } => (policy.id(), *index),
        Op::DeletePolicy { id, index } => (*id, *index),
        _ => return false,
    };
    ours::is_our_policy(found) && found.id == id && found.index == index
}

/// A larval SA has no cipher: the kernel waits for the real one.
fn has_cipher(sa: &SaReading) -> bool {
    sa.key_bits != 0
}

/// Why the kernel did not do `op`.
pub(super) fn refusal(op: &Op, verdict: &Ack) -> OpError {
    let what = op.to_string();
    match verdict.errno {
        libc::EEXIST => OpError::Exists { op: what },
        // For an addition these mean that the kernel lacks a cipher.
        libc::ENOENT | libc::ESRCH if needs_object(op) => OpError::Missing { op: what },
        _ => OpError::Refused { op: what, reason: verdict.reason() },
    }
}

/// What an op would touch is a stranger's, or what it would add has no place.
fn not_proven(op: &Op) -> OpError {
    let reason = if needs_object(op) { "it is not ours" } else { "its index is taken" };
    OpError::Refused { op: op.to_string(), reason: reason.into() }
}

fn unanswered(op: &Op, error: &io::Error) -> OpError {
    let reason = match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS) => "the kernel's answer was lost".into(),
        _ => error.to_string(),
    };
    OpError::Refused { op: op.to_string(), reason }
}
