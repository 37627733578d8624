//! What this host knows of its cluster, in numbers.

use super::Host;
use super::rows::hex;
use crate::observe::cluster_figures::{ClusterFigures, KeyCounts, NodeCounts};
use crate::roster::{KeyStage, Roster};

impl Host {
    /// The numbers of the cluster that this host is a member of.
    pub(in crate::host) fn cluster_figures(&self) -> Option<ClusterFigures> {
        let (cluster, members) = (self.cluster.as_ref()?, self.membership()?);
        let (roster, now) = (members.roster(), self.moment.now);
        let own = roster.id();
        let others = members.reached().filter_map(|line| members.has(line));
        Some(ClusterFigures {
            cluster_id: hex(roster.cluster().octets()),
            roster_id: hex(own.octets()),
            entries: roster.ids().count() as u64,
            desired: self.desired_now(),
            overridden: self.overrides(),
            nodes: nodes(roster),
            unheard: members.unreached() as u64,
            differing: others.filter(|id| *id != own).count() as u64,
            duplicates: members.duplicates(now).count() as u64,
            conflicts: roster.view().conflicts.len() as u64,
            keys: keys(roster),
            pending: cluster.pending() as u64,
            refused: *members.refused(),
        })
    }
}

fn nodes(roster: &Roster) -> NodeCounts {
    let view = roster.view();
    let mut counts = NodeCounts { held_out: view.held_out.len() as u64, ..NodeCounts::default() };
    for member in &view.members {
        *match (member.foreign, &member.keys) {
            (true, _) => &mut counts.foreign,
            (false, None) => &mut counts.not_joined,
            (false, Some(_)) => &mut counts.joined,
        } += 1;
    }
    counts
}

fn keys(roster: &Roster) -> KeyCounts {
    let mut counts = KeyCounts::default();
    for stage in roster.view().members.iter().filter_map(|member| roster.key_stage(member)) {
        *match stage {
            KeyStage::Due => &mut counts.due,
            KeyStage::Offered => &mut counts.offered,
            KeyStage::Current => &mut counts.current,
        } += 1;
    }
    counts
}
