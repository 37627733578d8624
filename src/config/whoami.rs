//! Which node of the file this host is.

use std::net::IpAddr;

use super::{Config, Node};
use crate::types::NodeName;
use crate::types::units::listed;

/// Why a host is no node of its file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhoamiError {
    /// None of the host's addresses is in the file.
    #[error(
        "this host is not in the file: it has {own}, and the file lists {listed}. \
         Add it as [[nodes]], or set $HOSTSEAL_NODE to its name"
    )]
    NoMatch {
        /// The host's addresses, in words.
        own: String,
        /// The file's nodes with their addresses, in words.
        listed: String,
    },
    /// The host has addresses of several nodes.
    #[error("this host has the addresses of several nodes: {0}. Say which one it is by $HOSTSEAL_NODE")]
    Several(String),
    /// The name that was given is none of the file's.
    #[error("$HOSTSEAL_NODE is {0:?}, and the file has no node of that name; it lists {1}")]
    UnknownName(String, String),
}

impl Config {
    /// Which node this host is: the one that `named` says (`$HOSTSEAL_NODE`), else the one that the file
    /// says, else the one that has an address of this host's `own`, else the one that it is `remembered` to
    /// be: at boot the addresses may not be there yet.
    ///
    /// # Errors
    /// None, or more than one, or a name that the file does not list.
    pub fn whoami(
        &self,
        own: &[IpAddr],
        named: Option<&str>,
        remembered: Option<&NodeName>,
    ) -> Result<&Node, WhoamiError> {
        if let Some(name) = named {
            let names = || list(self.nodes.iter().map(|node| node.name.to_string()));
            return self.node_named(name).ok_or_else(|| WhoamiError::UnknownName(name.to_owned(), names()));
        }
        if let Some(node) = self.node.as_ref().and_then(|name| self.node_named(name.as_str())) {
            return Ok(node);
        }
        let ours = |node: &&Node| node.own_addresses().any(|address| own.contains(&address));
        let matches: Vec<&Node> = self.nodes.iter().filter(ours).collect();
        match matches.as_slice() {
            [node] => Ok(node),
            [] => remembered.and_then(|name| self.node_named(name.as_str())).ok_or_else(|| {
                WhoamiError::NoMatch {
                    own: list(own.iter().map(IpAddr::to_string)),
                    listed: list(self.nodes.iter().map(describe)),
                }
            }),
            several => Err(WhoamiError::Several(list(several.iter().map(|node| describe(node))))),
        }
    }
}

fn describe(node: &Node) -> String {
    format!("{} ({})", node.name, list(node.addresses_in_words().into_iter()))
}

/// Items in words, the first dozen of them.
fn list(items: impl Iterator<Item = String>) -> String {
    const SHOWN: usize = 12;
    match listed(items, SHOWN) {
        nothing if nothing.is_empty() => "nothing".to_owned(),
        items => items,
    }
}
