//! What the log says of pairs: each event once, with fields for programs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing::{Level, Metadata, Subscriber, span};

use super::cluster::{MILLISECOND, SECOND};
use super::net::Weather;
use super::world::{World, address};
use crate::host::alerts::Alerts;
use crate::types::{Problem, ProblemCode, Severity};

/// A line, and its fields.
#[derive(Debug, Clone, Default)]
struct Line {
    message: String,
    warns: bool,
    fields: BTreeMap<&'static str, String>,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => drop(self.fields.insert(name, format!("{value:?}").replace('"', ""))),
        }
    }
}

thread_local! {
    /// What was said on this thread, where somebody listens.
    static SAID: RefCell<Option<Vec<Line>>> = const { RefCell::new(None) };
}

/// Hears all threads. One for each test would not do: while there is only one, an event that another thread comes upon
/// first counts as one that nobody listens to, on all threads.
struct Ear;

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        SAID.with_borrow_mut(|said| {
            if let Some(said) = said {
                let mut line = Line { warns: *event.metadata().level() <= Level::WARN, ..Line::default() };
                event.record(&mut line);
                said.push(line);
            }
        });
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// What the log says on this thread.
pub(super) struct Log;

impl Log {
    /// Listens from now on.
    pub(super) fn listen() -> Self {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| tracing::subscriber::set_global_default(Ear).expect("nobody else listens"));
        SAID.set(Some(Vec::new()));
        Self
    }

    /// What was said since the last call.
    fn take(&self) -> Vec<Line> {
        SAID.replace(Some(Vec::new())).unwrap_or_default()
    }

    /// How many warnings there were since the last call.
    pub(super) fn take_warnings(&self) -> usize {
        self.take().iter().filter(|line| line.warns).count()
    }
}

/// Lets two hosts do what `story` says, which is given their log.
fn told(seed: u64, story: impl FnOnce(&mut World, &Log)) {
    story(&mut World::new(2, seed, Weather::FAIR), &Log::listen());
}

/// The one line of each host that has these words, with its state and reason.
fn one_each(lines: &[Line], words: &str, state: &str, reason: Option<&str>) {
    for (own, other) in [(0, 1), (1, 0)] {
        let of_host = |line: &&Line| line.fields.get("local") == Some(&address(own).to_string());
        let found: Vec<&Line> =
            lines.iter().filter(of_host).filter(|line| line.message.contains(words)).collect();
        let [line] = found[..] else { panic!("{words} on {own}: {lines:#?}") };
        let field = |name| line.fields.get(name).map(String::as_str);
        assert_eq!(field("remote"), Some(&*address(other).to_string()));
        assert!(field("node").is_some_and(|node| !node.is_empty()));
        assert_eq!((field("state"), field("reason")), (Some(state), reason), "{line:?}");
    }
}

#[test]
fn problems_have_fields_when_they_come_and_go() {
    let log = Log::listen();
    let node = "b".parse().ok();
    let warning = |message: &str| Problem {
        severity: Severity::Warning,
        ..Problem::critical(ProblemCode::ForwardedClear, None, message)
    };
    let hole = Problem::critical(ProblemCode::Hole, node, "eth1 has disable_xfrm");
    let mut alerts = Alerts::default();
    alerts.note([hole.clone(), warning("routed traffic")]);
    alerts.note([hole]);
    alerts.note([]);
    let lines = log.take();
    let seen: Vec<_> = lines.iter().map(|line| (line.message.as_str(), line.warns)).collect();
    assert_eq!(
        seen,
        [
            ("eth1 has disable_xfrm", true),
            ("routed traffic", true),
            ("no longer so: routed traffic", false),
            ("no longer so: eth1 has disable_xfrm", false),
        ]
    );
    let field = |line: usize, name| lines[line].fields.get(name).map(String::as_str);
    assert_eq!((field(0, "reason"), field(0, "node")), (Some("hole"), Some("b")));
    assert_eq!((field(1, "reason"), field(1, "node")), (Some("forwarded_clear"), None));
    assert_eq!(field(3, "reason"), Some("hole"));
}

#[test]
fn first_protection_is_told_once() {
    told(1, |world, log| {
        (0..2).for_each(|host| world.enable(host));
        assert!(world.run_until(60 * SECOND, World::all_protected));
        world.run(300 * SECOND, Some((100 * MILLISECOND, &[(0, 1), (1, 0)])));
        let lines = log.take();
        one_each(&lines, ": protected", "protected", None);
        assert_eq!(lines.len(), 2, "{lines:#?}");
    });
}

#[test]
fn moves_to_udp_are_told_once() {
    for blocked_first in [true, false] {
        told(2, |world, log| {
            let block = |world: &mut World| {
                world.net.esp_blocked = [(0, 1), (1, 0)].map(|(a, b)| (address(a), address(b))).into();
            };
            if blocked_first {
                block(world);
            }
            (0..2).for_each(|host| world.enable(host));
            assert!(world.run_until(60 * SECOND, World::all_protected));
            if !blocked_first {
                log.take();
                block(world);
            }
            world.run(120 * SECOND, Some((100 * MILLISECOND, &[(0, 1), (1, 0)])));
            assert!(world.all_in_udp() && world.all_protected());
            let lines = log.take();
            let moved = |line: &&Line| line.message.contains("moved to ESP in UDP");
            assert_eq!(lines.iter().filter(moved).count(), 2, "{lines:#?}");
        });
    }
}

/// Nor is what becomes of a pair told twice: by the failure, and by the pair.
#[test]
fn a_failure_is_told_once_and_its_end_too() {
    told(3, |world, log| {
        world.give_other_secret(1);
        (0..2).for_each(|host| world.enable(host));
        world.run(50 * SECOND, None);
        let lines = log.take();
        one_each(&lines, ": in the clear: ", "clear", Some("auth_failed"));
        let warnings: Vec<&Line> = lines.iter().filter(|line| line.warns).collect();
        for line in &warnings {
            let (_, words) = line.message.split_once(": ").expect("a pair, and words");
            let words = words.strip_prefix("in the clear: ").unwrap_or(words);
            let local = line.fields.get("local");
            let same = |other: &&&Line| other.fields.get("local") == local && other.message.contains(words);
            assert_eq!(warnings.iter().filter(same).count(), 1, "{words}: {lines:#?}");
        }
        world.reconfigure(1, |file| file.secret = [7; 32]);
        assert!(world.run_until(120 * SECOND, World::all_protected));
        let lines = log.take();
        one_each(&lines, ": protected", "protected", None);
        assert!(!lines.iter().any(|line| line.warns), "{lines:#?}");
    });
}
