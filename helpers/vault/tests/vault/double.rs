//! A double of Vault: no Vault is among Debian's packages, nor in a registry. It has what its documentation and OpenBao's
//! source say of the paths that the helper uses, with their status codes and words (`internal/builtin/logical/transit`,
//! `internal/builtin/credential/approle`, `sdk/helper/keysutil`), over real TLS. What it calls a ciphertext is not encrypted.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A connection with TLS.
pub type Stream = StreamOwned<ServerConnection, TcpStream>;

/// Who signs certificates, and one for 127.0.0.1.
pub struct Tls {
    pub ca: String,
    pub config: Arc<ServerConfig>,
}

impl Tls {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate: CertificateDer<'static> = params.signed_by(&key, &issuer).unwrap().into();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Self { ca, config: Arc::new(config) }
    }
}

/// Somebody who listens, and has `serve` answer whoever connects. He ends with the test.
pub fn listen(tls: &Tls, serve: impl Fn(Stream) + Send + Sync + 'static) -> String {
    let config = tls.config.clone();
    listen_plainly(move |stream| {
        let connection = ServerConnection::new(config.clone()).unwrap();
        serve(StreamOwned::new(connection, stream));
    })
}

/// The same without TLS.
pub fn listen_plainly(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    authority
}

/// What was asked, once it is complete.
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

/// Reads a request; `None` where there is none.
pub fn read(stream: &mut Stream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        Some(line.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    while let Some(header) = line().filter(|header| !header.is_empty()) {
        let (name, value) = header.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Some(Asked { method, path, headers, body })
}

pub fn answer(stream: &mut Stream, status: u16, headers: &str, body: &str) {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

/// A key of Transit.
#[derive(Clone)]
pub struct TransitKey {
    pub kind: &'static str,
    pub derived: bool,
    pub latest_version: u64,
    pub min_decryption_version: u64,
    pub soft_deleted: bool,
}

impl TransitKey {
    pub fn new(kind: &'static str, derived: bool) -> Self {
        Self { kind, derived, latest_version: 1, min_decryption_version: 1, soft_deleted: false }
    }

    fn authenticates(&self) -> bool {
        self.kind.contains("gcm") || self.kind.contains("poly1305")
    }
}

/// What a Vault holds.
#[derive(Default)]
pub struct Held {
    pub keys: BTreeMap<String, TransitKey>,
    /// What the holder of a token may: capability, and path.
    pub tokens: BTreeMap<String, BTreeSet<(&'static str, String)>>,
    /// Role id, secret id, and the token that they give.
    pub approle: Option<(String, String, String)>,
    /// Role, what the issuer has signed, and the token that they give.
    pub kubernetes: Option<(String, String, String)>,
    /// What it calls the tokens of logins.
    pub token_type: &'static str,
    /// Tokens that were given back.
    pub revoked: BTreeSet<String>,
    /// How many requests come to a node that has not heard of their token yet.
    pub unheard: usize,
    pub sealed: bool,
    /// A node that sends clients on to this one.
    pub active: Option<String>,
    /// A namespace other than the root.
    pub namespace: Option<String>,
    /// A Vault that is older than associated data.
    pub old: bool,
    /// How many requests it has had, of which path.
    pub asked: Vec<String>,
}

/// It, listening.
pub struct Double {
    pub authority: String,
    pub tls: Tls,
    held: Arc<Mutex<Held>>,
}

type Outcome = Result<Value, (u16, Value)>;

fn error<T>(status: u16, words: &str) -> Result<T, (u16, Value)> {
    Err((status, json!({ "errors": [words] })))
}

/// What Vault says to whoever may not, and to whoever it does not know.
fn forbidden<T>() -> Result<T, (u16, Value)> {
    error(403, "1 error occurred:\n\t* permission denied\n\n")
}

impl Double {
    pub fn start() -> Self {
        let held = Arc::new(Mutex::new(Held::default()));
        let tls = Tls::new();
        let shared = held.clone();
        let authority = listen(&tls, move |mut stream| {
            let Some(asked) = read(&mut stream) else { return };
            let mut held = shared.lock().unwrap();
            if let Some(active) = &held.active {
                let location = format!("Location: https://{active}{}\r\n", asked.path);
                return answer(&mut stream, 307, &location, "");
            }
            let (status, body) = match held.serve(&asked) {
                Ok(body) => (200, body),
                Err(refused) => refused,
            };
            drop(held);
            answer(&mut stream, status, "", &body.to_string());
        });
        Self { authority, tls, held }
    }

    pub fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap()
    }
}

fn ok(data: Value) -> Value {
    json!({
        "request_id": "7b9bb5a1-0d5c-4d9f-8f2c-3f1b1b1d0a11", "lease_id": "", "renewable": false, "lease_duration": 0,
        "data": data, "wrap_info": null, "warnings": null, "auth": null
    })
}

impl Held {
    /// A token, and what it may.
    pub fn allow(&mut self, token: &str, may: &[(&'static str, &str)]) {
        let may = may.iter().map(|(capability, path)| (*capability, (*path).to_owned()));
        self.tokens.insert(token.to_owned(), may.collect());
    }

    fn serve(&mut self, asked: &Asked) -> Outcome {
        let path = asked.path.strip_prefix("/v1/").unwrap_or_default().to_owned();
        self.asked.push(path.clone());
        if self.sealed {
            return error(503, "Vault is sealed");
        }
        if self.namespace.as_ref() != asked.headers.get("x-vault-namespace") {
            return error(404, &format!("no handler for route {path:?}. route entry not found."));
        }
        if let Some(mount) = path.strip_prefix("auth/").and_then(|rest| rest.strip_suffix("/login")) {
            return self.login(mount, &asked.body);
        }
        if self.unheard > 0 {
            self.unheard -= 1;
            return forbidden();
        }
        let token = asked.headers.get("x-vault-token").filter(|token| !self.revoked.contains(*token));
        let Some((token, may)) = token.and_then(|token| self.tokens.get_key_value(token)) else {
            return forbidden();
        };
        // The policy that all tokens have lets them.
        if path == "auth/token/revoke-self" {
            self.revoked.insert(token.clone());
            return Err((204, Value::Null));
        }
        let parts: Vec<_> = path.split('/').collect();
        let capability = match (asked.method.as_str(), &parts[..]) {
            ("GET", _) => "read",
            // What is asked of a key that is not there is to make it.
            ("POST", [_, "encrypt", name]) if !self.keys.contains_key(*name) => "create",
            _ => "update",
        };
        if !may.contains(&(capability, path.clone())) {
            return forbidden();
        }
        match &parts[..] {
            ["auth", "token", "lookup-self"] => Ok(ok(json!({ "type": "service", "ttl": 60 }))),
            ["transit", "keys", name] => self.read_key(name),
            ["transit", "decrypt", name] => self.decrypt(name, &asked.body),
            ["transit", "encrypt", name] => self.encrypt(name, &asked.body, capability == "create"),
            ["transit", "rewrap", name] => self.rewrap(name, &asked.body),
            _ => error(404, &format!("no handler for route {path:?}. route entry not found.")),
        }
    }

    fn login(&mut self, mount: &str, body: &Value) -> Outcome {
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let token = match (mount, &self.approle, &self.kubernetes) {
            ("approle", Some((role, secret, token)), _) if text("role_id") == *role => {
                if text("secret_id") != *secret {
                    return error(400, &format!("invalid secret_id {:?}", text("secret_id")));
                }
                token
            }
            ("approle", Some(_), _) => return error(400, "invalid role or secret ID"),
            ("kubernetes", _, Some((role, jwt, token))) if text("role") == *role => {
                if text("jwt") != *jwt {
                    return forbidden();
                }
                token
            }
            ("kubernetes", _, Some(_)) => return error(400, "invalid role name \"x\""),
            _ => return forbidden(),
        };
        self.revoked.remove(token);
        let mut body = ok(Value::Null);
        body["auth"] = json!({
            "client_token": token, "accessor": "a", "policies": ["default"], "lease_duration": 60,
            "token_type": self.token_type
        });
        Ok(body)
    }

    fn read_key(&self, name: &str) -> Outcome {
        let Some(key) = self.keys.get(name) else { return Err((404, json!({ "errors": [] }))) };
        Ok(ok(json!({
            "name": name, "type": key.kind, "derived": key.derived, "latest_version": key.latest_version,
            "min_decryption_version": key.min_decryption_version, "soft_deleted": key.soft_deleted,
            "keys": { "1": 1_700_000_000 }, "supports_encryption": true
        })))
    }

    /// The key that is used, and what of it the parameters bind.
    fn used(&self, name: &str, body: &Value) -> Result<(&TransitKey, Value), (u16, Value)> {
        let Some(key) = self.keys.get(name) else { return error(400, "encryption key not found") };
        if key.soft_deleted {
            return error(400, "refusing to use soft-deleted key");
        }
        let associated = if self.old { Value::Null } else { body["associated_data"].clone() };
        if !associated.is_null() && !key.authenticates() {
            return error(
                400,
                &format!("'[0].associated_data' provided for non-AEAD cipher suite {}", key.kind),
            );
        }
        let context = body["context"].clone();
        if key.derived && context.is_null() {
            return error(
                400,
                "missing 'context' for key derivation; the key was created using a derived key",
            );
        }
        let context = if key.derived { context } else { Value::Null };
        Ok((key, json!({ "key": name, "context": context, "associated": associated })))
    }

    fn encrypt(&mut self, name: &str, body: &Value, is_new: bool) -> Outcome {
        if is_new {
            match body["type"].as_str().unwrap_or("aes256-gcm96") {
                "aes256-gcm96" => {
                    let derived = !body["context"].is_null();
                    self.keys.insert(name.to_owned(), TransitKey::new("aes256-gcm96", derived));
                }
                other => return error(400, &format!("unknown key type {other}")),
            }
        }
        let (key, bound) = self.used(name, body)?;
        let Some(plaintext) = body["plaintext"].as_str() else {
            return error(400, "missing plaintext to encrypt");
        };
        let ciphertext = seal(key, bound, plaintext);
        let mut given = ok(json!({ "ciphertext": ciphertext, "key_version": key.latest_version }));
        if self.old && !body["associated_data"].is_null() {
            given["warnings"] = json!(["Endpoint ignored these unrecognized parameters: [associated_data]"]);
        }
        Ok(given)
    }

    fn open(&self, name: &str, body: &Value) -> Result<String, (u16, Value)> {
        let (key, bound) = self.used(name, body)?;
        let Some(ciphertext) = body["ciphertext"].as_str() else {
            return error(400, "missing ciphertext to decrypt");
        };
        let Some(rest) = ciphertext.strip_prefix("vault:v") else {
            return error(400, "invalid ciphertext: no prefix");
        };
        let Some((version, sealed)) = rest.split_once(':') else {
            return error(400, "invalid ciphertext: wrong number of fields");
        };
        let version: u64 = version.parse().unwrap();
        if version > key.latest_version {
            return error(400, "invalid ciphertext: version is too new");
        }
        if version < key.min_decryption_version {
            return error(400, "ciphertext or signature version is disallowed by policy (too old)");
        }
        let Ok(octets) = STANDARD.decode(sealed) else {
            return error(400, "invalid ciphertext: could not decode base64");
        };
        let sealed: Value = serde_json::from_slice(&octets).unwrap_or_default();
        match sealed["bound"] == bound {
            true => Ok(sealed["plaintext"].as_str().unwrap().to_owned()),
            false => error(400, "cipher: message authentication failed"),
        }
    }

    fn decrypt(&self, name: &str, body: &Value) -> Outcome {
        self.open(name, body).map(|plaintext| ok(json!({ "plaintext": plaintext })))
    }

    /// It knows no associated data.
    fn rewrap(&self, name: &str, body: &Value) -> Outcome {
        let mut body = body.clone();
        body["associated_data"] = Value::Null;
        let plaintext = self.open(name, &body)?;
        let (key, bound) = self.used(name, &body)?;
        Ok(ok(json!({ "ciphertext": seal(key, bound, &plaintext), "key_version": key.latest_version })))
    }
}

fn seal(key: &TransitKey, bound: Value, plaintext: &str) -> String {
    let sealed = STANDARD.encode(json!({ "bound": bound, "plaintext": plaintext }).to_string());
    format!("vault:v{}:{sealed}", key.latest_version)
}
