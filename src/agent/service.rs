//! The loop: gives the [`Host`] time, datagrams, kernel events, files and requests, and carries its outputs away. It
//! decides nothing.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::future::pending;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use anyhow::Context as _;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::alarm::Alarm;
use super::confine::{Reach, confine};
use super::control::{Bound, Call, Door};
use super::descriptors;
use super::disk::Disk;
use super::group;
use super::hearing::hear;
use super::keeper::Keeper;
use super::notify::Notifier;
use super::process::SystemEntropy;
use super::single::Single;
use super::sockets::UdpSockets;
use super::start::{self, FileSource};
use super::store_helper::StoreHelper;
use super::system::{Linux, moment};
use super::unwrapper::Unwrapper;
use super::watch::Watch;
use crate::control::{Request, encode_reply};
use crate::host::core::Datagram;
use crate::host::ledger::Asker;
use crate::host::shared_store::StoreEvent;
use crate::host::system::{Moment, System};
use crate::host::unwrap::Unwrapped;
use crate::host::{Host, OfferTried, Start};
use crate::machine::{self, NetworkListener};
use crate::store::owner;
use crate::types::NetworkNews;
use crate::types::generation::VERSION;

/// The permissions by which others than its owner can pass a directory.
const PASSABLE: u32 = 0o011;

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
    let start = start::find(path)?;
    descriptors::ensure_enough(start.setup.node.own_addresses().count())?;
    let run_dir = start.setup.config.run_dir.clone();
    make_directory(&run_dir)?;
    owner::check(&run_dir)?;
    let mut claim = Single::new(&run_dir).claim()?;
    let mut keeper = Keeper::new(&run_dir);
    keeper.stand_by();
    // To give the socket to a group takes a power that is given up next.
    let onlookers = Door::Onlookers(group::of_onlookers());
    let onlookers = Bound::new(&start.setup.config.status_socket_path(), onlookers);
    let onlookers = onlookers.context("the socket for onlookers cannot be opened")?;
    let reach = confine(start::role(&start.setup, path));
    claim.answer()?;
    let mut service = Service::new(path, start, reach)?;
    let setup = service.host.setup();
    let (node, socket) = (setup.node.name.clone(), setup.config.socket_path());
    let control = Bound::new(&socket, Door::Root).and_then(Bound::listen);
    let mut control = control.context("the control socket cannot be opened")?;
    let mut onlookers = onlookers.listen().context("the socket for onlookers cannot be listened at")?;
    let changes = NetworkListener::open().and_then(hear);
    let mut changes = changes.context("cannot subscribe to changes of this host's addresses")?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    service.aim();
    service.host.start(moment(Instant::now()), &mut service.system)?;
    service.notifier.ready();
    tracing::info!(%node, version = VERSION, "listening on {}", socket.display());
    let mut alarm = Alarm::new()?;
    loop {
        let now = Instant::now();
        service.carry_away(now);
        if service.host.poll_left() && stay == Stay::UntilDisabled {
            service.finish_writing();
            keeper.end_holder();
            onlookers.take_away();
            return Ok(());
        }
        alarm.set(now, service.deadline())?;
        let Service { host, system, secrets, watch, disk, helper, unwrapper, trier, .. } = &mut service;
        tokio::select! {
            (now, datagrams) = receive(&mut system.sockets) => host.handle_datagrams(now, system, &datagrams),
            guard = system.monitor.readable_mut() => {
                guard?.clear_ready();
                host.handle_kernel_events(Instant::now(), system);
            }
            news = network_news(&mut changes) => host.handle_news(Instant::now(), system, news),
            ways = system.routes.answer() => host.handle_ways(Instant::now(), ways),
            Some(call) = control.receive(), if host.takes_requests() => service.handle_call(call, Host::handle_request),
            Some(call) = onlookers.receive() => service.handle_call(call, |host, moment, _, asker, request| {
                host.handle_question(moment, asker, request);
            }),
            changed = changed(watch) => if changed { host.handle_change() },
            Some(()) = hangup.recv() => host.handle_change(),
            heard = helper.heard(), if host.hears_store() => service.handle_store(heard),
            unwrapped = unwrapper.outcome() => {
                host.handle_unwrapped(moment(Instant::now()), system, secrets, unwrapped);
            }
            tried = trier.outcome() => host.handle_offer_tried(tried),
            written = disk.outcome() => host.handle_written(Instant::now(), system, written),
            () = alarm.ring() => service.handle_timeout(),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    tracing::info!("stopping; protection stays in place");
    service.notifier.stopping();
    service.finish_writing();
    if service.system.sockets.is_none() {
        keeper.end_holder();
    }
    if !service.host.goes_on() {
        onlookers.take_away();
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

/// Waits for news of this host's addresses and routes, and takes all that there are.
async fn network_news(changes: &mut AsyncFd<NetworkListener>) -> NetworkNews {
    let Ok(mut guard) = changes.readable_mut().await else { return pending().await };
    let mut news = NetworkNews::Routes;
    while let Some(more) = guard.get_inner_mut().poll() {
        news = news.and(more);
    }
    guard.clear_ready();
    news
}

/// Changes of files make themselves heard where the system can do that; `reload` and SIGHUP work in any case.
fn open_watch() -> Option<AsyncFd<Watch>> {
    let watch = Watch::open().and_then(hear);
    watch.inspect_err(|error| tracing::warn!("changed files go unnoticed: {error}")).ok()
}

async fn receive(sockets: &mut Option<UdpSockets>) -> (Instant, Vec<Datagram>) {
    match sockets {
        Some(sockets) => sockets.receive().await,
        None => pending().await,
    }
}

/// Makes a directory that others can pass, to a socket that they may use.
pub(super) fn make_directory(path: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o711).create(path);
    made.with_context(|| format!("{} cannot be made", path.display()))?;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & PASSABLE != PASSABLE {
        let passable = fs::Permissions::from_mode(mode | PASSABLE);
        fs::set_permissions(path, passable)
            .with_context(|| format!("{} cannot be made passable", path.display()))?;
    }
    Ok(())
}

/// What the loop holds.
struct Service {
    /// Where the configuration is.
    path: PathBuf,
    secrets: FileSource,
    host: Host,
    system: Linux,
    watch: Option<AsyncFd<Watch>>,
    disk: Disk,
    helper: StoreHelper,
    unwrapper: Unwrapper<Unwrapped>,
    /// Tries what the cluster offers.
    trier: Unwrapper<OfferTried>,
    notifier: Notifier,
    /// The askers that wait for an answer, and the next number.
    askers: BTreeMap<Asker, oneshot::Sender<Rc<str>>>,
    next: Asker,
}

impl Service {
    fn new(path: &Path, start: Start, reach: Reach) -> anyhow::Result<Self> {
        let now = Instant::now();
        let (path, config) = (std::path::absolute(path)?, &start.setup.config);
        let system = Linux::open(config.run_dir.clone())?;
        let disk = Disk::open(&path, config);
        Ok(Self {
            path,
            secrets: FileSource { reach: Some(reach) },
            host: Host::new(moment(now), machine::boot()?.id, start, Box::new(|| Box::new(SystemEntropy))),
            system,
            watch: open_watch(),
            disk: disk.context("there is no thread to write the state directory")?,
            helper: StoreHelper::new(),
            unwrapper: Unwrapper::default(),
            trier: Unwrapper::default(),
            notifier: Notifier::new(now),
            askers: BTreeMap::new(),
            next: Asker(0),
        })
    }

    /// Gives a request to the host, which takes it by `handle`.
    fn handle_call(
        &mut self,
        call: Call,
        handle: impl FnOnce(&mut Host, Moment, &mut dyn System, Asker, Request),
    ) {
        let gone: Vec<Asker> =
            self.askers.extract_if(.., |_, to| to.is_closed()).map(|(gone, _)| gone).collect();
        gone.into_iter().for_each(|gone| self.host.handle_gone(gone));
        self.next.0 += 1;
        self.askers.insert(self.next, call.reply);
        handle(&mut self.host, moment(Instant::now()), &mut self.system, self.next, call.request);
    }

    fn handle_store(&mut self, heard: Vec<StoreEvent>) {
        let now = Instant::now();
        heard.into_iter().for_each(|event| self.host.handle_store(now, event));
    }

    fn handle_timeout(&mut self) {
        let Self { host, system, notifier, .. } = self;
        // What has come is read before it counts as missing.
        if let Some((now, datagrams)) = system.sockets.as_mut().and_then(UdpSockets::receive_now) {
            host.handle_datagrams(now, system, &datagrams);
        }
        let now = Instant::now();
        host.handle_timeout(moment(now), system);
        notifier.handle_timeout(now);
    }

    fn deadline(&self) -> Option<Instant> {
        [self.host.poll_timeout(), self.notifier.poll_timeout()].into_iter().flatten().min()
    }

    /// Sends, reads, writes and tells what the host has to give.
    fn carry_away(&mut self, now: Instant) {
        while let Some(read) = self.host.poll_read() {
            let Self { host, system, secrets, path, .. } = self;
            let setup = start::followed(&read, path, host);
            host.handle_files(moment(Instant::now()), system, secrets, read, setup);
            self.aim();
        }
        self.host.send(now, &mut self.system);
        self.host.handle_done(now, &mut self.system);
        #[cfg(feature = "key-export")]
        super::export::ike_sas();
        if self.host.poll_ways(now) {
            self.system.routes.ask(self.host.setup());
        }
        while let Some(ask) = self.host.poll_unwrap() {
            self.unwrapper.ask(ask, self.host.setup());
        }
        if let Some(offer) = self.host.poll_offer(now) {
            self.trier.try_out(offer, self.host.setup());
        }
        self.host.write(now, &mut self.disk);
        while self.helper.has_room()
            && let Some(entry) = self.host.poll_store(now)
        {
            self.helper.put(entry);
        }
        let (begun, mut told) = (Instant::now(), false);
        while let Some((askers, reply)) = self.host.poll_reply() {
            told = true;
            let line: Rc<str> = encode_reply(reply).into();
            for to in askers.iter().filter_map(|asker| self.askers.remove(asker)).collect::<Vec<_>>() {
                // The asker may have gone away: nobody is left to tell then.
                let _ = to.send(line.clone());
            }
        }
        if told {
            self.host.handle_told(Instant::now(), begun.elapsed());
        }
    }

    /// Writes everything, and waits until that is over.
    fn finish_writing(&mut self) {
        let now = Instant::now();
        let Self { host, system, disk, .. } = self;
        host.hurry(now);
        host.write(now, disk);
        while host.is_writing(now) {
            let Ok(written) = disk.wait() else { return };
            host.handle_written(now, system, written);
            host.write(now, disk);
        }
    }

    /// Hears of changes of the files that the configuration names now, and talks to the store that it names.
    fn aim(&mut self) {
        if self.helper.aim(&self.host, &self.secrets) {
            self.host.begin_store();
        }
        if let Some(watch) = &mut self.watch {
            watch.get_mut().aim(&self.host.setup().files(&self.path));
        }
    }
}
