//! Stock strongSwan as a host of the lab: our independent oracle.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::host::{Family, Host, Process};
use super::wait::until;

/// Where a host's strongSwan keeps its files. /run is the host's own.
const DIRECTORY: &str = "/run/swan";
/// The daemon's log.
const LOG: &str = "/run/swan/charon.log";

/// strongSwan's daemon on a host. It ends when this goes.
pub struct Swan {
    host: Host,
    daemon: Process,
}

/// A connection to one other host, as strongSwan is to have it.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Its name; the child's name is the same.
    pub name: String,
    /// Our address and identity.
    pub local: String,
    /// The other's.
    pub remote: String,
    /// How both ends prove themselves.
    pub proof: Proof,
    /// Settings of the connection, such as `rekey_time = 10s`.
    pub ike: Vec<String>,
    /// Settings of the child, such as `start_action = trap`.
    pub child: Vec<String>,
}

/// How the ends of a connection prove themselves.
#[derive(Debug, Clone)]
pub enum Proof {
    /// With a pre-shared key, in base64.
    Secret(String),
    /// With raw public keys: the names of ours and of the other's, as given to [`Swan::add_key`] and
    /// [`Swan::add_public_key`].
    Keys(String, String),
    /// With certificates: the name of ours, as given to [`Swan::add_certificate`].
    Certificate(String),
}

impl Connection {
    /// A connection between two hosts with the suite that hostseal speaks. Nothing is rekeyed by time.
    pub fn between(local: &Host, remote: &Host, family: Family, secret: &str) -> Self {
        Self {
            name: format!("{}-{}", remote.name(), if family == Family::V4 { "v4" } else { "v6" }),
            local: local.address(family).to_string(),
            remote: remote.address(family).to_string(),
            proof: Proof::Secret(secret.to_owned()),
            ike: Vec::new(),
            child: Vec::new(),
        }
    }

    /// Has both ends prove themselves in another way.
    #[must_use]
    pub fn proof(mut self, proof: Proof) -> Self {
        self.proof = proof;
        self
    }

    /// Adds a setting of the connection.
    #[must_use]
    pub fn ike(mut self, setting: &str) -> Self {
        self.ike.push(setting.to_owned());
        self
    }

    /// Adds a setting of the child.
    #[must_use]
    pub fn child(mut self, setting: &str) -> Self {
        self.child.push(setting.to_owned());
        self
    }

    /// The connection in the words of swanctl.conf.
    fn text(&self) -> String {
        let settings = |given: &[String], defaults: &[(&str, &str)]| -> String {
            let key = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
            let given_keys: Vec<String> = given.iter().map(|line| key(line)).collect();
            let kept = defaults.iter().filter(|(name, _)| !given_keys.iter().any(|given| given == name));
            let kept = kept.map(|(name, value)| format!("{name} = {value}"));
            kept.chain(given.iter().cloned()).map(|line| format!("    {line}\n")).collect()
        };
        let ike = settings(
            &self.ike,
            &[
                ("version", "2"),
                ("proposals", "aes256gcm16-prfsha384-x25519"),
                ("rekey_time", "0"),
                ("mobike", "no"),
                ("keyingtries", "0"),
            ],
        );
        let child = settings(
            &self.child,
            &[("mode", "transport"), ("esp_proposals", "aes256gcm16-esn"), ("rekey_time", "0")],
        );
        let Self { name, local, remote, proof, .. } = self;
        let (ours, theirs, secrets) = match proof {
            Proof::Secret(secret) => (
                "auth = psk".to_owned(),
                "auth = psk".to_owned(),
                format!(
                    "secrets {{\n  ike-{name} {{\n    id-local = {local}\n    id-remote = {remote}\n    secret = 0s{secret}\n  }}\n}}\n"
                ),
            ),
            Proof::Keys(own, other) => {
                let by = |key| format!("auth = pubkey\n      pubkeys = {key}.pem");
                (by(own), by(other), String::new())
            }
            Proof::Certificate(own) => {
                let ours = format!("auth = pubkey\n      certs = {own}.pem");
                (ours, "auth = pubkey".to_owned(), String::new())
            }
        };
        format!(
            "connections {{\n  {name} {{\n    local_addrs = {local}\n    remote_addrs = {remote}\n{ike}\
             \x20   local {{\n      {ours}\n      id = {local}\n    }}\n\
             \x20   remote {{\n      {theirs}\n      id = {remote}\n    }}\n\
             \x20   children {{\n      {name} {{\n{child}      }}\n    }}\n  }}\n}}\n{secrets}"
        )
    }
}

/// An IKE SA with its children, as `swanctl --list-sas` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The connection's name.
    pub name: String,
    /// Its number: the first is 1, and every attempt has one.
    pub number: u32,
    /// Such as ESTABLISHED.
    pub state: String,
    /// The states of its children, such as INSTALLED.
    pub children: Vec<String>,
}

impl Swan {
    /// Starts the daemon on a host. `settings` go into the section of the daemon, such as
    /// `retransmit_tries = 2`.
    ///
    /// # Errors
    /// When it does not answer, with its log.
    pub fn start(host: &Host, settings: &[&str]) -> Result<Self> {
        let settings: String = settings.iter().map(|line| format!("  {line}\n")).collect();
        host.write(
            &format!("{DIRECTORY}/strongswan.conf"),
            &format!(
                "charon-systemd {{\n  load_modular = yes\n  install_routes = no\n  journal {{\n    default = -1\n  }}\n\
                 \x20 filelog {{\n    lab {{\n      path = {LOG}\n      default = 1\n      ike_name = yes\n\
                 \x20     flush_line = yes\n      time_format = %T\n    }}\n  }}\n\
                 \x20 plugins {{\n    include /etc/strongswan.d/charon/*.conf\n  }}\n{settings}}}\n"
            ),
            0o600,
        )?;
        let mut command = Command::new("charon-systemd");
        command
            .env("STRONGSWAN_CONF", format!("{DIRECTORY}/strongswan.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let daemon = host.spawn(&mut command)?;
        let swan = Self { host: host.clone(), daemon };
        until("charon answers", Duration::from_secs(60), || swan.command("--stats"))
            .with_context(|| format!("charon's log on {}:\n{}", host.name(), swan.log()))?;
        Ok(swan)
    }

    /// The host that it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The daemon's process.
    pub fn daemon(&mut self) -> &mut Process {
        &mut self.daemon
    }

    /// Gives it a private key in PEM.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add_key(&self, name: &str, pem: &str) -> Result<()> {
        self.host.write(&format!("{DIRECTORY}/private/{name}.pem"), pem, 0o600)
    }

    /// Gives it a certificate in PEM; `name` begins with the directory that says what it is for, `x509/` or
    /// `x509ca/`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add_certificate(&self, name: &str, pem: &str) -> Result<()> {
        self.host.write(&format!("{DIRECTORY}/{name}.pem"), pem, 0o600)
    }

    /// Gives it a public key: the base64 of a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add_public_key(&self, name: &str, base64: &str) -> Result<()> {
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{base64}\n-----END PUBLIC KEY-----\n");
        self.host.write(&format!("{DIRECTORY}/pubkey/{name}.pem"), &pem, 0o600)
    }

    /// Replaces all connections and secrets by these.
    ///
    /// # Errors
    /// When swanctl refuses them.
    pub fn load(&self, connections: &[Connection]) -> Result<()> {
        let text: String = connections.iter().map(Connection::text).collect();
        self.host.write(&format!("{DIRECTORY}/swanctl.conf"), &text, 0o600)?;
        let said = self.command("--load-all --clear")?;
        let loaded = format!("loaded {} connections", connections.len());
        ensure!(said.contains(&loaded), "swanctl --load-all on {}: {said}", self.host.name());
        Ok(())
    }

    /// Brings a child up and waits for it.
    ///
    /// # Errors
    /// When it does not come up, with both what swanctl says and the log.
    pub fn initiate(&self, name: &str) -> Result<()> {
        self.command(&format!("--initiate --child {name} --timeout 20"))
            .map(drop)
            .with_context(|| format!("charon's log on {}:\n{}", self.host.name(), self.log()))
    }

    /// Runs swanctl.
    ///
    /// # Errors
    /// When it fails.
    pub fn command(&self, arguments: &str) -> Result<String> {
        let file = match arguments.starts_with("--load-all") {
            true => format!(" --file {DIRECTORY}/swanctl.conf"),
            false => String::new(),
        };
        self.host.run(&format!(
            "STRONGSWAN_CONF={DIRECTORY}/strongswan.conf SWANCTL_DIR={DIRECTORY} swanctl {arguments}{file} 2>&1"
        ))
    }

    /// The IKE SAs that it has.
    ///
    /// # Errors
    /// When swanctl fails.
    pub fn list(&self) -> Result<Vec<Listed>> {
        Ok(parse_listing(&self.command("--list-sas")?))
    }

    /// The daemon's log, or why it cannot be read.
    pub fn log(&self) -> String {
        self.host.read(LOG).unwrap_or_else(|error| format!("{error:#}"))
    }
}

/// Reads the human listing: IKE SAs at the margin, children indented by two.
fn parse_listing(text: &str) -> Vec<Listed> {
    let mut found: Vec<Listed> = Vec::new();
    for line in text.lines() {
        // `b-v4: #1, ESTABLISHED, IKEv2, …` and `  b-v4: #1, reqid 1, INSTALLED, TRANSPORT, …`
        let Some((name, rest)) = line.trim().split_once(": #") else { continue };
        let mut words = rest.split(", ");
        let number = words.next().and_then(|word| word.parse().ok()).unwrap_or_default();
        if line.starts_with(' ') {
            let state = words.find(|word| !word.starts_with("reqid"));
            if let (Some(ike), Some(state)) = (found.last_mut(), state) {
                ike.children.push(state.to_owned());
            }
        } else if let Some(state) = words.next() {
            found.push(Listed {
                name: name.to_owned(),
                number,
                state: state.to_owned(),
                children: Vec::new(),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read() {
        let text = "b-v4: #1, ESTABLISHED, IKEv2, aa_i* bb_r\n  local  '10.99.0.1' @ 10.99.0.1[500]\n\
                    \x20 b-v4: #1, reqid 1, INSTALLED, TRANSPORT, ESP:AES_GCM_16-256/ESN\n\
                    \x20 b-v4: #2, reqid 1, REKEYED, TRANSPORT\nc-v4: #2, CONNECTING, IKEv2\n";
        let listed = parse_listing(text);
        assert_eq!(listed.len(), 2);
        assert_eq!(listed[0].state, "ESTABLISHED");
        assert_eq!(listed[0].children, ["INSTALLED", "REKEYED"]);
        assert_eq!((listed[1].name.as_str(), listed[1].state.as_str()), ("c-v4", "CONNECTING"));
    }

    #[test]
    fn a_setting_replaces_its_default() {
        let connection = Connection {
            name: "b".into(),
            local: "10.99.0.1".into(),
            remote: "10.99.0.2".into(),
            proof: Proof::Secret("AAAA".into()),
            ike: vec![],
            child: vec![],
        };
        let text = connection.child("rekey_time = 2s").child("start_action = trap").text();
        assert!(text.contains("rekey_time = 2s") && text.contains("start_action = trap"));
        assert_eq!(text.matches("rekey_time").count(), 2, "one of the connection, one of the child:\n{text}");
    }
}
