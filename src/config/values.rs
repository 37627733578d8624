//! Reads single values out of parsed TOML, and collects what is wrong with them.
//!
//! Reading goes on after a problem with a stand-in value, so that one run shows all problems. A stand-in
//! never gets out: with any problem there is no `Config`.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::ConfigProblem;

/// Collects problems of one text.
pub(super) struct Problems<'t> {
    text: &'t str,
    found: RefCell<Vec<ConfigProblem>>,
}

impl<'t> Problems<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, found: RefCell::default() }
    }

    pub(super) fn add(&self, span: Range<usize>, key: &str, message: String) {
        self.found.borrow_mut().push(ConfigProblem::new(self.text, span, key, message));
    }

    /// The number of the line of a byte.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        ConfigProblem::new(self.text, span.clone(), "", String::new()).line
    }

    /// Whether nothing is wrong so far.
    pub(super) fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// All problems in the text's order.
    pub(super) fn into_vec(self) -> Vec<ConfigProblem> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|problem| (problem.line, problem.column));
        found
    }
}

/// A value that was read, and where it stands.
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) key: String,
    pub(super) span: Range<usize>,
}

impl<T> Placed<T> {
    /// Another value that stands there.
    pub(super) fn with<U>(self, value: U) -> Placed<U> {
        Placed { value, key: self.key, span: self.span }
    }
}

/// A table of the file. The reader asks once for every key that it may have; [`Section::finish`] then reports the other
/// keys in it.
pub(super) struct Section<'p> {
    table: Option<&'p DeTable<'p>>,
    path: String,
    span: Range<usize>,
    asked: Vec<&'static str>,
    problems: &'p Problems<'p>,
}

impl<'p> Section<'p> {
    pub(super) fn root(table: &'p Spanned<DeTable<'p>>, problems: &'p Problems<'p>) -> Self {
        Self { table: Some(table.get_ref()), path: String::new(), span: 0..0, asked: Vec::new(), problems }
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn take(&mut self, key: &'static str) -> Option<&'p Spanned<DeValue<'p>>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.table?.get(key)
    }

    /// Where this table stands.
    pub(super) fn place(&self) -> Placed<()> {
        Placed { value: (), key: self.path.clone(), span: self.span.clone() }
    }

    /// Whether the file does not have this table.
    pub(super) fn is_absent(&self) -> bool {
        self.table.is_none()
    }

    /// Reports `key` where it is not there.
    pub(super) fn require(&self, key: &'static str, message: &str) {
        if !self.table.is_some_and(|table| table.contains_key(key)) {
            self.problems.add(self.span.clone(), &self.key(key), message.to_owned());
        }
    }

    /// Reports `key`, which is there.
    pub(super) fn refuse(&self, key: &'static str, message: &str) {
        if let Some(value) = self.table.and_then(|table| table.get(key)) {
            self.problems.add(value.span(), &self.key(key), message.to_owned());
        }
    }

    /// Reports `key` where it is an empty list.
    pub(super) fn refuse_empty(&self, key: &'static str, message: &str) {
        let value = self.table.and_then(|table| table.get(key));
        if let Some(value) =
            value.filter(|value| value.get_ref().as_array().is_some_and(|list| list.is_empty()))
        {
            self.problems.add(value.span(), &self.key(key), message.to_owned());
        }
    }

    /// Reports `key` where it is a list of more than `limit`.
    pub(super) fn refuse_longer(&self, key: &'static str, limit: usize) {
        let value = self.table.and_then(|table| table.get(key));
        let count = value.and_then(|value| value.get_ref().as_array()).map_or(0, |list| list.len());
        if let Some(value) = value.filter(|_| count > limit) {
            let message = format!("has {count} of them: {limit} at most");
            self.problems.add(value.span(), &self.key(key), message);
        }
    }

    /// The value of `key`, `None` where it is not there or wrong.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        convert: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<Placed<T>> {
        let value = self.take(key)?;
        self.convert(value, self.key(key), convert)
    }

    /// The value of `key`, or `default` where it is not there or wrong.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        default: T,
        convert: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> T {
        self.optional(key, convert).map_or(default, |placed| placed.value)
    }

    /// The value of `key`, which must be there.
    pub(super) fn required<T: Default>(
        &mut self,
        key: &'static str,
        convert: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Placed<T> {
        self.require(key, "is missing");
        let (span, path) = (self.span.clone(), self.key(key));
        self.optional(key, convert).unwrap_or(Placed { value: T::default(), key: path, span })
    }

    /// The list at `key`, which must be there and hold something.
    pub(super) fn required_list<T>(
        &mut self,
        key: &'static str,
        convert: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Vec<Placed<T>> {
        self.require(key, "is missing");
        self.refuse_empty(key, "is empty");
        self.list(key, convert).unwrap_or_default()
    }

    /// The list at `key`, each item with its place; `None` where there is none.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        convert: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<Vec<Placed<T>>> {
        let value = self.take(key)?;
        let path = self.key(key);
        let Some(items) = value.get_ref().as_array() else {
            self.problems.add(value.span(), &path, format!("must be a list, not {}", kind(value.get_ref())));
            return None;
        };
        let read = |(at, item)| self.convert(item, format!("{path}[{at}]"), &convert);
        Some(items.iter().enumerate().filter_map(read).collect())
    }

    /// The table at `key` whose keys say something too: each key with its value, both with their places.
    pub(super) fn entries<K, V>(
        &mut self,
        key: &'static str,
        of_key: impl Fn(&str) -> Result<K, String>,
        of_value: impl Fn(&DeValue<'_>) -> Result<V, String>,
    ) -> Vec<(Placed<K>, Placed<V>)> {
        let path = self.key(key);
        let table = self.take(key).and_then(|value| self.as_table(value, &path));
        let read = |(name, value): (&Spanned<_>, _)| {
            let text: &str = AsRef::as_ref(name.get_ref());
            let path = format!("{path}.\"{text}\"");
            let key = of_key(text)
                .map_err(|message| self.problems.add(name.span(), &path, message))
                .map(|key| Placed { value: key, key: path.clone(), span: name.span() });
            let value = self.convert(value, path, &of_value);
            key.ok().zip(value)
        };
        table.into_iter().flatten().filter_map(read).collect()
    }

    fn convert<T>(
        &self,
        value: &Spanned<DeValue<'_>>,
        key: String,
        convert: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<Placed<T>> {
        match convert(value.get_ref()) {
            Ok(converted) => Some(Placed { value: converted, key, span: value.span() }),
            Err(message) => {
                self.problems.add(value.span(), &key, message);
                None
            }
        }
    }

    /// The table at `key`; an empty one where there is none.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'p> {
        let path = self.key(key);
        let (table, span) = match self.take(key) {
            None => (None, self.span.clone()),
            Some(value) => (self.as_table(value, &path), value.span()),
        };
        Section { table, path, span, asked: Vec::new(), problems: self.problems }
    }

    /// The tables at `[[key]]`.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'p>> {
        let path = self.key(key);
        let Some(value) = self.take(key) else { return Vec::new() };
        let Some(items) = value.get_ref().as_array() else {
            self.problems.add(value.span(), &path, format!("must be written as [[{key}]]"));
            return Vec::new();
        };
        items
            .iter()
            .enumerate()
            .map(|(at, item)| {
                let path = format!("{path}[{at}]");
                let table = self.as_table(item, &path);
                Section { table, path, span: item.span(), asked: Vec::new(), problems: self.problems }
            })
            .collect()
    }

    fn as_table(&self, value: &'p Spanned<DeValue<'p>>, path: &str) -> Option<&'p DeTable<'p>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.problems.add(value.span(), path, format!("must be a table, not {}", kind(value.get_ref())));
        }
        table
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        for key in self.table.into_iter().flat_map(|table| table.keys()) {
            let name = key.get_ref().as_ref();
            if !self.asked.contains(&name) {
                let message = format!("unknown key; known here: {}", self.asked.join(", "));
                self.problems.add(key.span(), &self.key(name), message);
            }
        }
    }
}

/// A string that is not empty.
pub(super) fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, String> {
    match value.as_str() {
        Some("") => Err("is empty".to_owned()),
        Some(text) => Ok(text),
        None => Err(format!("must be a string, not {}", kind(value))),
    }
}

/// `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("must be true or false, not {}", kind(value)))
}

/// A whole number within `range`.
pub(super) fn integer(value: &DeValue<'_>, range: RangeInclusive<u64>) -> Result<u64, String> {
    let integer = value.as_integer().ok_or_else(|| format!("must be a number, not {}", kind(value)))?;
    match u64::from_str_radix(integer.as_str(), integer.radix()) {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(match (*range.start(), *range.end()) {
            (start, u64::MAX) => format!("must be at least {start}, not {integer}"),
            (start, end) => format!("must be {start} to {end}, not {integer}"),
        }),
    }
}

/// What a value is, in words.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
