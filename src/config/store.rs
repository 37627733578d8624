//! `[cluster]` in the file of a member: the store that keeps the roster too, which others run.

use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::error::ConfigProblem;
use super::read::path;
use super::values::{Placed, Problems, Section, text};

/// The kind of store that there is.
const ETCD: &str = "etcd";
/// The default of `prefix`.
const PREFIX: &str = "/hostseal/";
/// The longest prefix.
const PREFIX_MAX: usize = 256;
/// The longest endpoint: a name has 253 characters at most.
const ENDPOINT_MAX: usize = 300;
/// More endpoints than an etcd has members.
const ENDPOINTS_MAX: usize = 16;
/// The default of `socket`, where systemd listens for the helper.
const SOCKET: &str = "/run/hostseal-etcd.sock";

/// Where the roster is kept too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreRules {
    /// Where the store is, each of them as good as the others.
    pub endpoints: Vec<String>,
    /// Where the CAs lie whose certificates it may have.
    pub ca: PathBuf,
    /// Where this host's certificate for it lies.
    pub certificate: PathBuf,
    /// Where the key of that lies.
    pub key: PathBuf,
    /// What the names of all keys in it begin with.
    pub prefix: String,
    /// Where its helper listens.
    pub socket: PathBuf,
}

impl StoreRules {
    /// The files that its helper is given: the CA, the certificate, the key.
    pub fn files(&self) -> [&PathBuf; 3] {
        [&self.ca, &self.certificate, &self.key]
    }
}

/// What the section says; `None` where it says nothing.
pub(super) fn read(mut section: Section<'_>, problems: &Problems<'_>) -> Option<StoreRules> {
    if section.is_absent() {
        return None;
    }
    section.required("store", kind);
    section.refuse_longer("endpoints", ENDPOINTS_MAX);
    let endpoints = section.required_list("endpoints", endpoint);
    let mut file = |key, default: &str| section.value(key, PathBuf::from(default), path);
    let ca = file("ca", "/etc/hostseal/etcd-ca.pem");
    let certificate = file("certificate", "/etc/hostseal/etcd.pem");
    let key = file("key", "/etc/hostseal/etcd.key");
    let socket = file("socket", SOCKET);
    let prefix = section.value("prefix", PREFIX.to_owned(), prefix);
    section.finish();
    let mut seen: Vec<String> = Vec::new();
    for Placed { value, key, span } in endpoints {
        if seen.contains(&value) {
            problems.add(span, &key, "is there twice".to_owned());
        }
        seen.push(value);
    }
    Some(StoreRules { endpoints: seen, ca, certificate, key, prefix, socket })
}

/// What is wrong with `[cluster]` in the file of a member, with its places there.
pub(super) fn check(local: &str) -> Vec<ConfigProblem> {
    let problems = Problems::new(local);
    if let Ok(table) = DeTable::parse(local) {
        read(Section::root(&table, &problems).section("cluster"), &problems);
    }
    problems.into_vec()
}

fn kind(value: &DeValue<'_>) -> Result<(), String> {
    match text(value)? {
        ETCD => Ok(()),
        other => Err(format!("must be \"{ETCD}\", not \"{other}\"")),
    }
}

fn endpoint(value: &DeValue<'_>) -> Result<String, String> {
    let endpoint = text(value)?;
    let place = endpoint.strip_prefix("https://").and_then(|place| place.rsplit_once(':'));
    let is_good = place.is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(['/', '@', ' ']) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if is_good && endpoint.len() <= ENDPOINT_MAX {
        Ok(endpoint.to_owned())
    } else {
        Err(format!("must be https://HOST:PORT, not \"{endpoint}\": hosts prove themselves to etcd by TLS"))
    }
}

fn prefix(value: &DeValue<'_>) -> Result<String, String> {
    let prefix = text(value)?;
    let is_good =
        prefix.len() <= PREFIX_MAX && prefix.ends_with('/') && prefix.chars().all(|c| c.is_ascii_graphic());
    is_good.then(|| prefix.to_owned()).ok_or_else(|| {
        format!("must end with / and have {PREFIX_MAX} plain characters at most, not \"{prefix}\"")
    })
}
