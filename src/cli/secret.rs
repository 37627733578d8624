//! `hostseal secret …`; what has to do with a KMS is in `wrap`.

use rand::TryRng;
use rand::rngs::SysRng;
use zeroize::Zeroizing;

use super::args::{Invocation, SecretCommand};
use super::exit::{CommandError, Exit};
use super::term::print;
use super::{context, wrap};
use crate::config::Config;
use crate::identity::{Secret, SecretId};
use crate::store::{credentials, kms as stored, private_file};

pub(super) fn run(invocation: &Invocation, command: &SecretCommand) -> Result<Exit, CommandError> {
    match command {
        SecretCommand::Generate => {
            let line = Zeroizing::new(format!("{}\n", *generate()?.to_line()));
            print(&line)?;
        }
        SecretCommand::Id { file } => {
            let id = match file {
                Some(file) => private_file::load_secret(file)?.id(),
                None => configured_id(&context::config(invocation)?)?,
            };
            print(&format!("{id}\n"))?;
        }
        SecretCommand::Wrap(args) => return wrap::wrap(invocation, args),
        SecretCommand::Rewrap(args) => return wrap::rewrap(invocation, args),
    }
    Ok(Exit::Done)
}

/// The fingerprint of the secret that `config` names, whether anybody uses it or not.
fn configured_id(config: &Config) -> Result<SecretId, CommandError> {
    match stored::digest(config)? {
        Some(digest) => Ok(digest.id()),
        None => Ok(credentials::load_secret(config)?.id()),
    }
}

/// A new secret from the system's randomness.
pub(super) fn generate() -> Result<Secret, CommandError> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    SysRng
        .try_fill_bytes(&mut *bytes)
        .map_err(|error| CommandError::new(Exit::Failed, format!("the system has no randomness: {error}")))?;
    Ok(Secret::new(*bytes))
}
