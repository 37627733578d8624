//! A host that is a member of a cluster: it does what the cluster is to do, signs what its operator orders, and asks and
//! says how members stand.
//!
//! ```text
//! orders    what an operator orders becomes entries, which are written first and told then
//! ordered   settings that an operator orders
//! rotation  new keys for this node, where an admin wants that
//! follow    what the cluster is to do becomes this host's wish, once
//! moving    which addresses move between nodes
//! relocate  a node gets other addresses
//! standing  how members stand, asked and told
//! tried     settings that are on trial
//! offers    a wrapped secret that is offered, tried
//! previews  what other settings would change, on each member
//! rows      what comes of it, with what is wrong
//! figures   what this host knows by itself, in numbers
//! checks    what the checks of each member find, asked and told
//! proofs    proofs of the members' pairs, asked and made
//! pairs     how the pairs of all members stand, asked and told
//! store     the store that members share, where there is one
//! ```
//! The roster is with the core's [`Membership`], which talks to the others. There is a core all the time: control IKE SAs
//! stand whether traffic is protected or not.

mod checks;
mod figures;
mod follow;
mod moving;
mod offers;
mod ordered;
mod orders;
mod pairs;
mod previews;
mod proofs;
mod questions;
mod readiness;
mod relocate;
mod rotation;
mod rows;
mod standing;
mod store;
mod tried;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::checks::CheckQuestions;
use self::follow::Follower;
use self::offers::OfferTrial;
pub use self::offers::OfferTried;
use self::orders::SignedOrder;
use self::pairs::PairQuestions;
use self::previews::Previews;
use self::proofs::ProofQuestions;
use self::rotation::KeyChange;
use self::standing::Standings;
use self::tried::TriedSettings;
use super::Host;
use super::core::Core;
use super::ledger::Asker;
use super::membership::Membership;
use super::pace::Pace;
use super::shared_store::SharedStore;
use super::system::System;
use crate::control::{ClusterReply, ClusterRequest, ErrorCode, Reply};
use crate::identity::{PrivateKey, PublicKey};
use crate::observe::MemberWord;
use crate::roster::{EntryId, Roster, SignedEntry};
use crate::store::{ClusterState, NodeKeys, SavedError};

/// How long this host goes by a roster before it looks whether that has changed again.
const GATHERED: Duration = Duration::from_millis(200);

/// What a member starts with.
pub struct ClusterStart {
    /// What it has of its cluster.
    pub state: ClusterState,
    /// Which machine it is.
    pub machine: [u8; 16],
    /// Which start of that machine it is.
    pub boot: [u8; 16],
}

/// What a host does for its cluster.
pub(super) struct ClusterPart {
    signing: Arc<PrivateKey>,
    /// The membership, while there is no core.
    resting: Option<Membership>,
    /// Orders that wait for the one before them.
    orders: VecDeque<(Asker, ClusterRequest)>,
    /// An order that is signed, and is being written or is to be.
    signed: Option<SignedOrder>,
    is_writing: bool,
    /// The last write failed: when the next one begins.
    again_at: Option<Instant>,
    follower: Follower,
    standings: Standings,
    keys: KeyChange,
    /// The roster has changed, and this host does not go by that yet.
    changes: Pace,
    tried: TriedSettings,
    offers: OfferTrial,
    /// Since when this host makes keys without the wrapped secret of the cluster, if need be.
    optional_since: Option<Instant>,
    previews: Previews,
    checks: CheckQuestions,
    proofs: ProofQuestions,
    pairs: PairQuestions,
    store: SharedStore,
}

impl ClusterPart {
    pub(super) fn new(now: Instant, start: ClusterStart) -> Self {
        let ClusterStart { state: ClusterState { roster, own, keys, next }, machine, boot } = start;
        let NodeKeys { signing, ike } = keys;
        let signing = Arc::new(signing);
        let tried = TriedSettings::of(roster.view());
        let mut membership = Membership::new(roster, own, Arc::new(ike), (machine, boot));
        membership.open_door(signing.clone());
        Self {
            signing,
            resting: Some(membership),
            orders: VecDeque::new(),
            signed: None,
            is_writing: false,
            again_at: None,
            follower: Follower::default(),
            standings: Standings::default(),
            keys: KeyChange::new(next),
            changes: Pace::new(now, GATHERED, 0),
            tried,
            offers: OfferTrial::default(),
            optional_since: None,
            previews: Previews::default(),
            checks: CheckQuestions::default(),
            proofs: ProofQuestions::default(),
            pairs: PairQuestions::default(),
            store: SharedStore::default(),
        }
    }

    /// Orders that wait, and one more while what is new in the roster is not written: also where that came from others.
    fn pending(&self) -> usize {
        let is_unwritten = self.signed.is_some() || self.is_writing || self.again_at.is_some();
        self.orders.len() + usize::from(is_unwritten)
    }

    /// Whether this host is to go by what the roster says now. It does so at once, and then by all that comes within a
    /// moment: whoever signs a lot costs others no more.
    fn gather(&mut self, now: Instant, changed: bool) -> bool {
        if changed {
            self.changes.want();
        }
        let due = self.changes.is_due(now);
        if due {
            self.changes.begin(now);
            self.changes.end(now);
        }
        due
    }
}

impl Host {
    /// What this host knows of its cluster, where it is a member of one; its own first entry, and the key that it proves
    /// itself with.
    pub fn roster(&self) -> Option<(&Roster, (EntryId, &PublicKey))> {
        let members = self.membership()?;
        Some((members.roster(), (members.own(), members.key())))
    }

    pub(super) fn membership(&self) -> Option<&Membership> {
        let resting = self.cluster.as_ref()?.resting.as_ref();
        resting.or_else(|| self.core.as_ref()?.membership())
    }

    /// The core takes part in the cluster.
    pub(super) fn take_part(&mut self, now: Instant) {
        let (Some(core), Some(cluster)) = (&mut self.core, &mut self.cluster) else { return };
        if let Some(membership) = cluster.resting.take() {
            core.take_part(now, membership);
        }
    }

    /// The core is no more; what it knows of the cluster stays.
    pub(super) fn drop_core(&mut self) {
        let membership = self.core.take().and_then(Core::into_membership);
        if let Some(cluster) = &mut self.cluster {
            cluster.resting = membership.or(cluster.resting.take());
        }
    }

    /// Does what the cluster makes this host do. To be called before anything is sent.
    pub(super) fn go_on_with_cluster(&mut self, now: Instant, system: &mut dyn System) {
        if self.cluster.is_none() {
            return;
        }
        self.go_on_with_store(now);
        let changed = self.core.as_mut().and_then(Core::membership_mut).is_some_and(Membership::poll_changed);
        if self.cluster.as_mut().is_some_and(|cluster| cluster.gather(now, changed)) {
            self.read_again();
        }
        if self.look_at_settings(now) {
            self.read_again();
        }
        self.hear_members(now, system);
        self.go_on_asking(now);
        self.answer_standings(now, system);
        self.answer_previews(now, system);
        self.answer_checks(now);
        self.answer_proofs(now);
        self.answer_pairs(now, system);
        self.follow_cluster(now, system);
        self.begin_order(now);
    }

    /// When [`Host::go_on_with_cluster`] has something to do though nothing happens.
    pub(super) fn cluster_deadline(&self) -> Option<Instant> {
        let cluster = self.cluster.as_ref()?;
        // What is being written, or has no core, is tried again afterwards.
        let follows = self.wish.is_none() && self.core.is_some();
        let again = cluster.follower.deadline().filter(|_| follows);
        let write = cluster.again_at.filter(|_| !cluster.is_writing);
        let asked = [
            cluster.standings.questions.deadline(),
            cluster.previews.questions.deadline(),
            cluster.checks.questions.deadline(),
            cluster.proofs.deadline(),
            cluster.pairs.questions.deadline(),
            cluster.tried.deadline(),
            cluster.offers.deadline(),
        ];
        let store = cluster.store.deadline().filter(|_| self.core.is_some());
        let own = [write, again, store, cluster.keys.deadline(), cluster.changes.deadline()];
        asked.into_iter().chain(own).flatten().min()
    }

    /// The roster that is to be written now.
    pub(super) fn poll_roster(&mut self, now: Instant) -> Option<Vec<Vec<u8>>> {
        let cluster = self.cluster.as_ref()?;
        let waits = cluster.signed.is_none() && cluster.again_at.is_some_and(|at| at > now);
        if cluster.is_writing || waits {
            return None;
        }
        let unsaved = self.core.as_mut().and_then(Core::membership_mut).is_some_and(Membership::poll_save);
        let cluster = self.cluster.as_mut()?;
        if !unsaved && cluster.signed.is_none() && cluster.again_at.is_none() {
            return None;
        }
        (cluster.is_writing, cluster.again_at) = (true, None);
        let signed = self.cluster.as_ref()?.signed.as_ref();
        let new = signed.map(SignedOrder::entries).unwrap_or_default();
        let (roster, _) = self.roster()?;
        Some(roster.in_order().chain(new).map(|entry| entry.octets().to_vec()).collect())
    }

    /// Whether the roster is being written, or is to be.
    pub(super) fn is_writing_roster(&self) -> bool {
        let busy = |cluster: &ClusterPart| cluster.is_writing || cluster.signed.is_some();
        self.cluster.as_ref().is_some_and(busy)
    }

    /// The roster was written, or could not be.
    pub(super) fn handle_roster_written(&mut self, now: Instant, outcome: Result<(), SavedError>) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.is_writing = false;
        cluster.again_at = self.ledger.note_roster(now, &outcome);
        if outcome.is_ok() {
            self.core.iter_mut().for_each(|core| core.handle_stored_roster(now));
        }
        match (cluster.signed.take(), outcome) {
            (Some(order), Ok(())) => {
                let SignedOrder { entries, answer } = order;
                self.core.iter_mut().for_each(|core| core.handle_signed(now, &entries));
                cluster.store.handle_signed(now);
                if let Some((asker, reply)) = answer {
                    self.answer(now, asker, Reply::Cluster(reply));
                }
            }
            (Some(order), Err(error)) => {
                self.core.iter_mut().for_each(|core| core.handle_not_written(now, &order.entries));
                if let Some((asker, _)) = order.answer {
                    let message = format!("nothing was ordered, as it cannot be written: {error}");
                    self.answer(now, asker, Reply::Error { code: ErrorCode::Failed, message });
                }
            }
            (None, _) => {}
        }
    }

    /// What members have said aside.
    fn hear_members(&mut self, now: Instant, system: &mut dyn System) {
        let next = |host: &mut Self| host.core.as_mut()?.membership_mut()?.poll_aside();
        while let Some((line, said)) = next(self) {
            match MemberWord::from_bytes(&said) {
                Some(MemberWord::Ask(number)) => self.tell_standing(now, system, line, number),
                Some(MemberWord::Report(number, report)) => {
                    if let Some(cluster) = &mut self.cluster {
                        cluster.standings.questions.note(number, line, *report);
                    }
                }
                Some(MemberWord::Preview(number, settings)) => {
                    self.tell_preview(now, system, line, (number, &settings));
                }
                Some(MemberWord::Plan(number, plan)) => {
                    let cluster = self.cluster.as_mut();
                    cluster
                        .into_iter()
                        .for_each(|cluster| cluster.previews.questions.note(number, line, plan.clone()));
                }
                Some(MemberWord::AskChecks(number)) => self.tell_checks(now, system, line, number),
                Some(MemberWord::Checks(number, said)) => {
                    let cluster = self.cluster.as_mut();
                    cluster
                        .into_iter()
                        .for_each(|cluster| cluster.checks.questions.note(number, line, said.clone()));
                }
                Some(MemberWord::Prove(number, said)) => self.hear_proving(now, line, number, said),
                Some(MemberWord::AskPairs(number)) => self.tell_pairs(now, system, line, number),
                Some(MemberWord::Pairs(number, part)) => self.hear_pairs(line, number, &part),
                // A later version says more.
                None => {}
            }
        }
    }
}

impl SignedOrder {
    fn entries(&self) -> &[SignedEntry] {
        &self.entries
    }
}

/// An answer that says no more than that it was done.
fn done() -> ClusterReply {
    ClusterReply::Done { notes: Vec::new() }
}
