//! `[ppk]`: post-quantum preshared keys (RFC 8784, RFC 9867), which hosts share beside what they prove themselves with.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use toml::de::DeValue;

use super::read::{node_name, path};
use super::values::{Placed, Problems, Section, boolean, text};
use super::{Config, Floating, Keying, Node, SecretFiles};
use crate::types::{Method, NodeName, UnixTime, node_name as names};

/// The key of a PPK that is being replaced.
const PREVIOUS: &str = "previous_id";

/// A PPK as the file names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPpk {
    /// What all hosts call it.
    pub id: String,
    /// Where its key comes from.
    pub source: PpkSource,
}

/// Where the key of a PPK comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PpkSource {
    /// This file.
    File(PathBuf),
    /// The secret that the key of `[kms]` wraps.
    Wrapped,
}

/// `[ppk]`: which PPKs there are, and who needs one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PpkRules {
    /// The one of all hosts, and the one before it while it is being rotated; none where there is none.
    keys: Vec<NamedPpk>,
    /// Hosts make no keys with each other without one.
    required: bool,
    /// When that is so for all of them, whatever is said otherwise; none where it is so already.
    optional_until: Option<UnixTime>,
    /// That time was there when this was read.
    ended: bool,
    /// What is otherwise for some nodes.
    nodes: Vec<NodePpk>,
}

/// `[[ppk.nodes]]`: what is otherwise for the pairs of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NodePpk {
    node: NodeName,
    /// Its own; none where it has that of all hosts.
    keys: Vec<NamedPpk>,
    required: Option<bool>,
}

impl fmt::Display for NamedPpk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            PpkSource::File(file) => write!(f, "{} in {}", self.id, file.display()),
            PpkSource::Wrapped => write!(f, "{} from the wrapped secret", self.id),
        }
    }
}

impl NamedPpk {
    /// The file that its key lies in, if it lies in one.
    fn file(&self) -> Option<&PathBuf> {
        match &self.source {
            PpkSource::File(file) => Some(file),
            PpkSource::Wrapped => None,
        }
    }
}

impl fmt::Display for NodePpk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.node)?;
        self.keys.iter().try_for_each(|key| write!(f, ", {key}"))?;
        match self.required {
            None => Ok(()),
            Some(true) => f.write_str(", required"),
            Some(false) => f.write_str(", optional"),
        }
    }
}

impl Default for PpkRules {
    fn default() -> Self {
        Self { keys: Vec::new(), required: true, optional_until: None, ended: false, nodes: Vec::new() }
    }
}

impl PpkRules {
    /// All PPKs that are named.
    fn all(&self) -> impl Iterator<Item = &NamedPpk> {
        self.keys.iter().chain(self.nodes.iter().flat_map(|node| &node.keys))
    }

    /// Whether the PPK of all hosts comes from the wrapped secret.
    pub(super) fn is_wrapped(&self) -> bool {
        self.keys.iter().any(|key| key.source == PpkSource::Wrapped)
    }

    /// The files that are named.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.all().filter_map(NamedPpk::file)
    }

    /// What all hosts must agree on. What is accepted during a rotation is not part of that, nor where keys lie.
    pub(super) fn canonical(&self) -> String {
        let current = |keys: &[NamedPpk]| keys.first().map(|key| key.id.clone());
        let nodes = self.nodes.iter().map(|it| (it.node.to_string(), current(&it.keys), it.required));
        let nodes: BTreeSet<_> = nodes.collect();
        match self.keys.is_empty() && nodes.is_empty() {
            true => String::new(),
            false => {
                let until = self.optional_until.map(|end| format!(" until {end}")).unwrap_or_default();
                format!("ppk {:?} {}{until} {nodes:?}\n", current(&self.keys), self.required)
            }
        }
    }

    /// Whether pairs make no keys without that of all hosts.
    pub fn is_required(&self) -> bool {
        self.required || self.ended
    }

    /// Each thing that it says, by its key in the file, for whoever compares two of them.
    pub(super) fn said(&self) -> Vec<(String, String)> {
        let of = |name: &str, key: Option<&NamedPpk>| {
            (format!("ppk.{name}"), key.map_or_else(|| "none".to_owned(), NamedPpk::to_string))
        };
        vec![
            of("id", self.keys.first()),
            of("previous_id", self.keys.get(1)),
            ("ppk.required".to_owned(), self.required.to_string()),
            ("ppk.optional_until".to_owned(), self.end_in_words()),
        ]
    }

    fn end_in_words(&self) -> String {
        match (self.optional_until, self.ended) {
            (None, _) => "none".to_owned(),
            (Some(end), false) => end.to_string(),
            (Some(end), true) => format!("{end}, which is over"),
        }
    }

    /// What it says, in words; nothing where there are no PPKs.
    pub fn in_words(&self) -> Vec<String> {
        let need = |required: bool| match (required || self.ended, self.optional_until) {
            (true, _) => "required: without it no keys are made".to_owned(),
            (false, None) => "optional: hosts that do not have it go without".to_owned(),
            (false, Some(end)) => format!("optional until {end}: hosts that do not have it go without"),
        };
        let from = |key: &NamedPpk| match &key.source {
            PpkSource::File(_) => "",
            PpkSource::Wrapped => " from the wrapped secret",
        };
        let of_all = self.keys.first().map(|key| format!("{}{}, {}", key.id, from(key), need(self.required)));
        let before = self.keys.get(1).map(|key| format!("{} is accepted too", key.id));
        let of_node = |it: &NodePpk| {
            let id = it.keys.first().or(self.keys.first()).map_or("", |key| &key.id);
            format!("with {}: {id}, {}", it.node, need(it.required.unwrap_or(self.required)))
        };
        of_all.into_iter().chain(before).chain(self.nodes.iter().map(of_node)).collect()
    }

    /// What is otherwise for some nodes, a line each.
    pub(super) fn exceptions(&self) -> Vec<String> {
        self.nodes.iter().map(NodePpk::to_string).collect()
    }
}

impl Config {
    /// The PPKs of the pairs between two nodes, the one to begin with first, and whether one is required. `None`: these
    /// pairs have none. Both ends see the same: if both nodes are
    /// listed with one, the name that comes first counts.
    pub fn ppks_between(&self, a: &Node, b: &Node) -> Option<(&[NamedPpk], bool)> {
        let PpkRules { keys, required, ended, nodes, .. } = &self.ppk;
        let mut own: Vec<&NodePpk> =
            nodes.iter().filter(|it| [&a.name, &b.name].contains(&&it.node)).collect();
        own.sort_by_key(|it| &it.node);
        let keys = own.iter().map(|it| &it.keys).find(|keys| !keys.is_empty()).unwrap_or(keys);
        let said: Vec<bool> = own.iter().filter_map(|it| it.required).collect();
        let required = if said.is_empty() { *required } else { !said.contains(&false) };
        (!keys.is_empty()).then_some((keys, required || *ended))
    }

    /// Until when hosts go without a PPK that do not have it, where that has an end that is still to come.
    pub fn ppks_optional_until(&self) -> Option<UnixTime> {
        self.ppk.optional_until.filter(|_| !self.ppk.ended)
    }

    /// The same at `now`: what is over does not come back, whichever clock is set.
    #[must_use]
    pub fn at(mut self, now: UnixTime) -> Self {
        self.ppk.ended |= self.ppk.optional_until.is_some_and(|end| end <= now);
        self
    }

    /// The end of the time without a PPK, where it has come.
    pub fn ppks_required_since(&self) -> Option<UnixTime> {
        self.ppk.optional_until.filter(|_| self.ppk.ended)
    }

    /// The same on a host where the time until `end` is over: an earlier end has come too, and a later one is new.
    #[must_use]
    pub fn after_end(self, end: Option<UnixTime>) -> Self {
        match end {
            Some(end) => self.at(end),
            None => self,
        }
    }

    /// Whether the pairs of `own` with `other` have a PPK from a file for it, although that of all hosts comes from the
    /// wrapped secret: that node need not depend on the KMS.
    pub fn is_outside_kms(&self, own: &Node, other: &Node) -> bool {
        let keys = self.ppks_between(own, other).map_or(&[][..], |(keys, _)| keys);
        let is_listed = |it: &NodePpk| it.node == other.name && it.keys == keys;
        self.ppk.is_wrapped() && !keys.is_empty() && self.ppk.nodes.iter().any(is_listed)
    }

    /// Whether any host has a PPK.
    pub fn has_ppks(&self) -> bool {
        self.ppk.all().next().is_some()
    }
}

/// What both hosts call a PPK.
fn id(value: &DeValue<'_>) -> Result<String, String> {
    names::checked(text(value)?)
}

/// A time, or the beginning of a day by UTC.
fn time(value: &DeValue<'_>) -> Result<UnixTime, String> {
    // TOML itself has days and times, without quotes.
    let text = match value {
        DeValue::Datetime(time) => &time.to_string(),
        other => text(other)?,
    };
    time_of(text).ok_or_else(|| {
        format!(
            "\"{text}\" is neither a day such as \"2027-01-31\" nor a time such as \"2027-01-31T12:00:00Z\""
        )
    })
}

pub(super) fn time_of(text: &str) -> Option<UnixTime> {
    // A time without a zone reads as its day alone, which is earlier.
    let day = text.parse::<Date>().ok().filter(|day| day.to_string() == text);
    let of_day = || Some(day?.to_zoned(TimeZone::UTC).ok()?.timestamp());
    let time = text.parse::<Timestamp>().ok().or_else(of_day)?;
    u64::try_from(time.as_second()).ok().map(UnixTime)
}

/// What is read, with the places of what may be wrong with it.
#[derive(Default)]
struct PpkPlaces {
    ids: Vec<Placed<String>>,
    files: Vec<Placed<PathBuf>>,
    nodes: Vec<Placed<NodeName>>,
}

/// The keys of a section that name a PPK: what it is called, and where it lies.
const NAMES: [(&str, &str); 2] = [("id", "file"), (PREVIOUS, "previous_file")];

/// A PPK and the one before it, in a section that need have none. `wrapped`: the first one comes from the wrapped secret.
fn keys(
    section: &mut Section<'_>,
    wrapped: bool,
    seen: &mut PpkPlaces,
    problems: &Problems<'_>,
) -> Vec<NamedPpk> {
    let mut keys = Vec::new();
    for (of_id, of_file) in NAMES {
        let is_first = of_id != PREVIOUS;
        let (name, file) = (section.optional(of_id, id), section.optional(of_file, path));
        if let Some(file) = file.as_ref().filter(|_| wrapped) {
            let message = "lies in the clear beside ppk.wrapped, so revoking the key would revoke nothing: delete the file, \
                           and this line";
            problems.add(file.span.clone(), &file.key, message.to_owned());
        }
        match (name, file) {
            (Some(name), Some(file)) => {
                if !is_first && keys.is_empty() {
                    let message = "needs `id` and `file`: they name the new PPK".to_owned();
                    problems.add(name.span.clone(), &name.key, message);
                }
                let source = PpkSource::File(file.value.clone());
                keys.push(NamedPpk { id: name.value.clone(), source });
                seen.ids.push(name);
                seen.files.push(file);
            }
            (Some(name), None) if wrapped && is_first => {
                keys.push(NamedPpk { id: name.value.clone(), source: PpkSource::Wrapped });
                seen.ids.push(name);
            }
            (Some(alone), None) => {
                problems.add(alone.span, &alone.key, format!("needs `{of_file}`, where that PPK lies"));
            }
            (None, Some(alone)) => {
                let message = format!("needs `{of_id}`, what all hosts call that PPK");
                problems.add(alone.span, &alone.key, message);
            }
            (None, None) => {}
        }
    }
    keys
}

/// What the file says of PPKs, and of all else that does not go with them.
pub(super) fn read(
    root: &mut Section<'_>,
    keying: &Keying,
    secret: &SecretFiles,
    (nodes, floating): (&[Node], &[Floating]),
    problems: &Problems<'_>,
) -> PpkRules {
    let mut section = root.section("ppk");
    let mut seen = PpkPlaces::default();
    let wrapped = section.value("wrapped", false, boolean);
    if wrapped {
        section.require("id", "is missing: it is what all hosts call the PPK");
    }
    let own = keys(&mut section, wrapped, &mut seen, problems);
    let required = section.value("required", true, boolean);
    let optional_until = section.optional("optional_until", time).map(|placed| placed.value);
    let mut exceptions: Vec<NodePpk> = Vec::new();
    for mut section in section.sections("nodes") {
        let name = section.required("name", node_name);
        let keys = keys(&mut section, false, &mut seen, problems);
        let required = section.optional("required", boolean).map(|placed| placed.value);
        section.finish();
        let wrong = if !nodes.iter().any(|node| node.name == name.value) {
            Some(format!("there is no node \"{}\" in this file", name.value))
        } else if exceptions.iter().any(|it| it.node == name.value) {
            Some(format!("\"{}\" is listed twice", name.value))
        } else if keys.is_empty() && own.is_empty() {
            Some(format!(
                "there is no PPK for \"{}\": give it `id` and `file`, or give them to [ppk]",
                name.value
            ))
        } else {
            None
        };
        wrong.into_iter().for_each(|message| problems.add(name.span.clone(), &name.key, message));
        exceptions.push(NodePpk { node: name.value.clone(), keys, required });
        seen.nodes.push(name);
    }
    if own.is_empty() && exceptions.is_empty() && !section.is_absent() && !wrapped {
        section.require("id", "is missing: it is what all hosts call the PPK");
    }
    check_end(&section, wrapped, required, &exceptions);
    // Where all are required, there is nothing that could end: the last exception may have gone with its node.
    let is_optional = !required || exceptions.iter().any(|it| it.required == Some(false));
    let optional_until = optional_until.filter(|_| is_optional);
    section.finish();
    check(&seen, keying, secret, problems);
    check_floating(&seen, &exceptions, floating, problems);
    PpkRules { keys: own, required, optional_until, ended: false, nodes: exceptions }
}

/// Who can make keys without what a key of somebody else wraps is not to do so for ever.
fn check_end(section: &Section<'_>, wrapped: bool, required: bool, exceptions: &[NodePpk]) {
    let goes_without = |it: &NodePpk| it.keys.is_empty() && it.required == Some(false);
    let of_wrapped = wrapped && (!required || exceptions.iter().any(goes_without));
    if of_wrapped {
        section.require(
            "optional_until",
            "is missing: as long as a PPK from the wrapped secret is not required, hosts can make keys without the KMS. Say \
             on which day that ends, such as \"2027-01-31\"",
        );
    }
}

fn check(seen: &PpkPlaces, keying: &Keying, secret: &SecretFiles, problems: &Problems<'_>) {
    let PpkPlaces { ids, files, .. } = seen;
    for (at, Placed { value, key, span }) in ids.iter().enumerate() {
        if let Some(first) = ids[..at].iter().find(|other| other.value == *value) {
            let line = problems.line(&first.span);
            let message = format!("another PPK is called \"{value}\" already, in line {line}");
            problems.add(span.clone(), key, message);
        }
    }
    let of_secret =
        |file: &PathBuf| [Some(&secret.file), secret.previous_file.as_ref()].contains(&Some(file));
    for Placed { value, key, span } in files.iter().filter(|file| of_secret(&file.value)) {
        let message = format!(
            "{} is the secret of the hosts: a PPK is another one (`hostseal secret generate`)",
            value.display()
        );
        problems.add(span.clone(), key, message);
    }
    if secret.previous_file.is_some()
        && let Some(Placed { key, span, .. }) = ids.iter().find(|it| it.key.ends_with(PREVIOUS))
    {
        let message = "cannot stand beside secret.previous_file: finish replacing the secret first, then replace the PPK".to_owned();
        problems.add(span.clone(), key, message);
    }
    // RFC 8784 mixes a PPK into keys that are negotiated.
    let derived = keying.method == Method::Derived || keying.accept.contains(&Method::Derived);
    if let Some(Placed { key, span, .. }) = ids.first().filter(|_| derived) {
        let message = "keys that are derived from the secret have no PPK: keying.method and keying.accept must not have \
                       \"derived\""
            .to_owned();
        problems.add(span.clone(), key, message);
    }
}

/// Who speaks from an address that floats is known by its proof, after the PPK: so its nodes have the same.
fn check_floating(seen: &PpkPlaces, exceptions: &[NodePpk], floating: &[Floating], problems: &Problems<'_>) {
    let said = |node: &NodeName| {
        let own = exceptions.iter().find(|it| it.node == *node);
        own.map_or((&[][..], None), |own| (own.keys.as_slice(), own.required))
    };
    for Placed { value, key, span } in &seen.nodes {
        let mut shared = floating.iter().filter(|floating| floating.may_be_at(value));
        let other = shared.find_map(|floating| {
            floating.nodes.iter().find(|other| said(other) != said(value)).map(|other| (floating, other))
        });
        if let Some((floating, other)) = other {
            let message = format!(
                "\"{value}\" and \"{other}\" have the floating addresses \"{}\", so their PPKs must not differ: give \
                 neither `id` and `file`, and both the same `required`",
                floating.name
            );
            problems.add(span.clone(), key, message);
        }
    }
}

#[cfg(test)]
mod tests;
