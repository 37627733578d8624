//! Stock Libreswan as a host of the lab.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::annex::LIBRESWAN;
use super::connection::{Connection, Proof};
use super::host::{Host, Process};
use super::peer::{Listed, Order, Peer};
use super::wait::until;

/// Where a host's Libreswan keeps its files. /run is the host's own.
const DIRECTORY: &str = "/run/libreswan";
/// The daemon's log.
const LOG: &str = "/run/libreswan/pluto.log";
/// What a file begins with.
const SETUP: &str = "config setup\n";

/// Libreswan's daemon on a host. It ends when this goes.
pub struct Libreswan {
    host: Host,
    daemon: Process,
}

impl Libreswan {
    /// Starts the daemon on a host, without connections.
    ///
    /// # Errors
    /// When it does not answer, with its log.
    pub fn start(host: &Host) -> Result<Self> {
        LIBRESWAN.open(host)?;
        host.write(&format!("{DIRECTORY}/ipsec.conf"), SETUP, 0o600)?;
        host.write(&format!("{DIRECTORY}/ipsec.secrets"), "", 0o600)?;
        let place = LIBRESWAN.path;
        host.run(&format!(
            "mkdir -p {DIRECTORY}/nss {DIRECTORY}/run && \
             {{ test -e {DIRECTORY}/nss/key4.db || chroot {place} certutil -N -d sql:{DIRECTORY}/nss --empty-password; }}"
        ))?;
        let mut command = Command::new("chroot");
        command
            .args([place, LIBRESWAN.program, "--nofork", "--no-dnssec", "--logfile", LOG])
            .args(["--rundir".to_owned(), format!("{DIRECTORY}/run")])
            .args(["--config".to_owned(), format!("{DIRECTORY}/ipsec.conf")])
            .args(["--secretsfile".to_owned(), format!("{DIRECTORY}/ipsec.secrets")])
            .args(["--nssdir".to_owned(), format!("{DIRECTORY}/nss")])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let libreswan = Self { host: host.clone(), daemon: host.spawn(&mut command)? };
        // It listens when it has read its file.
        until("pluto listens", Duration::from_secs(60), || {
            match libreswan.log().contains("loading secrets from") {
                true => libreswan.whack("--briefstatus"),
                false => bail!("it does not"),
            }
        })
        .with_context(|| format!("pluto's log on {}:\n{}", host.name(), libreswan.log()))?;
        Ok(libreswan)
    }

    /// Takes what files of the operator's say, beside what is there.
    ///
    /// # Errors
    /// When it refuses them, with what it says.
    pub fn load_text(&self, conf: &str, secrets: &str) -> Result<()> {
        self.host.write(&format!("{DIRECTORY}/ipsec.conf"), conf, 0o600)?;
        self.host.write(&format!("{DIRECTORY}/ipsec.secrets"), secrets, 0o600)?;
        self.whack("--rereadsecrets")?;
        let place = LIBRESWAN.path;
        self.host
            .run(&format!(
                "chroot {place} /usr/libexec/ipsec/addconn --config {DIRECTORY}/ipsec.conf \
                 --ctlsocket {DIRECTORY}/run/pluto.ctl --autoall 2>&1"
            ))
            .map(drop)
    }

    /// Runs whack.
    ///
    /// # Errors
    /// When it fails.
    fn whack(&self, arguments: &str) -> Result<String> {
        let place = LIBRESWAN.path;
        self.host.run(&format!(
            "chroot {place} /usr/libexec/ipsec/whack --rundir {DIRECTORY}/run {arguments} 2>&1"
        ))
    }
}

impl Peer for Libreswan {
    fn host(&self) -> &Host {
        &self.host
    }

    fn daemon(&mut self) -> &mut Process {
        &mut self.daemon
    }

    fn version(&self) -> Result<String> {
        Ok(self.whack("--version")?.trim().to_owned())
    }

    fn load(&self, connections: &[Connection]) -> Result<()> {
        for listed in self.list()? {
            self.whack(&format!("--delete --name {}", listed.name))?;
        }
        let texts = connections.iter().map(text).collect::<Result<Vec<_>>>()?;
        let secrets = connections.iter().map(secret).collect::<Result<Vec<_>>>()?;
        self.load_text(&format!("{SETUP}{}", texts.concat()), &secrets.concat())
    }

    fn order(&self, order: Order, name: &str) -> Result<()> {
        let verb = match order {
            Order::Initiate => "initiate",
            // Otherwise whack sometimes stays after it is done.
            Order::RekeyChild => "asynchronous --rekey-child",
            Order::RekeyIke => "asynchronous --rekey-ike",
            Order::DeleteChild => "delete-child",
            Order::DeleteIke => "delete-ike",
        };
        self.whack(&format!("--{verb} --name {name}"))
            .map(drop)
            .with_context(|| format!("pluto's log on {}:\n{}", self.host.name(), self.log()))
    }

    fn list(&self) -> Result<Vec<Listed>> {
        Ok(parse_states(&self.whack("--showstates")?))
    }

    fn log(&self) -> String {
        self.host.read(LOG).unwrap_or_else(|error| format!("{error:#}"))
    }
}

/// A connection in the words of ipsec.conf.
fn text(connection: &Connection) -> Result<String> {
    let Connection { name, local, known_as, remote, .. } = connection;
    let ike = algorithms(&connection.proposals)?;
    let (cipher, esn) = match connection.esp_proposals.strip_suffix("-esn") {
        Some(cipher) => (cipher, "yes"),
        None => (connection.esp_proposals.as_str(), "no"),
    };
    // A group that follows a cipher without an integrity would be read as one.
    let esp = algorithms(cipher)?.replace("-dh", ";dh");
    let pfs = if esp.contains(";dh") { "yes" } else { "no" };
    let encapsulation = if connection.encap { "yes" } else { "auto" };
    let ppk = connection.ppk.as_ref().map(|ppk| {
        let need = if ppk.required { "insist" } else { "yes" };
        let early = if ppk.early { "    intermediate=yes\n" } else { "" };
        format!("    ppk={need}\n    ppk-ids={}\n{early}", ppk.id)
    });
    let ppk = ppk.unwrap_or_default();
    let auto = if connection.starts { "start" } else { "add" };
    Ok(format!(
        "conn {name}\n    left={local}\n    leftid={known_as}\n    right={remote}\n    rightid={remote}\n    \
         authby=secret\n    keyexchange=ikev2\n    type=transport\n    ike={ike}\n    esp={esp}\n    esn={esn}\n    pfs={pfs}\n    \
         encapsulation={encapsulation}\n    auto={auto}\n{ppk}"
    ))
}

/// Its line of ipsec.secrets.
fn secret(Connection { known_as, remote, proof, ppk, .. }: &Connection) -> Result<String> {
    let key = ppk.as_ref().and_then(|ppk| Some((&ppk.id, ppk.key.as_ref()?)));
    let ppk = key.map(|(id, key)| ppk_secret((known_as, remote), id, key));
    match proof {
        Proof::Secret(secret) => {
            Ok(format!("{known_as} {remote} : PSK 0s{secret}\n{}", ppk.unwrap_or_default()))
        }
        Proof::Keys { .. } | Proof::Certificate { .. } => {
            bail!("the lab gives Libreswan nothing but secrets")
        }
    }
}

/// The line of a PPK.
fn ppk_secret((local, remote): (&str, &str), id: &str, key: &str) -> String {
    format!("{local} {remote} : PPKS \"{id}\" 0s{key}\n")
}

/// A proposal in Libreswan's notation.
fn algorithms(proposal: &str) -> Result<String> {
    let words = proposal.split('-').map(|word| {
        Ok(match word {
            "aes256gcm16" => "aes_gcm256",
            "aes128gcm16" => "aes_gcm128",
            "aes256" => "aes256",
            "prfsha256" | "sha256" => "sha2_256",
            "prfsha384" | "sha384" => "sha2_384",
            "prfsha512" => "sha2_512",
            "x25519" => "dh31",
            "ecp256" => "dh19",
            "ecp384" => "dh20",
            other => bail!("Libreswan has no `{other}`"),
        })
    });
    Ok(words.collect::<Result<Vec<_>>>()?.join("-"))
}

/// Reads `whack --showstates`: a line for each IKE SA and for each child, which names its IKE SA.
fn parse_states(text: &str) -> Vec<Listed> {
    // `#2: "a-v4":500 ESTABLISHED_CHILD_SA (established Child SA); REKEY in 28529s; …; IKE SA #1; idle;`
    // A child that a rekeyed IKE SA handed on stands before the one that has it now.
    let mut found: Vec<Listed> = Vec::new();
    let mut children = Vec::new();
    for line in text.lines() {
        let Some((number, rest)) = line.strip_prefix('#').and_then(|rest| rest.split_once(": \"")) else {
            continue;
        };
        // What follows is the port, or else it is a line about traffic.
        let Some((name, rest)) = rest.split_once("\":") else { continue };
        let (Ok(number), Some(state)) = (number.parse(), rest.split_whitespace().nth(1)) else { continue };
        let of = rest.split("; IKE SA #").nth(1).and_then(|rest| rest.split(';').next()?.parse::<u32>().ok());
        match of {
            None => found.push(Listed {
                name: name.to_owned(),
                number,
                state: state.trim_end_matches("_IKE_SA").to_owned(),
                children: Vec::new(),
            }),
            Some(ike) => children.push((ike, state)),
        }
    }
    for (ike, state) in children {
        let state = if state == "ESTABLISHED_CHILD_SA" { "INSTALLED" } else { state };
        let parent = found.iter_mut().find(|listed| listed.number == ike);
        parent.into_iter().for_each(|listed| listed.children.push(state.to_owned()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::manual;

    #[test]
    fn a_ppk_is_said_as_the_manual_has_it() {
        let shown = manual::block(manual::IPSEC_SECRETS_PPK).expect("it is there");
        assert_eq!(shown, ppk_secret(("10.99.0.2", "10.99.0.1"), "demo-1", "BASE64OFTHEPPK"));
    }

    #[test]
    fn states_are_read() {
        let text = "#2: \"a-v4\":500 ESTABLISHED_CHILD_SA (established Child SA); newest; eroute owner; IKE SA #3; idle;\n\
                    #2: \"a-v4\" esp.cbaf7186@10.99.0.1 esp.400a1301@10.99.0.2 Traffic: ESPin=0B ESPout=0B\n\
                    #3: \"a-v4\":500 ESTABLISHED_IKE_SA (established IKE SA); REKEY in 28529s; newest; idle;\n";
        let [only] = &parse_states(text)[..] else { panic!("one IKE SA") };
        assert_eq!((only.name.as_str(), only.number, only.state.as_str()), ("a-v4", 3, "ESTABLISHED"));
        assert_eq!(only.children, ["INSTALLED"]);
    }

    #[test]
    fn proposals_are_said_in_its_words() {
        let said = |proposal| algorithms(proposal).expect("it has them");
        assert_eq!(said("aes256gcm16-prfsha384-x25519"), "aes_gcm256-sha2_384-dh31");
        assert_eq!(said("aes256-sha256-ecp384"), "aes256-sha2_256-dh20");
        assert!(algorithms("aes256gcm16-prfsha384-x25519-ke1_mlkem768").is_err());
    }
}
