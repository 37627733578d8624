//! Stock etcds on hosts of the lab, with TLS among them and to those who ask, and the helper of hostseal that does.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use serde_json::Value;

use super::agent::CONFIG;
use super::host::{Host, Process};
use super::wait::until;

/// Where the helper lies inside the place.
const HELPER: &str = "/mnt/hostseal-etcd";
/// Where it listens, unless the file says otherwise.
const SOCKET: &str = "/run/hostseal-etcd.sock";
/// Where the certificates of an etcd are.
const FILES: &str = "/etc/etcd";
/// Where a snapshot lies, for all hosts.
const SNAPSHOT: &str = "/tmp/etcd.snapshot";
/// How long etcds may take for anything, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// etcds that are one cluster.
pub struct Etcds {
    hosts: Vec<Host>,
    running: Vec<Option<Process>>,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Etcds {
    /// Starts one on each of these hosts, and waits until they have a leader.
    ///
    /// # Errors
    /// When they do not find each other.
    pub fn start(hosts: &[Host]) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "lab etcd");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let running = hosts.iter().map(|_| None).collect();
        let mut etcds = Self { hosts: hosts.to_vec(), running, issuer };
        for (at, host) in hosts.iter().enumerate() {
            etcds.certify(host, FILES)?;
            etcds.run(at)?;
        }
        etcds.leader()?;
        Ok(etcds)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.hosts.len()
    }

    /// Gives a host a certificate of theirs, in this directory: `ca.pem`, `own.pem`, `own.key`.
    fn certify(&self, host: &Host, directory: &str) -> Result<()> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, host.name());
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(host.v4()))];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        host.write(&format!("{directory}/ca.pem"), &self.issuer.pem(), 0o644)?;
        host.write(&format!("{directory}/own.pem"), &certificate.pem(), 0o644)?;
        host.write(&format!("{directory}/own.key"), &key.serialize_pem(), 0o600)
    }

    /// Starts one of them, again with what it had.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&mut self, at: usize) -> Result<()> {
        let host = &self.hosts[at];
        let address = host.v4();
        let log =
            host.within(|| std::fs::File::options().create(true).append(true).open("/run/etcd.log"))??;
        let mut etcd = Command::new("etcd");
        etcd.args(self.membership(host)).arg("--initial-cluster-state=new");
        for (whose, port) in [("client", 2379), ("peer", 2380)] {
            etcd.arg(format!("--listen-{whose}-urls=https://{address}:{port}"));
        }
        etcd.arg(format!("--advertise-client-urls=https://{address}:2379"));
        for (side, option) in [("", "--client-cert-auth"), ("peer-", "--peer-client-cert-auth")] {
            etcd.arg(format!("--{side}cert-file={FILES}/own.pem"))
                .arg(format!("--{side}key-file={FILES}/own.key"));
            etcd.arg(format!("--{side}trusted-ca-file={FILES}/ca.pem")).arg(option);
        }
        etcd.stdout(log.try_clone()?).stderr(log);
        self.running[at] = Some(host.spawn(&mut etcd)?);
        Ok(())
    }

    /// What tells an etcd, and what makes one of a snapshot, who it is and who the others are.
    fn membership(&self, host: &Host) -> [String; 4] {
        let peer = |host: &Host| format!("https://{}:2380", host.v4());
        let peers: Vec<String> =
            self.hosts.iter().map(|host| format!("{}={}", host.name(), peer(host))).collect();
        [
            "--data-dir=/run/etcd".to_owned(),
            format!("--name={}", host.name()),
            format!("--initial-cluster={}", peers.join(",")),
            format!("--initial-advertise-peer-urls={}", peer(host)),
        ]
    }

    /// Takes a snapshot of what they have.
    ///
    /// # Errors
    /// When etcdctl fails.
    pub fn save(&self) -> Result<()> {
        self.ctl(self.leader()?, &format!("snapshot save {SNAPSHOT}")).map(drop)
    }

    /// Has all of them begin anew with what the snapshot holds, as their operator does after a disaster.
    ///
    /// # Errors
    /// When etcdctl fails, or one cannot be started.
    pub fn restore(&mut self) -> Result<()> {
        for at in 0..self.hosts.len() {
            self.kill(at);
            self.hosts[at].run("rm -r /run/etcd")?;
            let membership = self.membership(&self.hosts[at]).join(" ");
            self.ctl(at, &format!("snapshot restore {SNAPSHOT} {membership}"))?;
        }
        (0..self.hosts.len()).try_for_each(|at| self.run(at))
    }

    /// Cuts the power of one of them.
    pub fn kill(&mut self, at: usize) {
        self.running[at] = None;
    }

    /// Which of them leads; waits until one does.
    ///
    /// # Errors
    /// When none does for long.
    pub fn leader(&self) -> Result<usize> {
        until("an etcd leads", LIMIT, || {
            for at in (0..self.hosts.len()).filter(|at| self.running[*at].is_some()) {
                let Ok(status) = self.ctl(at, "endpoint status --write-out=json") else { continue };
                let status: Value = serde_json::from_str(&status)?;
                let status = &status[0]["Status"];
                if status["leader"].is_u64() && status["leader"] == status["header"]["member_id"] {
                    return Ok(at);
                }
            }
            let log = self.hosts[0].read("/run/etcd.log")?;
            bail!("{}", log.lines().rev().take(5).collect::<Vec<_>>().join("\n"));
        })
    }

    /// What `etcdctl` prints on the host of one of them.
    ///
    /// # Errors
    /// When it fails.
    pub fn ctl(&self, at: usize, arguments: &str) -> Result<String> {
        let host = &self.hosts[at];
        host.run(&format!(
            "ETCDCTL_API=3 etcdctl --endpoints=https://{}:2379 --cacert={FILES}/ca.pem --cert={FILES}/own.pem \
             --key={FILES}/own.key {arguments}",
            host.v4()
        ))
    }

    /// How many entries are stored.
    ///
    /// # Errors
    /// When no etcd says it.
    pub fn stored(&self) -> Result<usize> {
        let listed = self.ctl(self.leader()?, "get --prefix --keys-only /hostseal/")?;
        Ok(listed.lines().filter(|line| line.starts_with("/hostseal/")).count())
    }

    /// Has a host keep its roster there: starts the helper, and writes its file. The agent is to be told.
    ///
    /// # Errors
    /// When the helper does not start.
    pub fn serve(&self, host: &Host) -> Result<Process> {
        self.certify(host, "/etc/hostseal/etcd")?;
        let endpoints: Vec<String> =
            self.hosts.iter().map(|host| format!("https://{}:2379", host.v4())).collect();
        let text = format!(
            "[cluster]\nstore = \"etcd\"\nendpoints = {endpoints:?}\nca = \"/etc/hostseal/etcd/ca.pem\"\n\
             certificate = \"/etc/hostseal/etcd/own.pem\"\nkey = \"/etc/hostseal/etcd/own.key\"\n"
        );
        let helper = start_helper(host)?;
        host.write(CONFIG, &text, 0o644)?;
        Ok(helper)
    }
}

/// Starts the helper on a host, as root does it where there is no systemd.
///
/// # Errors
/// When it does not listen.
pub fn start_helper(host: &Host) -> Result<Process> {
    let log =
        host.within(|| std::fs::File::options().create(true).append(true).open("/run/helper.log"))??;
    let mut helper = Command::new(HELPER);
    helper.args(["--listen", SOCKET, "--user", "nobody"]).stdout(log.try_clone()?).stderr(log);
    let helper = host.spawn(&mut helper)?;
    until("the helper listens", LIMIT, || {
        let listens = host.within(|| Path::new(SOCKET).exists())?;
        listens.then_some(()).with_context(|| host.read("/run/helper.log").unwrap_or_default())
    })?;
    Ok(helper)
}
