//! The seeds of a token: whom a host asks that joins, and the engine that it asks with.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SeedTrouble;
use crate::config::NAT_PORT;
use crate::identity::PrivateKey;
use crate::ike::{ControlSettings, Settings};
use crate::roster::JOIN_VERSION;
use crate::types::{EncapsulationMode, Inside, Method, Pair, Proposals};

/// So many seeds of a token are tried.
const SEEDS_MAX: usize = 16;
/// How long the next seed waits for the one before it.
const SEED_AFTER: Duration = Duration::from_millis(250);

/// Somebody who may be a member.
pub(super) struct Contact {
    pub(super) at: SocketAddr,
    pub(super) pair: Pair,
    pub(super) standing: ContactState,
    pub(super) trouble: Option<SeedTrouble>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContactState {
    /// It is asked from then on.
    Idle(Instant),
    /// It is asked.
    Asked,
    /// It is asked no more.
    Out,
}

/// The seeds that can be asked, in their order: on one port, as all of a cluster are.
pub(super) fn contacts(
    now: Instant,
    all: &[SocketAddr],
    port: u16,
    sources: &BTreeMap<IpAddr, IpAddr>,
) -> Vec<Contact> {
    let mut contacts: Vec<Contact> = Vec::new();
    for at in all.iter().filter(|at| at.port() == port) {
        let Some(local) = sources.get(&at.ip()).copied().filter(|local| *local != at.ip()) else { continue };
        let pair = Pair { local, remote: at.ip() };
        if contacts.len() < SEEDS_MAX && contacts.iter().all(|contact| contact.pair != pair) {
            let after = SEED_AFTER * u32::try_from(contacts.len()).unwrap_or_default();
            let standing = ContactState::Idle(now + after);
            contacts.push(Contact { at: *at, pair, standing, trouble: None });
        }
    }
    contacts
}

/// What its engine is to know: the key of the token, and nobody else's.
pub(super) fn settings(cluster: &str, key: PrivateKey, port: u16) -> Settings {
    let control = ControlSettings {
        key: Arc::new(key),
        members: BTreeMap::new(),
        invites: Vec::new(),
        mark: Arc::default(),
        welcome: Arc::from([JOIN_VERSION]),
    };
    Settings {
        credentials: Arc::default(),
        secret: None,
        previous: None,
        cluster: cluster.to_owned(),
        inside: Inside::default(),
        method: Method::Ike,
        accept: vec![Method::Ike],
        port,
        // The settings of the cluster are not known yet.
        nat_port: NAT_PORT,
        encapsulation: EncapsulationMode::Auto,
        ike_proposals: Proposals::default(),
        esp_proposals: Proposals::default(),
        // Longer than it lasts.
        rekey_after: Duration::from_secs(3600),
        initial_contact: false,
        jitter: Duration::ZERO,
        about: Arc::default(),
        first: |token, _| token.to_vec(),
        control: Some(control),
    }
}
