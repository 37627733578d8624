//! `hostseal secret generate` and `hostseal secret id`.

use rand::TryRng;
use rand::rngs::SysRng;
use zeroize::Zeroizing;

use super::args::{Invocation, SecretCommand};
use super::context;
use super::exit::{CommandError, Exit};
use super::term::print;
use crate::identity::Secret;
use crate::store::{credentials, private_file};

pub(super) fn run(invocation: &Invocation, command: &SecretCommand) -> Result<Exit, CommandError> {
    match command {
        SecretCommand::Generate => {
            let line = Zeroizing::new(format!("{}\n", *generate()?.to_line()));
            print(&line)?;
        }
        SecretCommand::Id { file } => {
            let secret = match file {
                Some(file) => private_file::load_secret(file)?,
                None => credentials::load_secret(&context::config(invocation)?)?,
            };
            print(&format!("{}\n", secret.id()))?;
        }
    }
    Ok(Exit::Done)
}

/// A new secret from the system's randomness.
pub(super) fn generate() -> Result<Secret, CommandError> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    SysRng
        .try_fill_bytes(&mut *bytes)
        .map_err(|error| CommandError::new(Exit::Failed, format!("the system has no randomness: {error}")))?;
    Ok(Secret::new(*bytes))
}
