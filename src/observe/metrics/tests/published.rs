//! Alerts, the dashboard and the pages speak of series and labels that an exporter writes, and the pages of all of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{figures, text};
use crate::config::Mode;
use crate::observe::Figures;
use crate::types::{Protection, UnixTime};

const ALERTS: &str = include_str!("../../../../monitoring/alerts.yaml");
const ALERTS_TESTS: [&str; 2] = [
    include_str!("../../../../monitoring/alerts_test.yaml"),
    include_str!("../../../../monitoring/alerts_hours_test.yaml"),
];
const DASHBOARD: &str = include_str!("../../../../monitoring/dashboard.json");
const MONITORING: &str = include_str!("../../../../docs/monitoring.md");
const PAGES: [&str; 2] = [MONITORING, include_str!("../../../../docs/byok.md")];

/// Labels whose values are those of a site, and no closed set.
const OPEN: [&str; 12] = [
    "cluster",
    "node",
    "config_id",
    "secret_id",
    "cluster_id",
    "roster_id",
    "version",
    "provider",
    "key",
    "peer",
    "local",
    "remote",
];
/// Labels that Prometheus adds.
const ADDED: [&str; 2] = ["job", "instance"];

/// The values of each label of each series.
#[derive(Default)]
struct Written(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Written {
    /// All that hosts write, however they stand.
    fn of_all_hosts() -> Self {
        let mut written = Self::default();
        let mut whole = figures();
        whole.earliest_rekey_due = Some(UnixTime(1));
        let pair = &mut whole.pairs.as_mut().unwrap()[0];
        (pair.heard_esp, pair.rekey_due) = (Some(UnixTime(1)), Some(UnixTime(1)));
        for mode in [Mode::Require, Mode::Prefer] {
            for protection in [Protection::Off, Protection::Enabling, Protection::On, Protection::Disabling] {
                written.add(&text(&Figures { mode, protection, ..whole.clone() }));
            }
        }
        written
    }

    fn add(&mut self, page: &str) {
        for Selector { name, labels } in selectors(page) {
            let series = self.0.entry(name.to_owned()).or_default();
            for (label, _, value) in labels {
                series.entry(label.to_owned()).or_default().insert(value.to_owned());
            }
        }
    }

    /// The series of that name, or those that begin so where it ends in an underscore.
    fn named(&self, name: &str) -> Vec<&BTreeMap<String, BTreeSet<String>>> {
        let is_meant = |known: &str| known == name || (name.ends_with('_') && known.starts_with(name));
        self.0.iter().filter(|(known, _)| is_meant(known)).map(|(_, labels)| labels).collect()
    }

    /// What is wrong with a selector.
    fn fault(&self, selector: &Selector<'_>) -> Option<String> {
        let Selector { name, labels } = selector;
        let known = self.named(name);
        if known.is_empty() {
            return Some(format!("no series is called {name}"));
        }
        for (label, operator, value) in labels.iter().filter(|(label, ..)| !ADDED.contains(label)) {
            let Some(values) = known.iter().find_map(|labels| labels.get(*label)) else {
                return Some(format!("{name} has no label {label}"));
            };
            let alternatives = value.split(if operator.ends_with('~') { '|' } else { '\n' });
            let wrong = alternatives.filter(|_| !OPEN.contains(label)).find(|value| !values.contains(*value));
            if let Some(wrong) = wrong {
                return Some(format!("{name}{{{label}}} is never {wrong:?}"));
            }
        }
        None
    }

    fn labels(&self) -> BTreeSet<&str> {
        self.0.values().flat_map(BTreeMap::keys).map(String::as_str).chain(ADDED).collect()
    }
}

/// A series as expressions, tests and pages of metrics write it.
struct Selector<'a> {
    name: &'a str,
    /// Label, operator, value.
    labels: Vec<(&'a str, &'a str, &'a str)>,
}

/// All that occur in a text.
fn selectors(text: &str) -> Vec<Selector<'_>> {
    let is_word = |at: char| at.is_ascii_alphanumeric() || at == '_';
    let starts = text.match_indices("hostseal_").map(|(at, _)| at);
    let starts = starts.filter(|at| !text[..*at].ends_with(is_word));
    let selector = |at: usize| {
        let rest = &text[at..];
        let (name, rest) = rest.split_at(rest.find(|at| !is_word(at)).unwrap_or(rest.len()));
        let inside = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(inside, _)| inside);
        // Where a page names a label and no value, there is nothing to compare.
        let matchers = inside.unwrap_or_default().split(',').filter_map(|matcher| {
            let (label, rest) = matcher.trim().split_at(matcher.trim().find(['=', '!'])?);
            let (operator, value) = rest.split_once('"')?;
            Some((label, operator, value.strip_suffix('"')?))
        });
        Selector { name, labels: matchers.collect() }
    };
    starts.map(selector).collect()
}

/// The expressions and legends of the dashboard, and what its variables ask for.
fn dashboard() -> String {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let targets =
        dashboard["panels"].as_array().unwrap().iter().flat_map(|it| it["targets"].as_array().unwrap());
    let texts = targets.flat_map(|it| [&it["expr"], &it["legendFormat"]]);
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter().map(|it| &it["query"]);
    texts.chain(variables).filter_map(Value::as_str).map(|text| format!("{text}\n")).collect()
}

/// The labels by which expressions group and join, and that words name.
fn labels_named(text: &str) -> Vec<&str> {
    let lists = ["by (", "on (", "group_left ("].into_iter().flat_map(|start| {
        text.split(start).skip(1).filter_map(|rest| rest.split_once(')')).map(|(list, _)| list)
    });
    let words = ["{{ $labels.", "{{"].into_iter().flat_map(|start| {
        text.split(start).skip(1).filter_map(|rest| rest.split_once("}}")).map(|(word, _)| word)
    });
    let labels = lists.flat_map(|list| list.split(',')).chain(words).map(str::trim);
    labels.filter(|label| !label.is_empty() && !label.starts_with('$')).collect()
}

#[test]
fn what_is_watched_is_written() {
    let written = Written::of_all_hosts();
    let dashboard = dashboard();
    for text in [ALERTS, &dashboard].into_iter().chain(ALERTS_TESTS).chain(PAGES) {
        let faults: Vec<String> = selectors(text).iter().filter_map(|it| written.fault(it)).collect();
        assert!(faults.is_empty(), "{faults:#?}");
    }
    let known = written.labels();
    for label in [ALERTS, &dashboard].into_iter().flat_map(labels_named) {
        // The first is of node_exporter, and the dashboard makes the second itself.
        assert!(
            known.contains(label) || ["file", "counter"].contains(&label),
            "no series has a label {label}"
        );
    }
}

/// The check finds what it is there for.
#[test]
fn what_nobody_writes_is_found() {
    let written = Written::of_all_hosts();
    for (wrong, fault) in [
        ("hostseal_pair{state=\"clear\"}", "no series"),
        ("hostseal_pairs{states=\"clear\"}", "no label states"),
        ("hostseal_kms_state{state=~\"denied|refused\"}", "never \"refused\""),
        ("hostseal_cluster_keys{progress!=\"done\"}", "never \"done\""),
    ] {
        let found = written.fault(&selectors(wrong)[0]).unwrap();
        assert!(found.contains(fault), "{found}");
    }
}

/// `or` adds its right side to whatever has other labels: a panel of labelled series would show one more, without a name.
#[test]
fn no_panel_of_labelled_series_has_one_without_labels() {
    for expression in dashboard().lines().filter(|line| line.contains("or vector(")) {
        let (left, _) = expression.rsplit_once("or vector(").unwrap();
        assert!(left.contains("(sum(hostseal_") && !left.contains("by ("), "{expression}");
    }
}

#[test]
fn the_dashboard_shows_the_chosen_hosts_alone() {
    for expression in dashboard().lines().filter(|line| line.contains("hostseal_")) {
        let is_variable = expression.starts_with("label_values(");
        assert!(
            is_variable || (expression.contains("$cluster") && expression.contains("$node")),
            "shows all hosts, whichever are chosen: {expression}"
        );
    }
}

#[test]
fn the_pages_list_each_series() {
    let (_, table) = MONITORING.split_once("## Series").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let listed: Vec<&str> =
        table.split('`').skip(1).step_by(2).filter_map(|it| it.split('{').next()).collect();
    let is_listed = |name: &str| {
        let matches = |listed: &str| match listed.split_once('…') {
            Some((start, end)) => name.starts_with(start) && name.ends_with(end),
            None => listed == name,
        };
        listed.iter().any(|listed| matches(listed))
    };
    let page = text(&figures());
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE hostseal_")?.split(' ').next());
    let missing: Vec<&str> = families.filter(|family| !is_listed(family)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
