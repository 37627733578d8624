//! The secrets, keys and certificates that the configuration names.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{PrivateFileError, WrappedFileError, kms, private_file};
use crate::config::{Config, NamedPpk, Node, PRIVATE_KEY, PpkSource, named_path};
use crate::identity::certificate::{Authorities, CertificateError, Chain, Subject};
use crate::identity::{
    AuthMethod, Credentials, Expected, Identity, Ppk, PpkRule, PrivateKey, PublicKey, Secret, SecretId,
};
use crate::types::UnixTime;

/// Why a host cannot prove itself.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The secret or the key cannot be had.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The wrapped secret cannot be had.
    #[error(transparent)]
    Wrapped(#[from] WrappedFileError),
    /// A file with certificates or revocation lists cannot be read.
    #[error("{}: cannot be read: {source}; auth.certificate, auth.ca and auth.crl say where they lie", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It holds none, or one that is of no use here.
    #[error("{}: {source}", file.display())]
    Certificate {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        #[source]
        source: CertificateError,
    },
    /// The certificate is about another key than the host has.
    #[error("{}: is for another key than the one in {}", certificate.display(), key.display())]
    OtherCertificate {
        /// Where the certificate lies.
        certificate: PathBuf,
        /// Where the key lies.
        key: PathBuf,
    },
    /// A PPK that is known otherwise adds nothing.
    #[error("{}: is the same key as {other}: make one that is used for nothing else, `hostseal secret generate`", file.display())]
    SamePpk {
        /// Where the PPK lies.
        file: PathBuf,
        /// What else the key is.
        other: String,
    },
    /// The others know the host by another key.
    #[error(
        "{}: is not the key of node {node}: the file lists public_key = \"{listed}\", and this is the key of \
         \"{found}\"",
        file.display()
    )]
    OtherKey {
        /// Where the key lies.
        file: PathBuf,
        /// The node that it should be of.
        node: String,
        /// What the others know.
        listed: PublicKey,
        /// What is in the file.
        found: PublicKey,
    },
}

/// Where the configuration in `file` has this host's private key: a host has its key before the file can list
/// it, so a file that is not complete yet, or not there, will do.
pub fn key_file(file: &Path) -> PathBuf {
    let text = fs::read_to_string(file).unwrap_or_default();
    named_path(&text, &["auth", "private_key"]).unwrap_or_else(|| PathBuf::from(PRIVATE_KEY))
}

/// Reads the secret of the cluster.
///
/// # Errors
/// The file is not there, others may read it, or it holds no secret.
pub fn load_secret(config: &Config) -> Result<Arc<Secret>, PrivateFileError> {
    private_file::load_secret(&config.secret.file)
}

/// Reads the secret before this one, where the file names one.
///
/// # Errors
/// As [`load_secret`].
pub fn load_previous_secret(config: &Config) -> Result<Option<Arc<Secret>>, PrivateFileError> {
    config.secret.previous_file.as_deref().map(private_file::load_secret).transpose()
}

/// The fingerprint of the secret that this host proves itself with, where any host does so: of a wrapped one as its file
/// says it, of others once they were read.
///
/// # Errors
/// A file is not there, others may read it, or it does not hold what it should.
pub fn secret_id(config: &Config) -> Result<Option<SecretId>, CredentialsError> {
    match kms::digest(config)? {
        Some(digest) => Ok(Some(digest.id())),
        None => Ok(load_secrets(config)?.0.map(|secret| secret.id())),
    }
}

/// The secret and the one before it, where they lie in the clear.
pub type PlainSecrets = (Option<Arc<Secret>>, Option<Arc<Secret>>);

/// Reads both secrets that lie in the clear, where any host proves itself with one.
///
/// # Errors
/// As [`load_secret`].
pub fn load_secrets(config: &Config) -> Result<PlainSecrets, PrivateFileError> {
    match config.uses(AuthMethod::Secret) && config.kms.is_none() {
        true => Ok((Some(load_secret(config)?), load_previous_secret(config)?)),
        false => Ok((None, None)),
    }
}

/// Reads the private key of this host.
///
/// # Errors
/// The file is not there, others may read it, or it holds no private key.
pub fn load_key(config: &Config) -> Result<PrivateKey, PrivateFileError> {
    private_file::load_key(&config.auth.private_key)
}

/// Reads what `own`, the node that this host is, needs besides the secrets to prove itself and to check
/// others. As long as a wrapped secret is not there, it has no PPK that comes from it: where one is needed, no keys are made.
///
/// # Errors
/// A file is missing, open to others or no such file, or holds the key of another host.
pub fn load(config: &Config, own: &Node) -> Result<Credentials, CredentialsError> {
    load_with(config, own, None)
}

/// The same, where the secret that the key of `[kms]` wraps is there.
///
/// # Errors
/// As [`load`].
pub fn load_with(
    config: &Config,
    own: &Node,
    unwrapped: Option<&Secret>,
) -> Result<Credentials, CredentialsError> {
    let identity = match config.method_of(own) {
        AuthMethod::Secret => Identity::Secret,
        AuthMethod::PublicKey => Identity::PublicKey(load_own_key(config, own)?),
        AuthMethod::Certificate => load_certified(config, own)?,
    };
    let authorities = config.uses(AuthMethod::Certificate).then(|| load_authorities(config)).transpose()?;
    let (mut peers, mut floating) = (HashMap::new(), HashMap::<_, Vec<_>>::new());
    let expecting = config.nodes.iter().filter(|node| node.expects_secret);
    let by_secret =
        expecting.flat_map(|node| node.addresses.iter().copied().chain(config.floating_at(node))).collect();
    for node in &config.nodes {
        let expected = Arc::new(Expected {
            node: node.name.clone(),
            methods: if own.expects_secret { vec![AuthMethod::Secret] } else { config.accepted_from(node) },
            public_keys: node.public_key.iter().chain(&node.previous_public_key).cloned().collect(),
            addresses: node.addresses.clone(),
        });
        peers.extend(node.addresses.iter().map(|address| (*address, expected.clone())));
        for address in config.floating_at(node) {
            floating.entry(address).or_default().push(expected.clone());
        }
    }
    let ppks = load_ppks(config, own, unwrapped)?;
    let (identity, authorities) = (Arc::new(identity), authorities.map(Arc::new));
    Ok(Credentials { identity, by_secret, authorities, peers, floating, ppks, others: None })
}

/// The PPKs of `own` with the host at each address. The nodes of an address that floats have the same.
fn load_ppks(
    config: &Config,
    own: &Node,
    unwrapped: Option<&Secret>,
) -> Result<HashMap<IpAddr, PpkRule>, CredentialsError> {
    let mut loaded = HashMap::<&str, Arc<Ppk>>::new();
    let mut used: HashMap<SecretId, String> = match config.has_ppks() {
        true => known_secrets(config).map(|id| (id, "the secret of the hosts".to_owned())).collect(),
        false => HashMap::new(),
    };
    let mut rules = HashMap::<IpAddr, PpkRule>::new();
    for node in config.nodes.iter().filter(|node| node.name != own.name) {
        let Some((named, required)) = config.ppks_between(own, node) else { continue };
        for NamedPpk { id, source } in named {
            if loaded.contains_key(id.as_str()) {
                continue;
            }
            let ppk = match (source, unwrapped) {
                (PpkSource::File(file), _) => {
                    let key = private_file::load_ppk(file)?;
                    if let Some(other) = used.insert(key.id(), format!("PPK {id}")) {
                        return Err(CredentialsError::SamePpk { file: file.clone(), other });
                    }
                    Arc::new(Ppk::new(id.clone(), key))
                }
                (PpkSource::Wrapped, Some(root)) => Ppk::of_root(id.clone(), root),
                (PpkSource::Wrapped, None) => continue,
            };
            loaded.insert(id, ppk);
        }
        let keys = named.iter().filter_map(|key| loaded.get(key.id.as_str()).cloned()).collect();
        let rule = PpkRule { keys, required };
        let addresses = node.addresses.iter().copied().chain(config.floating_at(node));
        rules.extend(addresses.map(|address| (address, rule.clone())));
    }
    Ok(rules)
}

/// Which secrets there are. Whoever needs one that cannot be had says so.
fn known_secrets(config: &Config) -> impl Iterator<Item = SecretId> {
    let (current, previous) = load_secrets(config).unwrap_or_default();
    let wrapped = kms::digest(config).ok().flatten().map(|digest| digest.id());
    [current, previous].into_iter().flatten().map(|secret| secret.id()).chain(wrapped)
}

/// The private key of this host with its certificate, which must be about that key and this host.
fn load_certified(config: &Config, own: &Node) -> Result<Identity, CredentialsError> {
    let key = load_key(config)?;
    let file = &config.auth.certificate;
    let wrong = |source| CredentialsError::Certificate { file: file.clone(), source };
    let chain = Chain::from_pem(&read(file)?).map_err(wrong)?;
    if chain.public_key().map_err(wrong)? != *key.public() {
        let (certificate, key) = (file.clone(), config.auth.private_key.clone());
        return Err(CredentialsError::OtherCertificate { certificate, key });
    }
    chain.names(Subject { node: &own.name, addresses: &own.addresses }).map_err(wrong)?;
    Ok(Identity::Certificate(key, chain))
}

/// Whether others would take the certificate of this host, `own`, at `now`: as far as can be said here,
/// with the CAs that this host believes. Nothing is wrong where it has none.
///
/// # Errors
/// They would not.
pub fn check_certificate(
    config: &Config,
    own: &Node,
    credentials: &Credentials,
    now: UnixTime,
) -> Result<(), CredentialsError> {
    let Identity::Certificate(_, chain) = &*credentials.identity else { return Ok(()) };
    let Some(authorities) = &credentials.authorities else { return Ok(()) };
    let subject = Subject { node: &own.name, addresses: &own.addresses };
    let wrong = |source| CredentialsError::Certificate { file: config.auth.certificate.clone(), source };
    authorities.verify(chain, now, subject).map_err(wrong)
}

fn load_authorities(config: &Config) -> Result<Authorities, CredentialsError> {
    let wrong = |file: &PathBuf| {
        let file = file.clone();
        move |source| CredentialsError::Certificate { file, source }
    };
    let ca = &config.auth.ca;
    let mut authorities = Authorities::from_pem(&read(ca)?).map_err(wrong(ca))?;
    if let Some(crl) = &config.auth.crl {
        authorities.revoke(&read(crl)?).map_err(wrong(crl))?;
    }
    Ok(authorities)
}

/// The private key of this host, which must be the one that the others know.
fn load_own_key(config: &Config, own: &Node) -> Result<PrivateKey, CredentialsError> {
    let key = load_key(config)?;
    let is_listed = || own.previous_public_key.as_ref() == Some(key.public());
    match own.public_key.as_ref().filter(|listed| *listed != key.public() && !is_listed()) {
        None => Ok(key),
        Some(listed) => Err(CredentialsError::OtherKey {
            file: config.auth.private_key.clone(),
            node: own.name.to_string(),
            listed: listed.clone(),
            found: key.public().clone(),
        }),
    }
}

/// A file that everybody may read.
fn read(file: &Path) -> Result<String, CredentialsError> {
    let unreadable = |source| CredentialsError::Unreadable { file: file.to_owned(), source };
    fs::read_to_string(file).map_err(unreadable)
}

#[cfg(test)]
mod tests;
