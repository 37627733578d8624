//! The loop: gives the core time, datagrams, kernel events and requests, and carries its outputs away.

mod answer;
mod reload;
mod save;
mod wish;

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::future::pending;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use nix::libc::EMSGSIZE;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};

use self::save::{Held, Written};
use self::wish::Ordered;
use super::addresses::{AddressNews, News};
use super::alarm::Alarm;
use super::confine::{Reach, confine};
use super::control::Control;
use super::descriptors;
use super::followers::Followers;
use super::hearing::hear;
use super::keeper::Keeper;
use super::notify::Notifier;
use super::process::Entropy;
use super::report::{self, Agent};
use super::routes::Routes;
use super::single::Single;
use super::sockets::{Sockets, has_no_room};
use super::start::{self, Start};
use super::watch::Watch;
use super::writer::Writer;
use crate::config::Exemptions;
use crate::host::accounts::Accounts;
use crate::host::alerts::Alerts;
use crate::host::core::{Core, Datagram, Persist};
use crate::host::due::Due;
use crate::host::pace::Pace;
use crate::host::setup::{Secrets, Setup};
use crate::host::unlisted::Knocks;
use crate::host::unsaved::Unsaved;
use crate::ike;
use crate::machine;
use crate::observe::causes;
use crate::observe::strangers::{self, Ground};
use crate::store::{Saved, owner};
use crate::types::{Pair, Problem, Protection, SaId, UnixTime};
use crate::xfrm;

/// How often at most the kernel's tables are read again because somebody else changed them.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// The part of the time that may go into it, and into listing addresses: one of so many.
const LOOK_SHARE: u32 = 20;

/// How often at most the holes of the system are looked for, with the tick: sysctls do not say when they change.
const HOLES: Duration = Duration::from_secs(4);
/// The part of the time that may go into it: one of so many.
const HOLES_SHARE: u32 = 200;

/// When the agent ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// Never.
    Forever,
    /// When `disable` has done its work: `enable` started it, as no service manager did.
    UntilDisabled,
}

/// Runs until a signal, or until disabled.
pub(super) async fn serve(path: &Path, stay: Stay) -> anyhow::Result<()> {
    let start = Start::find(path)?;
    descriptors::ensure_enough(start.setup.node.own_addresses().count())?;
    let run_dir = start.setup.config.run_dir.clone();
    make_directory(&run_dir)?;
    owner::check(&run_dir)?;
    let mut claim = Single::new(&run_dir).claim()?;
    let mut keeper = Keeper::new(&run_dir);
    keeper.stand_by();
    let reach = confine(start::role(&start.setup, path));
    claim.answer()?;
    let mut service = Service::new(path, start, reach)?;
    let socket = service.setup.config.socket_path();
    let mut control = Control::listen(&socket).context("the control socket cannot be opened")?;
    // Before the first look at the tables, so that nothing falls between (docs/kernel.md, fact 15).
    let events = xfrm::Events::open_beside(service.kernel.port())
        .context("cannot subscribe to the kernel's IPsec events")?;
    let mut events = hear(events)?;
    let mut news = AddressNews::open().context("cannot subscribe to changes of this host's addresses")?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    service.start()?;
    service.notifier.ready();
    tracing::info!(
        node = %service.setup.node.name, version = env!("CARGO_PKG_VERSION"), "listening on {}",
        socket.display()
    );
    let mut alarm = Alarm::new()?;
    loop {
        let now = Instant::now();
        service.carry_away(now);
        if service.is_disabled() {
            // The last figures of the last SAs are on their way: the totals need them.
            service.handle_events(events.get_mut());
            service.finish_disable();
            if stay == Stay::UntilDisabled {
                service.finish_writing();
                keeper.end_holder();
                return Ok(());
            }
        }
        service.tell_followers(now);
        alarm.set(now, service.deadline())?;
        tokio::select! {
            (now, datagrams) = receive(&mut service.sockets) => service.handle_datagrams(now, &datagrams),
            guard = events.readable_mut() => {
                let mut guard = guard?;
                service.handle_events(guard.get_inner_mut());
                guard.clear_ready();
            }
            news = news.next() => service.note_news(news),
            () = service.routes.answered(&service.setup) => {}
            // One order after the other: an order is carried out when it has been written.
            Some(call) = control.receive(), if !service.has_wish() => service.handle_call(call, events.get_mut()),
            changed = changed(&mut service.watch) => if changed { service.note_change() },
            Some(()) = hangup.recv() => service.note_change(),
            written = service.writer.outcome() => service.note_written(Instant::now(), written),
            () = alarm.ring() => {
                service.take_in();
                service.handle_timeout(Instant::now(), events.get_mut());
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    tracing::info!("stopping; protection stays in place");
    service.notifier.stopping();
    service.finish_writing();
    if service.sockets.is_none() {
        keeper.end_holder();
    }
    Ok(())
}

/// Waits until something happens where the watched files are; says whether it concerns them.
async fn changed(watch: &mut Option<AsyncFd<Watch>>) -> bool {
    let Some(watch) = watch else { return pending().await };
    match watch.readable_mut().await {
        Ok(mut guard) => {
            let changed = guard.get_inner().changed();
            guard.clear_ready();
            changed
        }
        Err(_) => pending().await,
    }
}

/// Changes of files make themselves heard where the system can do that; `reload` and SIGHUP work in any case.
fn open_watch() -> Option<AsyncFd<Watch>> {
    let watch = Watch::open().and_then(hear);
    watch.inspect_err(|error| tracing::warn!("changed files go unnoticed: {error}")).ok()
}

async fn receive(sockets: &mut Option<Sockets>) -> (Instant, Vec<Datagram>) {
    match sockets {
        Some(sockets) => sockets.receive().await,
        None => pending().await,
    }
}

pub(super) fn make_directory(path: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.with_context(|| format!("{} cannot be made", path.display()))
}

/// The addresses of this host, and those that packets can leave from.
#[derive(Debug, PartialEq, Eq)]
struct Here {
    own: BTreeSet<IpAddr>,
    present: BTreeSet<IpAddr>,
}

impl Here {
    fn read() -> io::Result<Self> {
        let there = machine::addresses()?;
        let present = there.iter().filter(|(_, is_up)| **is_up).map(|(address, _)| *address).collect();
        Ok(Self { own: there.into_keys().collect(), present })
    }
}

/// What the loop holds.
struct Service {
    /// Where the configuration is.
    path: PathBuf,
    /// Which files can be read.
    reach: Reach,
    setup: Setup,
    /// `None` while they cannot be read: the kernel goes on, and no new keys are agreed.
    secrets: Option<Secrets>,
    /// Why the files as they are now are not in force.
    trouble: Option<String>,
    /// What was taken without being asked to, and when, as long as nobody was told.
    taken: Vec<(Instant, String)>,
    watch: Option<AsyncFd<Watch>>,
    saved: Saved,
    kernel: xfrm::Kernel,
    notifier: Notifier,
    agent: Agent,
    core: Option<Core>,
    sockets: Option<Sockets>,
    followers: Followers,
    routes: Routes,
    knocks: Knocks,
    /// What other IPsec software has in front of ours or beside it.
    strangers: Alerts,
    /// Interfaces that let packets past the policies.
    holes: Alerts,
    hole_looks: Pace,
    writer: Writer<Written>,
    due: Due,
    unsaved: Unsaved,
    /// When the configuration is to be kept, and whether it is being written.
    keep_at: Option<Instant>,
    keeping: bool,
    /// The operator's wish, while it is being written.
    wish: Option<Ordered>,
    /// What is told when it has been written.
    held: Vec<Held>,
    /// Looks at the kernel's tables.
    looks: Pace,
    tick_at: Option<Instant>,
    /// Looks at this host's addresses, and what they were.
    lists: Pace,
    here: Option<Here>,
}

impl Service {
    fn new(path: &Path, start: Start, reach: Reach) -> anyhow::Result<Self> {
        let Start { setup, secrets, saved, trouble } = start;
        let kernel = xfrm::Kernel::open().context("the kernel's IPsec tables cannot be opened")?;
        let writer = Writer::start().context("there is no thread to write the state directory")?;
        let now = Instant::now();
        Ok(Self {
            path: std::path::absolute(path)?,
            reach,
            setup,
            secrets,
            trouble,
            taken: Vec::new(),
            watch: open_watch(),
            saved,
            kernel,
            notifier: Notifier::new(now),
            agent: Agent { started: now, protection: Protection::Off },
            core: None,
            sockets: None,
            followers: Followers::new(),
            routes: Routes::open(now),
            knocks: Knocks::default(),
            strangers: Alerts::default(),
            holes: Alerts::default(),
            hole_looks: Pace::new(now, HOLES, HOLES_SHARE),
            writer,
            due: Due::default(),
            unsaved: Unsaved::default(),
            keep_at: None,
            keeping: false,
            wish: None,
            held: Vec::new(),
            looks: Pace::new(now, LOOK_PAUSE, LOOK_SHARE),
            tick_at: None,
            lists: Pace::new(now, LOOK_PAUSE, LOOK_SHARE),
            here: None,
        })
    }

    /// Goes on with what was wanted when the last agent ended.
    fn start(&mut self) -> anyhow::Result<()> {
        self.aim();
        if let Some(words) = &self.trouble {
            tracing::error!("using the last good configuration: {words}");
        }
        if self.saved.end_trial(&machine::boot()?) {
            tracing::warn!("the trial was not confirmed in time: this host is in the clear");
            self.due.note(Instant::now(), Persist::Seals);
        }
        match self.saved.protection {
            Protection::On | Protection::Enabling if self.secrets.is_none() => {
                self.agent.protection = Protection::On;
                Ok(())
            }
            Protection::On | Protection::Enabling => self.go_on(),
            Protection::Off | Protection::Disabling => self.finish_leaving(),
        }
    }

    /// Ends what an agent before this one began that died on the way to the clear: in stages too, as the
    /// peers may not know of it yet.
    fn finish_leaving(&mut self) -> anyhow::Result<()> {
        if !self.kernel.read()?.holds_ours() {
            return Ok(());
        }
        self.forget_seals();
        if let Err(error) = self.make_ready(Instant::now()) {
            tracing::warn!(
                "cannot go back to the clear in stages, so removing everything at once: {}",
                causes::words(error.as_ref())
            );
            xfrm::sweep(&mut self.kernel)?;
            return Ok(());
        }
        tracing::info!("still going back to the clear");
        if let Err(error) = self.leave(Instant::now()) {
            tracing::error!("{}", causes::words(error.as_ref()));
        }
        if self.is_disabled() {
            self.finish_disable();
        }
        Ok(())
    }

    /// What was sealed before the operator went back to clear begins in stages again.
    fn forget_seals(&mut self) {
        self.saved.pairs.values_mut().for_each(|record| record.sealed = false);
    }

    /// Opens the sockets and makes a core that is off, unless there is one.
    fn make_ready(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.core.is_some() {
            return Ok(());
        }
        let Some(secrets) = &self.secrets else {
            anyhow::bail!("{}", self.trouble.as_deref().unwrap_or("the secret cannot be read"));
        };
        // Said only where nothing was adopted: the peers' SAs of before are dead then.
        let initial_contact = self.kernel.read_sas()?.is_empty();
        let settings = self.setup.settings(secrets, initial_contact);
        let mut sockets = Sockets::new(&self.setup.config.run_dir);
        sockets.open(self.setup.addresses(), self.setup.ports())?;
        self.sockets = Some(sockets);
        self.core = Some(self.make_core(now, settings));
        // Before the pairs begin: those whose addresses are elsewhere must not.
        self.list_addresses(now);
        Ok(())
    }

    fn make_core(&self, now: Instant, settings: ike::Settings) -> Core {
        let wall = UnixTime::from(SystemTime::now());
        let scheme = self.setup.scheme();
        let mut accounts = Accounts::default();
        for pair in &scheme.pairs {
            accounts.restore(*pair, self.saved.pairs.get(pair).unwrap_or(&Default::default()), wall);
        }
        let mut engine = ike::Engine::new(settings, Box::new(Entropy));
        engine.set_clock(now, wall);
        let mut core = Core::new(scheme, engine, accounts, &self.saved.sealed(), now);
        core.set_clock(now, wall);
        core.recall(&self.saved.pairs);
        core
    }

    fn handle_datagrams(&mut self, now: Instant, datagrams: &[Datagram]) {
        if let Some(core) = &mut self.core {
            core.handle_datagrams(now, &mut self.kernel, datagrams);
        }
    }

    /// What has come is read before it counts as missing.
    fn take_in(&mut self) {
        if let Some((now, datagrams)) = self.sockets.as_mut().and_then(Sockets::receive_now) {
            self.handle_datagrams(now, &datagrams);
        }
    }

    /// Takes what the kernel reports; returns the SAs that ended.
    fn handle_events(&mut self, events: &mut xfrm::Events) -> Vec<SaId> {
        let (now, own) = (Instant::now(), self.kernel.port());
        let mut ended = Vec::new();
        let mut look = false;
        while let Some(event) = events.next() {
            let Some(core) = &mut self.core else {
                continue;
            };
            match event {
                xfrm::Event::SaDeleted { reading, port } => {
                    core.handle_sa_end(&reading);
                    ended.push(reading.id);
                    look |= port != own;
                }
                xfrm::Event::SaExpired { reading, hard: true } => {
                    core.handle_sa_end(&reading);
                    ended.push(reading.id);
                    look = true;
                }
                xfrm::Event::SaExpired { reading, hard: false } => {
                    core.handle_sa_dying(now, &mut self.kernel, &reading);
                }
                xfrm::Event::SaMapped { id, remote } => {
                    core.handle_mapping(now, &mut self.kernel, id, remote);
                }
                xfrm::Event::Changed { port } | xfrm::Event::Flushed { port } => look |= port != own,
                xfrm::Event::Overrun => look = true,
            }
        }
        if look {
            self.looks.want();
        }
        ended
    }

    fn note_news(&mut self, news: News) {
        match news {
            // Until the agent knows that it left, packets of this host to an address that floats go in the clear.
            News::Addresses(named) if self.core.as_ref().is_some_and(|core| core.waits_for(&named)) => {
                self.note_addresses(Instant::now());
                self.hole_looks.want();
            }
            News::Addresses(_) => self.lists.want(),
            News::Routes if self.core.is_some() => self.routes.note_change(Instant::now()),
            News::Routes => {}
        }
    }

    /// Tells the core which of its addresses this host has.
    fn list_addresses(&mut self, now: Instant) {
        self.here = None;
        self.note_addresses(now);
    }

    /// The same where they are not what they were: many an event of an interface changes none.
    fn note_addresses(&mut self, now: Instant) {
        let Some(core) = &mut self.core else { return self.lists.rest() };
        self.routes.note_change(now);
        match Here::read() {
            Ok(here) if self.here.as_ref() == Some(&here) => {}
            Ok(here) => {
                core.know_own(here.own.clone());
                core.handle_addresses(now, &mut self.kernel, &here.present);
                self.here = Some(here);
            }
            Err(error) => tracing::error!("this host's addresses cannot be listed: {error}"),
        }
        self.lists.done(now, Instant::now());
    }

    /// The interfaces that let packets of the pairs past the policies.
    fn holes_now(&self) -> Vec<Problem> {
        let pairs = self.setup.config.pairs(&self.setup.node).into_iter().map(|(_, pair)| pair);
        xfrm::holes(&pairs.collect::<Vec<Pair>>())
    }

    /// Says in the log which holes there are. With thousands of interfaces it looks more seldom.
    fn look_for_holes(&mut self, now: Instant) {
        if self.core.is_some() {
            self.holes.note(self.holes_now());
            self.hole_looks.done(now, Instant::now());
        }
    }

    fn handle_timeout(&mut self, now: Instant, events: &mut xfrm::Events) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let ticks = due(self.tick_at);
        if self.looks.is_due(now) {
            // The last figures of SAs that ended come before the reading that does not show them any more.
            self.handle_events(events);
        }
        if let Some(core) = &mut self.core {
            core.handle_timeout(now, &mut self.kernel);
            if let Some(absent) = core.poll_absent(now) {
                let named = self.setup.config.pairs(&self.setup.node);
                report::log_absent(named, &absent.into_iter().collect());
            }
            if self.looks.is_due(now) {
                let began = Instant::now();
                core.look_again(now, &mut self.kernel);
                self.looks.done(began, Instant::now());
            }
            if ticks {
                core.set_clock(now, UnixTime::from(SystemTime::now()));
                core.handle_tick(now, &mut self.kernel);
                self.tick_at = Some(core.next_tick(now));
                self.knocks.log(now, core);
                self.sockets.iter_mut().for_each(Sockets::open_missing);
            }
        }
        if self.lists.is_due(now) {
            self.note_addresses(now);
            self.hole_looks.want();
        }
        if self.hole_looks.is_due(now) || (ticks && self.hole_looks.is_free(now)) {
            self.look_for_holes(Instant::now());
        }
        self.routes.handle_timeout(now, &self.setup);
        if due(self.due.deadline()) {
            self.begin_write(now);
        }
        if due(self.keep_due()) {
            self.begin_keeping();
        }
        if self.core.as_mut().is_some_and(Core::poll_trial_ended) {
            self.end_trial(now);
        }
        self.notifier.handle_timeout(now);
    }

    fn deadline(&self) -> Option<Instant> {
        let core = self.core.as_ref().and_then(Core::poll_timeout);
        let (followers, alive) = (self.followers.deadline(), self.notifier.poll_timeout());
        let own = [self.due.deadline(), self.keep_due(), self.tick_at, self.routes.poll_timeout()];
        let looks = [&self.looks, &self.lists, &self.hole_looks].map(Pace::deadline);
        [core, followers, alive].into_iter().chain(own).chain(looks).flatten().min()
    }

    /// Sends and notes what the core has to give.
    fn carry_away(&mut self, now: Instant) {
        let (Some(core), Some(sockets)) = (&mut self.core, &mut self.sockets) else {
            return;
        };
        // Probes first: the message that follows asks whether they came through.
        while let Some(probe) = core.poll_probe() {
            // The kernel counts some of those over IPv6 that it refuses: it learns their size as it encrypts them.
            let counts = |kernel: &mut xfrm::Kernel| probe.may_count().then(|| kernel.read_sa(probe.sa.id()));
            let before = counts(&mut self.kernel);
            match sockets.probe(&probe) {
                Ok(()) => core.handle_probe_sent(now, &probe),
                Err(error) if error.raw_os_error() == Some(EMSGSIZE) => {
                    let after = counts(&mut self.kernel);
                    let [before, after] = [before, after].map(|it| it.and_then(Result::ok).flatten());
                    core.handle_probe_refused(now, &probe, before.zip(after));
                }
                Err(error) => {
                    tracing::debug!("a probe through {}: {error}", probe.sa.id());
                    if has_no_room(&error) {
                        core.handle_probe_unsent(&probe);
                    }
                }
            }
        }
        loop {
            let transmits: Vec<_> = std::iter::from_fn(|| core.poll_transmit()).collect();
            if transmits.is_empty() {
                break;
            }
            let unsent = sockets.send(&transmits);
            if !unsent.is_empty() {
                core.handle_unsent(now, &mut self.kernel, unsent);
            }
        }
        #[cfg(feature = "key-export")]
        super::export::ike_sas();
        if core.wants_look() {
            self.looks.want();
        }
        if let Some(strangers) = core.poll_strangers() {
            let pairs = self.setup.config.pairs(&self.setup.node);
            let exempt = Exemptions::of(&self.setup.config, Some(&self.setup.node));
            self.strangers.note(strangers::problems(&strangers, Ground { pairs: &pairs, exempt: &exempt }));
        }
        self.note_persist(now);
    }

    /// Whether the way to the clear is at its end.
    fn is_disabled(&self) -> bool {
        let leaving = self.agent.protection == Protection::Disabling && !self.has_wish();
        leaving && self.core.as_ref().is_none_or(Core::is_off)
    }

    fn finish_disable(&mut self) {
        self.take_records(Instant::now());
        self.due.note(Instant::now(), Persist::Seals);
        self.core = None;
        if let Some(sockets) = self.sockets.take() {
            sockets.close();
        }
        self.tick_at = None;
        [&mut self.looks, &mut self.lists, &mut self.hole_looks].into_iter().for_each(Pace::rest);
        match xfrm::sweep(&mut self.kernel) {
            Ok(_) => tracing::info!("disabled: nothing of ours is left in the kernel"),
            Err(error) => {
                tracing::error!("disabled, but not all of ours could be removed from the kernel: {error}")
            }
        }
        self.set_protection(Protection::Off);
    }

    fn set_protection(&mut self, protection: Protection) {
        self.agent.protection = protection;
        self.followers.note_change();
    }
}
