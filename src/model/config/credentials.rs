//! What the file says about proofs, and the files that it names for them.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::private_file::{self, PrivateFileError};
use super::read::{PRIVATE_KEY, named_path};
use super::{Config, Node};
use crate::model::auth::{Expected, Identity};
use crate::model::{AuthMethod, Credentials, PrivateKey, PublicKey, Secret};

/// Why a host cannot prove itself.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The secret or the key cannot be had.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The others know the host by another key.
    #[error(
        "{}: is not the key of node {node}: the file lists public_key = \"{listed}\", and this is the key of \
         \"{found}\"",
        file.display()
    )]
    OtherKey {
        /// Where the key lies.
        file: PathBuf,
        /// Whose it is to be.
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

impl Config {
    /// How `node` proves who it is.
    pub fn method_of(&self, node: &Node) -> AuthMethod {
        node.auth.unwrap_or(self.auth.method)
    }

    /// What is accepted as a proof of `node`.
    pub fn accepted_from(&self, node: &Node) -> Vec<AuthMethod> {
        node.auth.map_or_else(|| self.auth.accept.clone(), |method| vec![method])
    }

    /// Whether any host proves itself so, or may.
    pub fn uses(&self, method: AuthMethod) -> bool {
        self.nodes.iter().any(|node| self.accepted_from(node).contains(&method))
    }

    /// The files that are read for proofs.
    pub fn files_for_proofs(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        if self.uses(AuthMethod::Secret) {
            files.push(self.secret.file.clone());
            files.extend(self.secret.previous_file.clone());
        }
        if self.uses(AuthMethod::PublicKey) {
            files.push(self.auth.private_key.clone());
        }
        files
    }

    /// Reads the secret of the cluster.
    ///
    /// # Errors
    /// The file is not there, others may read it, or it holds no secret.
    pub fn load_secret(&self) -> Result<Secret, PrivateFileError> {
        private_file::load_secret(&self.secret.file)
    }

    /// Reads the secret before this one, where the file names one.
    ///
    /// # Errors
    /// As [`Config::load_secret`].
    pub fn load_previous_secret(&self) -> Result<Option<Secret>, PrivateFileError> {
        self.secret.previous_file.as_deref().map(private_file::load_secret).transpose()
    }

    /// Reads both secrets, where any host proves itself with one.
    ///
    /// # Errors
    /// As [`Config::load_secret`].
    pub fn load_secrets(&self) -> Result<(Option<Secret>, Option<Secret>), PrivateFileError> {
        match self.uses(AuthMethod::Secret) {
            true => Ok((Some(self.load_secret()?), self.load_previous_secret()?)),
            false => Ok((None, None)),
        }
    }

    /// Reads the private key of this host.
    ///
    /// # Errors
    /// The file is not there, others may read it, or it holds no private key.
    pub fn load_key(&self) -> Result<PrivateKey, PrivateFileError> {
        private_file::load_key(&self.auth.private_key)
    }

    /// Reads what `own`, the node that this host is, needs besides the secrets to prove itself and to check
    /// others.
    ///
    /// # Errors
    /// A file is missing, open to others or no such file, or holds the key of another host.
    pub fn load_credentials(&self, own: &Node) -> Result<Credentials, CredentialsError> {
        let identity = match self.method_of(own) {
            AuthMethod::Secret => Identity::Secret,
            AuthMethod::PublicKey => Identity::PublicKey(self.load_own_key(own)?),
        };
        let mut peers = HashMap::new();
        for node in &self.nodes {
            let expected = Arc::new(Expected {
                node: node.name.clone(),
                methods: self.accepted_from(node),
                public_key: node.public_key.clone(),
            });
            peers.extend(node.addresses.iter().map(|address| (*address, expected.clone())));
        }
        Ok(Credentials { identity, peers, others: None })
    }

    /// The private key of this host, which must be the one that the others know.
    fn load_own_key(&self, own: &Node) -> Result<PrivateKey, CredentialsError> {
        let key = self.load_key()?;
        match own.public_key.as_ref().filter(|listed| *listed != key.public()) {
            None => Ok(key),
            Some(listed) => Err(CredentialsError::OtherKey {
                file: self.auth.private_key.clone(),
                node: own.name.to_string(),
                listed: listed.clone(),
                found: key.public().clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
