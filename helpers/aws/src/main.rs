//! Asks AWS KMS what hostseal wants to know of a key: one line on standard input, one on standard output (docs/byok.md).
//! Where AWS is, and what this host proves itself with, the environment says, as for all programs that use AWS's SDK.
//!
//! `verdict` judges what AWS answers, and touches nothing; `service` asks.

mod key;
mod service;
mod verdict;

use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use hostseal_kms_protocol::{Answer, Question, forbid_dumps, lock_memory, run_program};
use tokio::time::{Instant, timeout_at};

use crate::service::answer;
use crate::verdict::unavailable;

/// How long all of an ask may take. Whoever has started this ends it after ten seconds, and then nobody says why.
const PATIENCE: Duration = Duration::from_secs(8);
/// What is left then to tell what was heard.
const LAST_WORD: Duration = Duration::from_millis(200);

const HELP: &str = "\
Asks AWS KMS for hostseal: the helper kms-aws.

hostseal starts it for one ask. It reads one line on standard input, and writes one
line to standard output. `[kms] provider = \"aws\"` names it.

The key is the ARN of a key, which says the region too. Credentials are those of the
instance, the container, a web identity, the environment (AWS_ACCESS_KEY_ID), or a
profile (AWS_SHARED_CREDENTIALS_FILE), as with all programs that use AWS's SDK.

See /usr/share/doc/hostseal/docs/byok.md.";

fn main() -> ExitCode {
    run_program("kms-aws", env!("CARGO_PKG_VERSION"), HELP, run)
}

fn run() -> io::Result<()> {
    forbid_dumps()?;
    if let Err(error) = lock_memory() {
        eprintln!(
            "kms-aws: the secret may be swapped to disk, as memory cannot be locked: {error}: lift the limit"
        );
    }
    let question = Question::read(&mut io::stdin().lock())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // The SDK panics where this host trusts no CA.
    let asked = catch_unwind(AssertUnwindSafe(|| runtime.block_on(within_patience(question))));
    let said = asked.unwrap_or_else(|_| {
        unavailable(
            "AWS's SDK has failed: are there CAs that this host trusts (the package ca-certificates)?"
                .to_owned(),
        )
    });
    io::stdout().write_all(&said.to_line())?;
    // Whatever is still under way is nobody's business any more.
    runtime.shutdown_background();
    Ok(())
}

async fn within_patience(question: Question) -> Answer {
    let end = Instant::now() + PATIENCE;
    // What was heard already is told, where more was asked after it.
    match timeout_at(end + LAST_WORD, answer(question, end)).await {
        Ok(said) => said,
        Err(_) => unavailable(format!("AWS has not answered within {} s", PATIENCE.as_secs())),
    }
}
