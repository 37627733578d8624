//! `hostseal secret wrap` and `rewrap` on a member: the wrapped secret travels in the roster. One command offers it to all
//! members, puts it in force once all can unwrap it, and requires it once all pairs have it in their keys.
//!
//! The plain secret is in the memory of this process alone, as long as it is being wrapped.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hostseal_kms_protocol::Refusal;

use super::drive::{ask_all, pause};
use super::member::OwnMember;
use super::settings::{PresentSettings, present};
use super::wrap_step::{WantedKey, WrapStep};
use crate::cli::args::{Invocation, MoveArgs, OutArgs, RewrapArgs, WrapArgs};
use crate::cli::exit::{CommandError, Exit};
use crate::cli::kms::{audit, bound, not_wrapped, on_record};
use crate::cli::secret::generate;
use crate::cli::term::tell;
use crate::config::{
    ClusterKey, Config, KmsRules, SharedSecret, WrappedSecret, with_offer, with_offer_in_force,
    with_required_ppk,
};
use crate::control::{ClusterReply, ClusterRequest, SettingsOrder};
use crate::identity::Secret;
use crate::observe::audit::AuditWords;
use crate::observe::cluster::{ClusterStatus, OF_SETTINGS};
use crate::observe::kms::in_words;
use crate::observe::wrapping::{WrapStage, WrapWaits, unheard};
use crate::store::kms::{self, KmsRefusal};
use crate::store::{AuditKind, private_file};
use crate::types::UnixTime;
use crate::types::units::listed;

/// So many nodes are named.
const NAMED: usize = 8;
/// How long a cluster may make keys without the secret at most, once it is in force.
const OPTIONAL_MOST: Duration = Duration::from_secs(24 * 3600);

/// When the secret is required that comes into force now, if nobody requires it before.
fn end() -> UnixTime {
    (SystemTime::now() + OPTIONAL_MOST).into()
}

/// Whether the cluster of this host says what is wrapped, and not this host's own file.
pub(in crate::cli) fn wraps(config: &Config) -> bool {
    crate::cli::context::is_member(config) && config.secret.wrapped_file.is_none()
}

pub(in crate::cli) fn wrap(invocation: &Invocation, args: &WrapArgs) -> Result<Exit, CommandError> {
    if args.program.is_some() {
        return Err(usage(
            "in a cluster, each host names its helper itself: say `program` in [kms] of its file",
        ));
    }
    let asked = WrapOrder {
        key: args.kms_key.as_deref(),
        provider: args.provider.as_deref(),
        from: args.from.as_deref(),
        out: &args.out,
        course: &args.course,
        rewraps: false,
    };
    asked.drive(invocation)
}

pub(in crate::cli) fn rewrap(invocation: &Invocation, args: &RewrapArgs) -> Result<Exit, CommandError> {
    let asked = WrapOrder {
        key: args.kms_key.as_deref(),
        provider: None,
        from: None,
        out: &args.out,
        course: &args.course,
        rewraps: true,
    };
    asked.drive(invocation)
}

/// What somebody asks for.
struct WrapOrder<'a> {
    key: Option<&'a str>,
    provider: Option<&'a str>,
    from: Option<&'a Path>,
    out: &'a OutArgs,
    course: &'a MoveArgs,
    /// What is wrapped is wrapped anew by the KMS itself.
    rewraps: bool,
}

/// How the cluster stands.
struct WrapStanding {
    settings: String,
    /// The entry that says so.
    entry: String,
    key: ClusterKey,
    status: ClusterStatus,
}

impl WrapStanding {
    /// As it is now, where somebody may go on from that.
    fn now(member: &OwnMember) -> Result<Self, CommandError> {
        let failed = |words: &str| CommandError::new(Exit::Failed, words);
        let PresentSettings { toml: settings, on_trial, entry } = present(member)?;
        if on_trial {
            return Err(failed(
                "settings are on trial: confirm them first (`hostseal confirm --cluster`), or wait until they have gone back",
            ));
        }
        let status = member.status()?;
        if status.conflicts.iter().any(|conflict| conflict.about == OF_SETTINGS) {
            return Err(failed(
                "two admins have changed the settings at once: settle that first (`hostseal settings > s.toml && \
                 hostseal settings set s.toml` says that what counts now is right)",
            ));
        }
        let admins: Vec<_> = status.nodes.iter().filter(|node| node.admin).map(|node| &node.name).collect();
        if !status.node.as_ref().is_some_and(|own| admins.contains(&own)) {
            let words =
                format!("an admin node wraps the secret of a cluster: run it on {}", listed(admins, NAMED));
            return Err(failed(&words));
        }
        let key = ClusterKey::of(&settings).at(SystemTime::now().into());
        Ok(Self { key, settings, entry, status })
    }

    /// Until when what was in use before is good for, where the secret is in force and not required yet.
    fn until(&self) -> Option<UnixTime> {
        self.key.until.filter(|_| self.key.in_force.is_some())
    }

    fn stage(&self) -> WrapStage {
        WrapStage::of(&self.key, &self.status.nodes)
    }
}

impl WrapOrder<'_> {
    /// Goes on from where the cluster is until all is done, or `--timeout` is over.
    fn drive(&self, invocation: &Invocation) -> Result<Exit, CommandError> {
        if self.out.out.is_some() {
            return Err(usage("in a cluster, the wrapped secret is in the roster: leave out --out"));
        }
        let deadline = Instant::now() + self.course.timeout;
        let member = OwnMember::of(invocation)?;
        let mut wanted = self.wanted(&WrapStanding::now(&member)?.key)?;
        let mut said = None;
        loop {
            let asked = Instant::now();
            let standing = WrapStanding::now(&member)?;
            let stage = standing.stage();
            let words = stage.in_words(&standing.key);
            if said != words {
                words.iter().filter(|_| !invocation.quiet).for_each(|words| tell(words));
                said = words;
            }
            let step = wanted.step(&standing.key, stage, self.course.partial);
            let offer = match &step {
                WrapStep::Done => {
                    let key = &wanted.key;
                    tell(&format!("all members that answer go by the secret that the key {key} has wrapped"));
                    unheard(&standing.status.nodes).iter().for_each(|words| tell(words));
                    // What is in force now was not when this command began.
                    let bound = bound(&OwnMember::of(invocation)?.config);
                    bound.iter().filter(|_| !invocation.quiet).for_each(|words| tell(words));
                    if let Some(file) = self.from {
                        let file = file.display();
                        tell(&format!("delete {file}: whoever has it needs no KMS to make keys"));
                    }
                    return Ok(Exit::Done);
                }
                WrapStep::Wait(waits) if Instant::now() >= deadline => {
                    return Err(behind(waits, standing.until()));
                }
                WrapStep::Wait(_) => {
                    pause(asked, deadline);
                    continue;
                }
                WrapStep::Offer => {
                    self.ask_whether_ready(&member, deadline)?;
                    Some(self.offer(&member.config, &standing.key, &wanted)?)
                }
                WrapStep::PutInForce | WrapStep::Require => None,
            };
            let WrapStanding { settings, entry, .. } = &standing;
            let (next, done) = match (&step, &offer) {
                (_, Some(offer)) => {
                    let offered = with_offer(settings, offer);
                    self.ask_whether_fit(&member, with_offer_in_force(&offered, end()))?;
                    let id = offer.wrapped.digest.id();
                    (
                        offered,
                        format!(
                            "the secret {id}, wrapped with the key {}, is offered to all members",
                            wanted.key
                        ),
                    )
                }
                (WrapStep::Require, None) => (
                    with_required_ppk(settings),
                    "it is required now: no pair makes keys without it".to_owned(),
                ),
                (_, None) if standing.key.in_force.is_some() => {
                    (with_offer_in_force(settings, end()), "it is in force".to_owned())
                }
                (_, None) => {
                    let end = end();
                    let words = format!("it is in force, and required from {end} on at the latest");
                    (with_offer_in_force(settings, end), words)
                }
            };
            // The KMS and the members may have taken their time: nothing is to get lost that somebody has changed meanwhile.
            let order = SettingsOrder { after: Some(entry.clone()), ..SettingsOrder::of(next) };
            match member.order(ClusterRequest::SetSettings(order), self.course.alone) {
                Ok(notes) => notes.iter().for_each(|note| tell(note)),
                Err(_) if Instant::now() < deadline && present(&member)?.entry != *entry => continue,
                Err(error) => return Err(error),
            }
            wanted.anew &= offer.is_none();
            tell(&done);
        }
    }

    /// Which key it is to be: as the command line says it, and the settings where that is silent.
    fn wanted(&self, key: &ClusterKey) -> Result<WantedKey, CommandError> {
        let in_force = key.in_force.as_ref();
        let said = (self.provider.map(str::to_owned), self.key.map(str::to_owned));
        let provider = said.0.or(key.provider.clone()).ok_or_else(|| {
            usage("who keeps the key? Say --provider NAME, or `hostseal settings set kms.provider=NAME`")
        })?;
        let name = said
            .1
            .or(key.key.clone())
            .ok_or_else(|| usage("which key? Say --kms-key KEY, or `hostseal settings set kms.key=KEY`"))?;
        if self.rewraps {
            let before =
                in_force.ok_or_else(|| usage("nothing is wrapped yet: `hostseal secret wrap` does that"))?;
            if before.provider != provider {
                return Err(usage("another provider cannot wrap it anew: use `hostseal secret wrap`"));
            }
        }
        // What is offered already goes on.
        let is_offered =
            key.next.as_ref().is_some_and(|next| next.provider == provider && next.wrapped.key == name);
        let is_same = in_force.is_some_and(|it| it.provider == provider && it.wrapped.key == name);
        Ok(WantedKey { provider, key: name, anew: self.rewraps && is_same && !is_offered })
    }

    /// Whether the members are there, and know what this is about.
    fn ask_whether_ready(&self, member: &OwnMember, deadline: Instant) -> Result<(), CommandError> {
        let (_, not_ready) = ask_all(member, self.course.partial, false, deadline)?;
        if not_ready.is_empty() {
            return Ok(());
        }
        let lines = not_ready.lines().join("\n");
        if self.course.partial {
            tell(&format!("these are not waited for, and have no keys until they can unwrap it:\n{lines}"));
            return Ok(());
        }
        Err(CommandError::new(
            Exit::Degraded,
            format!(
                "nothing has been changed: the secret is used once all nodes can unwrap it, and now they could not:\n{lines}\n\
                 Mend that, remove who is not coming back (`hostseal remove`), or begin without them: --partial"
            ),
        ))
    }

    /// Whether the file of each member goes with these settings.
    fn ask_whether_fit(&self, member: &OwnMember, settings: String) -> Result<(), CommandError> {
        let plans = member.ask(ClusterRequest::Preview(settings), |reply| match reply {
            ClusterReply::Plans(plans) => Some(plans),
            _ => None,
        })?;
        let refused =
            plans.iter().filter_map(|plan| Some((&plan.node, plan.plan.as_ref()?.refused.as_ref()?)));
        let mut lines: Vec<String> = refused.map(|(node, why)| format!("  {node}: {why}")).collect();
        if !self.course.partial {
            let silent = plans.iter().filter(|plan| plan.plan.is_none());
            lines.extend(
                silent.map(|plan| format!("  {}: no answer (--partial goes on without it)", plan.node)),
            );
        }
        if lines.is_empty() {
            return Ok(());
        }
        Err(CommandError::new(
            Exit::Degraded,
            format!("nothing has been changed: not all nodes could go by it:\n{}", lines.join("\n")),
        ))
    }

    /// The secret in force, wrapped with the wanted key; a new one where there is none.
    fn offer(
        &self,
        config: &Config,
        key: &ClusterKey,
        wanted: &WantedKey,
    ) -> Result<SharedSecret, CommandError> {
        let WantedKey { provider, key: name, .. } = wanted;
        let rules = self.rules(config, provider, name)?;
        let wrapped = match &key.in_force {
            Some(before) if self.rewraps => self.rewrapped(config, before, name)?,
            before => {
                let secret = self.secret(config, before.as_ref())?;
                let wrapped = kms::wrap(&config.cluster, &rules, &secret);
                let words =
                    wrapped.as_ref().err().map_or_else(AuditWords::of_wrapping, AuditWords::of_refusal);
                audit::note(config, &rules, AuditKind::Wrap, words);
                wrapped.map_err(|refusal| not_wrapped(&refusal))?
            }
        };
        self.try_out(config, &rules, &wrapped)?;
        Ok(SharedSecret { provider: provider.clone(), wrapped })
    }

    fn secret(&self, config: &Config, before: Option<&SharedSecret>) -> Result<Arc<Secret>, CommandError> {
        let Some(SharedSecret { provider, wrapped }) = before else {
            let given = self.from.map(private_file::load_secret).transpose()?;
            return given.map_or_else(|| generate().map(Arc::new), Ok);
        };
        if let Some(file) = self.from {
            let other = private_file::load_secret(file)?;
            if other.digest() != wrapped.digest {
                let words = format!(
                    "{} holds the secret {}, and {} is in force: members with the one and members with the other make no \
                     keys with each other. Leave out --from",
                    file.display(),
                    other.id(),
                    wrapped.digest.id()
                );
                return Err(usage(&words));
            }
            return Ok(other);
        }
        let asked = self.rules(config, provider, &wrapped.key)?;
        let unwrapped = kms::unwrap_blob(&config.cluster, &asked, wrapped);
        Ok(unwrapped.map_err(|refusal| failed("the secret in force was not unwrapped", &refusal))?.given)
    }

    fn rewrapped(
        &self,
        config: &Config,
        before: &SharedSecret,
        key: &str,
    ) -> Result<WrappedSecret, CommandError> {
        let asked = self.rules(config, &before.provider, &before.wrapped.key)?;
        let rewrapped = kms::rewrap(&config.cluster, &asked, &before.wrapped, key);
        // As with files: the line names the key that it is wrapped with from now on.
        let by = KmsRules { key: key.to_owned(), ..asked };
        audit::note(config, &by, AuditKind::Rewrap, on_record(&rewrapped));
        let rewrapped = rewrapped.map_err(|refusal| {
            let CommandError { exit, message } = failed("the secret was not wrapped anew", &refusal);
            let instead = "If the helper cannot do that, use `hostseal secret wrap`";
            CommandError::new(exit, format!("{message}. {instead}"))
        })?;
        rewrapped.why.iter().for_each(|words| tell(words));
        Ok(rewrapped.given)
    }

    /// Whether this host gets from it what was wrapped. All members try it anyway before it is in force.
    fn try_out(
        &self,
        config: &Config,
        rules: &KmsRules,
        wrapped: &WrappedSecret,
    ) -> Result<(), CommandError> {
        let Err(refusal) = kms::unwrap_blob(&config.cluster, rules, wrapped) else { return Ok(()) };
        match refusal.refusal {
            Refusal::Denied => Ok(()),
            _ if self.out.force && refusal.refusal != Refusal::Broken => Ok(()),
            _ => Err(failed("what the KMS has wrapped does not open here. Nothing was offered", &refusal)),
        }
    }

    /// Whom this host asks, at the socket that the command line says.
    fn rules(&self, config: &Config, provider: &str, key: &str) -> Result<KmsRules, CommandError> {
        let mut rules = config.helper.rules(provider, key).map_err(|words| usage(&words))?;
        rules.socket = self.out.socket.clone().unwrap_or(rules.socket);
        Ok(rules)
    }
}

/// Who is behind when the time is over.
fn behind(waits: &WrapWaits, until: Option<UnixTime>) -> CommandError {
    let lines: Vec<String> = waits.lines().into_iter().map(|line| format!("  {line}")).collect();
    let exit = if waits.behind.is_empty() { Exit::Waiting } else { Exit::Degraded };
    let in_use = match until {
        None => "Nothing is lost: what was in use stays in use.".to_owned(),
        Some(until) => format!(
            "What was in use stays in use until {until}: from then on, no pair makes keys without the secret. `hostseal \
             settings set ppk.optional_until=DAY` gives more time."
        ),
    };
    let message = format!(
        "not all members are ready:\n{}\n{in_use} Mend that, and run the same command again: it goes on from here. --partial \
         goes on without those that do not answer",
        lines.join("\n")
    );
    CommandError::new(exit, message)
}

fn usage(words: &str) -> CommandError {
    CommandError::new(Exit::Usage, words)
}

fn failed(what: &str, refusal: &KmsRefusal) -> CommandError {
    CommandError::new(Exit::Failed, format!("{what}: {}", in_words(refusal)))
}
