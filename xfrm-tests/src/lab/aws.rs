//! ministack on a host of the lab, in the place of AWS KMS, with TLS; and what the helper is told on the others.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use serde_json::{Value, json};

use super::host::{Host, Process};
use super::wait::until;

/// The helper inside the place.
pub const HELPER: &str = "/mnt/kms-aws";
/// ministack inside the place.
const MINISTACK: &str = "/mnt/ministack";
/// Its certificates, on its host, and what has signed them, on the others.
const FILES: &str = "/etc/aws";
/// How long it may take for anything, on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

/// AWS, as far as a key needs it.
pub struct Aws {
    host: Host,
    running: Option<Process>,
    ca: String,
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
        host.write(&format!("{FILES}/own.pem"), &params.signed_by(&key, &issuer)?.pem(), 0o644)?;
        host.write(&format!("{FILES}/own.key"), &key.serialize_pem(), 0o600)?;
        let log = host.within(|| std::fs::File::create("/run/ministack.log"))??;
        let mut python = Command::new("python3");
        python.args(["-m", "ministack"]).current_dir("/run").env("PYTHONPATH", MINISTACK);
        python.env("BIND_HOST", host.v4().to_string()).env("GATEWAY_PORT", "4566");
        python.env("SERVICES", "kms").env("IOT_MTLS_ENABLED", "0").env("USE_SSL", "1");
        python.env("MINISTACK_SSL_CERT", format!("{FILES}/own.pem"));
        python.env("MINISTACK_SSL_KEY", format!("{FILES}/own.key"));
        python.stdout(log.try_clone()?).stderr(log);
        let aws = Self { host: host.clone(), running: Some(host.spawn(&mut python)?), ca: issuer.pem() };
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
        let said = self.host.run(&format!(
            "curl -sS --fail-with-body --cacert {FILES}/ca.pem -H 'content-type: application/x-amz-json-1.1' \
             -H 'x-amz-target: TrentService.{operation}' -H 'authorization: AWS4-HMAC-SHA256 \
             Credential=test/20260101/eu-central-1/kms/aws4_request, SignedHeaders=host, Signature=0' \
             -d '{what}' https://{}:4566",
            self.host.v4()
        ))?;
        Ok(serde_json::from_str(&said).unwrap_or_default())
    }

    /// What the helper is told on a host, which gets what it has to trust.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn environment(&self, host: &Host) -> Result<[(&'static str, String); 5]> {
        host.write(&format!("{FILES}/ca.pem"), &self.ca, 0o644)?;
        Ok([
            ("AWS_ENDPOINT_URL_KMS", format!("https://{}:4566", self.host.v4())),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("SSL_CERT_FILE", format!("{FILES}/ca.pem")),
        ])
    }
}
