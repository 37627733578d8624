//! New keys for this node, where an admin has asked all nodes for that.
//!
//! ```text
//! due      an admin wants new keys            make them, and write them down
//! made     nobody else knows them             sign with the old signing key that they follow
//! offered  all accept both, the old ones used  wait until all that this node talks to know them; change over
//! in use   all accept both, the new ones used  wait until nothing rests on the old ones; sign that they are void
//! ```
//! A node that is away knows the old keys alone when it comes back. So those that would talk to it keep the old ones until
//! it has heard of the new ones: otherwise nobody could tell it.

use std::time::{Duration, Instant};

use super::{ClusterPart, Host};
use crate::host::ledger::{KeyStep, KeysWritten};
use crate::host::membership::Membership;
use crate::roster::{Keys, Member, Retired, Saying, SignedEntry, Signer};
use crate::store::NodeKeys;

/// How long after a failure it is tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// The keys of this node that are to follow those in use, and what the disk does with them.
#[derive(Default)]
pub(super) struct KeyChange {
    /// They are on the disk.
    next: Option<NodeKeys>,
    is_writing: bool,
    /// The last write failed: when the next one begins.
    again_at: Option<Instant>,
}

impl KeyChange {
    /// A node that starts with these.
    pub(super) fn new(next: Option<NodeKeys>) -> Self {
        Self { next, ..Self::default() }
    }

    /// When the disk is tried again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.again_at.filter(|_| !self.is_writing)
    }
}

/// What this node has to do about its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyTurn {
    /// On the disk.
    Write(KeyStep),
    /// To say that new keys follow.
    Offer,
    /// To say that the old ones are void.
    Retire,
}

impl Host {
    fn key_turn(&self) -> Option<KeyTurn> {
        let (cluster, members) = (self.cluster.as_ref()?, self.membership()?);
        let (roster, own) = (members.roster(), members.roster().view().member(members.own())?);
        let known = own.keys.as_ref()?;
        match &cluster.keys.next {
            Some(next) if Signer::of(&next.signing) == Some(known.signing) => {
                members.is_known_to_all().then_some(KeyTurn::Write(KeyStep::ChangeOver))
            }
            next if roster.wants_new_keys(own) => {
                Some(if next.is_some() { KeyTurn::Offer } else { KeyTurn::Write(KeyStep::Make) })
            }
            None if own.previous_ike.is_some() && self.has_changed_over(own) => Some(KeyTurn::Retire),
            _ => None,
        }
    }

    /// Whether nothing of this host rests on its old key any more.
    fn has_changed_over(&self, own: &Member) -> bool {
        let newest = own.keys.as_ref().and_then(|keys| keys.ike.public_key().ok());
        newest.zip(self.core.as_ref()).is_some_and(|(key, core)| core.proves_itself_with(&key))
    }

    /// What is to be done with the files of the keys.
    pub(in crate::host) fn poll_keys(&mut self, now: Instant) -> Option<KeyStep> {
        let keys = &self.cluster.as_ref()?.keys;
        let Some(KeyTurn::Write(step)) = self.key_turn() else { return None };
        if keys.is_writing || keys.again_at.is_some_and(|at| at > now) || !self.may_sign() {
            return None;
        }
        let keys = &mut self.cluster.as_mut()?.keys;
        (keys.is_writing, keys.again_at) = (true, None);
        Some(step)
    }

    /// That was done, or could not be.
    pub(in crate::host) fn handle_keys_written(&mut self, now: Instant, written: KeysWritten) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.keys.is_writing = false;
        let failed = match written {
            KeysWritten::Made(Ok(next)) => {
                tracing::info!("the cluster wants new keys: made those of this node");
                cluster.keys.next = Some(next);
                None
            }
            KeysWritten::ChangedOver(Ok(())) => {
                tracing::info!("all members know the new keys of this node: it proves itself with them now");
                self.use_next_keys(now);
                None
            }
            KeysWritten::Made(Err(error)) => Some(error.to_string()),
            KeysWritten::ChangedOver(Err(error)) => Some(error.to_string()),
        };
        if let (Some(error), Some(cluster)) = (failed, &mut self.cluster) {
            tracing::warn!("the keys of this node cannot be replaced: {error}");
            cluster.keys.again_at = Some(now + PAUSE);
        }
    }

    fn use_next_keys(&mut self, now: Instant) {
        let Some(cluster) = &mut self.cluster else { return };
        let Some(NodeKeys { signing, ike }) = cluster.keys.next.take() else { return };
        cluster.signing = signing.into();
        let (signing, ike) = (cluster.signing.clone(), ike.into());
        match (&mut self.core, &mut cluster.resting) {
            (Some(core), _) => core.change_keys(now, signing, ike),
            (None, Some(membership)) => membership.change_keys(signing, ike),
            (None, None) => {}
        }
        // The pairs prove themselves with what the files say.
        self.read_again();
    }

    /// Whether this node may say something without being asked.
    fn may_sign(&self) -> bool {
        self.core.is_some() && self.membership().is_some_and(Membership::is_up_to_date)
    }

    /// What this node says of its keys, if there is something to say.
    pub(super) fn say_of_keys(&self, now: Instant) -> Option<Vec<SignedEntry>> {
        let cluster = self.cluster.as_ref().filter(|_| self.may_sign())?;
        if cluster.again_at.is_some_and(|at| at > now) {
            return None;
        }
        let said = match self.key_turn()? {
            KeyTurn::Offer => self.sign_offer(cluster),
            KeyTurn::Retire => self.sign_retired(cluster),
            KeyTurn::Write(_) => return None,
        };
        match said {
            Ok(entry) => Some(vec![entry]),
            Err(error) => {
                tracing::warn!("the keys of this node cannot be replaced: {error:#}");
                None
            }
        }
    }

    fn sign_offer(&self, cluster: &ClusterPart) -> anyhow::Result<SignedEntry> {
        let (Some(next), Some((roster, _))) = (&cluster.keys.next, self.roster()) else {
            anyhow::bail!("there are none");
        };
        let [Some(signing), Some(ike)] = [&next.signing, &next.ike].map(Signer::of) else {
            anyhow::bail!("they are of another kind");
        };
        let statement =
            roster.draft(self.signer()?, Saying::Keys(Keys { signing, ike }), self.moment.wall)?;
        let keys = [&*cluster.signing, &next.signing, &next.ike];
        Ok(SignedEntry::sign(roster.cluster(), statement, &keys)?)
    }

    fn sign_retired(&self, cluster: &ClusterPart) -> anyhow::Result<SignedEntry> {
        let Some((roster, _)) = self.roster() else { anyhow::bail!("this host belongs to no cluster") };
        let statement = roster.draft(self.signer()?, Saying::Retired(Retired {}), self.moment.wall)?;
        Ok(SignedEntry::sign(roster.cluster(), statement, &[&*cluster.signing])?)
    }
}
