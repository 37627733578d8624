//! Where Vault is, and what this host proves itself with: the environment, and the credentials of systemd.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::{env, io};

use http::{HeaderValue, Uri};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use zeroize::Zeroizing;

use crate::refused::Refused;

/// More octets than this are something else.
const FILE_MAX: u64 = 256 << 10;
/// Where Kubernetes puts what proves a pod.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const HTTPS_PORT: u16 = 443;

/// All that somebody has set.
pub struct Settings {
    /// Where Vault is.
    pub address: Address,
    /// Vault's namespace.
    pub namespace: Option<HeaderValue>,
    /// Who signs Vault's certificates; nobody, where it is whom this system trusts.
    pub roots: Vec<CertificateDer<'static>>,
    /// The name in Vault's certificate, where it is not that of the address.
    pub server_name: Option<ServerName<'static>>,
    /// How this host proves itself.
    pub login: Login,
}

/// How a host proves itself.
pub enum Login {
    /// By a token that it has.
    Token(Zeroizing<String>),
    /// By a role and its secret id.
    AppRole {
        /// Where the method is mounted.
        mount: String,
        /// The role's id.
        role_id: Zeroizing<String>,
        /// The secret id, where the role takes one.
        secret_id: Option<Zeroizing<String>>,
    },
    /// By what Kubernetes, or another issuer, has signed.
    Jwt {
        /// Where the method is mounted.
        mount: String,
        /// The role.
        role: String,
        /// What was signed.
        jwt: Zeroizing<String>,
    },
}

/// `https://HOST[:PORT][/PREFIX]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The host, without brackets.
    pub host: String,
    pub port: u16,
    /// What HTTP calls the host.
    pub authority: String,
    /// What stands before each path: nothing, or `/PREFIX`.
    pub prefix: String,
}

impl Address {
    /// Reads a URL; `None` if it is another one.
    pub fn read(url: &str) -> Option<Self> {
        let url: Uri = url.parse().ok()?;
        let authority = url.authority()?;
        let is_plain = url.query().is_none() && !authority.as_str().contains('@');
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        (url.scheme_str() == Some("https") && is_plain && !host.is_empty()).then(|| Self {
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(HTTPS_PORT),
            authority: authority.as_str().to_owned(),
            prefix: url.path().trim_end_matches('/').to_owned(),
        })
    }
}

/// Whoever says what was set: the process, or a test.
struct Source<'s> {
    variable: &'s dyn Fn(&str) -> Option<String>,
}

impl Settings {
    /// What was set for this process.
    ///
    /// # Errors
    /// Something is missing or makes no sense. No secret is repeated.
    pub fn of_this_process() -> Result<Self, Refused> {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        Source { variable: &variable }.read().map_err(Refused::unavailable)
    }
}

impl Source<'_> {
    fn read(&self) -> Result<Settings, String> {
        let (name, address) = self.of_vault("ADDR").ok_or("VAULT_ADDR is not set: https://HOST:8200")?;
        let address = Address::read(&address)
            .ok_or_else(|| format!("{name} must be https://HOST:PORT, and nothing but https"))?;
        let namespace = self.of_vault("NAMESPACE").map(|(name, value)| {
            HeaderValue::from_str(&value).map_err(|_| format!("{name} is no name of a namespace"))
        });
        let server_name = self.of_vault("TLS_SERVER_NAME").map(|(name, value)| {
            ServerName::try_from(value).map_err(|_| format!("{name} is no name of a server"))
        });
        Ok(Settings {
            address,
            namespace: namespace.transpose()?,
            roots: self.roots()?,
            server_name: server_name.transpose()?,
            login: self.login()?,
        })
    }

    /// A variable of Vault's, and its full name; OpenBao's counts before it.
    fn of_vault(&self, name: &str) -> Option<(String, String)> {
        let named = ["BAO", "VAULT"].map(|of| format!("{of}_{name}"));
        named.into_iter().find_map(|name| (self.variable)(&name).map(|value| (name, value)))
    }

    /// A credential that systemd has loaded (`LoadCredential=NAME:FILE`).
    fn credential(&self, name: &str) -> Option<PathBuf> {
        let directory = (self.variable)("CREDENTIALS_DIRECTORY")?;
        Some(Path::new(&directory).join(name)).filter(|file| file.exists())
    }

    fn roots(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let named = self.of_vault("CACERT").map(|(_, file)| file.into());
        let Some(file) = named.or_else(|| self.credential("vault-ca")) else { return Ok(Vec::new()) };
        let octets = read(&file)?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&octets).collect();
        certificates
            .ok()
            .filter(|all| !all.is_empty())
            .ok_or_else(|| format!("{}: there is no certificate in it (PEM)", file.display()))
    }

    fn login(&self) -> Result<Login, String> {
        let word = (self.variable)("HOSTSEAL_KMS_LOGIN").unwrap_or_else(|| "token".to_owned());
        let mount = || match (self.variable)("HOSTSEAL_KMS_LOGIN_MOUNT") {
            None => Ok(word.clone()),
            Some(mount) if is_path(&mount) => Ok(mount),
            Some(_) => Err("HOSTSEAL_KMS_LOGIN_MOUNT must be a path such as approle".to_owned()),
        };
        let role = (self.variable)("HOSTSEAL_KMS_ROLE");
        let secret = |name: &str| self.credential(name).map(|file| line(&file)).transpose();
        match word.as_str() {
            "token" => {
                let set = self.of_vault("TOKEN").map(|(_, token)| Zeroizing::new(token));
                let token = set.map_or_else(|| secret("vault-token"), |token| Ok(Some(token)))?;
                Ok(Login::Token(token.ok_or(
                    "there is no token: LoadCredential=vault-token:FILE of hostseal-kms@.service, or VAULT_TOKEN",
                )?))
            }
            "approle" => {
                let role_id =
                    role.map(Zeroizing::new).map_or_else(|| secret("vault-role-id"), |it| Ok(Some(it)))?;
                let role_id = role_id
                    .ok_or("there is no role id: HOSTSEAL_KMS_ROLE, or LoadCredential=vault-role-id:FILE")?;
                Ok(Login::AppRole { mount: mount()?, role_id, secret_id: secret("vault-secret-id")? })
            }
            "kubernetes" | "jwt" => {
                let file = (self.variable)("HOSTSEAL_KMS_JWT_FILE").map(PathBuf::from);
                let file =
                    file.or_else(|| self.credential("vault-jwt")).unwrap_or_else(|| SERVICE_ACCOUNT.into());
                let role = role.ok_or("HOSTSEAL_KMS_ROLE is not set: the role of the login")?;
                Ok(Login::Jwt { mount: mount()?, role, jwt: line(&file)? })
            }
            _ => Err("HOSTSEAL_KMS_LOGIN must be token, approle, kubernetes or jwt".to_owned()),
        }
    }
}

/// Whether it can stand in a path as it is.
fn is_path(text: &str) -> bool {
    let is_good = |part: &str| {
        let letters = part.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_.".contains(&it));
        letters && !part.is_empty() && !part.starts_with('.')
    };
    text.split('/').all(is_good)
}

/// A file that holds one secret.
fn line(file: &Path) -> Result<Zeroizing<String>, String> {
    let octets = read(file)?;
    let text = std::str::from_utf8(&octets).unwrap_or_default().trim();
    let is_good = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_graphic());
    is_good
        .then(|| Zeroizing::new(text.to_owned()))
        .ok_or_else(|| format!("{}: there is not one line of plain characters in it", file.display()))
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let read = || -> io::Result<_> {
        // Its full size at once: growing would leave copies behind.
        let mut octets = Zeroizing::new(Vec::with_capacity(FILE_MAX as usize + 1));
        File::open(file)?.take(FILE_MAX + 1).read_to_end(&mut octets)?;
        Ok(octets)
    };
    let octets = read().map_err(|error| format!("{}: {error}", file.display()))?;
    match octets.len() as u64 <= FILE_MAX {
        true => Ok(octets),
        false => Err(format!("{}: it is too long", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(set: &[(&str, &str)]) -> Result<Settings, String> {
        let variable =
            |name: &str| set.iter().find(|(it, _)| *it == name).map(|(_, value)| (*value).to_owned());
        Source { variable: &variable }.read()
    }

    fn why(set: &[(&str, &str)]) -> String {
        settings(set).err().unwrap_or_default()
    }

    const ADDRESS: (&str, &str) = ("VAULT_ADDR", "https://vault:8200");

    #[test]
    fn addresses_are_https_alone() {
        let read = |url| Address::read(url).map(|it| (it.host, it.port, it.authority, it.prefix));
        let owned = |host: &str, port, authority: &str, prefix: &str| {
            Some((host.to_owned(), port, authority.to_owned(), prefix.to_owned()))
        };
        assert_eq!(read("https://vault:8200"), owned("vault", 8200, "vault:8200", ""));
        assert_eq!(read("https://vault/"), owned("vault", 443, "vault", ""));
        assert_eq!(read("https://[fd00::1]:8200/a/"), owned("fd00::1", 8200, "[fd00::1]:8200", "/a"));
        for other in [
            "http://vault:8200",
            "vault:8200",
            "https://u:p@vault",
            "https://",
            "unix:///x",
            "https://v?x=1",
            "",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(why(&[]).contains("VAULT_ADDR is not set"));
        assert!(why(&[("BAO_ADDR", "http://x"), ADDRESS]).contains("BAO_ADDR must be https"));
        assert!(why(&[ADDRESS]).contains("there is no token"));
        assert!(why(&[ADDRESS, ("HOSTSEAL_KMS_LOGIN", "magic")]).contains("must be token, approle"));
        assert!(why(&[ADDRESS, ("HOSTSEAL_KMS_LOGIN", "approle")]).contains("there is no role id"));
        assert!(why(&[ADDRESS, ("HOSTSEAL_KMS_LOGIN", "kubernetes")]).contains("HOSTSEAL_KMS_ROLE"));
        let jwt = [ADDRESS, ("HOSTSEAL_KMS_LOGIN", "kubernetes"), ("HOSTSEAL_KMS_ROLE", "r")];
        assert!(why(&jwt).contains(SERVICE_ACCOUNT));
        assert!(why(&[ADDRESS, ("VAULT_CACERT", "/none")]).contains("/none: No such file"));
        let mount = [ADDRESS, ("HOSTSEAL_KMS_LOGIN", "approle"), ("HOSTSEAL_KMS_ROLE", "r")];
        assert!(
            why(&[&mount[..], &[("HOSTSEAL_KMS_LOGIN_MOUNT", "../sys")]].concat()).contains("must be a path")
        );
    }

    #[test]
    fn what_is_secret_comes_from_files_and_is_not_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().to_str().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        let set = [ADDRESS, ("CREDENTIALS_DIRECTORY", place)];
        write("vault-token", "hvs.abc\n");
        let Login::Token(token) = settings(&set).unwrap().login else { panic!("no token") };
        assert_eq!(*token, "hvs.abc");
        write("vault-token", "hvs.abc and\nmore");
        let error = why(&set);
        assert!(error.contains("not one line") && !error.contains("hvs"), "{error}");
        write("vault-secret-id", "s\n");
        let approle = [&set[..], &[("HOSTSEAL_KMS_LOGIN", "approle"), ("HOSTSEAL_KMS_ROLE", "r")]].concat();
        let Login::AppRole { mount, role_id, secret_id } = settings(&approle).unwrap().login else {
            panic!("no role")
        };
        assert_eq!((&*mount, &**role_id, secret_id.as_deref().map(|it| &**it)), ("approle", "r", Some("s")));
        write("vault-ca", "nothing");
        assert!(why(&set).contains("there is no certificate in it"));
    }
}
