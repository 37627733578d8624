//! Asks HashiCorp Vault or OpenBao (Transit) what hostseal wants to know of a key: one line on standard input, one on standard
//! output (docs/byok.md). Where Vault is, and what this host proves itself with, the environment says.
//!
//! `says` judges what Vault answers, and touches nothing; `http` carries; `transit` puts them together.

mod http;
mod key;
mod login;
mod refused;
mod says;
mod settings;
mod transit;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use hostseal_kms_protocol::{Answer, Question, Refusal, forbid_dumps, lock_memory, run_program};

use crate::refused::Refused;
use crate::settings::Settings;
use crate::transit::Transit;

/// How long all of an ask may take. Whoever has started this ends it after ten seconds, and then nobody says why.
const PATIENCE: Duration = Duration::from_secs(8);

const HELP: &str = "\
Asks HashiCorp Vault or OpenBao for hostseal: the helper kms-vault.

hostseal starts it for one ask. It reads one line on standard input, and writes one
line to standard output. `[kms] provider = \"vault\"` names it.

Environment: VAULT_ADDR, VAULT_NAMESPACE, VAULT_CACERT, VAULT_TLS_SERVER_NAME, VAULT_TOKEN (or
BAO_ instead of VAULT_), HOSTSEAL_KMS_LOGIN, HOSTSEAL_KMS_LOGIN_MOUNT, HOSTSEAL_KMS_ROLE,
HOSTSEAL_KMS_JWT_FILE. Credentials of systemd: vault-token, vault-role-id, vault-secret-id,
vault-jwt, vault-ca.

See /usr/share/doc/hostseal/docs/byok.md.";

fn main() -> ExitCode {
    run_program("kms-vault", env!("CARGO_PKG_VERSION"), HELP, run)
}

fn run() -> io::Result<()> {
    // It will hold a secret.
    forbid_dumps()?;
    if let Err(error) = lock_memory() {
        eprintln!("kms-vault: its memory may be swapped to disk: {error}");
    }
    let question = Question::read(&mut io::stdin().lock())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        let answer = tokio::time::timeout(PATIENCE, ask(&question)).await;
        answer.unwrap_or_else(|_| {
            let why = format!("Vault has not answered within {} s", PATIENCE.as_secs());
            Refused::new(Refusal::Unavailable, why).into()
        })
    });
    // A look-up of a name may still be under way.
    runtime.shutdown_background();
    let mut out = io::stdout().lock();
    out.write_all(&answer.to_line())?;
    out.flush()
}

/// What comes of a question.
async fn ask(question: &Question) -> Answer {
    let asked = async {
        let settings = Settings::of_this_process()?;
        Transit::begin(&settings).await?.ask(question).await
    };
    asked.await.unwrap_or_else(Answer::from)
}
