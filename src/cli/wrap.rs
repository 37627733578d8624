//! `hostseal secret wrap` and `hostseal secret rewrap`: the file that holds the secret as a key in a KMS has wrapped it.
//!
//! What the KMS gives is tried before anybody relies on it, and what lay there is kept beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hostseal_kms_protocol::Refusal;

use super::args::{Invocation, OutArgs, RewrapArgs, WrapArgs};
use super::cluster;
use super::context;
use super::exit::{CommandError, Exit};
use super::kms::{audit, not_wrapped, on_record, rules};
use super::term::{print, tell};
use crate::config::{Config, KmsRules, WrappedSecret};
use crate::identity::{Secret, SecretDigest};
use crate::observe::audit::AuditWords;
use crate::observe::kms::in_words;
use crate::store::kms::{self, KmsRefusal};
use crate::store::{AuditKind, credentials, private_file, publish};

/// Where the wrapped secret goes unless somebody says otherwise.
const WRAPPED: &str = "/etc/hostseal/secret.wrapped";

/// Wraps the secret that lies in the clear, or the one that is wrapped already.
pub(super) fn wrap(invocation: &Invocation, args: &WrapArgs) -> Result<Exit, CommandError> {
    let (config, _) = context::config_at_work(invocation)?;
    if cluster::wraps(&config) {
        return cluster::wrap(invocation, args);
    }
    let config = context::config(invocation)?;
    let rules = rules_of(&config, args)?;
    let secret: Arc<Secret> = match (&args.from, &config.kms) {
        (Some(file), _) => private_file::load_secret(file)?,
        (None, None) => credentials::load_secret(&config)?,
        (None, Some(kms)) => {
            let now = kms::unwrap(&config, kms);
            now.map_err(|refusal| failed("the secret was not unwrapped", &refusal))?.given
        }
    };
    let place = WrappedPlace::of(&config, &rules, &secret.digest(), &args.out)?;
    let wrapped = kms::wrap(&config.cluster, &rules, &secret);
    let words = wrapped.as_ref().err().map_or_else(AuditWords::of_wrapping, AuditWords::of_refusal);
    audit::note(&config, &rules, AuditKind::Wrap, words);
    let wrapped = wrapped.map_err(|refusal| not_wrapped(&refusal))?;
    place.put(&config, &rules, &wrapped)
}

/// Wraps anew what is wrapped.
pub(super) fn rewrap(invocation: &Invocation, args: &RewrapArgs) -> Result<Exit, CommandError> {
    let (config, _) = context::config_at_work(invocation)?;
    if cluster::wraps(&config) {
        return cluster::rewrap(invocation, args);
    }
    let config = context::config(invocation)?;
    let kms = rules(&config)?;
    let key = args.kms_key.as_deref().unwrap_or(&kms.key);
    let rules = asked_at(
        args.out.socket.as_ref(),
        KmsRules::of(&kms.provider, Some(kms.program.clone()), key, Some(kms)),
    )?;
    let before = kms::load(&config, kms)?;
    let place = WrappedPlace::of(&config, &rules, &before.digest, &args.out)?;
    let asked = KmsRules { socket: rules.socket.clone(), ..kms.clone() };
    let rewrapped = kms::rewrap(&config.cluster, &asked, &before, key);
    audit::note(&config, &rules, AuditKind::Rewrap, on_record(&rewrapped));
    let rewrapped = rewrapped.map_err(|refusal| {
        let CommandError { exit, message } = failed("the secret was not wrapped anew", &refusal);
        CommandError::new(
            exit,
            format!("{message}. If the helper cannot do that, use `hostseal secret wrap`"),
        )
    })?;
    if let Some(words) = &rewrapped.why {
        tell(words);
    }
    place.put(&config, &rules, &rewrapped.given)
}

/// Where a wrapped secret is to lie.
struct WrappedPlace {
    file: PathBuf,
    /// Whether the agent of this host goes by it, with the same key and the same secret.
    is_in_force: bool,
    force: bool,
}

impl WrappedPlace {
    /// The place that somebody wants, or one where it is in nobody's way.
    fn of(
        config: &Config,
        rules: &KmsRules,
        secret: &SecretDigest,
        args: &OutArgs,
    ) -> Result<Self, CommandError> {
        let force = args.force;
        let Some((kms, in_force)) = config.kms.as_ref().zip(config.secret.wrapped_file.as_deref()) else {
            let file = args.out.clone().unwrap_or_else(|| WRAPPED.into());
            return Ok(Self { file, is_in_force: false, force });
        };
        // One that cannot be read is nothing to keep to.
        let is_known = kms::digest(config).ok().flatten().is_none_or(|known| known == *secret);
        let fits = is_known
            && (&kms.provider, &kms.program, &kms.key) == (&rules.provider, &rules.program, &rules.key);
        match &args.out {
            None if fits => Ok(Self { file: in_force.to_owned(), is_in_force: true, force }),
            None => {
                let mut beside = in_force.as_os_str().to_owned();
                beside.push(".new");
                Ok(Self { file: beside.into(), is_in_force: false, force })
            }
            Some(out) if !is_same(out, in_force) => Ok(Self { file: out.clone(), is_in_force: false, force }),
            Some(out) if fits || force => Ok(Self { file: out.clone(), is_in_force: fits, force }),
            Some(out) => {
                let message = format!(
                    "{} is in force, and wrapped with the key {}. This is the secret {} with the key {}: write it to \
                     another file, and name that in the configuration once all hosts have it (or --force)",
                    out.display(),
                    kms.key,
                    secret.id(),
                    rules.key
                );
                Err(CommandError::new(Exit::Usage, message))
            }
        }
    }

    /// Tries what a KMS has wrapped, and puts it there.
    fn put(&self, config: &Config, rules: &KmsRules, wrapped: &WrappedSecret) -> Result<Exit, CommandError> {
        self.try_out(config, rules, wrapped)?;
        let file = &self.file;
        let io = |error| CommandError::io(format!("{} cannot be written", file.display()), &error);
        let previous = publish::keep_previous(file).map_err(io)?;
        wrapped.save(file).map_err(io)?;
        tell(&format!("the secret {} is in {}, wrapped", wrapped.digest.id(), file.display()));
        if let Some(previous) = previous {
            tell(&format!("What was there is in {}", previous.display()));
        }
        if self.is_in_force {
            tell(
                "Copy it to all hosts. Their configuration stays as it is. Run `hostseal kms check` on each",
            );
            return Ok(Exit::Done);
        }
        tell("Copy it to all hosts, and say there:");
        print(&(lines(file, rules) + &kept(config)))?;
        tell(
            "This replaces [secret], and [kms] if it is there. Run `hostseal kms check` on each host, and only then delete \
             what was in use before.",
        );
        Ok(Exit::Done)
    }

    /// Whether this host gets from it what was wrapped. Who may only wrap cannot know.
    fn try_out(
        &self,
        config: &Config,
        rules: &KmsRules,
        wrapped: &WrappedSecret,
    ) -> Result<(), CommandError> {
        let Err(refusal) = kms::unwrap_blob(&config.cluster, rules, wrapped) else { return Ok(()) };
        match &refusal.refusal {
            Refusal::Broken => {
                Err(failed("what the KMS has wrapped does not open. Nothing was written", &refusal))
            }
            Refusal::Denied if !self.is_in_force || self.force => {
                tell(
                    "nobody has tried it: this host may not decrypt with the key. Run `hostseal kms check` on one that may",
                );
                Ok(())
            }
            _ if self.force => {
                tell(&format!("nobody has tried it: {}", in_words(&refusal)));
                Ok(())
            }
            _ => {
                let CommandError { exit, message } =
                    failed("what the KMS has wrapped could not be tried. Nothing was written", &refusal);
                let instead = match self.is_in_force {
                    true => {
                        "Write it to a file that is not in force (--out), and try it on another host; or say --force"
                    }
                    false => "Try again, or say --force",
                };
                Err(CommandError::new(exit, format!("{message}. {instead}")))
            }
        }
    }
}

/// Whether two names lead to one file.
fn is_same(one: &Path, other: &Path) -> bool {
    one == other
        || fs::canonicalize(one)
            .ok()
            .zip(fs::canonicalize(other).ok())
            .is_some_and(|(one, other)| one == other)
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

/// What `[kms]` says beside that, as TOML.
fn kept(config: &Config) -> String {
    let table = config.text().parse::<toml::Table>().unwrap_or_default();
    let kms = table.get("kms").and_then(toml::Value::as_table);
    let others =
        kms.into_iter().flatten().filter(|(key, _)| !["provider", "program", "key"].contains(&key.as_str()));
    others.map(|(key, value)| format!("{key} = {value}\n")).collect()
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
    asked_at(args.out.socket.as_ref(), KmsRules::of(&provider, program, &key, before))
}

/// Those, asked somewhere else than the configuration says, where somebody wants that.
fn asked_at(socket: Option<&PathBuf>, rules: Result<KmsRules, String>) -> Result<KmsRules, CommandError> {
    let mut rules = rules.map_err(|words| CommandError::new(Exit::Usage, words))?;
    if let Some(socket) = socket {
        rules.socket.clone_from(socket);
    }
    Ok(rules)
}

fn failed(what: &str, refusal: &KmsRefusal) -> CommandError {
    CommandError::new(Exit::Failed, format!("{what}: {}", in_words(refusal)))
}
