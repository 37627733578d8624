//! `hostseal key generate` and `hostseal key show`.

use std::fs;
use std::path::{Path, PathBuf};

use super::args::{Invocation, KeyCommand, KeyType};
use super::exit::{CommandError, Exit};
use super::new::{refuse_existing, write_new};
use super::term::{print, tell};
use crate::identity::{KeyKind, PrivateKey, PublicKey};
use crate::store::credentials::key_file;
use crate::store::private_file;

pub(super) fn run(invocation: &Invocation, command: &KeyCommand) -> Result<Exit, CommandError> {
    match command {
        KeyCommand::Generate { kind, file } => {
            let kind = match kind {
                KeyType::Ed25519 => KeyKind::Ed25519,
                KeyType::EcdsaP256 => KeyKind::EcdsaP256,
            };
            generate(invocation, kind, &place(invocation, file.as_ref()))?;
        }
        KeyCommand::Show { file } => {
            show(private_file::load_key(&place(invocation, file.as_ref()))?.public())?;
        }
    }
    Ok(Exit::Done)
}

fn generate(invocation: &Invocation, kind: KeyKind, file: &Path) -> Result<(), CommandError> {
    let instead = "`hostseal key show` prints its line. For a new key, name another file \
                   (`hostseal key generate FILE`)";
    refuse_existing(file, instead)?;
    let pem = PrivateKey::generate(kind).map_err(|error| CommandError::new(Exit::Failed, error))?;
    let key = PrivateKey::from_pem(&pem).map_err(|error| CommandError::new(Exit::Failed, error))?;
    let directory = file.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)
        .map_err(|error| CommandError::io(format!("making {}", directory.display()), &error))?;
    write_new(file, &pem, 0o600)?;
    if !invocation.quiet {
        tell(&format!(
            "wrote {} (mode 0600; it stays on this host). Put this line under this host's [[nodes]] in the \
             configuration of every host:",
            file.display()
        ));
    }
    show(key.public())
}

/// The line of `[[nodes]]`.
fn show(key: &PublicKey) -> Result<(), CommandError> {
    print(&format!("public_key = \"{key}\"\n")).map(drop)
}

/// The file of the key: the one given, else the one that the configuration names.
fn place(invocation: &Invocation, given: Option<&PathBuf>) -> PathBuf {
    given.cloned().unwrap_or_else(|| key_file(&invocation.config))
}
