//! What the file says about proofs.

use std::path::PathBuf;

use super::{Config, Node, SecretFiles, named_path};
use crate::identity::AuthMethod;

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
        let expects = |node: &Node| node.expects_secret && method == AuthMethod::Secret;
        self.nodes.iter().any(|node| expects(node) || self.accepted_from(node).contains(&method))
    }

    /// Where a secret lies that is named and nobody proves himself with.
    pub fn idle_secret(&self) -> Option<PathBuf> {
        named_path(&self.text, &["secret", "file"]).filter(|_| !self.uses(AuthMethod::Secret))
    }

    /// The files that are read for proofs.
    pub fn files_for_proofs(&self) -> Vec<PathBuf> {
        let SecretFiles { file, previous_file, wrapped_file, wrapped } = &self.secret;
        let mut files: Vec<PathBuf> = wrapped_file.iter().cloned().collect();
        if files.is_empty() && wrapped.is_none() && self.uses(AuthMethod::Secret) {
            files.extend([file.clone()].into_iter().chain(previous_file.clone()));
        }
        if AuthMethod::ALL.into_iter().any(|method| method != AuthMethod::Secret && self.uses(method)) {
            files.push(self.auth.private_key.clone());
        }
        if self.uses(AuthMethod::Certificate) {
            files.extend([self.auth.certificate.clone(), self.auth.ca.clone()]);
            files.extend(self.auth.crl.clone());
        }
        files.extend(self.ppk.files().cloned());
        files
    }
}

#[cfg(test)]
pub(crate) mod tests;
