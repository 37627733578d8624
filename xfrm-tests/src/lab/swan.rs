//! Stock strongSwan as a host of the lab: our independent oracle.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::annex::STRONGSWAN;
use super::connection::{Connection, PpkOfEnd, Proof};
use super::host::{Host, Process};
use super::manual;
use super::peer::{Listed, Order, Peer};
use super::wait::until;

/// Where a host's strongSwan keeps its files. /run is the host's own.
pub const DIRECTORY: &str = "/run/swan";
/// The daemon's log.
const LOG: &str = "/run/swan/charon.log";

/// strongSwan's daemon on a host. It ends when this goes.
pub struct Swan {
    host: Host,
    release: Release,
    daemon: Process,
}

/// Which strongSwan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Debian stable's.
    Stable,
    /// Debian testing's, which knows ML-KEM.
    Testing,
}

impl Release {
    /// Where it is in the root.
    fn place(self) -> &'static str {
        match self {
            Self::Stable => "/",
            Self::Testing => STRONGSWAN.path,
        }
    }
}

/// A connection in the words of swanctl.conf.
fn text(connection: &Connection) -> String {
    let Connection { name, local, known_as, remote, proof, proposals, esp_proposals, .. } = connection;
    let (ours, theirs) = match proof {
        Proof::Secret(_) => ("auth = psk".to_owned(), "auth = psk".to_owned()),
        Proof::Keys { .. } => {
            let by = |whose| format!("auth = pubkey\n      pubkeys = {name}-{whose}.pem");
            (by("own"), by("other"))
        }
        Proof::Certificate { .. } => {
            (format!("auth = pubkey\n      certs = {name}-own.pem"), "auth = pubkey".to_owned())
        }
    };
    let secrets = match proof {
        Proof::Secret(secret) => format!(
            "secrets {{\n  ike-{name} {{\n    id-local = {known_as}\n    id-remote = {remote}\n    secret = 0s{secret}\n  }}\n}}\n"
        ),
        Proof::Keys { .. } | Proof::Certificate { .. } => String::new(),
    };
    let (ppk, of_ppk) = connection.ppk.as_ref().map(|ppk| self::ppk(name, ppk)).unwrap_or_default();
    let encap = if connection.encap { "yes" } else { "no" };
    let start_action = if connection.starts { "start" } else { "none" };
    format!(
        "connections {{\n  {name} {{\n\
         \x20   version = 2\n    local_addrs = {local}\n    remote_addrs = {remote}\n\
         \x20   proposals = {proposals}\n    encap = {encap}\n\
         \x20   rekey_time = 0\n    mobike = no\n    keyingtries = 0\n{ppk}\
         \x20   local {{\n      {ours}\n      id = {known_as}\n    }}\n\
         \x20   remote {{\n      {theirs}\n      id = {remote}\n    }}\n\
         \x20   children {{\n      {name} {{\n\
         \x20       mode = transport\n        esp_proposals = {esp_proposals}\n\
         \x20       rekey_time = 0\n        start_action = {start_action}\n\
         \x20     }}\n    }}\n  }}\n}}\n{secrets}{of_ppk}"
    )
}

/// What a connection says of its PPK, and the secret that goes with it.
fn ppk(name: &str, PpkOfEnd { id, key, required, .. }: &PpkOfEnd) -> (String, String) {
    let required = if *required { "yes" } else { "no" };
    (
        format!("    ppk_id = {id}\n    ppk_required = {required}\n"),
        key.iter()
            .map(|key| {
                format!("secrets {{\n  ppk-{name} {{\n    id = {id}\n    secret = 0s{key}\n  }}\n}}\n")
            })
            .collect(),
    )
}

/// A public key in PEM.
fn public_key(base64: &str) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{base64}\n-----END PUBLIC KEY-----\n")
}

/// What a connection is proven with, as files by their names.
fn files(connection: &Connection) -> Vec<(String, String)> {
    let Connection { name, proof, .. } = connection;
    match proof {
        Proof::Secret(_) => Vec::new(),
        Proof::Keys { private, own, other } => vec![
            (format!("private/{name}.pem"), private.clone()),
            (format!("pubkey/{name}-own.pem"), public_key(own)),
            (format!("pubkey/{name}-other.pem"), public_key(other)),
        ],
        Proof::Certificate { private, own, cas } => {
            let cas = cas.iter().enumerate();
            let cas = cas.map(|(number, ca)| (format!("x509ca/{name}-{number}.pem"), ca.clone()));
            let own = [
                (format!("private/{name}.pem"), private.clone()),
                (format!("x509/{name}-own.pem"), own.clone()),
            ];
            own.into_iter().chain(cas).collect()
        }
    }
}

impl Swan {
    /// Starts the daemon of Debian stable on a host. `settings` go into its section, such as
    /// `retransmit_tries = 2`.
    ///
    /// # Errors
    /// When it does not answer, with its log.
    pub fn start(host: &Host, settings: &[&str]) -> Result<Self> {
        Self::start_release(Release::Stable, host, settings)
    }

    /// The same of any release.
    ///
    /// # Errors
    /// When it does not answer, with its log.
    pub fn start_release(release: Release, host: &Host, settings: &[&str]) -> Result<Self> {
        if release == Release::Testing {
            STRONGSWAN.open(host)?;
        }
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
        let mut command = Command::new("chroot");
        command
            .args([release.place(), "charon-systemd"])
            .env("STRONGSWAN_CONF", format!("{DIRECTORY}/strongswan.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let daemon = host.spawn(&mut command)?;
        let swan = Self { host: host.clone(), release, daemon };
        until("charon answers", Duration::from_secs(60), || swan.command("--stats"))
            .with_context(|| format!("charon's log on {}:\n{}", host.name(), swan.log()))?;
        Ok(swan)
    }

    /// Replaces all connections and secrets by what a file of the operator's says, and reads all keys and certificates
    /// anew.
    ///
    /// # Errors
    /// When swanctl refuses them.
    pub fn load_text(&self, text: &str) -> Result<String> {
        self.host.write(&format!("{DIRECTORY}/swanctl.conf"), text, 0o600)?;
        self.command("--load-all --clear")
    }

    /// Gives it a file below its directory, such as `x509/NAME.pem`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn give(&self, name: &str, text: &str) -> Result<()> {
        self.host.write(&format!("{DIRECTORY}/{name}"), text, 0o600)
    }

    /// Gives it a public key: the base64 of a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn give_public_key(&self, name: &str, base64: &str) -> Result<()> {
        self.give(&format!("pubkey/{name}.pem"), &public_key(base64))
    }

    /// Brings a child up and waits for it. The other end may have been sooner.
    ///
    /// # Errors
    /// When it does not come up, with both what swanctl says and the log.
    pub fn initiate(&self, name: &str) -> Result<()> {
        self.command(&format!("--initiate --child {name} --timeout 20"))
            .map(drop)
            .or_else(|error| match format!("{error:#}").contains("due to existing duplicate") {
                true => Ok(()),
                false => Err(error),
            })
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
        let place = self.release.place();
        self.host.run(&format!(
            "STRONGSWAN_CONF={DIRECTORY}/strongswan.conf SWANCTL_DIR={DIRECTORY} chroot {place} swanctl {arguments}{file} 2>&1"
        ))
    }
}

impl Peer for Swan {
    fn host(&self) -> &Host {
        &self.host
    }

    fn daemon(&mut self) -> &mut Process {
        &mut self.daemon
    }

    fn version(&self) -> Result<String> {
        // `strongSwan 6.1.0 charon-systemd (Linux …)`
        let said = self.command("--version --daemon")?;
        let line = said.lines().find(|line| line.starts_with("strongSwan ")).with_context(|| said.clone())?;
        Ok(line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
    }

    fn load(&self, connections: &[Connection]) -> Result<()> {
        for (name, text) in connections.iter().flat_map(files) {
            self.give(&name, &text)?;
        }
        let mut said: String = connections.iter().map(text).collect();
        let mut count = connections.len();
        if connections.iter().any(|connection| connection.remote.contains(':')) {
            said += &manual::block(manual::NEIGHBOURS)?;
            count += 1;
        }
        let said = self.load_text(&said)?;
        let loaded = format!("loaded {count} connections");
        ensure!(said.contains(&loaded), "swanctl --load-all on {}: {said}", self.host.name());
        Ok(())
    }

    fn order(&self, order: Order, name: &str) -> Result<()> {
        let arguments = match order {
            Order::Initiate => return self.initiate(name),
            Order::RekeyChild => "--rekey --child",
            Order::RekeyIke => "--rekey --ike",
            Order::DeleteChild => "--terminate --child",
            Order::DeleteIke => "--terminate --ike",
        };
        self.command(&format!("{arguments} {name}")).map(drop)
    }

    fn list(&self) -> Result<Vec<Listed>> {
        Ok(parse_listing(&self.command("--list-sas")?))
    }

    fn log(&self) -> String {
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
    fn a_ppk_is_said_as_the_manual_has_it() {
        let key = Some("BASE64OFTHEPPK".to_owned());
        let (connection, secrets) =
            ppk("a", &PpkOfEnd { id: "demo-1".to_owned(), key, required: true, early: false });
        let shown = format!("connections {{\n  a {{\n{connection}  }}\n}}\n{secrets}");
        assert_eq!(manual::block(manual::SWANCTL_PPK).expect("it is there"), shown);
    }

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
}
