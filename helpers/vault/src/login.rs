//! How a host proves itself to Vault: with a token that it has, or with one that a login gives for this ask alone.

use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::http::{Client, json};
use crate::refused::Refused;
use crate::settings::Login;

/// How long it may take to give a token back. The answer waits for it.
const GIVING_BACK: Duration = Duration::from_secs(1);

/// What Vault knows this host by.
pub struct Token {
    value: Zeroizing<String>,
    origin: Origin,
}

/// Where a token comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// This host has it.
    Host,
    /// A login has given it for this ask; `is_kept`: Vault keeps it until somebody gives it back.
    Login { is_kept: bool },
}

impl Token {
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether Vault has given it just now, so that it has not expired.
    pub fn is_new(&self) -> bool {
        self.origin != Origin::Host
    }

    /// Gives back what a login has left at Vault: with an ask every few minutes there would be thousands of them, each a
    /// right to decrypt. Whether that succeeds changes nothing for the ask.
    pub async fn give_back(&self, client: &Client) {
        if self.origin == (Origin::Login { is_kept: true }) {
            let asked = client.post("auth/token/revoke-self", Some(self.value()), json(&Nothing {}));
            let _ = timeout(GIVING_BACK, asked).await;
        }
    }
}

#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
struct AppRole<'a> {
    role_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_id: Option<&'a str>,
}

#[derive(Serialize)]
struct Jwt<'a> {
    role: &'a str,
    jwt: &'a str,
}

/// A token for this host.
///
/// # Errors
/// Vault gives none. Whatever it says, the key was not refused, but this host does not prove itself.
pub async fn token(client: &Client, login: &Login) -> Result<Token, Refused> {
    let (mount, body) = match login {
        Login::Token(token) => return Ok(Token { value: token.clone(), origin: Origin::Host }),
        Login::AppRole { mount, role_id, secret_id } => {
            let secret_id = secret_id.as_ref().map(|it| it.as_str());
            (mount, json(&AppRole { role_id, secret_id }))
        }
        Login::Jwt { mount, role, jwt } => (mount, json(&Jwt { role, jwt })),
    };
    let path = format!("auth/{mount}/login");
    let reply = client.post(&path, None, body).await?;
    if reply.status != 200 {
        return Err(reply.login_refused(&path));
    }
    let auth = reply.body()?.auth.filter(|auth| !auth.client_token.is_empty());
    let auth = auth.ok_or_else(|| Refused::unavailable(format!("the login at {path} gives no token")))?;
    let origin = Origin::Login { is_kept: auth.is_kept() };
    Ok(Token { value: Zeroizing::new(auth.client_token.to_owned()), origin })
}
