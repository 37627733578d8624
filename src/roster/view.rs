//! What a roster comes to: its nodes, and what all of them are to do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::entry::SignedEntry;
use super::nodes::{HeldOut, Member, Nodes, Removed};
use super::octets::{ClusterId, EntryId, Signer};
use super::saying::{
    ClusterSettings, DesiredProtection, FloatingPlace, Invite, Matter, Saying, SecretEpoch, Statement,
    Version,
};
use super::tally::{Entries, KeyHolder, Tally};
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
    /// The newest shared secret; `None` where there is none.
    pub secret: Option<Newest<SecretEpoch>>,
    /// Whether the cluster is to be protected; `None` where nobody has said so yet.
    pub desired: Option<Newest<DesiredProtection>>,
    /// The addresses that move between nodes.
    pub floating: Vec<Newest<FloatingPlace>>,
    /// What has to be settled.
    pub conflicts: Vec<Conflict>,
}

impl RosterView {
    /// What `entries` come to; `None` where none of them founds the cluster.
    pub(super) fn find(
        cluster: ClusterId,
        entries: &Entries,
        tally: &Tally,
        withdrawn: &Withdrawn,
    ) -> Option<Self> {
        let Saying::Genesis(genesis) = &entries.get(&cluster.into())?.statement().says else { return None };
        let counted = Counted::of(entries, tally);
        let floating = counted.floating();
        let taken: BTreeSet<IpAddr> = floating.iter().flat_map(|one| one.says.addresses.clone()).collect();
        let Nodes { members, held_out, removed } = Nodes::find(entries, tally, withdrawn, &taken);
        Some(Self {
            cluster: genesis.cluster.clone(),
            recovery: genesis.recovery,
            members,
            held_out,
            removed,
            invites: counted.invites(tally, withdrawn),
            settings: counted.newest(&Matter::Settings, |says| match says {
                Saying::Settings(settings) => Some(settings.clone()),
                _ => None,
            }),
            secret: counted.newest(&Matter::Secret, |says| match says {
                Saying::Secret(secret) => Some(secret.clone()),
                _ => None,
            }),
            desired: counted.newest(&Matter::Desired, |says| match says {
                Saying::Desired(desired) => Some(desired.clone()),
                _ => None,
            }),
            floating,
            conflicts: counted.conflicts(),
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

/// The entries that count, by what they are about.
struct Counted<'a>(BTreeMap<Matter, Vec<(EntryId, &'a Statement)>>);

impl<'a> Counted<'a> {
    fn of(entries: &'a Entries, tally: &Tally) -> Self {
        let mut about: BTreeMap<Matter, Vec<_>> = BTreeMap::new();
        for (id, entry) in entries.iter().filter(|(id, _)| tally.counts(**id)) {
            let entry = entry.statement();
            about.entry(entry.matter()).or_default().push((*id, entry));
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

    fn invites(&self, tally: &Tally, withdrawn: &Withdrawn) -> Vec<Invited> {
        let open = |(id, entry): &(EntryId, &Statement)| match &entry.says {
            Saying::Invite(invite) => {
                let used =
                    !self.about(&Matter::Join(invite.key)).is_empty() || withdrawn.is_used_twice(&invite.key);
                let known = tally.holder(&invite.key) == Some(KeyHolder::Invite(*id));
                let open = known && !used && !withdrawn.is_gone(*id);
                open.then(|| Invited { id: *id, invite: invite.clone() })
            }
            _ => None,
        };
        self.about(&Matter::Invite).iter().filter_map(open).collect()
    }

    /// Those that were said at once: they replace the same entry, or are both the first about something.
    fn conflicts(&self) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for (matter, entries) in self.0.iter().filter(|(matter, _)| is_settled_by_admins(matter)) {
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
        Matter::Settings | Matter::Secret | Matter::Desired | Matter::Floating(_) => true,
        Matter::Join(_)
        | Matter::Admission(_)
        | Matter::Keys(_)
        | Matter::Rights(_)
        | Matter::Invite
        | Matter::Gone(_) => false,
    }
}

/// The entries about a matter that were not replaced yet: what a new one replaces.
pub(super) fn heads(entries: &Entries, tally: &Tally, matter: &Matter) -> Vec<EntryId> {
    let about =
        |(id, entry): &(&EntryId, &SignedEntry)| tally.counts(**id) && entry.statement().matter() == *matter;
    let about: Vec<_> = entries.iter().filter(about).collect();
    let replaced: BTreeSet<&EntryId> = about.iter().flat_map(|(_, entry)| &entry.statement().after).collect();
    about.iter().filter(|(id, _)| !replaced.contains(id)).map(|(id, _)| **id).collect()
}
