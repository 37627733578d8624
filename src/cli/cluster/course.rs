//! How far a cluster is on its way to be protected, or to the clear.

use std::collections::BTreeSet;

use super::ready::takes_part;
use crate::observe::cluster::{ClusterStatus, DesiredState, MemberRow, MemberTrouble};
use crate::types::{NodeName, Problem, Protection};

/// What was ordered, and whom that is waited for.
pub(super) struct ClusterCourse {
    goal: DesiredState,
    /// The nodes that answered when the order was given; the others follow when they come.
    awaited: BTreeSet<NodeName>,
}

impl ClusterCourse {
    /// The way to `goal` from how things stood when it was ordered.
    pub(super) fn new(goal: DesiredState, status: &ClusterStatus) -> Self {
        let answers = |node: &&MemberRow| node.answers && takes_part(node);
        let awaited = status.nodes.iter().filter(answers).map(|node| node.name.clone()).collect();
        Self { goal, awaited }
    }

    /// Whether nothing more can happen without somebody: each node that is waited for is where it can be, or is gone
    /// from the cluster, or the cluster is to be something else by now.
    pub(super) fn is_over(&self, status: &ClusterStatus) -> bool {
        status.desired != self.goal || !status.nodes.iter().any(|node| self.moves(node))
    }

    /// Whether a node is waited for.
    fn moves(&self, node: &MemberRow) -> bool {
        self.awaited.contains(&node.name) && takes_part(node) && !self.is_there(node)
    }

    /// Whether a node is where it can be. One whose operator wants something else goes nowhere.
    fn is_there(&self, node: &MemberRow) -> bool {
        let stays = node.answers && node.local.is_some_and(|local| is_on(local) != self.is_on());
        let protection = node.protection.filter(|_| node.answers);
        stays
            || match self.goal {
                DesiredState::On => protection.is_some_and(is_on) && under_way(node) == 0,
                DesiredState::Off | DesiredState::Unset => protection == Some(Protection::Off),
            }
    }

    fn is_on(&self) -> bool {
        self.goal == DesiredState::On
    }

    /// The nodes that are not there yet.
    pub(super) fn behind<'s>(&'s self, status: &'s ClusterStatus) -> impl Iterator<Item = &'s MemberRow> {
        status.nodes.iter().filter(|node| takes_part(node) && !self.is_there(node))
    }
}

fn is_on(protection: Protection) -> bool {
    matches!(protection, Protection::On | Protection::Enabling)
}

/// How many pairs of a node may still become protected by themselves; all that are not, where it does not say.
fn under_way(node: &MemberRow) -> u64 {
    let open = node.rows.unwrap_or(0).saturating_sub(node.protected.unwrap_or(0));
    node.under_way.unwrap_or(open)
}

/// Whether all is as it should be but for nodes that are not there yet, and pairs with them.
pub(super) fn only_waits(status: &ClusterStatus) -> bool {
    let waits = |node: &MemberRow| match node.reason_code {
        Some(MemberTrouble::NoAnswer | MemberTrouble::NotJoined) => true,
        Some(MemberTrouble::NotProtected) => {
            let rest = node.protected.zip(node.waiting).map(|(protected, waiting)| protected + waiting);
            rest.is_some() && rest == node.rows
        }
        _ => false,
    };
    let wrong = || status.nodes.iter().filter(|node| node.reason_code.is_some());
    status.consistent
        && !status.problems.iter().any(Problem::is_critical)
        && wrong().next().is_some()
        && wrong().all(waits)
}
