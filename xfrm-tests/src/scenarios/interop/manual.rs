//! The manual's blocks (`docs/interop.md`) as they stand there, between the two addresses that they name.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::course::Auth;
use crate::lab::agent::{CONFIG, SECRET, SECRETS, hostseal, status_until};
use crate::lab::libreswan::Libreswan;
use crate::lab::manual::{
    self, CERTIFICATES, IPSEC_CONF, IPSEC_SECRETS, KEYS, NEIGHBOURS, NODES, PKI, SWANCTL,
};
use crate::lab::{Cluster, FAMILIES, Family, Host, Kind, Lab, Peer as _, Swan, swan, until};
use crate::scenarios::certificates::{CRL, Ca};
use crate::scenarios::keys::{KEY, base64, key};

/// A block of the manual, with the lab's secret and where the lab's strongSwan has its files.
fn block(name: &str) -> Result<String> {
    let block = manual::block(name)?;
    Ok(block.replace("BASE64OFTHESECRET", SECRETS[0]).replace("/etc/swanctl", swan::DIRECTORY))
}

/// hostseal on a host by the manual's nodes, with lines before them.
fn install(host: &Host, lines: &str, of_nodes: impl Fn(String) -> String) -> Result<()> {
    let nodes = of_nodes(block(NODES)?);
    host.write(CONFIG, &format!("cluster = \"lab\"\n{lines}\n{nodes}"), 0o644)?;
    host.write(SECRET, &format!("{}\n", SECRETS[0]), 0o600)
}

/// Enables hostseal on a, and checks that packets to and from b are ESP.
fn ensure_protected(lab: &Lab, proof: &str, families: &[Family]) -> Result<()> {
    let [a, b] = lab.all();
    hostseal(&a, "enable --timeout 30s")?.expect_code(0)?;
    status_until(&a, &format!("b has proven itself by {proof}"), Duration::from_secs(10), |status| {
        status.all_protected() && status.peers().iter().all(|row| row["authentication"] == proof)
    })?;
    let capture = lab.capture(&a)?;
    for family in families {
        ensure!(a.ping(&b, *family, 3)? == 3 && b.ping(&a, *family, 3)? == 3, "{family:?}");
    }
    let report = capture.stop()?;
    report.ensure_nothing_clear()?;
    ensure!(report.count(Kind::Esp) == 12 * families.len(), "{report}");
    Ok(())
}

/// Over both families, where b must be able to ask for a's hardware address.
pub(super) fn strongswan(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    Cluster::of(lab.hosts()).install(&a, SECRETS[0])?;
    let v4 = block(SWANCTL)?;
    let v6 = v4.replace("10.99.0.", "fd99::").replace(" a {", " a6 {").replace("ike-a", "ike-a6");
    let swan = Swan::start(&b, &[])?;
    let said = swan.load_text(&(v4 + &v6 + &block(NEIGHBOURS)?))?;
    ensure!(said.contains("loaded 3 connections"), "{said}");
    ensure_protected(lab, "secret", &FAMILIES)?;
    for (host, other) in [(&a, &b), (&b, &a)] {
        host.run(&format!("ip -6 neigh change {} dev eth0 nud probe", other.v6()))?;
        until("the neighbour has answered", Duration::from_secs(5), || {
            let known = host.run(&format!("ip -6 neigh show {}", other.v6()))?;
            ensure!(known.contains("REACHABLE"), "{known}");
            Ok::<_, anyhow::Error>(())
        })?;
    }
    Ok(())
}

/// First raw public keys, then certificates in their place.
pub(super) fn strongswan_with_keys(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let swan = Swan::start(&b, &[])?;
    b.run(&format!("mkdir -p {0}/private {0}/pubkey", swan::DIRECTORY))?;
    let of_b = b.run(&block(PKI)?)?;
    let of_a = key(&a, "ed25519")?;
    swan.give_public_key("a", base64(&of_a)?)?;
    let keys = [of_a, format!("public_key = \"{}\"\n", of_b.trim())];
    install(&a, "[auth]\nmethod = \"public_key\"", |nodes| with_keys(&nodes, &keys))?;
    swan.load_text(&(block(SWANCTL)? + &block(KEYS)?))?;
    ensure_protected(lab, "public_key", &[Family::V4])?;

    hostseal(&a, "disable")?.expect_code(0)?;
    let ca = Ca::new(1)?;
    let cluster = Cluster::of_v4(lab.hosts());
    let auth = format!("method = \"certificate\"\ncrl = \"{CRL}\"");
    a.run(&format!("rm {KEY}"))?;
    ca.install(&cluster.with("auth", &auth), &a, Auth::Certificates.kinds()[0], &[a.v4().to_string()])?;
    key(&b, Auth::Certificates.kinds()[1])?;
    swan.give("private/certified.pem", &b.read(KEY)?)?;
    swan.give("x509/b.pem", &ca.certify(&b, &[b.v4().to_string()])?)?;
    for (number, pem) in ca.all().iter().enumerate() {
        swan.give(&format!("x509ca/{number}.pem"), pem)?;
    }
    swan.load_text(&(block(SWANCTL)? + &block(CERTIFICATES)?))?;
    ensure_protected(lab, "certificate", &[Family::V4])
}

/// The nodes, each with its key below it.
fn with_keys(nodes: &str, keys: &[String; 2]) -> String {
    nodes.split("\n\n").zip(keys).map(|(node, key)| format!("{}\n{key}\n", node.trim_end())).collect()
}

pub(super) fn libreswan(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    install(&a, "", |nodes| nodes)?;
    let libreswan = Libreswan::start(&b)?;
    libreswan.load_text(&block(IPSEC_CONF)?, &block(IPSEC_SECRETS)?)?;
    ensure_protected(lab, "secret", &[Family::V4]).with_context(|| libreswan.log())
}
