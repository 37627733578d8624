//! Three etcds of the system, with TLS among them and to whoever asks.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use tempfile::TempDir;

/// How many there are.
pub const MEMBERS: usize = 3;
/// How long they may take for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster of etcd. It ends with this.
pub struct Etcds {
    directory: TempDir,
    /// The addresses of this cluster: each process has a network for its tests.
    net: String,
    test: u8,
    members: [Option<Child>; MEMBERS],
    /// What the directories of the data are called: a restored cluster has others.
    generation: usize,
}

impl Drop for Etcds {
    fn drop(&mut self) {
        (0..MEMBERS).for_each(|at| self.kill(at));
    }
}

/// `etcd` or `etcdctl`: of `$HOSTSEAL_ETCD_BIN`, of the system, or of Debian's packages.
fn program(name: &str) -> PathBuf {
    static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(directory);
    DIRECTORY.join(name)
}

/// Where they are; nowhere where the system finds them by itself.
fn directory() -> PathBuf {
    if let Some(directory) = env::var_os("HOSTSEAL_ETCD_BIN") {
        return directory.into();
    }
    if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_ok() {
        return PathBuf::new();
    }
    let cache =
        PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache/hostseal-etcd");
    let programs = cache.join("usr/bin");
    if !["etcd", "etcdctl"].iter().all(|name| programs.join(name).exists()) {
        unpack(&cache);
    }
    programs
}

/// Fetches Debian's packages and unpacks them: an installation would start a service.
fn unpack(cache: &Path) {
    let fetch = "mkdir -p \"$0\" && cd \"$0\" && apt-get -q download etcd-server etcd-client \
        && for package in etcd-*.deb; do dpkg-deb -x \"$package\" . || exit; done";
    let fetched = Command::new("sh").arg("-c").arg(fetch).arg(cache).output();
    assert!(
        fetched.as_ref().is_ok_and(|output| output.status.success()),
        "there is no etcd here, and Debian's cannot be fetched (apt-get install etcd-server etcd-client): {fetched:?}"
    );
}

impl Etcds {
    /// Starts three, and waits until they have a leader.
    pub fn start() -> Self {
        static COUNT: AtomicU8 = AtomicU8::new(1);
        let (process, test) = (std::process::id() % 65_000, COUNT.fetch_add(1, Ordering::Relaxed));
        let net = format!("127.{}.{}", process / 256 + 1, process % 256);
        let mut etcds = Self {
            directory: tempfile::tempdir().unwrap(),
            net,
            test,
            members: [const { None }; MEMBERS],
            generation: 0,
        };
        etcds.make_certificates();
        (0..MEMBERS).for_each(|at| etcds.run(at));
        etcds.leader();
        etcds
    }

    /// Where a file of the cluster is: `ca.pem`, `client.pem`, `client.key`, or those of `other`, which another CA
    /// has signed.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where each of them is asked.
    pub fn endpoints(&self) -> Vec<String> {
        (0..MEMBERS).map(|at| self.endpoint(at)).collect()
    }

    /// Where one of them is asked.
    pub fn endpoint(&self, at: usize) -> String {
        format!("https://{}:2379", self.address(at))
    }

    fn address(&self, at: usize) -> String {
        format!("{}.{}", self.net, usize::from(self.test) * MEMBERS + at)
    }

    /// Starts one.
    pub fn run(&mut self, at: usize) {
        let peers = self.peers();
        let (address, log) = (self.address(at), self.file(&format!("etcd{at}.log")));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut etcd = Command::new(program("etcd"));
        etcd.arg(format!("--name=m{at}")).arg("--data-dir").arg(self.data(at));
        etcd.arg(format!("--listen-client-urls=https://{address}:2379"));
        etcd.arg(format!("--advertise-client-urls=https://{address}:2379"));
        etcd.arg(format!("--listen-peer-urls=https://{address}:2380"));
        etcd.arg(format!("--initial-advertise-peer-urls=https://{address}:2380"));
        etcd.arg(format!("--initial-cluster={peers}")).arg("--initial-cluster-state=new");
        etcd.args(["--heartbeat-interval=100", "--election-timeout=500"]);
        for (side, option) in [("", "--client-cert-auth"), ("peer-", "--peer-client-cert-auth")] {
            etcd.arg(format!("--{side}cert-file")).arg(self.file("server.pem"));
            etcd.arg(format!("--{side}key-file")).arg(self.file("server.key"));
            etcd.arg(format!("--{side}trusted-ca-file")).arg(self.file("ca.pem")).arg(option);
        }
        etcd.stdout(log.try_clone().unwrap()).stderr(log);
        self.members[at] = Some(etcd.spawn().unwrap());
    }

    fn peers(&self) -> String {
        let peer = |at| format!("m{at}=https://{}:2380", self.address(at));
        (0..MEMBERS).map(peer).collect::<Vec<_>>().join(",")
    }

    fn data(&self, at: usize) -> PathBuf {
        self.file(&format!("data{at}-{}", self.generation))
    }

    /// Kills one, as a power cut does.
    pub fn kill(&mut self, at: usize) {
        if let Some(mut member) = self.members[at].take() {
            member.kill().unwrap();
            member.wait().unwrap();
        }
    }

    /// Has one do nothing, or go on.
    pub fn signal(&self, at: usize, signal: &str) {
        let pid = self.members[at].as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Which of them leads; waits until one does.
    pub fn leader(&self) -> usize {
        let started = Instant::now();
        loop {
            let running = (0..MEMBERS).filter(|at| self.members[*at].is_some());
            for at in running {
                let status = self.try_ctl(&[&self.endpoint(at)], &["endpoint", "status", "--write-out=json"]);
                let status: Option<serde_json::Value> =
                    status.and_then(|text| serde_json::from_str(&text).ok());
                let Some(status) = status else { continue };
                let status = &status[0]["Status"];
                if status["leader"].is_u64() && status["leader"] == status["header"]["member_id"] {
                    return at;
                }
            }
            assert!(started.elapsed() < PATIENCE, "there is no leader: {}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs `etcdctl`, and returns what it prints.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let endpoints = self.endpoints();
        let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
        self.try_ctl(&endpoints, arguments).unwrap_or_else(|| panic!("etcdctl {arguments:?}: {}", self.log()))
    }

    fn try_ctl(&self, endpoints: &[&str], arguments: &[&str]) -> Option<String> {
        let mut ctl = Command::new(program("etcdctl"));
        ctl.env("ETCDCTL_API", "3").arg("--endpoints").arg(endpoints.join(",")).args(arguments);
        ctl.arg("--cacert").arg(self.file("ca.pem"));
        ctl.arg("--cert").arg(self.file("client.pem")).arg("--key").arg(self.file("client.key"));
        let output = ctl.output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// Saves what is there now.
    pub fn save(&self) {
        let file = self.file("snapshot");
        let arguments = ["snapshot", "save", file.to_str().unwrap()];
        self.try_ctl(&[&self.endpoint(self.leader())], &arguments).unwrap();
    }

    /// Makes a new cluster of what was saved, in place of this one.
    pub fn restore(&mut self) {
        (0..MEMBERS).for_each(|at| self.kill(at));
        self.generation += 1;
        let (file, peers) = (self.file("snapshot"), self.peers());
        for at in 0..MEMBERS {
            let (data, name) = (self.data(at), format!("--name=m{at}"));
            let own = format!("--initial-advertise-peer-urls=https://{}:2380", self.address(at));
            let cluster = format!("--initial-cluster={peers}");
            let data = ["--data-dir", data.to_str().unwrap()];
            let what = ["snapshot", "restore", file.to_str().unwrap(), &name, &own, &cluster];
            self.try_ctl(&[], &[&what[..], &data[..]].concat()).unwrap();
        }
        (0..MEMBERS).for_each(|at| self.run(at));
        self.leader();
    }

    fn log(&self) -> String {
        let tail = |at| {
            let log = fs::read_to_string(self.file(&format!("etcd{at}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(5)..].join("\n")
        };
        (0..MEMBERS).map(tail).collect::<Vec<_>>().join("\n")
    }

    fn make_certificates(&self) {
        for (ca, leaves) in [("ca", &["server", "client"][..]), ("other-ca", &["other"])] {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, ca);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
            fs::write(self.file(&format!("{ca}.pem")), issuer.pem()).unwrap();
            for leaf in leaves {
                let mut params = CertificateParams::default();
                params.distinguished_name.push(DnType::CommonName, *leaf);
                let addresses = (0..MEMBERS).map(|at| self.address(at).parse::<IpAddr>().unwrap());
                // They come from there when they talk to each other, which they check.
                let addresses = addresses.chain([Ipv4Addr::LOCALHOST.into()]);
                params.subject_alt_names = addresses.map(SanType::IpAddress).collect();
                params.extended_key_usages =
                    vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
                let key = KeyPair::generate().unwrap();
                fs::write(self.file(&format!("{leaf}.pem")), params.signed_by(&key, &issuer).unwrap().pem())
                    .unwrap();
                fs::write(self.file(&format!("{leaf}.key")), key.serialize_pem()).unwrap();
            }
        }
    }
}
