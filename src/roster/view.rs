//! What a roster comes to: its nodes, and what all of them are to do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::index::EntryPlace;
use super::nodes::{HeldOut, Member, Nodes, Removed};
use super::octets::{ClusterId, EntryId, Signer};
use super::saying::{
    ClusterSettings, DesiredProtection, FloatingPlace, Invite, LaterKind, Matter, Rotation, Saying,
    Statement, Version,
};
use super::tally::{KeyHolder, Tally};
use super::withdrawn::Withdrawn;

/// The newest entry about something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newest<T> {
    /// That entry.
    pub id: EntryId,
    /// How new it is.
    pub version: Version,
    /// Who has signed it.
    pub by: Signer,
    /// What it says.
    pub says: T,
}

/// Two entries that replace the same one and say different things. An admin who says something newer settles it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// What they are about.
    pub about: Matter,
    /// The one that counts meanwhile.
    pub winner: EntryId,
    /// The one that does not.
    pub loser: EntryId,
}

/// An invite that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invited {
    /// The entry that invites.
    pub id: EntryId,
    /// Whom, and until when.
    pub invite: Invite,
}

/// What a roster comes to.
#[derive(Debug, PartialEq, Eq)]
pub struct RosterView {
    /// What people call the cluster.
    pub cluster: String,
    /// The key that outranks all.
    pub recovery: Signer,
    /// Its nodes, by their names.
    pub members: Vec<Member>,
    /// The nodes that are none until an admin decides.
    pub held_out: Vec<HeldOut>,
    /// The nodes that are out for good.
    pub removed: Vec<Removed>,
    /// The invites that nobody has used; whether they are over is a matter of the time.
    pub invites: Vec<Invited>,
    /// The settings; `None` where no admin has set any.
    pub settings: Option<Newest<ClusterSettings>>,
    /// Since when all nodes are to have new keys; `None` where no admin has asked for that.
    pub rotation: Option<Newest<Rotation>>,
    /// Whether the cluster is to be protected; `None` where nobody has said so yet.
    pub desired: Option<Newest<DesiredProtection>>,
    /// The addresses that move between nodes.
    pub floating: Vec<Newest<FloatingPlace>>,
    /// What has to be settled.
    pub conflicts: Vec<Conflict>,
    /// What only a later version knows, and who has said it.
    pub later: BTreeSet<(LaterKind, Signer)>,
}

impl RosterView {
    /// What `entries` come to; `None` where none of them founds the cluster.
    pub(super) fn find(cluster: ClusterId, tally: &Tally, withdrawn: &Withdrawn) -> Option<Self> {
        let Saying::Genesis(genesis) = &tally.index().get(&cluster.into())?.says else { return None };
        let counted = Counted::of(tally);
        let floating = counted.floating();
        let taken: BTreeSet<IpAddr> = floating.iter().flat_map(|one| one.says.addresses.clone()).collect();
        let Nodes { members, held_out, removed } = Nodes::find(tally, withdrawn, &taken);
        Some(Self {
            cluster: genesis.cluster.clone(),
            recovery: genesis.recovery,
            members,
            held_out,
            removed,
            invites: invites(tally, withdrawn),
            settings: counted.newest(&Matter::Settings, |says| match says {
                Saying::Settings(settings) => Some(settings.clone()),
                _ => None,
            }),
            rotation: counted.newest(&Matter::Rotation, |says| match says {
                Saying::Rotation(rotation) => Some(*rotation),
                _ => None,
            }),
            desired: counted.newest(&Matter::Desired, |says| match says {
                Saying::Desired(desired) => Some(desired.clone()),
                _ => None,
            }),
            floating,
            conflicts: counted.conflicts(),
            later: tally.counted().filter_map(|(_, it)| Some((it.says.later()?.clone(), it.by))).collect(),
        })
    }

    /// The member with this first entry.
    pub fn member(&self, line: EntryId) -> Option<&Member> {
        self.members.iter().find(|member| member.line == line)
    }

    /// The admins, by their names.
    pub fn admins(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.admin)
    }
}

/// The entries that count of those that admins write one after the other, by what they are about.
struct Counted<'a>(BTreeMap<Matter, Vec<(EntryId, &'a Statement)>>);

impl<'a> Counted<'a> {
    fn of(tally: &'a Tally) -> Self {
        let mut about: BTreeMap<Matter, Vec<_>> = BTreeMap::new();
        let matters = tally.counted().map(|(at, entry)| (entry.matter(), at, entry));
        for (matter, at, entry) in matters.filter(|(matter, _, _)| is_settled_by_admins(matter)) {
            about.entry(matter).or_default().push((tally.index().id(at), entry));
        }
        Self(about)
    }

    fn about(&self, matter: &Matter) -> &[(EntryId, &'a Statement)] {
        self.0.get(matter).map(Vec::as_slice).unwrap_or_default()
    }

    fn newest<T>(&self, matter: &Matter, read: impl Fn(&Saying) -> Option<T>) -> Option<Newest<T>> {
        let (id, entry) = self.about(matter).iter().max_by_key(|(id, entry)| weight(*id, entry))?;
        let says = read(&entry.says)?;
        Some(Newest { id: *id, version: entry.version, by: entry.by, says })
    }

    fn floating(&self) -> Vec<Newest<FloatingPlace>> {
        let matters = self.0.keys().filter(|matter| matches!(matter, Matter::Floating(_)));
        let newest = matters.filter_map(|matter| {
            self.newest(matter, |says| match says {
                Saying::Floating(floating) => Some(floating.clone()),
                _ => None,
            })
        });
        newest.filter(|floating| !floating.says.addresses.is_empty()).collect()
    }

    /// Those that were said at once: they replace the same entry, or are both the first about something.
    fn conflicts(&self) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for (matter, entries) in &self.0 {
            let newest = entries.iter().map(|(_, entry)| entry.version.0).max().unwrap_or_default();
            let mut rivals: BTreeMap<Option<EntryId>, Vec<(EntryId, &Statement)>> = BTreeMap::new();
            for (id, entry) in entries {
                let first = entry.after.is_empty().then_some(None);
                let after = entry.after.iter().map(|id| Some(*id)).chain(first);
                after.for_each(|after| rivals.entry(after).or_default().push((*id, entry)));
            }
            for rivals in rivals.into_values() {
                let Some(winner) = rivals.iter().max_by_key(|(id, entry)| weight(*id, entry)) else {
                    continue;
                };
                // What an admin has said since has settled what is older.
                let other = |(_, entry): &&(EntryId, &Statement)| {
                    entry.says != winner.1.says && newest == winner.1.version.0
                };
                conflicts.extend(rivals.iter().filter(other).map(|(loser, _)| Conflict {
                    about: matter.clone(),
                    winner: winner.0,
                    loser: *loser,
                }));
            }
        }
        conflicts.sort_unstable();
        conflicts.dedup();
        conflicts
    }
}

/// The invites that nobody has used.
fn invites(tally: &Tally, withdrawn: &Withdrawn) -> Vec<Invited> {
    let index = tally.index();
    let open = |(at, entry): (EntryPlace, &Statement)| {
        let Saying::Invite(invite) = &entry.says else { return None };
        let (id, key) = (index.id(at), index.key(&invite.key)?);
        let is_use =
            |at: &&EntryPlace| tally.counts_at(**at) && matches!(index.statement(**at).says, Saying::Join(_));
        let used = index.signed_by(key).iter().find(is_use).is_some() || withdrawn.is_used_twice(&invite.key);
        let known = tally.holder_of(key) == Some(KeyHolder::Invite(at));
        (known && !used && !withdrawn.is_gone(id)).then(|| Invited { id, invite: invite.clone() })
    };
    tally.counted().filter_map(open).collect()
}

/// What decides which of two entries about the same counts: what admins have said since; on before what is tried; how new
/// it is; on before off; then chance, the same everywhere.
pub(super) fn weight(id: EntryId, entry: &Statement) -> (u64, bool, u64, bool, EntryId) {
    let Version(a, n) = entry.version;
    let (on, for_good) = match &entry.says {
        Saying::Desired(desired) => (desired.on, desired.on && desired.trial.is_none()),
        _ => (false, false),
    };
    (a, for_good, n, on, id)
}

/// Whether admins write it, one after the other.
pub(super) fn is_settled_by_admins(matter: &Matter) -> bool {
    match matter {
        Matter::Node(line) => line.is_some(),
        Matter::Settings | Matter::Rotation | Matter::Desired | Matter::Floating(_) => true,
        Matter::Join(_)
        | Matter::Admission(_)
        | Matter::Keys(_)
        | Matter::Retired(_)
        | Matter::Rights(_)
        | Matter::Invite
        | Matter::Gone(_)
        | Matter::Later => false,
    }
}

/// The entries about a matter that were not replaced yet: what a new one replaces.
pub(super) fn heads(tally: &Tally, matter: &Matter) -> Vec<EntryId> {
    let about: Vec<_> = tally.counted().filter(|(_, entry)| entry.matter() == *matter).collect();
    let replaced: BTreeSet<&EntryId> = about.iter().flat_map(|(_, entry)| &entry.after).collect();
    let ids = about.iter().map(|(at, _)| tally.index().id(*at));
    ids.filter(|id| !replaced.contains(id)).collect()
}
