//! How an agent begins and ends: it goes on with what was wanted when the last one ended, and leaves nothing behind once
//! the host is in the clear.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use anyhow::bail;

use super::accounts::Accounts;
use super::audit::AuditTrail;
use super::cluster::ClusterPart;
use super::core::{Core, CoreCounts, Persist, TICK, Withholding};
use super::hurry::Hurry;
use super::onlookers::Onlookers;
use super::pace::Pace;
use super::prover::Prover;
use super::setup::Secrets;
use super::system::{Moment, System};
use super::unwrap::Leased;
use super::ways::Ways;
use super::{Chance, HOLES, HOLES_SHARE, Host, LOOK_PAUSE, LOOK_SHARE, Start, secret};
use crate::ike;
use crate::observe::causes;
use crate::store::AuditKind;
use crate::types::Protection;

impl Host {
    /// A host that does nothing yet. `boot` names this start of its system.
    pub fn new(moment: Moment, boot: String, start: Start, chance: Chance) -> Self {
        let Start { setup, secrets, saved, trouble, withheld, cluster } = start;
        let now = moment.now;
        let leased = setup.config.kms.as_ref();
        let leased = leased.map(|rules| Leased::new(rules, moment, &boot, saved.lease.as_ref()));
        let withheld = match (&secrets, withheld, &leased) {
            (Some(_), ..) => None,
            (None, None, Some(leased)) => Some(leased.withholding(moment)),
            (None, why, _) => Some(Withholding::internal(why.unwrap_or_else(|| secret::AWAITED.to_owned()))),
        };
        Self {
            boot,
            moment,
            chance,
            leased,
            hurry: Hurry::default(),
            audit: AuditTrail::default(),
            awaiting_first_answer: Vec::new(),
            leaves_later: false,
            secrets_lag: false,
            examination: None,
            setup,
            secrets,
            trouble,
            withheld,
            taken: Vec::new(),
            reads: Default::default(),
            saved,
            started: now,
            started_at: moment.wall,
            protection: Protection::Off,
            core: None,
            cluster: cluster.map(|start| ClusterPart::new(now, start)),
            followers: Default::default(),
            onlookers: Onlookers::new(now),
            knocks: Default::default(),
            strangers: Default::default(),
            holes: Default::default(),
            ledger: Default::default(),
            wish: None,
            looks: Pace::new(now, LOOK_PAUSE, LOOK_SHARE),
            lists: Pace::new(now, LOOK_PAUSE, LOOK_SHARE),
            here: None,
            hole_looks: Pace::new(now, HOLES, HOLES_SHARE),
            tick_at: None,
            ways: Ways::new(now),
            prover: Prover::default(),
            left: false,
            narrows: false,
            ends: false,
            counted: CoreCounts::default(),
            overruns: 0,
        }
    }

    /// Goes on with what was wanted when the last agent ended.
    ///
    /// # Errors
    /// The kernel cannot be read, or a socket cannot be bound.
    pub fn start(&mut self, moment: Moment, system: &mut dyn System) -> anyhow::Result<()> {
        let now = self.note_moment(moment);
        self.record_life(AuditKind::Start);
        if let Some(words) = &self.trouble {
            tracing::error!("using the last good configuration: {words}");
        }
        if let Some(why) = &self.withheld {
            tracing::error!("waiting for the secret: {}", why.words);
        }
        let boot = self.boot_at(now);
        if self.saved.end_trial(&boot) {
            tracing::warn!("the trial was not confirmed in time: this host is in the clear");
            self.ledger.note(now, Persist::Seals);
        }
        let wanted = matches!(self.saved.protection, Protection::On | Protection::Enabling);
        if !wanted && self.saved.leaving {
            self.saved.forget_seals();
        }
        if self.cluster.is_some() || wanted || self.saved.leaving {
            self.await_secret(now, system)?;
        }
        if self.cluster.is_some() {
            self.make_ready(now, system)?;
        }
        // Peers are told of it with the secret, if it comes.
        self.leaves_later = !wanted && self.saved.leaving && self.awaits_first_answer();
        match wanted {
            true => self.go_on(now, system),
            false if self.leaves_later => Ok(()),
            false => self.go_on_leaving(now, system),
        }
    }

    /// Goes on to the clear where that has waited for the first answer of a KMS.
    pub(super) fn go_on_leaving_later(&mut self, now: Instant, system: &mut dyn System) {
        if self.leaves_later && !self.awaits_first_answer() {
            self.leaves_later = false;
            // Somebody may want this host protected by now.
            if self.saved.leaving
                && let Err(error) = self.go_on_leaving(now, system)
            {
                tracing::error!("{}", causes::words(error.as_ref()));
            }
        }
    }

    /// Ends what an agent before this one began that died on the way to the clear: in stages too, as the peers may not
    /// know of it yet.
    fn go_on_leaving(&mut self, now: Instant, system: &mut dyn System) -> anyhow::Result<()> {
        if !self.saved.leaving && !system.read()?.holds_ours() {
            return Ok(());
        }
        self.saved.forget_seals();
        if let Err(error) = self.make_ready(now, system) {
            tracing::warn!(
                "cannot go back to the clear in stages, so removing everything at once: {}",
                causes::words(error.as_ref())
            );
            return system.sweep().map_err(anyhow::Error::msg);
        }
        tracing::info!("still going back to the clear");
        if let Err(error) = self.leave(now, system) {
            tracing::error!("{}", causes::words(error.as_ref()));
        }
        Ok(())
    }

    /// Binds the sockets and makes a core that is off, unless there is one.
    pub(super) fn make_ready(&mut self, now: Instant, system: &mut dyn System) -> anyhow::Result<()> {
        if self.core.is_some() {
            return Ok(());
        }
        let Some(secrets) = &self.secrets else {
            bail!("{}", self.trouble().unwrap_or("the secret cannot be read"));
        };
        // Said only where nothing was adopted: the peers' earlier SAs are dead then.
        let initial_contact = system.read_sas()?.is_empty();
        let settings = self.setup.settings(secrets, initial_contact);
        self.work_with(now, system, settings)
    }

    /// Where the secret is not there yet: a core guards the pairs meanwhile, and goes on with what an agent before this
    /// one left in the kernel.
    fn await_secret(&mut self, now: Instant, system: &mut dyn System) -> anyhow::Result<()> {
        let Some(why) = self.withheld.clone().filter(|_| self.secrets.is_none()) else { return Ok(()) };
        let settings = self.setup.settings(&Secrets::default(), system.read_sas()?.is_empty());
        self.work_with(now, system, settings)?;
        self.core.iter_mut().for_each(|core| core.await_secret(why.clone()));
        Ok(())
    }

    /// Binds the sockets and makes a core that is off.
    fn work_with(
        &mut self,
        now: Instant,
        system: &mut dyn System,
        settings: ike::Settings,
    ) -> anyhow::Result<()> {
        system.bind(self.setup.addresses().collect(), self.setup.ports())?;
        self.core = Some(self.make_core(now, settings));
        self.take_part(now);
        if self.cluster.is_some() {
            self.tick_at = Some(now + TICK);
        }
        // Before the pairs begin: those whose addresses are elsewhere must not.
        self.list_addresses(now, system);
        Ok(())
    }

    fn make_core(&mut self, now: Instant, settings: ike::Settings) -> Core {
        let (scheme, wall) = (self.setup.scheme(), self.moment.wall_at(now));
        let gone = self.saved.pairs.iter().filter(|(pair, _)| !scheme.pairs.contains(pair));
        let mut accounts = Accounts::resume(self.saved.volume, gone.map(|(_, record)| record.clone()));
        for pair in &scheme.pairs {
            accounts.restore(*pair, self.saved.pairs.get(pair).unwrap_or(&Default::default()), wall);
        }
        let mut engine = ike::Engine::new(settings, (self.chance)());
        engine.set_clock(now, wall);
        let mut core = Core::new(scheme, engine, accounts, &self.saved.sealed(), now);
        core.count_on(self.counted);
        core.set_clock(now, wall);
        core.recall(&self.saved.pairs);
        core.bound_sas(self.lease_end());
        core
    }

    /// Begins to go back to the clear.
    pub(super) fn leave(&mut self, now: Instant, system: &mut dyn System) -> anyhow::Result<()> {
        if self.protection == Protection::On {
            self.set_protection(Protection::Disabling);
        }
        if let Some(core) = &mut self.core {
            core.disable(now, system)?;
        }
        Ok(())
    }

    /// Ends the way to the clear once all pairs are at its end, and lets go of what a host that is off needs no more.
    pub(super) fn finish_leaving(&mut self, now: Instant, system: &mut dyn System) {
        if self.wish.is_some() || self.leaves_later || !self.core.as_ref().is_none_or(Core::is_off) {
            return;
        }
        // What an agent before this one began, or what could not be begun, is off as far as anybody was told.
        let ordered = self.protection == Protection::Disabling;
        let goes = self.cluster.is_none() || self.saved.leaving;
        let unordered = self.protection == Protection::Off && self.core.is_some() && goes;
        if ordered || unordered {
            // The last figures of the last SAs are on their way: the totals need them.
            self.handle_kernel_events(now, system);
            self.take_records(now);
            self.let_go(system);
        }
        if std::mem::take(&mut self.saved.leaving) || ordered {
            self.ledger.note(now, Persist::Seals);
        }
        if ordered {
            match system.sweep() {
                Ok(()) => tracing::info!("disabled: nothing of ours is left in the kernel"),
                Err(error) => {
                    tracing::error!("disabled, but not all of ours could be removed from the kernel: {error}")
                }
            }
            self.set_protection(Protection::Off);
            // A member is there for its cluster.
            self.left = self.cluster.is_none();
        }
    }

    fn let_go(&mut self, system: &mut dyn System) {
        if self.cluster.is_some() {
            return system.rest();
        }
        self.counted = self.core.take().map_or(self.counted, |core| core.counts());
        system.close();
        self.tick_at = None;
        [&mut self.looks, &mut self.lists, &mut self.hole_looks].into_iter().for_each(Pace::rest);
    }

    pub(super) fn set_protection(&mut self, protection: Protection) {
        self.protection = protection;
        self.followers.note_change();
    }

    /// The agent ends, and protection stays: the state is written now.
    pub fn hurry(&mut self, now: Instant) {
        self.note_persist(now);
        self.record_life(AuditKind::Stop);
        self.ends = true;
        self.ledger.hurry_all(now);
    }

    /// Takes the changes of the saved state from the core.
    pub(super) fn note_persist(&mut self, now: Instant) {
        if let Some(what) = self.core.as_mut().and_then(Core::poll_persist) {
            self.ledger.note(now, what);
            self.narrows |= what == Persist::Seals;
        }
    }

    /// Closes the sockets of addresses that are neither this host's any more nor in use by a pair on its way to the
    /// clear.
    pub(super) fn close_sockets(&mut self, system: &mut dyn System) {
        if let Some(core) = self.core.as_ref().filter(|_| self.narrows) {
            system.retain(&core.own().into_iter().chain(self.talks_from()).collect());
        }
        self.narrows = false;
    }

    /// The addresses from which this host talks to others: also those that it has or had besides, where
    /// members of its cluster are to be reached from there.
    pub(super) fn talks_from(&self) -> BTreeSet<IpAddr> {
        let besides = self.core.as_ref().map(Core::member_sources).unwrap_or_default();
        self.setup.addresses().chain(besides).collect()
    }

    /// Takes the records of the pairs.
    pub(super) fn take_records(&mut self, now: Instant) {
        if let Some(core) = &self.core {
            self.saved.pairs = core.records(now, self.moment.wall_at(now));
            self.saved.volume = core.host_record();
        }
        self.saved.volume.closed = self.ends;
        self.take_lease();
    }
}
