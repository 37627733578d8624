//! ministack on a host of the lab, in the place of AWS KMS, with TLS; and what the helper is told on the others.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};

use super::front::Front;
use super::host::{Host, Process};
use super::wait::until;

/// The helper inside the place.
pub const HELPER: &str = "/mnt/kms-aws";
/// ministack inside the place.
const MINISTACK: &str = "/mnt/ministack";
/// Where it listens, and what stands before it.
const PORT: u16 = 4566;
const FRONT: u16 = 4567;
/// Whoever calls himself that may do everything.
const ROOT: &str = "test";
/// Its certificates, on its host, and what has signed them, on the others.
const FILES: &str = "/etc/aws";
/// How long it may take for anything, on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

/// AWS, as far as a key needs it.
pub struct Aws {
    host: Host,
    running: Option<Process>,
    ca: String,
    tls: Arc<ServerConfig>,
}

impl Aws {
    /// Starts it on a host, and waits until it answers.
    ///
    /// # Errors
    /// When it is not here, or does not start.
    pub fn start(host: &Host) -> Result<Self> {
        ensure!(
            Path::new(MINISTACK).is_dir(),
            "ministack could not be fetched: see what the lab said when it started"
        );
        ensure!(
            Path::new(HELPER).is_file(),
            "there is no kms-aws beside hostseal: `cargo build --workspace`"
        );
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(host.v4()))];
        let key = KeyPair::generate()?;
        host.write(&format!("{FILES}/ca.pem"), &issuer.pem(), 0o644)?;
        let certificate = params.signed_by(&key, &issuer)?;
        host.write(&format!("{FILES}/own.pem"), &certificate.pem(), 0o644)?;
        host.write(&format!("{FILES}/own.key"), &key.serialize_pem(), 0o600)?;
        let own_key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], own_key)?;
        let log = host.within(|| std::fs::File::create("/run/ministack.log"))??;
        let mut python = Command::new("python3");
        python.args(["-m", "ministack"]).current_dir("/run").env("PYTHONPATH", MINISTACK);
        python.env("BIND_HOST", host.v4().to_string()).env("GATEWAY_PORT", PORT.to_string());
        python.env("SERVICES", "iam,kms,sts").env("AUTH", "true");
        python.env("IOT_MTLS_ENABLED", "0").env("USE_SSL", "1");
        python.env("MINISTACK_SSL_CERT", format!("{FILES}/own.pem"));
        python.env("MINISTACK_SSL_KEY", format!("{FILES}/own.key"));
        python.stdout(log.try_clone()?).stderr(log);
        let running = Some(host.spawn(&mut python)?);
        let aws = Self { host: host.clone(), running, ca: issuer.pem(), tls: Arc::new(tls) };
        until("ministack answers", LIMIT, || {
            aws.ask("ListKeys", &json!({}))
                .with_context(|| host.read("/run/ministack.log").unwrap_or_default())
        })?;
        Ok(aws)
    }

    /// Cuts its power: it forgets all keys.
    pub fn stop(&mut self) {
        self.running = None;
    }

    /// A new key.
    ///
    /// # Errors
    /// When it makes none.
    pub fn key(&self) -> Result<String> {
        let made = self.ask("CreateKey", &json!({}))?;
        Ok(made["KeyMetadata"]["Arn"].as_str().context("a key without a name")?.to_owned())
    }

    /// Has the owner do something with his keys.
    ///
    /// # Errors
    /// When he may not.
    pub fn ask(&self, operation: &str, what: &Value) -> Result<Value> {
        let said = self.curl(
            "kms",
            &format!(
                "-H 'content-type: application/x-amz-json-1.1' -H 'x-amz-target: TrentService.{operation}' -d '{what}'"
            ),
        )?;
        Ok(serde_json::from_str(&said).unwrap_or_default())
    }

    /// Makes a user of this name, who may do nothing yet; returns what he proves himself with.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn user(&self, name: &str) -> Result<[String; 2]> {
        self.iam(&format!("--data-urlencode Action=CreateUser --data-urlencode UserName={name}"))?;
        let said =
            self.iam(&format!("--data-urlencode Action=CreateAccessKey --data-urlencode UserName={name}"))?;
        let field = |tag: &str| -> Result<String> {
            let (_, after) = said.split_once(&format!("<{tag}>")).context("no access key")?;
            Ok(after.split('<').next().unwrap_or_default().to_owned())
        };
        Ok([field("AccessKeyId")?, field("SecretAccessKey")?])
    }

    /// From now on a user may do these `actions` with all keys, and nothing else.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn allow(&self, name: &str, actions: &[&str]) -> Result<()> {
        let policy = json!({ "Version": "2012-10-17", "Statement": [
            { "Effect": "Allow", "Action": actions, "Resource": "*" } ] });
        self.iam(&format!(
            "--data-urlencode Action=PutUserPolicy --data-urlencode UserName={name} --data-urlencode PolicyName=p \
             --data-urlencode 'PolicyDocument={policy}'"
        ))
        .map(drop)
    }

    fn iam(&self, form: &str) -> Result<String> {
        self.curl("iam", &format!("--data-urlencode Version=2010-05-08 {form}"))
    }

    fn curl(&self, service: &str, arguments: &str) -> Result<String> {
        self.host.run(&format!(
            "curl -sS --fail-with-body --cacert {FILES}/ca.pem -H 'authorization: AWS4-HMAC-SHA256 \
             Credential={ROOT}/20260101/eu-central-1/{service}/aws4_request, SignedHeaders=host, Signature=0' \
             {arguments} https://{}:{PORT}",
            self.host.v4()
        ))
    }

    /// Puts something before it, with its certificate.
    ///
    /// # Errors
    /// When that cannot listen.
    pub fn front(&self) -> Result<Front> {
        Front::start(&self.host, FRONT, PORT, Arc::clone(&self.tls))
    }

    /// What the helper is told on a host, which gets what it has to trust.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn environment(&self, host: &Host) -> Result<[(&'static str, String); 5]> {
        let endpoint = SocketAddr::from((self.host.v4(), PORT));
        self.environment_of(host, endpoint, [ROOT.to_owned(), ROOT.to_owned()])
    }

    /// The same, where it is asked at this `endpoint`, by a user who proves himself with that.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn environment_of(
        &self,
        host: &Host,
        endpoint: SocketAddr,
        [id, secret]: [String; 2],
    ) -> Result<[(&'static str, String); 5]> {
        host.write(&format!("{FILES}/ca.pem"), &self.ca, 0o644)?;
        Ok([
            ("AWS_ENDPOINT_URL_KMS", format!("https://{endpoint}")),
            ("AWS_ACCESS_KEY_ID", id),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("SSL_CERT_FILE", format!("{FILES}/ca.pem")),
        ])
    }
}
