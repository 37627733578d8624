//! A page in the text format: families of samples, one after the other. All of it is written once, into one buffer.

use std::fmt::{self, Display, Write as _};

use serde::Serialize;

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

/// A label: its name, and what it says.
pub type Label<'a> = (&'a str, &'a dyn Display);

/// The page so far.
#[derive(Debug, Default)]
pub struct MetricsPage {
    text: String,
    /// The name of the family that is being written.
    name: String,
    /// Where that began, while it has no sample.
    empty: Option<usize>,
}

impl MetricsPage {
    /// Begins a family. One without a sample is left out.
    pub fn family(&mut self, kind: Kind, name: &str, help: &str) {
        self.leave_out();
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.empty = Some(self.text.len());
        self.name.clear();
        self.name.extend([PREFIX, name]);
        let Self { text, name, .. } = self;
        // Writing to memory has nothing to fail at.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A sample of the family.
    pub fn sample(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.part("", labels, value);
    }

    /// A sample of a part of the family.
    pub fn part(&mut self, part: &str, labels: &[Label<'_>], value: impl Display) {
        self.begin(part);
        if !labels.is_empty() {
            self.text.push('{');
            write_labels(&mut self.text, labels);
            self.text.push('}');
        }
        self.end(value);
    }

    /// A sample whose labels are written already, in two parts.
    pub fn with(&mut self, [ready, more]: [&str; 2], value: u64) {
        self.begin("");
        self.text.extend(["{", ready, more, "} ", itoa::Buffer::new().format(value), "\n"]);
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
        values.into_iter().for_each(|(word, value)| self.sample(&[(label, &word)], value));
    }

    /// A family whose labels say something.
    pub fn info(&mut self, name: &str, help: &str, labels: &[Label<'_>]) {
        self.family(Kind::Gauge, name, help);
        self.sample(labels, 1);
    }

    /// A time of day; none where it is not known.
    pub fn time(&mut self, name: &str, help: &str, at: Option<UnixTime>) {
        self.family(Kind::Gauge, name, help);
        at.iter().for_each(|UnixTime(seconds)| self.sample(&[], seconds));
    }

    /// The whole page.
    pub fn into_text(mut self) -> String {
        self.leave_out();
        self.text
    }

    fn begin(&mut self, part: &str) {
        self.empty = None;
        self.text.extend([&self.name, part]);
    }

    fn end(&mut self, value: impl Display) {
        let _ = writeln!(self.text, " {value}");
    }

    fn leave_out(&mut self) {
        self.empty.take().into_iter().for_each(|begin| self.text.truncate(begin));
    }
}

/// A value of a closed set as JSON has it.
pub struct Word<T>(pub T);

impl<T: Serialize> Display for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.serialize(f)
    }
}

/// Labels as they are written. What they say may be anything.
pub fn write_labels(text: &mut String, labels: &[Label<'_>]) {
    for (at, (name, value)) in labels.iter().enumerate() {
        text.extend([if at == 0 { "" } else { "," }, name, "=\""]);
        let _ = write!(Escaped(text), "{value}");
        text.push('"');
    }
}

/// Writes what stands within quotes.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, words: &str) -> fmt::Result {
        for part in words.split_inclusive(['\\', '"', '\n']) {
            let plain = part.trim_end_matches(['\\', '"', '\n']);
            self.0.push_str(plain);
            self.0.push_str(match &part[plain.len()..] {
                "\\" => "\\\\",
                "\"" => "\\\"",
                "\n" => "\\n",
                _ => "",
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_label_says_it_stays_within_its_quotes() {
        let mut text = String::new();
        write_labels(&mut text, &[("a", &"x"), ("b", &"\"} 1\n\\\\é")]);
        assert_eq!(text, "a=\"x\",b=\"\\\"} 1\\n\\\\\\\\é\"");
    }

    #[test]
    fn a_family_without_a_sample_is_left_out() {
        let mut page = MetricsPage::default();
        page.time("first", "Never.", None);
        page.one(Kind::Gauge, "second", "Now.", 2);
        page.family(Kind::Gauge, "third", "Never.");
        assert_eq!(
            page.into_text(),
            "# HELP hostseal_second Now.\n# TYPE hostseal_second gauge\nhostseal_second 2\n"
        );
    }
}
