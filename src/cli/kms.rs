//! `hostseal kms …`, and `hostseal secret wrap`: what an operator has to do with the key that wraps the secret.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hostseal_kms_protocol::Refusal;

use super::args::{Invocation, KmsCommand, WrapArgs};
use super::context;
use super::exit::{CommandError, Exit};
use super::term::{print, print_json, tell};
use crate::config::{Config, KmsRules};
use crate::identity::Secret;
use crate::observe::KeyReport;
use crate::observe::kms::{KeyStanding, refusal as explained};
use crate::store::kms::{self, KmsRefusal};
use crate::store::{credentials, private_file};
use crate::types::units::human_duration;

/// How long the agent has for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the wrapped secret goes unless somebody says otherwise.
const WRAPPED: &str = "/etc/hostseal/secret.wrapped";

pub(super) fn run(invocation: &Invocation, command: &KmsCommand) -> Result<Exit, CommandError> {
    match command {
        KmsCommand::Status { json } => status(invocation, *json),
        KmsCommand::Check => check(&context::config(invocation)?),
    }
}

fn rules(config: &Config) -> Result<&KmsRules, CommandError> {
    let none = "no key of a KMS wraps the secret of this host: `hostseal secret wrap` wraps it (byok.md)";
    config.kms.as_ref().ok_or_else(|| CommandError::new(Exit::Usage, none))
}

/// What the agent knows of the key.
fn status(invocation: &Invocation, json: bool) -> Result<Exit, CommandError> {
    let (config, _) = context::config_at_work(invocation)?;
    rules(&config)?;
    let status = context::client(&config).status_within(PATIENCE)?;
    let Some(report) = status.kms else {
        return Err(CommandError::new(
            Exit::Failed,
            "the agent has not taken up [kms] yet: `hostseal reload`",
        ));
    };
    if json {
        print_json(&report)?;
    } else {
        print(&sheet(&report))?;
    }
    let fine = !report.cut && matches!(report.state, KeyStanding::Valid);
    Ok(if fine { Exit::Done } else { Exit::Degraded })
}

/// For how long a host goes on whose key is revoked, or whose agent is dead; `None` where no key wraps its secret.
pub(super) fn bound(config: &Config) -> Option<String> {
    let rules = config.kms.as_ref()?;
    let (key, [revoked, max_offline]) = (&rules.key, [rules.bound(), rules.max_offline].map(human_duration));
    Some(format!(
        "the key {key} wraps the secret: once it is revoked, this host is cut off within about {revoked}, or \
         within {max_offline} if it does not reach the KMS. If its agent is down for {max_offline}, its traffic stops"
    ))
}

/// The key in lines.
fn sheet(report: &KeyReport) -> String {
    let time = |seconds: u64| human_duration(Duration::from_secs(seconds));
    let lease = match report.lease_left_s {
        Some(left) => {
            format!("{} left; this host is cut off then, unless the key is used before", time(left))
        }
        None => {
            "over: this host is cut off. It is protected again by itself when the key can be used".to_owned()
        }
    };
    let last = report.last_use.map_or_else(|| "not since the agent started".to_owned(), |at| at.to_string());
    [
        ("key", format!("{} at {}", report.key, report.provider)),
        ("state", report.in_words()),
        ("last use", last),
        ("lease", lease),
        (
            "bound",
            format!(
                "{} after the key is revoked, where the KMS can be reached, and {} where it cannot; plus what the KMS takes \
                 itself, up to 20 s for an answer",
                time(report.bound_s),
                time(report.max_offline_s)
            ),
        ),
        ("agent", format!("if it is down for {}, the traffic stops", time(report.max_offline_s))),
    ]
    .map(|(name, words)| format!("{name:<10}{words}\n"))
    .concat()
}

/// Asks for what this host must be given, and for what it must not.
fn check(config: &Config) -> Result<Exit, CommandError> {
    let rules = rules(config)?;
    let mut exit = Exit::Done;
    let mut line = |fine: bool, words: String| {
        if !fine {
            exit = Exit::Degraded;
        }
        print(&format!("{:<6}{words}\n", if fine { "ok" } else { "FAIL" }))
    };
    let request = |id: Option<String>| id.map(|id| format!(" (request {id})")).unwrap_or_default();
    let secret = match kms::unwrap(config, rules) {
        Ok(unwrapped) => {
            let id = unwrapped.given.id();
            line(true, format!("decrypt: the secret {id}{}", request(unwrapped.request_id)))?;
            Some(unwrapped.given)
        }
        Err(refusal) => {
            line(false, format!("decrypt: {}", in_words(&refusal)))?;
            None
        }
    };
    match kms::describe(rules) {
        Ok(described) => {
            line(true, format!("describe: the key is enabled{}", request(described.request_id)))?
        }
        Err(KmsRefusal { refusal: Refusal::Denied, request_id, .. }) => line(
            false,
            format!(
                "describe: the KMS does not let this host describe the key: allow that{}",
                request(request_id)
            ),
        )?,
        Err(refusal) => line(false, format!("describe: {}", in_words(&refusal)))?,
    };
    if let Some(secret) = secret {
        match kms::wrap(&config.cluster, rules, &secret) {
            Ok(_) => line(
                false,
                "encrypt: this host may wrap secrets: whoever takes it over could put another one in place. Take \
                 the right to encrypt from it"
                    .to_owned(),
            )?,
            Err(KmsRefusal { refusal: Refusal::Denied, request_id, .. }) => {
                line(true, format!("encrypt: is refused to this host, as it should be{}", request(request_id)))?
            }
            Err(refusal) => line(false, format!("encrypt: it is not known whether it is refused: {}", in_words(&refusal)))?,
        };
    }
    Ok(exit)
}

/// Wraps the secret that lies in the clear.
pub(super) fn wrap(invocation: &Invocation, args: &WrapArgs) -> Result<Exit, CommandError> {
    let config = context::config(invocation)?;
    let rules = rules_of(&config, args)?;
    let secret = match (&args.from, &config.kms) {
        (Some(file), _) => private_file::load_secret(file)?,
        (None, None) => credentials::load_secret(&config)?,
        (None, Some(kms)) => {
            let now = kms::unwrap(&config, kms)
                .map_err(|refusal| failed("the secret was not unwrapped", &refusal))?;
            return put(&config, args, &rules, &now.given);
        }
    };
    put(&config, args, &rules, &secret)
}

fn put(config: &Config, args: &WrapArgs, rules: &KmsRules, secret: &Secret) -> Result<Exit, CommandError> {
    let wrapped = kms::wrap(&config.cluster, rules, secret)
        .map_err(|refusal| failed("the secret was not wrapped", &refusal))?;
    let out = args.out.as_deref().or(config.secret.wrapped_file.as_deref()).unwrap_or(Path::new(WRAPPED));
    wrapped
        .save(out)
        .map_err(|error| CommandError::io(format!("{} cannot be written", out.display()), &error))?;
    tell(&format!(
        "the secret {} is in {}, wrapped. Copy it to all hosts, and say there:",
        secret.id(),
        out.display()
    ));
    print(&lines(out, rules))?;
    tell(
        "This replaces [secret] there. Run `hostseal kms check` on each host, and only then delete the plain secret.",
    );
    Ok(Exit::Done)
}

/// What a configuration says of it.
fn lines(file: &Path, rules: &KmsRules) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let program = match rules.provider.as_str() {
        "exec" => format!("program = {}\n", quoted(&rules.program.display().to_string())),
        _ => String::new(),
    };
    format!(
        "[secret]\nwrapped_file = {}\n[kms]\nprovider = {}\n{program}key = {}\n",
        quoted(&file.display().to_string()),
        quoted(&rules.provider),
        quoted(&rules.key)
    )
}

/// Who is asked: as the command line says it, and the configuration where that is silent.
fn rules_of(config: &Config, args: &WrapArgs) -> Result<KmsRules, CommandError> {
    let usage = |words: &str| CommandError::new(Exit::Usage, words);
    let before = config.kms.as_ref();
    let key = args.kms_key.clone().or(before.map(|kms| kms.key.clone()));
    let key = key.ok_or_else(|| usage("which key? Say --kms-key KEY"))?;
    let provider = args.provider.clone().or(before.map(|kms| kms.provider.clone()));
    let provider = provider.ok_or_else(|| usage("who keeps the key? Say --provider NAME"))?;
    let program: Option<PathBuf> = args
        .program
        .clone()
        .or_else(|| before.filter(|kms| kms.provider == provider).map(|kms| kms.program.clone()));
    KmsRules::of(&provider, program, &key, before).map_err(|words| CommandError::new(Exit::Usage, words))
}

fn failed(what: &str, refusal: &KmsRefusal) -> CommandError {
    CommandError::new(Exit::Failed, format!("{what}: {}", in_words(refusal)))
}

/// Why a KMS gave nothing, and what to do.
fn in_words(refusal: &KmsRefusal) -> String {
    let KmsRefusal { refusal, why, request_id } = refusal;
    let what = explained(refusal);
    let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let request = request_id.as_ref().map(|id| format!(" (request {id})")).unwrap_or_default();
    format!("{what}{why}{request}")
}
