//! Shows what `enable --cluster` and `disable --cluster` wait for: redrawn in place on a terminal, else a line for nodes
//! that come to stand otherwise.

use std::collections::BTreeMap;

use super::course::ClusterCourse;
use super::sheet;
use crate::cli::layout::wrap;
use crate::cli::progress::{Medium, redraw, size};
use crate::cli::term::{Style, tell};
use crate::observe::cluster::{ClusterStatus, MemberRow};
use crate::types::NodeName;
use crate::types::units::{counted, listed};

/// So many nodes that stand alike are named.
const NAMED: usize = 5;

/// What has been shown so far.
pub(super) struct ClusterView {
    medium: Medium,
    /// The lines that stand there, to be replaced.
    lines: Vec<String>,
    /// What was last said of each node.
    said: BTreeMap<NodeName, String>,
}

impl ClusterView {
    /// What suits standard error.
    pub(super) fn new(quiet: bool) -> Self {
        Self { medium: Medium::of_stderr(quiet), lines: Vec::new(), said: BTreeMap::new() }
    }

    /// Shows what has changed.
    pub(super) fn update(&mut self, status: &ClusterStatus, course: &ClusterCourse) {
        match self.medium {
            Medium::Nothing => {}
            Medium::Drawing => redraw(&mut self.lines, drawing(status, course, size())),
            Medium::Lines => self.news(status).iter().for_each(|line| tell(line)),
        }
    }

    /// Takes the drawing away, to make room for the result.
    pub(super) fn clear(&mut self) {
        if matches!(self.medium, Medium::Drawing) {
            redraw(&mut self.lines, Vec::new());
        }
    }

    /// What is to be said of nodes that have come to stand otherwise.
    fn news(&mut self, status: &ClusterStatus) -> Vec<String> {
        let nodes = status.nodes.iter().filter(|node| !node.foreign);
        let is_news = |node: &&MemberRow| self.said.get(&node.name) != Some(&words(node));
        let lines = alike(nodes.clone().filter(is_news));
        self.said = nodes.map(|node| (node.name.clone(), words(node))).collect();
        lines
    }
}

/// A line that sums up, and lines about the nodes that are not there yet, in a terminal of so many columns and lines.
/// Lines that scrolled out of it could not be replaced.
fn drawing(status: &ClusterStatus, course: &ClusterCourse, (columns, height): (usize, usize)) -> Vec<String> {
    let mut drawn = wrap(&sheet::counts(status, Style::PLAIN), Some(columns));
    // The cursor stands on the line below.
    let most = height.saturating_sub(2).max(1);
    for line in alike(course.behind(status)) {
        let lines = wrap(&format!("  {line}"), Some(columns));
        if drawn.len() + lines.len() > most {
            break;
        }
        drawn.extend(lines);
    }
    drawn.truncate(most);
    drawn
}

/// A line for all nodes that stand alike, in the order of the first of them.
fn alike<'n>(nodes: impl Iterator<Item = &'n MemberRow>) -> Vec<String> {
    let mut groups: Vec<(String, Vec<&NodeName>)> = Vec::new();
    for node in nodes {
        let words = words(node);
        match groups.iter_mut().find(|(other, _)| *other == words) {
            Some((_, names)) => names.push(&node.name),
            None => groups.push((words, vec![&node.name])),
        }
    }
    let line = |(words, names): (String, Vec<&NodeName>)| match names.as_slice() {
        [name] => format!("{name}: {words}"),
        names => format!("{} ({}): {words}", counted(names.len(), "node"), listed(names, NAMED)),
    };
    groups.into_iter().map(line).collect()
}

/// How a node stands.
fn words(node: &MemberRow) -> String {
    match node.protection.filter(|_| node.answers) {
        None => "no answer".to_owned(),
        Some(protection) => match (node.local, node.rows) {
            (Some(local), _) => format!("{protection} (its operator wants it {local})"),
            (None, Some(rows)) if node.protected == Some(rows) && rows > 0 => {
                format!("{protection}, all pairs protected")
            }
            (None, _) => protection.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{crowd, five};
    use super::*;
    use crate::observe::cluster::DesiredState;
    use crate::types::Protection;

    #[test]
    fn nodes_that_come_to_stand_alike_are_named_together_and_once() {
        let mut view = ClusterView { medium: Medium::Lines, lines: Vec::new(), said: BTreeMap::new() };
        let mut status = five();
        assert_eq!(view.news(&status), ["5 nodes (a, b, c, d, e): on, all pairs protected"]);
        assert!(view.news(&status).is_empty());
        status.nodes[1].protected = Some(3);
        status.nodes[2].answers = false;
        status.nodes[3].local = Some(Protection::Off);
        status.nodes[3].protection = Some(Protection::Off);
        assert_eq!(view.news(&status), ["b: on", "c: no answer", "d: off (its operator wants it off)"]);
        assert!(view.news(&status).is_empty());
    }

    #[test]
    fn a_drawing_fits_its_terminal() {
        for (columns, height) in [(80, 24), (200, 50), (40, 10), (80, 3)] {
            let mut status = crowd(200);
            let course = ClusterCourse::new(DesiredState::On, &status);
            for (at, node) in status.nodes.iter_mut().enumerate() {
                node.protection =
                    [Protection::Off, Protection::Enabling, Protection::On].get(at % 4).copied();
            }
            let drawn = drawing(&status, &course, (columns, height));
            let text = drawn.join("\n");
            assert!(drawn.len() < height && !drawn.is_empty(), "{columns}x{height}\n{text}");
            assert!(drawn.iter().all(|line| line.chars().count() <= columns), "{columns}\n{text}");
            assert!(height < 10 || text.contains("nodes ("), "{text}");
        }
    }
}
