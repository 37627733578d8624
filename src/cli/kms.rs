//! `hostseal kms …`: how the key stands that wraps the secret, and whether this host may do what it must and no more.

pub(super) mod audit;

use std::time::Duration;

use hostseal_kms_protocol::Refusal;

use super::args::{Invocation, KmsCommand};
use super::context;
use super::exit::{CommandError, Exit};
use super::term::{print, print_json};
use crate::config::{Config, KmsRules, OfferedSecret};
use crate::observe::KeyReport;
use crate::observe::audit::{AuditReport, AuditWords};
use crate::observe::kms::{KeyStanding, hope, in_words};
use crate::store::kms::{self, KmsAnswer, KmsGift, KmsRefusal};
use crate::store::{AuditKind, private_file};
use crate::types::units::human_duration;

/// How long the agent has for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a KMS may take for an answer, with whoever asks it, before it counts as away.
const ANSWER: Duration = Duration::from_secs(20);

/// Who says which key it is, on a member.
const FROM_ROSTER: &str = "the roster of the cluster (`hostseal settings`); the helper is this host's";

pub(super) fn run(invocation: &Invocation, command: &KmsCommand) -> Result<Exit, CommandError> {
    match command {
        KmsCommand::Status { json } => status(invocation, *json),
        KmsCommand::Check => check(&context::config(invocation)?),
        KmsCommand::Audit(args) => audit::run(invocation, args),
    }
}

pub(super) fn rules(config: &Config) -> Result<&KmsRules, CommandError> {
    let none = "no key of a KMS wraps a secret of this host. In a cluster, `hostseal status --cluster` says whether one is \
                on its way. How to begin is in byok.md";
    config.kms.as_ref().ok_or_else(|| CommandError::new(Exit::Usage, none))
}

/// What the agent knows of the key.
fn status(invocation: &Invocation, json: bool) -> Result<Exit, CommandError> {
    let (config, _) = context::config_at_work(invocation)?;
    if let Some(offer) = config.offered.as_ref().filter(|_| config.kms.is_none()) {
        return status_of_offer(&config, offer, json);
    }
    let rules = rules(&config)?;
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
        print(&sheet(&report, &source(&config), &without_agent(&config, rules)))?;
    }
    let fine = !report.cut && matches!(report.state, KeyStanding::Valid);
    Ok(if fine { Exit::Done } else { Exit::Degraded })
}

/// What there is to say of a key that wraps a secret which the cluster offers, where none is in force.
fn status_of_offer(config: &Config, offer: &OfferedSecret, json: bool) -> Result<Exit, CommandError> {
    let status = context::client(config).status_within(PATIENCE)?;
    if json {
        print_json(&status.kms)?;
    } else {
        print(&sheet_of_offer(&offer.rules, status.audit()))?;
    }
    Ok(Exit::Degraded)
}

fn sheet_of_offer(rules: &KmsRules, audit: Option<&AuditReport>) -> String {
    let state = "offered: nothing rests on it yet. `hostseal kms check` tries it here, and `hostseal status --cluster` says \
                 who has unwrapped it";
    lines(&[
        ("key", format!("{} at {}", rules.key, rules.provider)),
        ("from", FROM_ROSTER.to_owned()),
        ("state", state.to_owned()),
        ("audit", audit::in_words(audit)),
    ])
}

fn lines(fields: &[(&str, String)]) -> String {
    fields.iter().map(|(name, words)| format!("{name:<10}{words}\n")).collect()
}

/// For how long a host goes on whose key is revoked, or whose agent is dead; `None` where no key wraps its secret.
pub(super) fn bound(config: &Config) -> Option<String> {
    let rules = config.kms.as_ref()?;
    let [revoked, max_offline] = [rules.bound() + ANSWER, rules.max_offline].map(human_duration);
    Some(format!(
        "the key {} wraps the secret: once it is revoked, this host is cut off within about {revoked}, or within \
         {max_offline} if it does not reach the KMS. {}",
        rules.key,
        without_agent(config, rules)
    ))
}

/// How long the traffic goes on where no agent is left. SAs have what was left of the lease when they were made.
fn without_agent(config: &Config, rules: &KmsRules) -> String {
    let spent = config.keying.rekey_after + rules.check_every;
    let least = human_duration(rules.max_offline.saturating_sub(spent));
    format!("If its agent is down, its traffic stops after {least} to {}", human_duration(rules.max_offline))
}

/// Who says which key it is, and what it has wrapped.
fn source(config: &Config) -> String {
    match &config.secret.wrapped_file {
        Some(file) => format!("the configuration of this host, and {}", file.display()),
        None if context::is_member(config) => FROM_ROSTER.to_owned(),
        None => "the configuration of this host".to_owned(),
    }
}

/// The key in lines.
fn sheet(report: &KeyReport, source: &str, without_agent: &str) -> String {
    let time = |seconds: u64| human_duration(Duration::from_secs(seconds));
    let lease = match report.lease_left_s {
        Some(left) => {
            format!("{} left; this host is cut off then, unless the key is used before", time(left))
        }
        None => format!("over: this host is cut off. {}", hope(report.given_up)),
    };
    let last = report.last_use.map_or_else(|| "not since the agent started".to_owned(), |at| at.to_string());
    lines(&[
        ("key", format!("{} at {}", report.key, report.provider)),
        ("from", source.to_owned()),
        ("state", report.in_words()),
        ("last use", last),
        ("lease", lease),
        (
            "bound",
            format!(
                "{} after the key is revoked, where the KMS can be reached, and {} where it cannot; plus what the KMS takes \
                 itself to revoke it",
                time(report.bound_s + ANSWER.as_secs()),
                time(report.max_offline_s)
            ),
        ),
        ("agent", without_agent.to_owned()),
        ("audit", audit::in_words(report.audit.as_ref())),
    ])
}

/// What a line of `kms check` says of what it names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyFinding {
    Ok,
    /// It need not be mended.
    Note,
    Fail,
}

impl KeyFinding {
    fn word(self) -> &'static str {
        match self {
            KeyFinding::Ok => "ok",
            KeyFinding::Note => "note",
            KeyFinding::Fail => "FAIL",
        }
    }
}

/// Asks for what this host must be given, and for what it must not; and looks for a way around the key.
fn check(config: &Config) -> Result<Exit, CommandError> {
    let mut found: Vec<(KeyFinding, String)> = config.offered.iter().map(|it| offered(config, it)).collect();
    if found.is_empty() || config.kms.is_some() {
        found.extend(check_in_force(config, rules(config)?));
    }
    for (finding, words) in &found {
        print(&format!("{:<6}{words}\n", finding.word()))?;
    }
    let is_fine = found.iter().all(|(finding, _)| *finding != KeyFinding::Fail);
    Ok(if is_fine { Exit::Done } else { Exit::Degraded })
}

/// Whether this host can unwrap what its cluster offers.
fn offered(config: &Config, offer: &OfferedSecret) -> (KeyFinding, String) {
    let OfferedSecret { rules, wrapped } = offer;
    let opened = kms::unwrap_blob(&config.cluster, rules, wrapped);
    audit::note(config, rules, AuditKind::Check, on_record(&opened));
    match opened {
        Ok(unwrapped) => {
            let (id, request) = (unwrapped.given.id(), request(unwrapped.request_id.as_ref()));
            (KeyFinding::Ok, format!("offered: the key {} gives the secret {id}{request}", rules.key))
        }
        Err(refusal) => (KeyFinding::Fail, format!("offered: the key {}: {}", rules.key, in_words(&refusal))),
    }
}

fn check_in_force(config: &Config, rules: &KmsRules) -> Vec<(KeyFinding, String)> {
    let decrypted = kms::unwrap(config, rules);
    audit::note(config, rules, AuditKind::Check, on_record(&decrypted));
    let mut found = vec![match &decrypted {
        Ok(unwrapped) => {
            let request = request(unwrapped.request_id.as_ref());
            (KeyFinding::Ok, format!("decrypt: the secret {}{request}", unwrapped.given.id()))
        }
        Err(refusal) => (KeyFinding::Fail, format!("decrypt: {}", in_words(refusal))),
    }];
    found.push(described(kms::describe(rules)));
    if let Ok(unwrapped) = &decrypted {
        found.push(encrypted(kms::wrap(&config.cluster, rules, &unwrapped.given)));
    }
    found.extend(left_in_the_clear(config));
    found
}

/// Hosts do without the right to describe the key.
fn described(answer: KmsAnswer<KmsGift<()>>) -> (KeyFinding, String) {
    match answer {
        Ok(gift) => {
            (KeyFinding::Ok, format!("describe: the key is enabled{}", request(gift.request_id.as_ref())))
        }
        Err(KmsRefusal { refusal: Refusal::Denied, request_id, .. }) => (
            KeyFinding::Note,
            format!(
                "describe: this host may not describe the key, and need not{}",
                request(request_id.as_ref())
            ),
        ),
        Err(refusal) => (KeyFinding::Fail, format!("describe: {}", in_words(&refusal))),
    }
}

fn encrypted<T>(answer: KmsAnswer<T>) -> (KeyFinding, String) {
    match answer {
        Ok(_) => (
            KeyFinding::Fail,
            "encrypt: this host may wrap secrets: whoever takes it over could put another one in place. Take the right to \
             encrypt from it"
                .to_owned(),
        ),
        Err(KmsRefusal { refusal: Refusal::Denied, request_id, .. }) => (
            KeyFinding::Ok,
            format!("encrypt: is refused to this host, as it should be{}", request(request_id.as_ref())),
        ),
        Err(refusal) => {
            (KeyFinding::Fail, format!("encrypt: it is not known whether it is refused: {}", in_words(&refusal)))
        }
    }
}

/// The same secret where it lies unless somebody says otherwise: with it, revoking the key revokes nothing.
fn left_in_the_clear(config: &Config) -> Option<(KeyFinding, String)> {
    let file = &config.secret.file;
    let digest = kms::digest(config).ok()??;
    let plain = private_file::load_secret(file).ok().filter(|plain| plain.digest() == digest)?;
    let words = format!(
        "file: {} holds the secret {} in the clear, so revoking the key revokes nothing: delete it",
        file.display(),
        plain.id()
    );
    Some((KeyFinding::Fail, words))
}

/// What is on record of an answer.
pub(super) fn on_record<T>(answer: &KmsAnswer<KmsGift<T>>) -> AuditWords {
    answer.as_ref().map_or_else(AuditWords::of_refusal, AuditWords::of_gift)
}

/// Why a secret was not wrapped, and what to do where that is a right that hosts do without.
pub(super) fn not_wrapped(refusal: &KmsRefusal) -> CommandError {
    let hint = match refusal.refusal {
        Refusal::Denied => {
            ". Hosts need no right to encrypt: run a helper with the rights of an administrator, and name its socket with \
             --socket (byok.md)"
        }
        _ => "",
    };
    CommandError::new(Exit::Failed, format!("the secret was not wrapped: {}{hint}", in_words(refusal)))
}

fn request(id: Option<&String>) -> String {
    id.map(|id| format!(" (request {id})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;
    use crate::config::WrappedSecret;
    use crate::identity::Secret;

    fn config(wrapped: &Path) -> Config {
        let text = format!(
            "cluster = \"demo\"\n[secret]\nwrapped_file = {:?}\n[kms]\nprovider = \"vault\"\nkey = \"k\"\n\
             [[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n[[nodes]]\nname = \"b\"\naddresses = [\"10.0.0.2\"]\n",
            wrapped.display().to_string()
        );
        Config::parse(&text, "f").unwrap()
    }

    /// SAs are made an hour before the next ones, and end with the lease that they were made in.
    #[test]
    fn bounds_are_not_better_than_they_are() {
        let words = bound(&config(Path::new("/w"))).unwrap();
        assert!(words.contains("cut off within about 6m 20s, or within 4h"), "{words}");
        assert!(words.contains("If its agent is down, its traffic stops after 2h 55m to 4h"), "{words}");
    }

    #[test]
    fn a_secret_left_in_the_clear_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let (wrapped, plain) = (directory.path().join("wrapped"), directory.path().join("secret"));
        let mut config = config(&wrapped);
        config.secret.file.clone_from(&plain);
        let secret = Secret::new([7; 32]);
        let file = WrappedSecret { key: "k".to_owned(), digest: secret.digest(), blob: "AAAA".to_owned() };
        file.save(&wrapped).unwrap();
        assert!(left_in_the_clear(&config).is_none(), "there is none");
        for (octet, is_named) in [(7, true), (8, false)] {
            fs::write(&plain, format!("{}\n", *Secret::new([octet; 32]).to_line())).unwrap();
            fs::set_permissions(&plain, fs::Permissions::from_mode(0o600)).unwrap();
            let found = left_in_the_clear(&config);
            assert_eq!(found.is_some(), is_named);
            assert!(found.is_none_or(|(_, words)| words.contains("revokes nothing: delete it")));
        }
    }
}
