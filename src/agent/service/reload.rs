//! Takes the files as they are now: all of it or, where something is wrong, nothing.

use std::path::Path;
use std::time::{Instant, SystemTime};

use anyhow::bail;

use super::{SAVE_DELAY, Service};
use crate::agent::report;
use crate::agent::setup::{Secrets, Setup};
use crate::model::config::owner;
use crate::model::control::{PlanLine, Terms};
use crate::model::status::Protection;
use crate::model::{Config, UnixTime};

impl Service {
    /// Goes on with what the files say now, and says what that changed. Only what changed is touched.
    ///
    /// # Errors
    /// Something in them is wrong, or takes a new agent: then nothing has changed, and `status` says so until
    /// the files are mended.
    pub(super) fn reload(&mut self) -> anyhow::Result<Vec<String>> {
        let outcome = self.take_files();
        self.aim();
        match &outcome {
            Ok(changes) => {
                self.trouble = None;
                changes.iter().for_each(|change| tracing::info!("{change}"));
            }
            Err(error) => {
                let words = format!("{error:#}");
                if self.trouble.as_ref() != Some(&words) {
                    tracing::error!("the configuration is as it was before: {words}");
                }
                self.trouble = Some(words);
            }
        }
        outcome
    }

    /// What loading `text`, which is in `file`, as the configuration would change in the kernel. SAs that are agreed anew have no
    /// SPI yet: those that they replace stand for them.
    ///
    /// # Errors
    /// Something in the file is wrong, or takes a new agent.
    pub(super) fn plan_with(&mut self, file: &Path, text: &str) -> anyhow::Result<Vec<PlanLine>> {
        let setup = self.take_setup(Config::parse(text, &file.display().to_string())?)?;
        let Some(core) = &self.core else { return Ok(Vec::new()) };
        let secrets = Secrets::load(&setup)?;
        let otherwise = self.setup.config.keying.method != setup.config.keying.method;
        let anew =
            self.secrets.as_ref().is_none_or(|before| otherwise || !before.changes(&secrets).is_empty());
        let actual = self.kernel.read()?;
        let (before, after) = (&self.setup.config.esp.proposals, &setup.config.esp.proposals);
        let preview = core
            .preview(Instant::now(), actual, &setup.scheme(), |sa| anew || after.replace(before, sa.suite()));
        Ok(report::preview(&preview))
    }

    fn take_files(&mut self) -> anyhow::Result<Vec<String>> {
        owner::check(&self.path)?;
        let setup = self.take_setup(Config::load(&self.path)?)?;
        let secrets = Secrets::load(&setup)?;
        let mut changes = self.setup.config.changes(&setup.config);
        match &self.secrets {
            Some(before) => changes.extend(before.changes(&secrets)),
            None => changes.push("what hosts prove themselves with could not be read before".to_owned()),
        }
        if !changes.is_empty() {
            self.open_sockets(&setup)?;
            let settings = setup.settings(&secrets, false);
            (self.setup, self.secrets) = (setup, Some(secrets));
            if let Some(core) = &mut self.core {
                let (now, wall) = (Instant::now(), UnixTime::from(SystemTime::now()));
                core.reconfigure(now, wall, &mut self.kernel, self.setup.scheme(), settings);
                // Pairs that come do not know yet which addresses are there.
                self.list_addresses(now);
            }
            self.keep_config();
        }
        // What has waited for the secret.
        if self.core.is_none() && self.agent.protection == Protection::On {
            self.enable(Terms::default())?;
        }
        Ok(changes)
    }

    /// What a configuration says, if this agent can go on with it.
    fn take_setup(&self, config: Config) -> anyhow::Result<Setup> {
        if let Some(words) = self.setup.config.needs_restart(&config) {
            bail!("{words}");
        }
        let beyond = config.files_for_proofs().into_iter().find(|file| !self.reach.covers(file));
        if let Some(file) = beyond {
            bail!(
                "{}: the agent gave up all files but those in {} when it started. Put it there, or restart the agent \
                 (`systemctl restart hostseal`, or SIGTERM and start it again: protection stays in place)",
                file.display(),
                self.reach.words()
            );
        }
        let setup = Setup::new(config, Some(&self.setup.node.name))?;
        if setup.node.name != self.setup.node.name {
            bail!(
                "this host is {} in the file and was {}: stop the agent (SIGTERM, protection stays in place) \
                 and start it again",
                setup.node.name,
                self.setup.node.name
            );
        }
        Ok(setup)
    }

    /// Keeps the configuration in force for an agent that finds a broken one.
    pub(super) fn keep_config(&mut self) {
        let outcome = self.setup.config.keep(&self.path);
        self.unsaved.note_config(&outcome);
        if outcome.is_err() {
            self.save_at.get_or_insert(Instant::now() + SAVE_DELAY);
        }
    }

    /// Sockets for all addresses of this host in `setup`.
    pub(super) fn open_sockets(&mut self, setup: &Setup) -> anyhow::Result<()> {
        let Some(sockets) = &mut self.sockets else { return Ok(()) };
        sockets.open(setup.addresses(), setup.ports())
    }

    /// Closes the sockets of addresses that are neither this host's any more nor in use by a pair that is on
    /// its way to the clear.
    pub(super) fn close_sockets(&mut self) {
        if let (Some(core), Some(sockets)) = (&self.core, &mut self.sockets) {
            let mut wanted = core.own();
            wanted.extend(self.setup.addresses());
            sockets.retain(|address| wanted.contains(&address));
        }
    }

    /// Hears of changes of the files that the configuration names now.
    pub(super) fn aim(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.get_mut().aim(&self.setup.files(&self.path));
        }
    }
}
