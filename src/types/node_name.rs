//! What people call a host.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a host in the file: letters, digits, `.`, `_` and `-`, at most 64.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeName(String);

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` lets the name be aligned in a table.
        f.pad(&self.0)
    }
}

impl FromStr for NodeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        checked(text).map(Self)
    }
}

/// The name that `text` is, of a host or of a cluster: letters, digits, `.`, `_` and `-`, at most 64.
///
/// # Errors
/// It is none, in words.
pub fn checked(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.len() > 64 || !text.chars().all(allowed) {
        return Err(format!("{text:?} is not a name: up to 64 letters, digits, \".\", \"_\" and \"-\""));
    }
    Ok(text.to_owned())
}
