//! A page in the text format: families of samples, one after the other.

use std::fmt::{Display, Write as _};

use crate::types::UnixTime;

/// What the names of all series begin with.
const PREFIX: &str = "hostseal_";

/// What a series is.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The page so far.
#[derive(Debug, Default)]
pub struct MetricsPage {
    text: String,
    /// The name of the family that is being written.
    name: String,
}

impl MetricsPage {
    /// Begins a family.
    pub fn family(&mut self, kind: Kind, name: &str, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.name = format!("{PREFIX}{name}");
        let Self { text, name } = self;
        // Writing to memory has nothing to fail at.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A sample of the family.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.part("", labels, value);
    }

    /// A sample of a part of the family.
    pub fn part(&mut self, part: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", self::labels(labels)) };
        let Self { text, name } = self;
        let _ = writeln!(text, "{name}{part}{labels} {value}");
    }

    /// A sample of a pair, whose labels are `ends` and `more`.
    pub fn of_pair(&mut self, ends: &str, more: &[(&str, String)], value: u64) {
        let Self { text, name } = self;
        let _ = write!(text, "{name}{{{ends}");
        for (label, word) in more {
            let _ = write!(text, ",{label}=\"{word}\"");
        }
        let _ = writeln!(text, "}} {value}");
    }

    /// A family of one sample.
    pub fn one(&mut self, kind: Kind, name: &str, help: &str, value: impl Display) {
        self.family(kind, name, help);
        self.sample(&[], value);
    }

    /// A family of a sample for each word of a closed set.
    pub fn each<const N: usize>(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        label: &str,
        values: [(&str, u64); N],
    ) {
        self.family(kind, name, help);
        values.into_iter().for_each(|(word, value)| self.sample(&[(label, word)], value));
    }

    /// A family whose labels say something.
    pub fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) {
        self.family(Kind::Gauge, name, help);
        self.sample(labels, 1);
    }

    /// A time of day; none where it is not known.
    pub fn time(&mut self, name: &str, help: &str, at: Option<UnixTime>) {
        if let Some(UnixTime(seconds)) = at {
            self.one(Kind::Gauge, name, help, seconds);
        }
    }

    /// The whole page.
    pub fn into_text(self) -> String {
        self.text
    }
}

/// Labels as they are written. What they say may be anything.
pub fn labels(labels: &[(&str, &str)]) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    labels.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_label_says_it_stays_within_its_quotes() {
        assert_eq!(labels(&[("a", "x"), ("b", "\"} 1\n\\")]), "a=\"x\",b=\"\\\"} 1\\n\\\\\"");
    }
}
