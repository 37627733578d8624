//! What Vault says, and what that means for the key. Pure.

use hostseal_kms_protocol::Refusal;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::key::Key;
use crate::refused::Refused;

/// How many characters of Vault's words are told.
const WORDS_MAX: usize = 200;

/// What Vault has answered.
pub struct Reply {
    /// HTTP's status.
    pub status: u16,
    /// What it holds.
    pub body: Zeroizing<Vec<u8>>,
}

/// An answer of Vault's. Another answer has none of this.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Body<'a> {
    pub request_id: Option<String>,
    #[serde(borrow)]
    pub data: Option<Data<'a>>,
    #[serde(borrow)]
    pub auth: Option<Auth<'a>>,
    warnings: Option<Vec<String>>,
}

/// What is told of a key, or done with it.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Data<'a> {
    // Borrowed, so that no copy of it stays behind: base64 has nothing to escape.
    #[serde(borrow)]
    pub plaintext: Option<&'a str>,
    pub ciphertext: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub derived: Option<bool>,
    pub soft_deleted: Option<bool>,
}

/// What a login gives.
#[derive(Deserialize)]
pub struct Auth<'a> {
    pub client_token: &'a str,
    #[serde(default)]
    token_type: Option<String>,
}

impl Auth<'_> {
    /// Whether Vault keeps the token until it is revoked or expires. Tokens of the kind `batch` are kept nowhere.
    pub fn is_kept(&self) -> bool {
        self.token_type.as_deref() != Some("batch")
    }
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<String>,
}

impl Reply {
    /// What Vault gives.
    ///
    /// # Errors
    /// It gives nothing, or this is no answer of Vault's.
    pub fn given(&self, key: &Key) -> Result<Body<'_>, Refused> {
        match self.status {
            200 => self.body(),
            _ => Err(self.refused(key)),
        }
    }

    /// What it holds, where Vault has given something.
    ///
    /// # Errors
    /// This is no answer of Vault's.
    pub fn body(&self) -> Result<Body<'_>, Refused> {
        serde_json::from_slice(&self.body).map_err(|_| {
            Refused::unavailable("what has answered is no Vault, or what it says cannot be read")
        })
    }

    /// Whether Vault says that whoever asks may not, or is nobody.
    pub fn is_forbidden(&self) -> bool {
        self.status == 403 && self.errors().is_some()
    }

    /// Vault's errors; `None` where somebody else has answered, such as a proxy in front of it: he says nothing of the key.
    fn errors(&self) -> Option<Vec<String>> {
        serde_json::from_slice(&self.body).ok().map(|Errors { errors }| errors)
    }

    /// What it means for a key that Vault has given nothing.
    fn refused(&self, key: &Key) -> Refused {
        let status = self.status;
        let Some(errors) = self.errors() else {
            let why =
                format!("HTTP status {status}, and not from Vault: does something stand in front of it?");
            return Refused::unavailable(why);
        };
        let said = in_one_line(&errors);
        let has = |words: &str| said.contains(words);
        match status {
            400 => of_transit(&said, key),
            403 => Refused::new(Refusal::Denied, "permission denied"),
            404 if errors.is_empty() => {
                Refused::new(Refusal::NotFound, format!("{} has no such key", key.mount()))
            }
            // A mount that Vault has and could not start, or is moving, comes back by itself.
            404 if has("no handler for route") && !has("backend is nil") && !has("tainted") => {
                Refused::new(Refusal::NotFound, format!("nothing is mounted at {}", key.mount()))
            }
            412 => Refused::unavailable("this node of Vault has not heard of the others' changes yet (412)"),
            429 => {
                Refused::unavailable(format!("Vault takes no more requests for now (429){}", after(&said)))
            }
            472 | 473 => Refused::unavailable(format!("this node of Vault is a standby ({status})")),
            503 => Refused::unavailable(format!("Vault is sealed or not ready (503){}", after(&said))),
            _ => Refused::unavailable(format!("HTTP status {status}{}", after(&said))),
        }
    }

    /// That a login came to nothing. Vault's words are not told: some repeat what one has proved oneself with.
    pub fn login_refused(&self, login: &str) -> Refused {
        let status = self.status;
        Refused::unavailable(match (status, self.errors()) {
            (_, None) => format!("HTTP status {status} to the login, and not from Vault"),
            (503, _) => "Vault is sealed or not ready (503)".to_owned(),
            (429, _) => "Vault takes no more logins for now (429)".to_owned(),
            (404, _) => format!("there is no login at {login} (404)"),
            (500.., _) => format!("Vault fails at the login (HTTP status {status})"),
            _ => format!("Vault refuses the login at {login} (HTTP status {status}): look at its audit log"),
        })
    }
}

impl Body<'_> {
    /// Whether Vault has passed over a parameter of this name.
    pub fn ignores(&self, parameter: &str) -> bool {
        self.warnings.iter().flatten().any(|warning| warning.contains(parameter))
    }
}

/// What Transit means by a bad request (`keysutil/policy.go`).
fn of_transit(said: &str, key: &Key) -> Refused {
    let is = |words: &[&str]| words.iter().any(|it| said.contains(it));
    if is(&["encryption key not found", "policy not found", "unknown key type"]) {
        // The last one is what it says of a kind of key that it is to make, and it is told one that does not exist.
        return Refused::new(Refusal::NotFound, format!("{} has no such key", key.mount()));
    }
    if is(&["disallowed by policy (too old)"]) {
        let why = "its min_decryption_version is above the version that has wrapped the secret";
        return Refused::new(Refusal::Disabled, why);
    }
    if is(&["soft-deleted key"]) {
        return Refused::new(Refusal::Disabled, "it is soft-deleted");
    }
    if is(&["non-AEAD", "not supported for key type"]) {
        return Refused::new(Refusal::Broken, CANNOT_BIND);
    }
    if is(&[
        "message authentication failed",
        "invalid ciphertext",
        "illegal base64",
        "missing 'context'",
        "no such key version",
        "invalid key version",
    ]) {
        return Refused::new(Refusal::Broken, said);
    }
    Refused::unavailable(format!("HTTP status 400{}", after(said)))
}

/// What is wrong with a key that cannot bind a blob to a cluster.
pub const CANNOT_BIND: &str = "a key of its type cannot bind what it wraps to your cluster: make one with type=aes256-gcm96 \
                               derived=true";

fn after(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

/// Vault's words, without its bullets.
fn in_one_line(errors: &[String]) -> String {
    let lines = errors.iter().flat_map(|error| error.lines());
    let lines = lines.map(|line| line.trim().trim_start_matches("* ")).filter(|line| {
        // "1 error occurred:" says nothing.
        !line.is_empty() && !line.ends_with("occurred:")
    });
    lines.collect::<Vec<_>>().join("; ").chars().take(WORDS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, body: &str) -> Refused {
        let reply = Reply { status, body: Zeroizing::new(body.as_bytes().to_vec()) };
        reply.given(&Key::read("transit/k").unwrap()).err().unwrap()
    }

    #[test]
    fn each_answer_means_one_thing_for_the_key() {
        let errors = |words: &str| format!("{{\"errors\":[{words:?}]}}");
        for (status, words, means, told) in [
            (400, "encryption key not found", Refusal::NotFound, "transit has no such key"),
            (400, "policy not found", Refusal::NotFound, "transit has no such key"),
            (400, "unknown key type none", Refusal::NotFound, "transit has no such key"),
            (
                400,
                "ciphertext or signature version is disallowed by policy (too old)",
                Refusal::Disabled,
                "min_decryption_version",
            ),
            (400, "refusing to use soft-deleted key", Refusal::Disabled, "soft-deleted"),
            (400, "cipher: message authentication failed", Refusal::Broken, "authentication failed"),
            (400, "invalid ciphertext: version is too new", Refusal::Broken, "too new"),
            (
                400,
                "'[0].associated_data' provided for non-AEAD cipher suite rsa-4096",
                Refusal::Broken,
                "aes256-gcm96",
            ),
            (400, "something new", Refusal::Unavailable, "HTTP status 400: something new"),
            (403, "1 error occurred:\n\t* permission denied\n\n", Refusal::Denied, "permission denied"),
            (
                404,
                "no handler for route \"transit/decrypt/k\". route entry not found.",
                Refusal::NotFound,
                "nothing is mounted",
            ),
            (
                404,
                "no handler for route \"transit/decrypt/k\". route entry found, but backend is nil.",
                Refusal::Unavailable,
                "backend is nil",
            ),
            (404, "unsupported path", Refusal::Unavailable, "HTTP status 404: unsupported path"),
            (405, "unsupported operation", Refusal::Unavailable, "405"),
            (412, "required index state not present", Refusal::Unavailable, "412"),
            (429, "request path \"x\": rate limit quota exceeded", Refusal::Unavailable, "quota"),
            (472, "", Refusal::Unavailable, "standby"),
            (473, "", Refusal::Unavailable, "standby"),
            (500, "internal error", Refusal::Unavailable, "HTTP status 500: internal error"),
            (502, "local node not active but active cluster node not found", Refusal::Unavailable, "502"),
            (503, "Vault is sealed", Refusal::Unavailable, "Vault is sealed"),
        ] {
            let refused = refused(status, &errors(words));
            assert_eq!(*refused.refusal(), means, "{status} {words}");
            assert!(refused.why().contains(told), "{} not in {:?}", told, refused.why());
        }
        assert_eq!(*refused(404, "{\"errors\":[]}").refusal(), Refusal::NotFound);
    }

    /// Whatever stands in front of Vault revokes nobody's key.
    #[test]
    fn what_somebody_else_says_says_nothing_of_the_key() {
        for body in
            ["", "<html>denied</html>", "{\"error\":\"denied\"}", "{\"errors\":\"denied\"}", "[]", "\u{0}"]
        {
            for status in [204, 302, 400, 403, 404, 500, 503] {
                assert_eq!(*refused(status, body).refusal(), Refusal::Unavailable, "{status} {body}");
            }
        }
        for body in ["", "<html>welcome</html>", "\u{0}", "{\"data\":7}"] {
            assert_eq!(*refused(200, body).refusal(), Refusal::Unavailable, "{body}");
        }
    }

    /// AppRole repeats the secret id in an error.
    #[test]
    fn no_words_to_a_login_are_told() {
        for status in [400, 403, 500] {
            let body = Zeroizing::new(b"{\"errors\":[\"invalid secret_id \\\"s3cret\\\"\"]}".to_vec());
            let refused = Reply { status, body }.login_refused("auth/approle/login");
            assert_eq!(*refused.refusal(), Refusal::Unavailable);
            assert!(!refused.why().contains("s3cret"), "{}", refused.why());
        }
    }
}
