//! The helper against a double of Vault, over real TLS: what it gives, and what each failure means for the key.

mod double;

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use std::{fs, thread};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use double::{Double, Stream, Tls, TransitKey, answer, listen, listen_plainly, read};
use hostseal_kms_protocol::{Answer, Ask, Context, Given, Refusal};

/// What is wrapped.
const SECRET: &[u8] = b"the secret of the cluster";
/// A host's rights, and an administrator's.
const HOST: [(&str, &str); 3] =
    [("update", "transit/decrypt/prod"), ("read", "transit/keys/prod"), ("read", "auth/token/lookup-self")];
const ADMIN: [(&str, &str); 6] = [
    ("update", "transit/encrypt/prod"),
    ("update", "transit/decrypt/prod"),
    ("update", "transit/rewrap/prod"),
    ("update", "transit/encrypt/next"),
    ("read", "transit/keys/prod"),
    ("read", "transit/keys/next"),
];

fn context(cluster: &str) -> Context {
    Context::from([("hostseal-cluster".to_owned(), cluster.to_owned())])
}

/// A host, with what it proves itself with.
struct Host {
    directory: tempfile::TempDir,
    set: Vec<(String, String)>,
}

impl Host {
    fn new(authority: &str, ca: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = Self { directory, set: Vec::new() };
        host.credential("vault-ca", ca);
        host.with("VAULT_ADDR", &format!("https://{authority}"))
    }

    fn of(double: &Double, token: &str) -> Self {
        let host = Self::new(&double.authority, &double.tls.ca);
        host.credential("vault-token", token);
        host
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.set.push((name.to_owned(), value.to_owned()));
        self
    }

    fn credential(&self, name: &str, text: &str) {
        fs::write(self.directory.path().join(name), text).unwrap();
    }

    fn run(&self, line: &[u8]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kms-vault"));
        command.env_clear().env("CREDENTIALS_DIRECTORY", self.directory.path());
        command.envs(self.set.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(line).unwrap();
        child.wait_with_output().unwrap()
    }

    fn ask(&self, ask: &Ask<'_>) -> Answer {
        let output = self.run(&ask.to_line());
        assert_eq!(output.stdout.iter().filter(|octet| **octet == b'\n').count(), 1, "{output:?}");
        Answer::from_line(&output.stdout).unwrap()
    }

    fn wrap(&self, key: &str) -> Answer {
        self.ask(&Ask::Encrypt { key, context: &context("prod"), plaintext: &STANDARD.encode(SECRET) })
    }

    fn unwrap(&self, key: &str, blob: &str) -> Answer {
        self.ask(&Ask::Decrypt { key, context: &context("prod"), blob })
    }

    fn refusal(&self, blob: &str) -> (Refusal, String) {
        refusal(self.unwrap("transit/prod", blob))
    }
}

fn refusal(answer: Answer) -> (Refusal, String) {
    (answer.outcome.err().expect("something was given"), answer.why.unwrap_or_default())
}

fn blob(answer: Answer) -> String {
    match answer.outcome {
        Ok(Given::Blob(blob)) => blob,
        _ => panic!("no blob, but {:?}", answer.why),
    }
}

fn assert_opens(answer: Answer) {
    assert!(
        matches!(&answer.outcome, Ok(Given::Plaintext(octets)) if **octets == SECRET),
        "{:?}",
        answer.why
    );
    assert_eq!(answer.request_id.as_deref(), Some("7b9bb5a1-0d5c-4d9f-8f2c-3f1b1b1d0a11"));
}

/// A Vault with a key, a host and an administrator.
fn vault(key: TransitKey) -> (Double, Host, Host) {
    let double = Double::start();
    let mut held = double.held();
    held.keys.insert("prod".to_owned(), key);
    held.allow("hvs.host", &HOST);
    held.allow("hvs.admin", &ADMIN);
    drop(held);
    let [host, admin] = ["hvs.host", "hvs.admin"].map(|token| Host::of(&double, token));
    (double, host, admin)
}

#[test]
fn what_is_wrapped_opens_for_its_cluster_alone() {
    for key in [TransitKey::new("aes256-gcm96", true), TransitKey::new("chacha20-poly1305", false)] {
        let (_double, host, admin) = vault(key);
        let wrapped = blob(admin.wrap("transit/prod"));
        assert_opens(host.unwrap("transit/prod", &wrapped));
        assert_opens(host.unwrap("prod", &wrapped));
        assert_opens(host.unwrap("transit/keys/prod", &wrapped));
        let elsewhere = Ask::Decrypt { key: "prod", context: &context("test"), blob: &wrapped };
        let (refused, why) = refusal(host.ask(&elsewhere));
        assert_eq!(refused, Refusal::Broken, "{why}");
        assert!(matches!(host.ask(&Ask::Describe { key: "prod" }).outcome, Ok(Given::Enabled)));
        // The host may not wrap.
        assert_eq!(refusal(host.wrap("prod")).0, Refusal::Denied);
    }
}

/// Who may not read the key cannot know how it binds: both ways are bound.
#[test]
fn a_key_that_may_not_be_read_binds_too() {
    for key in [TransitKey::new("aes256-gcm96", true), TransitKey::new("aes256-gcm96", false)] {
        let (double, host, admin) = vault(key);
        double
            .held()
            .allow("hvs.admin", &[("update", "transit/encrypt/prod"), ("read", "auth/token/lookup-self")]);
        let wrapped = blob(admin.wrap("prod"));
        assert_opens(host.unwrap("prod", &wrapped));
        let elsewhere = Ask::Decrypt { key: "prod", context: &context("test"), blob: &wrapped };
        assert_eq!(refusal(host.ask(&elsewhere)).0, Refusal::Broken);
    }
}

#[test]
fn a_key_that_cannot_bind_is_refused() {
    let (double, _, admin) = vault(TransitKey::new("rsa-4096", false));
    let why = refusal(admin.wrap("prod")).1;
    assert!(why.contains("cannot bind"), "{why}");
    let why = refusal(admin.ask(&Ask::Describe { key: "prod" })).1;
    assert!(why.contains("cannot bind"), "{why}");
    double.held().keys.insert("prod".to_owned(), TransitKey::new("aes256-gcm96", false));
    double.held().old = true;
    let why = refusal(admin.wrap("prod")).1;
    assert!(why.contains("too old to bind"), "{why}");
}

/// Vault makes a key for whoever may, where he has mistyped its name.
#[test]
fn no_key_is_made() {
    let (double, _, admin) = vault(TransitKey::new("aes256-gcm96", true));
    let all = [
        ("create", "transit/encrypt/pord"),
        ("update", "transit/encrypt/pord"),
        ("read", "auth/token/lookup-self"),
    ];
    double.held().allow("hvs.admin", &[&all[..], &[("read", "transit/keys/pord")]].concat());
    assert_eq!(refusal(admin.wrap("pord")).0, Refusal::NotFound);
    double.held().allow("hvs.admin", &all);
    assert_eq!(refusal(admin.wrap("pord")).0, Refusal::NotFound);
    assert!(!double.held().keys.contains_key("pord"));
}

#[test]
fn how_the_key_stands_is_told() {
    let (double, host, admin) = vault(TransitKey::new("aes256-gcm96", true));
    let wrapped = blob(admin.wrap("prod"));
    let change = |change: fn(&mut TransitKey)| change(double.held().keys.get_mut("prod").unwrap());
    let describe = || host.ask(&Ask::Describe { key: "prod" });

    change(|key| (key.latest_version, key.min_decryption_version) = (2, 2));
    let (refused, why) = host.refusal(&wrapped);
    assert!(refused == Refusal::Disabled && why.contains("min_decryption_version"), "{why}");
    change(|key| key.min_decryption_version = 1);
    assert_opens(host.unwrap("prod", &wrapped));

    change(|key| key.soft_deleted = true);
    assert_eq!(host.refusal(&wrapped).0, Refusal::Disabled);
    assert_eq!(refusal(describe()).0, Refusal::Disabled);
    change(|key| key.soft_deleted = false);

    double.held().keys.remove("prod");
    assert_eq!(host.refusal(&wrapped).0, Refusal::NotFound);
    assert_eq!(refusal(describe()).0, Refusal::NotFound);

    double.held().keys.insert("prod".to_owned(), TransitKey::new("aes256-gcm96", true));
    double.held().sealed = true;
    let (refused, why) = host.refusal(&wrapped);
    assert!(refused == Refusal::Unavailable && why.contains("sealed"), "{why}");
    double.held().sealed = false;
    double.held().namespace = Some("team".to_owned());
    assert_eq!(host.refusal(&wrapped).0, Refusal::NotFound);
    assert_opens(Host::of(&double, "hvs.host").with("VAULT_NAMESPACE", "team").unwrap("prod", &wrapped));
}

#[test]
fn who_may_not_is_told_from_who_is_not_known() {
    let (double, host, admin) = vault(TransitKey::new("aes256-gcm96", true));
    let wrapped = blob(admin.wrap("prod"));
    // The policy is gone, and the token is good.
    double.held().allow("hvs.host", &[("read", "auth/token/lookup-self")]);
    assert_eq!(host.refusal(&wrapped).0, Refusal::Denied);
    // The token is gone.
    double.held().tokens.remove("hvs.host");
    let (refused, why) = host.refusal(&wrapped);
    assert!(refused == Refusal::Unavailable && why.contains("expired or is revoked"), "{why}");
    assert!(!why.contains("hvs."), "{why}");
    // There is none.
    fs::remove_file(host.directory.path().join("vault-token")).unwrap();
    let (refused, why) = host.refusal(&wrapped);
    assert!(refused == Refusal::Unavailable && why.contains("there is no token"), "{why}");
}

/// A Vault, a host that logs in there with a role and a secret id, and what is wrapped for it.
fn with_approle() -> (Double, Host, String) {
    let (double, _, admin) = vault(TransitKey::new("aes256-gcm96", true));
    let wrapped = blob(admin.wrap("prod"));
    double.held().approle = Some(("role".to_owned(), "s3cret".to_owned(), "hvs.host".to_owned()));
    let host = Host::new(&double.authority, &double.tls.ca)
        .with("HOSTSEAL_KMS_LOGIN", "approle")
        .with("HOSTSEAL_KMS_ROLE", "role");
    host.credential("vault-secret-id", "s3cret\n");
    (double, host, wrapped)
}

#[test]
fn hosts_log_in_with_approle() {
    let (double, host, wrapped) = with_approle();
    assert_opens(host.unwrap("prod", &wrapped));
    // Its token is new: whoever is refused with it is refused by Vault.
    double.held().allow("hvs.host", &[]);
    assert_eq!(host.refusal(&wrapped).0, Refusal::Denied);
    host.credential("vault-secret-id", "other-s3cret");
    let (refused, why) = host.refusal(&wrapped);
    assert!(refused == Refusal::Unavailable && why.contains("auth/approle/login"), "{why}");
    assert!(!why.contains("s3cret"), "{why}");
    let (refused, why) = host.with("HOSTSEAL_KMS_LOGIN_MOUNT", "elsewhere").refusal(&wrapped);
    assert!(refused == Refusal::Unavailable && why.contains("auth/elsewhere/login"), "{why}");
}

/// Vault keeps some for weeks, and there is an ask every few minutes.
#[test]
fn what_a_login_has_left_is_given_back() {
    let (double, host, wrapped) = with_approle();
    for (kind, is_given_back) in [("service", true), ("batch", false)] {
        double.held().token_type = kind;
        assert_opens(host.unwrap("prod", &wrapped));
        assert_eq!(double.held().revoked.contains("hvs.host"), is_given_back, "{kind}");
    }
    // Another node has not heard of it yet: nobody is refused the key for that.
    double.held().unheard = 1;
    assert_opens(host.unwrap("prod", &wrapped));
}

#[test]
fn hosts_log_in_with_kubernetes() {
    let (double, _, admin) = vault(TransitKey::new("aes256-gcm96", true));
    let wrapped = blob(admin.wrap("prod"));
    double.held().kubernetes = Some(("hostseal".to_owned(), "ey.j.wt".to_owned(), "hvs.host".to_owned()));
    let host = Host::new(&double.authority, &double.tls.ca)
        .with("HOSTSEAL_KMS_LOGIN", "kubernetes")
        .with("HOSTSEAL_KMS_ROLE", "hostseal");
    host.credential("vault-jwt", "ey.j.wt\n");
    assert_opens(host.unwrap("prod", &wrapped));
    host.credential("vault-jwt", "ey.other.wt");
    let (refused, why) = host.refusal(&wrapped);
    assert!(refused == Refusal::Unavailable && !why.contains("ey."), "{why}");
    double.held().sealed = true;
    let (refused, why) = host.refusal(&wrapped);
    assert!(refused == Refusal::Unavailable && why.contains("sealed"), "{why}");
}

#[test]
fn a_blob_is_wrapped_anew() {
    let (double, host, admin) = vault(TransitKey::new("aes256-gcm96", true));
    let wrapped = blob(admin.wrap("prod"));
    let bound = context("prod");
    let again = |blob: &str, new_key: &str| {
        admin.ask(&Ask::Reencrypt { key: "prod", context: &bound, blob, new_key })
    };
    double.held().keys.get_mut("prod").unwrap().latest_version = 2;

    // With the same key the secret stays in Vault.
    double.held().asked.clear();
    let answer = again(&wrapped, "transit/prod");
    assert_eq!(
        (answer.why.is_none(), &double.held().asked[..]),
        (true, &["transit/rewrap/prod".to_owned()][..])
    );
    let newer = blob(answer);
    double.held().keys.get_mut("prod").unwrap().min_decryption_version = 2;
    assert_opens(host.unwrap("prod", &newer));
    assert_eq!(host.refusal(&wrapped).0, Refusal::Disabled);
    assert_eq!(refusal(again(&wrapped, "prod")).0, Refusal::Disabled);

    // With another one it does not, and that is said.
    double.held().keys.insert("next".to_owned(), TransitKey::new("aes256-gcm96", false));
    double
        .held()
        .allow("hvs.host", &[("update", "transit/decrypt/next"), ("update", "transit/decrypt/prod")]);
    let answer = again(&newer, "next");
    assert!(
        answer.why.as_ref().is_some_and(|why| why.contains("this host has unwrapped")),
        "{:?}",
        answer.why
    );
    let other = blob(answer);
    assert_opens(host.unwrap("next", &other));
    assert_eq!(host.refusal(&other).0, Refusal::Broken);
    // Without the right to unwrap it is refused.
    double
        .held()
        .allow("hvs.admin", &[("update", "transit/rewrap/prod"), ("read", "auth/token/lookup-self")]);
    assert_eq!(refusal(again(&newer, "next")).0, Refusal::Denied);
    // Transit cannot wrap anew where data is authenticated, so the helper does.
    double.held().keys.insert("prod".to_owned(), TransitKey::new("aes256-gcm96", false));
    double.held().allow("hvs.admin", &ADMIN);
    let wrapped = blob(admin.wrap("prod"));
    let answer = again(&wrapped, "prod");
    assert!(answer.why.is_some());
    assert_opens(host.unwrap("prod", &blob(answer)));
}

/// A standby that cannot pass requests on sends clients to the active node.
#[test]
fn hosts_follow_to_the_active_node_and_no_further() {
    let (active, host, admin) = vault(TransitKey::new("aes256-gcm96", true));
    let wrapped = blob(admin.wrap("prod"));
    let standby = Double::start();
    // One CA signs for both.
    let both = format!("{}{}", active.tls.ca, standby.tls.ca);
    let host_of_standby = Host::new(&standby.authority, &both);
    host_of_standby.credential("vault-token", "hvs.host");
    standby.held().active = Some(active.authority.clone());
    assert_opens(host_of_standby.unwrap("prod", &wrapped));
    // In a circle.
    active.held().active = Some(standby.authority.clone());
    let (refused, why) = host_of_standby.refusal(&wrapped);
    assert!(refused == Refusal::Unavailable && why.contains("sends this host on again"), "{why}");
    // To somebody whom nobody trusts: he gets no token.
    active.held().active = None;
    host_of_standby.credential("vault-ca", &standby.tls.ca);
    let before = active.held().asked.len();
    let (refused, why) = host_of_standby.refusal(&wrapped);
    assert!(refused == Refusal::Unavailable && why.contains("not trusted"), "{why}");
    assert_eq!(active.held().asked.len(), before);
    // Out of TLS, to another path, or nowhere.
    let tls = Tls::new();
    for location in [
        "http://127.0.0.1:1/v1/transit/decrypt/prod",
        "https://127.0.0.1:1/evil",
        "/v1/transit/decrypt/prod",
        "",
    ] {
        let authority = listen(&tls, move |mut stream| {
            read(&mut stream);
            answer(&mut stream, 307, &format!("Location: {location}\r\n"), "");
        });
        let host = Host::new(&authority, &tls.ca).with("VAULT_TOKEN", "hvs.t0ken");
        let (refused, why) = host.refusal(&wrapped);
        assert!(refused == Refusal::Unavailable && why.contains("sends this host to no Vault"), "{why}");
    }
    assert_opens(host.unwrap("prod", &wrapped));
}

#[test]
fn whoever_is_not_trusted_gets_nothing() {
    let (double, _, admin) = vault(TransitKey::new("aes256-gcm96", true));
    let wrapped = blob(admin.wrap("prod"));
    let before = double.held().asked.len();
    let other = Tls::new();
    let stranger = Host::new(&double.authority, &other.ca)
        .with("VAULT_TOKEN", "hvs.host")
        .with("VAULT_SKIP_VERIFY", "true");
    let (refused, why) = stranger.refusal(&wrapped);
    assert!(
        refused == Refusal::Unavailable && why.contains("VAULT_CACERT") && why.contains("SKIP_VERIFY"),
        "{why}"
    );
    let (_, port) = double.authority.split_once(':').unwrap();
    let misnamed = Host::new(&format!("localhost:{port}"), &double.tls.ca).with("VAULT_TOKEN", "hvs.host");
    let (refused, why) = misnamed.refusal(&wrapped);
    assert!(refused == Refusal::Unavailable && why.contains("not trusted"), "{why}");
    assert_eq!(double.held().asked.len(), before, "nothing was asked");
    assert_opens(misnamed.with("VAULT_TLS_SERVER_NAME", "127.0.0.1").unwrap("prod", &wrapped));
    // Without TLS nobody is asked at all.
    let plain = Host::new("x", &other.ca)
        .with("BAO_ADDR", &format!("http://{}", double.authority))
        .with("VAULT_TOKEN", "hvs.t0ken");
    assert!(plain.refusal(&wrapped).1.contains("nothing but https"));
}

#[test]
fn whoever_is_no_vault_revokes_nothing() {
    let tls = Tls::new();
    let (wrapped, ca) = (STANDARD.encode("context vault:v1:AAAA"), tls.ca.clone());
    let asked =
        |authority: &str| Host::new(authority, &ca).with("VAULT_TOKEN", "hvs.t0ken").refusal(&wrapped);
    let assert_away = |authority: &str, words: &str| {
        let (refused, why) = asked(authority);
        assert_eq!(refused, Refusal::Unavailable, "{why}");
        assert!(why.contains(words), "{words:?} is not in {why:?}");
        assert!(!why.contains("hvs.t0ken"), "{why}");
    };
    let says = |status: u16, body: &'static str| {
        listen(&tls, move |mut stream| {
            read(&mut stream);
            answer(&mut stream, status, "", body);
        })
    };
    // A proxy that has something against it.
    for status in [400, 403, 404, 503] {
        assert_away(&says(status, "<html>denied</html>"), "not from Vault");
    }
    assert_away(&says(200, "<html>welcome</html>"), "cannot be read");
    assert_away(&says(200, "{}"), "no plaintext");
    assert_away(&says(200, "{\"data\":{\"plaintext\":\"?\"}}"), "no plaintext of hostseal's");
    assert_away(&says(302, ""), "HTTP status 302");
    assert_away(&says(429, "{\"errors\":[\"request path: rate limit quota exceeded\"]}"), "quota exceeded");
    assert_away(&says(500, "{\"errors\":[\"bad token hvs.t0ken\"]}"), "repeat a secret");

    let raw = |what: &'static [u8], times: usize| {
        listen(&tls, move |mut stream: Stream| {
            read(&mut stream);
            let _ = (0..times).try_for_each(|_| stream.write_all(what));
            stream.conn.send_close_notify();
            let _ = stream.flush();
        })
    };
    const FOREVER: usize = 1 << 20;
    assert_away(&raw(b"\x00\x01garbage\r\n\r\n", 1), "no HTTP");
    assert_away(&raw(b"", 1), "closed the connection");
    assert_away(&raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", 1), "closed the connection");
    assert_away(&raw(b"HTTP/1.1 200 OK\r\nx: y\r\n", FOREVER), "no end");
    assert_away(&raw(b"x: yyyyyyyyyyyyyyyyyyyyyyyyyyy", FOREVER), "no HTTP, or has no end");
    let endless = listen(&tls, |mut stream| {
        read(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n{");
        let _ = (0..FOREVER).try_for_each(|_| stream.write_all(&[b' '; 1024]));
    });
    assert_away(&endless, "longer than 64 KiB");
    let plain = listen_plainly(|mut stream| {
        let _ = stream
            .write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n");
    });
    assert_away(&plain, "does not speak TLS");
    assert_away("127.0.0.1:9", "Connection refused");
}

/// Whoever has started a helper ends it after ten seconds: it says before that what it waits for.
#[test]
fn whoever_is_silent_is_away_in_time() {
    let tls = Tls::new();
    let silent = listen(&tls, |mut stream| {
        read(&mut stream);
        thread::sleep(Duration::from_secs(3600));
    });
    let host = Host::new(&silent, &tls.ca).with("VAULT_TOKEN", "hvs.t0ken");
    let (refused, why) = host.refusal(&STANDARD.encode("context vault:v1:AAAA"));
    assert_eq!((refused, why.as_str()), (Refusal::Unavailable, "Vault has not answered within 8 s"));
}

#[test]
fn what_is_no_ask_is_not_answered() {
    let (double, host, _) = vault(TransitKey::new("aes256-gcm96", true));
    for line in [&b""[..], b"secret\n", b"{\"version\":2,\"op\":\"describe\",\"key\":\"k\"}\n"] {
        let output = host.run(line);
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("secret"), "{output:?}");
    }
    let (refused, why) = refusal(host.unwrap("../sys/seal", "AAAA"));
    assert!(refused == Refusal::Unavailable && why.contains("no name of a key"), "{why}");
    assert_eq!(host.refusal("AAAA").0, Refusal::Broken);
    assert!(double.held().asked.is_empty(), "nothing was asked");
    let version = Command::new(env!("CARGO_BIN_EXE_kms-vault")).arg("--version").output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&version.stdout),
        format!("kms-vault {}\n", env!("CARGO_PKG_VERSION"))
    );
}
