//! The helper with ministack and moto in the place of AWS: keys that are disabled, deleted and given back, rights, a secret
//! that is wrapped anew, and an AWS that is not there.

mod stand_in;

use std::fs::read_to_string;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use hostseal_kms_protocol::{Answer, Ask, CONTEXT_CLUSTER, Context, Given, Refusal};
use stand_in::{ROOT, StandIn};

/// What is wrapped, in base64.
const SECRET: &str = "bGFiIHNlY3JldCBudW1iZXIgb25lLCAzMiBieXRlcy4=";
/// How long the runner lets a helper run.
const RUNNER: Duration = Duration::from_secs(10);

/// A host, and what its helper is told by the environment.
struct Host(Vec<(&'static str, String)>);

impl Host {
    fn new(aws: &StandIn, [id, secret]: [&str; 2]) -> Self {
        Self(vec![
            ("AWS_ENDPOINT_URL_KMS", aws.endpoint()),
            ("SSL_CERT_FILE", aws.file("ca.pem").display().to_string()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", id.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
        ])
    }

    fn with(mut self, name: &'static str, value: Option<&str>) -> Self {
        self.0.retain(|(it, _)| *it != name);
        self.0.extend(value.map(|value| (name, value.to_owned())));
        self
    }

    fn ask(&self, ask: &Ask<'_>) -> Answer {
        let mut helper = Command::new(env!("CARGO_BIN_EXE_kms-aws"));
        helper.env_clear().envs(self.0.iter().map(|(name, value)| (name, value)));
        let mut helper = helper.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        helper.stdin.take().unwrap().write_all(&ask.to_line()).unwrap();
        Answer::from_line(&helper.wait_with_output().unwrap().stdout).unwrap()
    }

    fn decrypt(&self, key: &str, blob: &str) -> Answer {
        self.ask(&Ask::Decrypt { key, context: &context("demo"), blob })
    }

    fn encrypt(&self, key: &str) -> Answer {
        self.ask(&Ask::Encrypt { key, context: &context("demo"), plaintext: SECRET })
    }

    fn wrapped(&self, key: &str) -> String {
        match self.encrypt(key).outcome {
            Ok(Given::Blob(blob)) => blob,
            _ => panic!("it is not wrapped"),
        }
    }
}

fn context(cluster: &str) -> Context {
    Context::from([(CONTEXT_CLUSTER.to_owned(), cluster.to_owned())])
}

fn gives_the_secret(answer: &Answer) -> bool {
    matches!(&answer.outcome, Ok(Given::Plaintext(octets)) if ***octets == *b"lab secret number one, 32 bytes.")
}

/// Asserts that nothing is given, and why.
#[track_caller]
fn refuses(answer: Answer, refusal: Refusal, words: &str) {
    let why = answer.why.unwrap_or_default();
    assert!(answer.outcome.as_ref().err() == Some(&refusal), "{:?}: {why}", answer.outcome.err());
    assert!(why.contains(words), "{why}");
}

#[test]
fn a_key_gives_and_is_taken_away() {
    let aws = StandIn::ministack();
    let (key, host) = (aws.key(), Host::new(&aws, [ROOT, "x"]));
    let blob = host.wrapped(&key);
    let given = host.decrypt(&key, &blob);
    assert!(gives_the_secret(&given) && given.request_id.is_some_and(|id| !id.is_empty()));
    assert!(matches!(host.ask(&Ask::Describe { key: &key }).outcome, Ok(Given::Enabled)));

    let other = host.ask(&Ask::Decrypt { key: &key, context: &context("other"), blob: &blob });
    refuses(other, Refusal::Broken, "InvalidCiphertextException");
    refuses(host.decrypt(&key, "AAAA"), Refusal::Broken, "InvalidCiphertextException");
    let none = format!("{}00000000-0000-0000-0000-000000000000", &key[..key.len() - 36]);
    // ministack would look for the key in the blob too.
    refuses(host.decrypt(&none, "AAAA"), Refusal::NotFound, "NotFoundException");
    refuses(host.ask(&Ask::Describe { key: &none }), Refusal::NotFound, "NotFoundException");
    let elsewhere = key.replace("eu-central-1", "us-east-1");
    refuses(host.decrypt(&elsewhere, "AAAA"), Refusal::NotFound, "us-east-1");
    let moved =
        host.ask(&Ask::Reencrypt { key: &key, context: &context("demo"), blob: &blob, new_key: &elsewhere });
    refuses(moved, Refusal::Unavailable, "from eu-central-1 to us-east-1");

    aws.owner("DisableKey", &key);
    let denied = host.decrypt(&key, &blob);
    assert!(denied.request_id.is_some());
    refuses(denied, Refusal::Disabled, "DisabledException");
    refuses(host.encrypt(&key), Refusal::Disabled, "DisabledException");
    refuses(host.ask(&Ask::Describe { key: &key }), Refusal::Disabled, "is Disabled");
    aws.owner("EnableKey", &key);
    assert!(gives_the_secret(&host.decrypt(&key, &blob)));

    aws.kms("ScheduleKeyDeletion", &serde_json::json!({ "KeyId": key, "PendingWindowInDays": 7 }));
    for answer in [host.decrypt(&key, &blob), host.encrypt(&key), host.ask(&Ask::Describe { key: &key })] {
        let Err(Refusal::PendingDeletion(Some(date))) = &answer.outcome else { panic!("{:?}", answer.why) };
        assert!(date.len() == "2027-01-15T08:00:00Z".len() && date.ends_with('Z'), "{date}");
    }
    // AWS leaves it disabled.
    aws.owner("CancelKeyDeletion", &key);
    refuses(host.decrypt(&key, &blob), Refusal::Disabled, "DisabledException");
    aws.owner("EnableKey", &key);
    assert!(gives_the_secret(&host.decrypt(&key, &blob)));
}

/// ministack checks the signatures and the policies of users; conditions on the encryption context it does not check.
#[test]
fn a_host_may_do_what_its_policy_says() {
    let aws = StandIn::ministack();
    let (key, root) = (aws.key(), Host::new(&aws, [ROOT, "x"]));
    let blob = root.wrapped(&key);
    let [id, secret] = aws.user("host", &key, &["kms:Decrypt"]);
    let host = || Host::new(&aws, [&id, &secret]);
    assert!(gives_the_secret(&host().decrypt(&key, &blob)));
    refuses(host().encrypt(&key), Refusal::Denied, "AccessDeniedException");
    refuses(host().ask(&Ask::Describe { key: &key }), Refusal::Denied, "AccessDeniedException");
    let anew = Ask::Reencrypt { key: &key, context: &context("demo"), blob: &blob, new_key: &key };
    refuses(host().ask(&anew), Refusal::Denied, "AccessDeniedException");
    let [id_of_nobody, secret_of_nobody] = aws.user("nobody", &key, &["kms:ListKeys"]);
    let nobody = Host::new(&aws, [&id_of_nobody, &secret_of_nobody]);
    refuses(nobody.decrypt(&key, &blob), Refusal::Denied, "AccessDeniedException");
    // Who cannot prove himself is not denied the key.
    let wrong = host().with("AWS_SECRET_ACCESS_KEY", Some("wrong"));
    refuses(wrong.decrypt(&key, &blob), Refusal::Unavailable, "ignature");
    let unknown = host().with("AWS_ACCESS_KEY_ID", Some("AKIAIOSFODNN7EXAMPLE"));
    refuses(unknown.decrypt(&key, &blob), Refusal::Unavailable, "UnrecognizedClientException");
    refuses(
        host().with("AWS_SESSION_TOKEN", Some("old")).decrypt(&key, &blob),
        Refusal::Unavailable,
        "UnrecognizedClientException",
    );
    let none = host().with("AWS_ACCESS_KEY_ID", None).with("AWS_SECRET_ACCESS_KEY", None);
    refuses(none.decrypt(&key, &blob), Refusal::Unavailable, "credentials");
    // A profile does as well.
    let file = aws.file("credentials");
    let profile = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
    std::fs::write(&file, profile).unwrap();
    let by_profile = none.with("AWS_SHARED_CREDENTIALS_FILE", file.to_str());
    assert!(gives_the_secret(&by_profile.decrypt(&key, &blob)));
    // Who may not ask how the key stands gets no date.
    aws.kms("ScheduleKeyDeletion", &serde_json::json!({ "KeyId": key, "PendingWindowInDays": 7 }));
    refuses(host().decrypt(&key, &blob), Refusal::PendingDeletion(None), "is pending deletion");
}

#[test]
fn a_secret_is_wrapped_anew_with_another_key() {
    let aws = StandIn::moto();
    let (old, new, host) = (aws.key(), aws.key(), Host::new(&aws, [ROOT, "x"]));
    let blob = host.wrapped(&old);
    let anew = |cluster: &str, blob: &str, new_key: &str| {
        host.ask(&Ask::Reencrypt { key: &old, context: &context(cluster), blob, new_key })
    };
    let moved = anew("demo", &blob, &new);
    assert!(moved.request_id.is_some_and(|id| !id.is_empty()));
    let Ok(Given::Blob(moved)) = moved.outcome else { panic!("{:?}", moved.why) };
    assert!(gives_the_secret(&host.decrypt(&new, &moved)) && gives_the_secret(&host.decrypt(&old, &blob)));
    assert!(host.decrypt(&old, &moved).outcome.is_err(), "it is wrapped with the new key alone");

    refuses(anew("other", &blob, &new), Refusal::Broken, "InvalidCiphertextException");
    refuses(anew("demo", "AAAA", &new), Refusal::Broken, "InvalidCiphertextException");
    let none = format!("{}00000000-0000-0000-0000-000000000000", &new[..new.len() - 36]);
    refuses(anew("demo", &blob, &none), Refusal::NotFound, "NotFoundException");
}

#[test]
fn an_aws_that_is_not_there_is_away_in_time() {
    let mut aws = StandIn::ministack();
    let key = aws.key();
    let host = || Host::new(&aws, [ROOT, "x"]);
    let blob = host().wrapped(&key);
    let untrusted = host().with("SSL_CERT_FILE", Some("/etc/hostname"));
    refuses(untrusted.decrypt(&key, &blob), Refusal::Unavailable, "ca-certificates");
    let other = host().with("SSL_CERT_FILE", aws.file("other-ca.pem").to_str());
    refuses(other.decrypt(&key, &blob), Refusal::Unavailable, "UnknownIssuer");
    let plain = host().with("AWS_ENDPOINT_URL_KMS", Some("http://127.0.0.1:9"));
    refuses(plain.decrypt(&key, &blob), Refusal::Unavailable, "without TLS");
    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("https://{}", silent.local_addr().unwrap());
    let asked = Instant::now();
    let answer = host().with("AWS_ENDPOINT_URL_KMS", Some(&endpoint)).decrypt(&key, &blob);
    refuses(answer, Refusal::Unavailable, "AWS does not answer");
    assert!(asked.elapsed() < RUNNER, "the runner would have ended it: {:?}", asked.elapsed());
    let host = host();
    aws.stop();
    refuses(host.decrypt(&key, &blob), Refusal::Unavailable, "refused");
}

/// A helper that waits for its ask, as a user who is nobody.
fn waiting() -> Child {
    let mut helper = match nix::unistd::geteuid().is_root() {
        true => {
            let mut helper = Command::new("setpriv");
            helper.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
            helper.arg(env!("CARGO_BIN_EXE_kms-aws"));
            helper
        }
        false => Command::new(env!("CARGO_BIN_EXE_kms-aws")),
    };
    helper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn nobody_looks_into_a_helper() {
    let mut helper = waiting();
    let of = |name: &str| format!("/proc/{}/{name}", helper.id());
    let started = Instant::now();
    let cannot_dump = || {
        let limits = read_to_string(of("limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        // What cannot be dumped belongs to root.
        core.split_whitespace().filter(|word| *word == "1").count() == 2
            && std::fs::metadata(of("status")).unwrap().uid() == 0
    };
    while !cannot_dump() {
        assert!(started.elapsed() < Duration::from_secs(30), "{}", read_to_string(of("limits")).unwrap());
        thread::sleep(Duration::from_millis(20));
    }
    helper.kill().unwrap();
    helper.wait().unwrap();
}
