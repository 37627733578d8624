//! Takes the files as they are now: all of it or, where something is wrong, nothing.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::bail;

use super::Service;
use crate::agent::report;
use crate::agent::start;
use crate::config::Config;
use crate::control::Preview;
use crate::host::setup::Setup;
use crate::observe::causes;
use crate::store::owner;
use crate::types::units::human_duration;
use crate::types::{Protection, UnixTime};

/// So many changes are remembered that nobody was told of.
const TAKEN_MOST: usize = 100;

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
                let words = causes::words(error.as_ref());
                if self.trouble.as_ref() != Some(&words) {
                    tracing::error!("keeping the previous configuration: {words}");
                }
                self.trouble = Some(words);
            }
        }
        outcome
    }

    /// One of the files may have changed, or somebody says so: what comes of it is in the log and in `status`.
    pub(super) fn note_change(&mut self) {
        let now = Instant::now();
        let changes = self.reload().unwrap_or_default();
        self.taken.extend(changes.into_iter().map(|change| (now, change)));
        let many = self.taken.len().saturating_sub(TAKEN_MOST);
        self.taken.drain(..many);
    }

    /// Goes on with what the files say now for somebody who asks for it. Where there is nothing new, says what was
    /// taken without being asked: the watch is often faster.
    ///
    /// # Errors
    /// Those of [`Service::reload`].
    pub(super) fn reload_by_request(&mut self) -> anyhow::Result<Vec<String>> {
        let (changes, taken) = (self.reload()?, std::mem::take(&mut self.taken));
        let already = |(at, change): (Instant, String)| {
            format!("{change} (taken {} ago)", human_duration(Duration::from_secs(at.elapsed().as_secs())))
        };
        Ok(if changes.is_empty() { taken.into_iter().map(already).collect() } else { changes })
    }

    /// What loading `text`, which is in `file`, as the configuration would change. SAs that are agreed anew have no
    /// SPI yet: those that they replace stand for them.
    ///
    /// # Errors
    /// Something in the file is wrong, or takes a new agent.
    pub(super) fn preview(&mut self, file: &Path, text: &str) -> anyhow::Result<Preview> {
        let setup = self.take_setup(Config::parse(text, &file.display().to_string())?)?;
        let secrets = start::secrets(&setup)?;
        let of_secrets = self.secrets.as_ref().map(|before| before.changes(&secrets));
        let otherwise = self.setup.config.keying.method != setup.config.keying.method;
        let anew = otherwise || of_secrets.as_ref().is_none_or(|changes| !changes.is_empty());
        let mut changes = self.setup.config.changes(&setup.config);
        changes.extend(of_secrets.unwrap_or_default());
        let Some(core) = &self.core else { return Ok(Preview { file: changes, kernel: Vec::new() }) };
        let actual = self.kernel.read()?;
        let (before, after) = (&self.setup.config.esp.proposals, &setup.config.esp.proposals);
        let preview = core
            .preview(Instant::now(), actual, &setup.scheme(), |sa| anew || after.replace(before, sa.suite()));
        Ok(Preview { file: changes, kernel: report::preview(&preview) })
    }

    fn take_files(&mut self) -> anyhow::Result<Vec<String>> {
        owner::check(&self.path)?;
        let setup = self.take_setup(Config::load(&self.path)?)?;
        let secrets = start::secrets(&setup)?;
        let mut changes = self.setup.config.changes(&setup.config);
        match &self.secrets {
            Some(before) => changes.extend(before.changes(&secrets)),
            None => changes.push("the secret or the keys could not be read before".to_owned()),
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
            self.keep_config(Instant::now());
        }
        // What has waited for the secret.
        if self.core.is_none() && self.agent.protection == Protection::On {
            self.go_on()?;
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
        let setup = start::who(config, Some(&self.setup.node.name))?;
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
