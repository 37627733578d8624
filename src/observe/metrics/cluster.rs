//! The series of the cluster.

use super::page::{Kind, MetricsPage};
use crate::observe::Figures;
use crate::observe::cluster::DesiredState;
use crate::observe::cluster_figures::ClusterFigures;

/// Writes them, where the host is a member of a cluster.
pub fn write(page: &mut MetricsPage, figures: &Figures) {
    let Some(part) = &figures.cluster_part else { return };
    let node = figures.node.as_ref().map_or("", |node| node.as_str());
    let labels: [(&str, &dyn std::fmt::Display); 4] = [
        ("cluster", &figures.cluster),
        ("node", &node),
        ("cluster_id", &part.cluster_id),
        ("roster_id", &part.roster_id),
    ];
    page.info("cluster_info", "The cluster and the roster of this host, as hashes.", &labels);
    page.one(Kind::Gauge, "cluster_roster_entries", "Entries of the roster.", part.entries);
    wanted(page, part);
    nodes(page, part);
    let help = "Orders that were given at the same time, and that an admin has to settle.";
    page.one(Kind::Gauge, "cluster_conflicts", help, part.conflicts);
    let help = "Orders of this host that wait, and 1 more while what is new in the roster is not written.";
    page.one(Kind::Gauge, "cluster_pending_orders", help, part.pending);
    let help = "Entries and pages of members that this host has not taken, by why.";
    page.each(Kind::Counter, "cluster_refused_total", help, "reason", part.refused.by_reason());
}

fn wanted(page: &mut MetricsPage, part: &ClusterFigures) {
    let is = |state| u64::from(part.desired == state);
    let states =
        [("on", is(DesiredState::On)), ("off", is(DesiredState::Off)), ("unset", is(DesiredState::Unset))];
    page.each(Kind::Gauge, "cluster_desired", "1 for what the cluster is to be.", "state", states);
    let help = "Whether the operator of this host wants something else here.";
    page.one(Kind::Gauge, "cluster_overridden", help, u8::from(part.overridden));
}

fn nodes(page: &mut MetricsPage, part: &ClusterFigures) {
    let of = &part.nodes;
    let standings = [
        ("joined", of.joined),
        ("not_joined", of.not_joined),
        ("foreign", of.foreign),
        ("held_out", of.held_out),
    ];
    page.each(
        Kind::Gauge,
        "cluster_nodes",
        "Nodes by how they belong to the cluster.",
        "standing",
        standings,
    );
    let help = "Members that this host talks to and that did not answer the last time.";
    page.one(Kind::Gauge, "cluster_unheard_nodes", help, part.unheard);
    let help = "Members that this host hears and that have another roster.";
    page.one(Kind::Gauge, "cluster_differing_nodes", help, part.differing);
    let help = "Members for which two machines speak.";
    page.one(Kind::Gauge, "cluster_duplicate_nodes", help, part.duplicates);
    let of = &part.keys;
    let progress = [("due", of.due), ("offered", of.offered), ("current", of.current)];
    page.each(Kind::Gauge, "cluster_keys", "Nodes by how far they are with new keys.", "progress", progress);
}
