//! What `status` says of a row when its node was asked for by name: how its keys were made, and its SAs.

use std::time::Duration;

use crate::identity::AuthMethod;
use crate::observe::status::{Encapsulation, IkeRow, PeerInfo, PeerRow, SaRow, SaState};
use crate::types::units::{human_bytes, human_duration};
use crate::types::{Direction, Method, NodeName};

/// The lines about a row, without those for which nothing is known.
pub(super) fn lines(row: &PeerRow) -> Vec<String> {
    let known_as = row.listed.map(|listed| format!("the others call {} {listed}", row.local));
    let ike = row.ike.as_ref().map(|ike| self::ike(ike, row.keying));
    let proof = row.authentication.map(|method| format!("{} {}", row.node, proven(method)));
    let outside =
        if row.outside_kms { ", from a file: the other end need not depend on the KMS" } else { "" };
    let ppk = row.ppk_id.as_ref().map(|id| format!("PPK {id} in the keys{outside}"));
    let own = row.esp_group.as_ref().map(|group| format!(", keys from their own exchange ({group})"));
    let esp = row.esp.as_ref().map(|esp| {
        let wrapped = match row.encapsulation {
            Encapsulation::None => "",
            Encapsulation::Udp => " in UDP",
        };
        format!("ESP {esp}{wrapped}{}", own.unwrap_or_default())
    });
    let told = row.peer.as_ref().map(|peer| self::told(&row.node, peer));
    [known_as, ike, ppk, proof, told, esp].into_iter().flatten().chain(row.sas.iter().map(sa)).collect()
}

fn ike(ike: &IkeRow, keying: Method) -> String {
    let derived = match keying {
        Method::Ike => "",
        Method::Derived => ", keys derived from the shared secret",
    };
    format!("IKEv{} {} for {}{derived}", ike.version, ike.proposal, seconds(ike.age_s))
}

fn told(node: &NodeName, peer: &PeerInfo) -> String {
    let PeerInfo { config_id, secret_id, version } = peer;
    let secret = secret_id.as_deref().unwrap_or("none");
    format!("{node} runs hostseal {version}, config id {config_id}, secret id {secret}")
}

fn proven(method: AuthMethod) -> String {
    format!("has proven itself with {}", method.words())
}

fn sa(sa: &SaRow) -> String {
    let direction = match sa.direction {
        Direction::Out => "out",
        Direction::In => "in ",
    };
    let state = match sa.state {
        SaState::Next => "next",
        SaState::Active => "active",
        SaState::Retiring => "retiring",
    };
    let mut line = format!(
        "{direction} {} {state}, {} in {} packets, {} old",
        sa.spi,
        human_bytes(sa.bytes),
        sa.packets,
        seconds(sa.age_s)
    );
    if let Some(left) = sa.rekey_in_s {
        line += &format!(", new keys in {}", seconds(left));
    }
    if let Some(left) = sa.expires_in_s {
        line += &format!(", ends in {}", seconds(left));
    }
    line
}

fn seconds(seconds: u64) -> String {
    human_duration(Duration::from_secs(seconds))
}
