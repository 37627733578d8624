//! What stands in the place of AWS. ministack checks signatures, policies, the state of keys and the encryption context;
//! moto checks the last of these alone, and knows ReEncrypt, which ministack does not.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use serde_json::Value;
use tempfile::TempDir;

/// How long it may take to start, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where it listens.
const PORT: &str = "4566";
/// The region of its keys; the helper is told no other way than by their names.
const REGION: &str = "eu-central-1";
/// Whoever calls himself that may do everything.
pub const ROOT: &str = "test";

/// Which program.
#[derive(Clone, Copy)]
enum Program {
    Ministack,
    Moto,
}

/// It ends with this.
pub struct StandIn {
    program: Program,
    directory: TempDir,
    address: String,
    running: Option<Child>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Program {
    /// Where it lies: fetched if it is not here yet.
    fn directory(self) -> &'static PathBuf {
        static MINISTACK: LazyLock<PathBuf> = LazyLock::new(|| fetched("ministack"));
        static MOTO: LazyLock<PathBuf> = LazyLock::new(|| fetched("moto"));
        match self {
            Self::Ministack => &MINISTACK,
            Self::Moto => &MOTO,
        }
    }
}

fn fetched(name: &str) -> PathBuf {
    let script = format!("{}/tests/{name}", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(script).output().expect("sh runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} cannot be fetched (apt-get install python3-pip): {said}");
    String::from_utf8(output.stdout).unwrap().trim().into()
}

impl StandIn {
    /// Starts ministack, and waits until it answers.
    pub fn ministack() -> Self {
        Self::start(Program::Ministack)
    }

    /// Starts moto, and waits until it answers.
    pub fn moto() -> Self {
        Self::start(Program::Moto)
    }

    fn start(program: Program) -> Self {
        static COUNT: AtomicU8 = AtomicU8::new(1);
        let (process, test) = (std::process::id() % 65_000, COUNT.fetch_add(1, Ordering::Relaxed));
        let address = format!("127.{}.{}.{test}", process / 256 + 1, process % 256);
        let mut it = Self { program, directory: tempfile::tempdir().unwrap(), address, running: None };
        it.make_certificates();
        it.run();
        it
    }

    fn run(&mut self) {
        let log = File::create(self.file("log")).unwrap();
        let mut python = Command::new("python3");
        python.current_dir(self.directory.path());
        python.env("PYTHONPATH", self.program.directory()).env("PYTHONDONTWRITEBYTECODE", "1");
        let [certificate, key] = ["server.pem", "server.key"].map(|name| self.file(name));
        match self.program {
            Program::Ministack => {
                python.args(["-m", "ministack"]);
                python.env("BIND_HOST", &self.address).env("GATEWAY_PORT", PORT);
                python.env("SERVICES", "iam,kms,sts").env("IOT_MTLS_ENABLED", "0").env("AUTH", "true");
                python.env("USE_SSL", "1").env("MINISTACK_SSL_CERT", certificate);
                python.env("MINISTACK_SSL_KEY", key);
            }
            Program::Moto => {
                python.args(["-m", "moto.server", "-H", &self.address, "-p", PORT]);
                python.arg("-c").arg(certificate).arg("-k").arg(key);
            }
        }
        python.stdout(log.try_clone().unwrap()).stderr(log);
        self.running = Some(python.spawn().expect("python3 runs (apt-get install python3)"));
        let started = Instant::now();
        let target = "x-amz-target: TrentService.ListKeys";
        while let Err(error) = self.try_call("kms", &["-H", target, "-d", "{}"]) {
            assert!(started.elapsed() < PATIENCE, "it does not answer: {error}: {}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it: nobody answers any more.
    pub fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill().unwrap();
            running.wait().unwrap();
        }
    }

    /// A file of this one: `ca.pem` has signed for it, and `other-ca.pem` has not.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where it is asked.
    pub fn endpoint(&self) -> String {
        format!("https://{}:{PORT}", self.address)
    }

    /// A new key, that whoever has rights by IAM may use.
    pub fn key(&self) -> String {
        let made = self.kms("CreateKey", &serde_json::json!({}));
        made["KeyMetadata"]["Arn"].as_str().unwrap().to_owned()
    }

    /// Has the owner of all keys do something.
    pub fn kms(&self, operation: &str, what: &Value) -> Value {
        let (target, what) = (format!("x-amz-target: TrentService.{operation}"), what.to_string());
        let said = self.try_call("kms", &["-H", &target, "-d", &what]).unwrap();
        serde_json::from_str(&said).unwrap_or_default()
    }

    /// Has the owner do something to a key.
    pub fn owner(&self, operation: &str, key: &str) {
        self.kms(operation, &serde_json::json!({ "KeyId": key }));
    }

    /// Makes a user who may do `actions` with `key`; returns what he proves himself with.
    pub fn user(&self, name: &str, key: &str, actions: &[&str]) -> [String; 2] {
        let policy = serde_json::json!({ "Version": "2012-10-17", "Statement": [
            { "Effect": "Allow", "Action": actions, "Resource": key } ] });
        self.iam(&["Action=CreateUser", &format!("UserName={name}")]);
        let policy = format!("PolicyDocument={policy}");
        self.iam(&["Action=PutUserPolicy", &format!("UserName={name}"), "PolicyName=p", &policy]);
        let said = self.iam(&["Action=CreateAccessKey", &format!("UserName={name}")]);
        ["AccessKeyId", "SecretAccessKey"].map(|tag| {
            let after = said.split_once(&format!("<{tag}>")).unwrap_or_else(|| panic!("{said}")).1;
            after.split_once('<').unwrap().0.to_owned()
        })
    }

    fn iam(&self, form: &[&str]) -> String {
        let fields = ["Version=2010-05-08"].iter().chain(form);
        let arguments: Vec<&str> = fields.flat_map(|field| ["--data-urlencode", field]).collect();
        self.try_call("iam", &arguments).unwrap()
    }

    fn try_call(&self, service: &str, arguments: &[&str]) -> Result<String, String> {
        let proof = format!(
            "authorization: AWS4-HMAC-SHA256 Credential={ROOT}/20260101/{REGION}/{service}/aws4_request, \
             SignedHeaders=host, Signature=0"
        );
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail-with-body", "-H", &proof]);
        if service == "kms" {
            curl.args(["-H", "content-type: application/x-amz-json-1.1"]);
        }
        curl.arg("--cacert").arg(self.file("ca.pem")).args(arguments).arg(self.endpoint());
        let output = curl.output().expect("curl runs (apt-get install curl)");
        let [said, error] =
            [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it).into_owned());
        if output.status.success() { Ok(said) } else { Err(format!("{arguments:?}: {error}{said}")) }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    fn make_certificates(&self) {
        let [issuer, other] = ["ca", "other-ca"].map(|name| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        });
        fs::write(self.file("other-ca.pem"), other.pem()).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress(self.address.parse().unwrap())];
        let key = KeyPair::generate().unwrap();
        fs::write(self.file("ca.pem"), issuer.pem()).unwrap();
        fs::write(self.file("server.pem"), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        fs::write(self.file("server.key"), key.serialize_pem()).unwrap();
    }
}
