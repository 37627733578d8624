//! How a host proves itself to Vault: with a token that it has, or with one that a login gives for this ask alone.

use serde::Serialize;
use zeroize::Zeroizing;

use crate::http::{Client, json};
use crate::refused::Refused;
use crate::settings::Login;

/// What Vault knows this host by.
pub struct Token {
    value: Zeroizing<String>,
    is_new: bool,
}

impl Token {
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether Vault has given it just now, so that it has not expired.
    pub fn is_new(&self) -> bool {
        self.is_new
    }
}

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
        Login::Token(token) => return Ok(Token { value: token.clone(), is_new: false }),
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
    Ok(Token { value: Zeroizing::new(auth.client_token.to_owned()), is_new: true })
}
