//! Takes the files as they are now: all of it or, where something is wrong, nothing.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Host;
use super::answer::refusal;
use super::core::Persist;
use super::ledger::Asker;
use super::ports::SecretSource;
use super::setup::{Secrets, Setup};
use super::system::{Moment, System};
use crate::config::Config;
use crate::control::{ErrorCode, Preview, Reply};
use crate::observe::causes;
use crate::types::units::human_duration;

/// So many changes are remembered that nobody was told of.
const TAKEN_MOST: usize = 100;

/// What a host can go on with.
struct Files {
    /// The configuration, and who this host is in it ([`Setup::followed_by`]).
    setup: Setup,
    /// What it names for proofs, where its source gives that now.
    secrets: Option<Secrets>,
}

/// Files that are to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Nobody has touched the files, but what they make together with the cluster may be something else.
    Again,
    /// The files in force may have changed.
    Changed,
    /// The same, and somebody wants to know.
    Reload(Asker),
    /// What this text would change if it were the configuration.
    Preview {
        /// The asker.
        asker: Asker,
        /// What errors call the file.
        file: PathBuf,
        /// What it says.
        text: String,
        /// An older command, which takes what the kernel gets alone.
        kernel_alone: bool,
    },
}

impl Host {
    /// One of the files may have changed, or somebody says so: the log and `status` tell the result.
    pub fn handle_change(&mut self) {
        self.want_read(Read::Changed);
    }

    /// The cluster may say something else.
    pub(super) fn read_again(&mut self) {
        self.want_read(Read::Again);
    }

    fn want_read(&mut self, read: Read) {
        if !self.reads.contains(&read) {
            self.reads.push_back(read);
        }
    }

    /// What was to be read says this, or cannot be read; `source` has the secrets to it.
    pub fn handle_files(
        &mut self,
        moment: Moment,
        system: &mut dyn System,
        source: &mut dyn SecretSource,
        read: Read,
        setup: anyhow::Result<Setup>,
    ) {
        let now = self.note_moment(moment);
        let root = self.secrets.as_ref().and_then(Secrets::root);
        let files = setup.and_then(|setup| Ok(Files { secrets: source.read(&setup, root)?, setup }));
        let by_hand = read != Read::Again;
        let (asker, answer) = match read {
            Read::Again | Read::Changed => {
                let changes = self.reload(now, system, files, by_hand).unwrap_or_default();
                self.taken.extend(changes.into_iter().map(|change| (now, change)));
                let many = self.taken.len().saturating_sub(TAKEN_MOST);
                self.taken.drain(..many);
                return;
            }
            Read::Reload(asker) => (asker, self.reload_by_request(now, system, files).map(Reply::Reloaded)),
            Read::Preview { asker, kernel_alone, .. } => {
                let preview = files.and_then(|files| self.preview(now, system, &files));
                let reply = |preview: Preview| match kernel_alone {
                    true => Reply::Plan(preview.kernel),
                    false => Reply::Preview(preview),
                };
                (asker, preview.map(reply))
            }
        };
        let reply = answer.unwrap_or_else(|error| refusal(ErrorCode::Configuration, &error));
        self.answer(now, asker, reply);
    }

    /// Goes on with what the files say now, and says what that changed. Only what changed is touched.
    ///
    /// # Errors
    /// Something in them is wrong, or takes a new agent: then nothing has changed, and `status` says so until
    /// the files are mended.
    fn reload(
        &mut self,
        now: Instant,
        system: &mut dyn System,
        files: anyhow::Result<Files>,
        by_hand: bool,
    ) -> anyhow::Result<Vec<String>> {
        let outcome = files.and_then(|files| self.take_files(now, system, files, by_hand));
        match &outcome {
            Ok(changes) => {
                self.trouble = None;
                changes.iter().for_each(|change| tracing::info!("{change}"));
            }
            Err(error) => self.note_trouble(causes::words(error.as_ref())),
        }
        outcome
    }

    /// Something in the files is wrong: what was in force stays so.
    pub(super) fn note_trouble(&mut self, words: String) {
        if self.trouble.as_ref() != Some(&words) {
            tracing::error!("keeping the previous configuration: {words}");
        }
        self.trouble = Some(words);
    }

    /// The same for somebody who asks for it. Where there is nothing new, says what was taken without being asked: the
    /// watch is often faster.
    fn reload_by_request(
        &mut self,
        now: Instant,
        system: &mut dyn System,
        files: anyhow::Result<Files>,
    ) -> anyhow::Result<Vec<String>> {
        self.hurry_offer(now);
        let (changes, taken) = (self.reload(now, system, files, true)?, std::mem::take(&mut self.taken));
        let already = |(at, change): (Instant, String)| {
            let age = Duration::from_secs(now.saturating_duration_since(at).as_secs());
            format!("{change} (taken {} ago)", human_duration(age))
        };
        Ok(if changes.is_empty() { taken.into_iter().map(already).collect() } else { changes })
    }

    /// What these files would change. SAs that are agreed anew have no SPI yet: the ones that they replace are shown.
    fn preview(&self, now: Instant, system: &mut dyn System, files: &Files) -> anyhow::Result<Preview> {
        let Files { setup, secrets } = files;
        let of_secrets = match (&self.secrets, secrets) {
            (Some(before), Some(next)) => Some(before.changes(next)),
            (_, None) => Some(Vec::new()),
            (None, Some(_)) => None,
        };
        let otherwise = self.setup.config.keying.method != setup.config.keying.method;
        let anew = otherwise || of_secrets.as_ref().is_none_or(|changes| !changes.is_empty());
        let mut changes = self.setup.config.changes(&setup.config);
        changes.extend(of_secrets.unwrap_or_default());
        let Some(core) = &self.core else { return Ok(Preview { file: changes, kernel: Vec::new() }) };
        let actual = system.read()?;
        let (before, after) = (&self.setup.config.esp.proposals, &setup.config.esp.proposals);
        let preview =
            core.preview(now, actual, &setup.scheme(), |sa| anew || after.replace(before, sa.suite()));
        Ok(Preview { file: changes, kernel: preview.lines() })
    }

    /// What this configuration would change, where what hosts prove themselves with stays as it is.
    pub(super) fn preview_of(
        &self,
        now: Instant,
        system: &mut dyn System,
        config: Config,
    ) -> anyhow::Result<Preview> {
        let setup = self.setup.followed_by(config, &[], None)?;
        self.preview(now, system, &Files { setup, secrets: None })
    }

    /// The core goes on with the setup and the secrets that are in force now.
    fn reconfigure(&mut self, now: Instant, system: &mut dyn System) {
        let settings = self.setup.settings(self.secrets.as_ref().unwrap_or(&Secrets::default()), false);
        if let Some(core) = &mut self.core {
            core.reconfigure(now, self.moment.wall, system, self.setup.scheme(), settings);
            // Pairs that come do not know yet which addresses are there.
            self.list_addresses(now, system);
        }
    }

    /// Requires PPKs once the time without is over. That takes no file: one may be wrong just then.
    pub(super) fn end_time_without_ppks(&mut self, now: Instant, system: &mut dyn System) {
        let wall = self.moment.wall;
        let Some(end) = self.setup.config.ppks_optional_until().filter(|end| *end <= wall) else { return };
        tracing::warn!(
            "PPKs are required from now on: ppk.optional_until ({end}) has come, as it is {wall} by the clock of this \
             host. If the clock is wrong, set it, and give all hosts a later day"
        );
        // Its hash stays the same.
        self.setup.config = self.setup.config.clone().at(wall);
        if let Some(secrets) = &mut self.secrets {
            secrets.require_ppks(&self.setup.config, &self.setup.node);
        }
        self.reconfigure(now, system);
    }

    /// That the time without PPKs is over is remembered, for an agent that starts while the clock says otherwise.
    pub(super) fn note_end_without_ppks(&mut self, now: Instant) {
        let end = self.setup.config.ppks_required_since();
        if end > self.saved.ppks_required_since {
            self.saved.ppks_required_since = end;
            self.ledger.note(now, Persist::Seals);
        }
    }

    fn take_files(
        &mut self,
        now: Instant,
        system: &mut dyn System,
        files: Files,
        by_hand: bool,
    ) -> anyhow::Result<Vec<String>> {
        let Files { setup, secrets } = files;
        let mark = self.setup.config.wrapped_mark();
        let mut changes = self.setup.config.changes(&setup.config);
        match (&self.secrets, &secrets) {
            (Some(before), Some(next)) => changes.extend(before.changes(next)),
            (None, Some(_)) => changes.push("the secret or the keys could not be read before".to_owned()),
            (_, None) => {}
        }
        let lagged = self.secrets_lag && secrets.is_some();
        if changes.is_empty() && !lagged {
            // What means the same may be said otherwise.
            self.setup = setup;
        } else {
            if self.core.is_some() {
                system.bind(setup.addresses().collect(), setup.ports())?;
            }
            self.secrets_lag = secrets.is_none() && setup.config.kms.is_some();
            self.secrets = secrets.or(self.secrets.take());
            self.setup = setup;
            if let Some(secrets) = self.secrets.as_mut().filter(|_| self.secrets_lag) {
                // What is to be unwrapped yet is needed all the same.
                secrets.require_ppks(&self.setup.config, &self.setup.node);
            }
            self.reconfigure(now, system);
            self.ledger.keep(now);
        }
        self.follow_kms(mark.as_ref(), by_hand);
        if self.secrets.is_some() {
            self.go_on_with_secrets(now, system);
        }
        Ok(changes)
    }
}
