//! DECIDES: the whole life of one host. It has no clock, chance, socket or file: simulations run this very code.
//!
//! [`Host`] takes what happens as inputs ([`Host::handle_request`], [`Host::handle_question`], [`Host::handle_files`], [`Host::handle_datagrams`],
//! [`Host::handle_kernel_events`], [`Host::handle_news`], [`Host::handle_written`], [`Host::handle_timeout`]), each with
//! the time. Its outputs ([`Host::poll_transmit`], [`Host::poll_probe`], [`Host::poll_read`], [`Host::poll_save`],
//! [`Host::poll_reply`]) are drained after each input and [`Host::handle_done`]. Its [`System`] answers at once. The
//! rooms:
//!
//! ```text
//! begin    what an agent starts with
//! life     start, death and adoption, the way to the clear and its end
//! wish     enable, trial, confirm, disable: written first, carried out and answered then
//! reload   files that changed: all of them or nothing
//! look     the kernel's tables, addresses and holes, looked at again
//! reading  what is read of the tables to tell how the host stands
//! ways     from which addresses packets to the peers leave, asked for and told
//! answer   requests
//! onlookers
//!          questions of those who may order nothing
//! doctor   what of the paths is open, asked of the peers
//! cluster  what a member of a cluster does beside that
//! secret   a secret that comes late, is withdrawn and comes again
//! unwrap   a secret that a key of somebody else wraps
//! lease    for how long a host goes on with it
//! hurry    when the key is asked for out of turn
//! audit    what was done with that key, to be written
//! ledger   writes, and the answers that wait for them
//! ports    the sockets, the disk and the source of secrets that it stands on
//! prover   proofs that a pair is sealed
//! proving  what they are made with on this host, and who is told
//! core     the key exchange, the pairs and the kernel, joined
//! snapshot all that is known at one moment, for `status`
//! joiner   how a host becomes a member of a cluster
//! file_host
//!          what of its file the cluster says then, and what stays its own
//! whereabouts
//!          what it is called then, and where it is
//! guard    what blocks sealed pairs before there is an agent
//! ```

pub mod absent;
pub mod accounts;
mod alerts;
mod answer;
mod audit;
mod begin;
mod beside;
mod cluster;
pub mod core;
mod doctor;
mod due;
pub mod file_host;
mod followers;
pub mod guard;
pub mod holdings;
mod hurry;
pub mod joiner;
pub mod kernel;
pub mod lease;
pub mod ledger;
mod life;
mod look;
pub mod membership;
mod onlookers;
pub mod pace;
pub mod pairs;
pub mod ports;
pub mod probe;
pub mod prover;
mod proving;
mod reading;
mod reload;
pub mod scheme;
mod secret;
mod seldom;
pub mod setup;
pub mod shared_store;
#[cfg(test)]
mod sim;
mod snapshot;
pub mod system;
mod timers;
mod told;
mod unlisted;
mod unsaved;
pub mod unwrap;
mod ways;
pub mod whereabouts;
mod wish;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use self::alerts::Alerts;
use self::audit::AuditTrail;
pub use self::begin::{Found, Start};
use self::cluster::ClusterPart;
pub use self::cluster::{ClusterStart, OfferTried};
use self::core::{Core, CoreCounts, Datagram, ProbeDatagram, Unsent, Withholding};
use self::doctor::Examination;
use self::followers::Followers;
use self::hurry::Hurry;
use self::ledger::{Asker, Begun, Ledger, Save, Written};
use self::onlookers::Onlookers;
use self::pace::Pace;
use self::prover::Prover;
pub use self::reload::Read;
pub use self::seldom::Seldom;
use self::setup::{Secrets, Setup};
use self::system::{Here, Moment, System};
use self::unlisted::UnlistedLog;
use self::unwrap::Leased;
use self::ways::Ways;
use self::wish::Ordered;
use crate::config::Exemptions;
use crate::control::{Reply, Terms};
use crate::ike;
use crate::observe::strangers::{self, Ground};
use crate::store::Saved;
use crate::types::{Boot, Protection, SaReading, UnixTime};

/// How often at most the kernel's tables are read again because somebody else changed them.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// The part of the time that may go into it, and into listing addresses: one of so many.
const LOOK_SHARE: u32 = 20;

/// How often at most the holes of the system are looked for, with the tick: sysctls do not say when they change.
const HOLES: Duration = Duration::from_secs(4);
/// The part of the time that may go into it: one of so many.
const HOLES_SHARE: u32 = 200;

/// How long after a host is to be protected they are looked for the first time.
const HOLES_AFTER: Duration = Duration::from_secs(1);

/// Where each core gets its randomness.
pub type Chance = Box<dyn FnMut() -> Box<dyn ike::Entropy + Send>>;

/// What became of a probe.
#[derive(Debug)]
pub enum ProbeFate {
    /// It left.
    Sent,
    /// It is larger than what this host lets out to there. The readings are those of its SA before and after, where the
    /// kernel may have counted it all the same.
    TooLarge(Option<Box<(SaReading, SaReading)>>),
    /// There was no room for it on this host.
    NoRoom,
    /// It is lost otherwise.
    Lost,
}

/// One host: the wish, the saved state, and the way there.
pub struct Host {
    /// This start of the system.
    boot: String,
    /// The last time of day and uptime that were told.
    moment: Moment,
    chance: Chance,
    setup: Setup,
    /// `None` while they cannot be read: the kernel goes on, and no new keys are agreed.
    secrets: Option<Secrets>,
    /// Why the files as they are now are not in force; for missing secrets see `withheld`.
    trouble: Option<String>,
    /// Why there are no secrets.
    withheld: Option<Withholding>,
    /// The lease of the secret, where a key of somebody else wraps it.
    leased: Option<Leased>,
    /// When the key is asked for out of turn, whatever lease there is.
    hurry: Hurry,
    /// What was done with that key, to be written.
    audit: AuditTrail,
    /// Who wants this host protected, before it is known whether it has a secret.
    awaiting_first_answer: Vec<(Terms, Asker)>,
    /// An agent before this one died on the way to the clear, and it is not known yet whether this one has a secret.
    leaves_later: bool,
    /// The files in force want other secrets than those in force, which a KMS has not unwrapped yet.
    secrets_lag: bool,
    /// What was taken without being asked to, and when, as long as nobody was told.
    taken: Vec<(Instant, String)>,
    /// What is to be read, and for whom.
    reads: VecDeque<Read>,
    saved: Saved,
    /// When its agent started.
    started: Instant,
    /// The same by the time of day. It stays, until somebody sets the clock.
    started_at: UnixTime,
    /// What the operator wants, as far as it is carried out: never [`Protection::Enabling`].
    protection: Protection,
    /// At work, with its sockets bound, unless the host is off.
    core: Option<Core>,
    /// Where it is a member of a cluster.
    cluster: Option<ClusterPart>,
    followers: Followers,
    onlookers: Onlookers,
    /// What `doctor` asks, while it is found out.
    examination: Option<Examination>,
    knocks: UnlistedLog,
    /// What other IPsec software has in front of ours or beside it.
    strangers: Alerts,
    /// Interfaces that let packets past the policies.
    holes: Alerts,
    ledger: Ledger,
    /// The operator's wish, while it is being written.
    wish: Option<Ordered>,
    /// Looks at the kernel's tables.
    looks: Pace,
    /// Looks at this host's addresses, and what they were.
    lists: Pace,
    here: Option<Here>,
    hole_looks: Pace,
    tick_at: Option<Instant>,
    /// From which addresses packets to the peers leave.
    ways: Ways,
    prover: Prover,
    /// It is in the clear, and that was not told yet.
    left: bool,
    /// Some sockets may not be needed any more.
    narrows: bool,
    /// The agent ends: nobody is told anything any more.
    ends: bool,
    /// What the cores before this one have counted.
    counted: CoreCounts,
    /// How often the kernel had more to tell than fitted.
    overruns: u64,
}

/// Inputs.
impl Host {
    /// Datagrams came in on UDP.
    pub fn handle_datagrams(&mut self, now: Instant, system: &mut dyn System, datagrams: &[Datagram]) {
        if let Some(core) = &mut self.core {
            core.handle_datagrams(now, system, datagrams);
        }
    }

    /// A probe was sent, or was not.
    pub fn handle_probe(&mut self, now: Instant, probe: &ProbeDatagram, fate: ProbeFate) {
        let Some(core) = &mut self.core else { return };
        match fate {
            ProbeFate::Sent => core.handle_probe_sent(now, probe),
            ProbeFate::TooLarge(readings) => core.handle_probe_refused(now, probe, readings.map(|it| *it)),
            ProbeFate::NoRoom => core.handle_probe_unsent(probe),
            ProbeFate::Lost => {}
        }
    }

    /// These datagrams did not leave this host.
    pub fn handle_unsent(&mut self, now: Instant, system: &mut dyn System, unsent: Vec<Unsent>) {
        if let Some(core) = &mut self.core {
            core.handle_unsent(now, system, unsent);
        }
    }

    /// Something was written, or could not be.
    pub fn handle_written(&mut self, now: Instant, system: &mut dyn System, written: Written) {
        match written {
            Written::Config(outcome) => self.ledger.note_config(now, &outcome),
            Written::Roster(outcome) => self.handle_roster_written(now, outcome),
            Written::Keys(written) => self.handle_keys_written(now, written),
            Written::Audit(outcome) => self.handle_audit_written(now, &outcome),
            Written::State(outcome) => {
                let ordered = self.wish.take_if(|ordered| self.ledger.is_under_way(ordered.write));
                let stays = ordered.as_ref().is_some_and(Ordered::begins);
                self.ledger.note_state(now, &outcome, stays);
                if let Some(ordered) = ordered {
                    self.grant(now, system, ordered, outcome.map(drop));
                }
            }
        }
    }

    /// Whoever asked does not wait any more.
    pub fn handle_gone(&mut self, asker: Asker) {
        self.prover.forget(asker);
        self.ledger.forget(asker);
        self.onlookers.forget(asker);
        self.forget_waiting_order(asker);
        self.followers.forget(asker);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, moment: Moment, system: &mut dyn System) {
        let now = self.note_moment(moment);
        self.handle_lease_timeout(system);
        self.audit.handle_timeout(now);
        let ticks = self.tick_at.is_some_and(|at| at <= now);
        let looks = self.looks.is_due(now);
        if looks {
            // The last figures of SAs that ended come before the reading that does not show them any more.
            self.handle_kernel_events(now, system);
        }
        if let Some(core) = &mut self.core {
            core.handle_timeout(now, system);
            if let Some(absent) = core.poll_absent(now) {
                absent::log(self.setup.config.pairs(&self.setup.node), &absent.into_iter().collect());
            }
            if looks {
                self.looks.begin(now);
                core.look_again(now, system);
            }
            if ticks {
                core.set_clock(now, moment.wall);
                core.handle_tick(now, system);
                self.tick_at = Some(core.next_tick(now));
                self.knocks.log(now, core);
                system.bind_missing();
            }
        }
        // Nobody changes a file here, so it is tried again.
        let again = self.cluster.is_some() && self.trouble.is_some();
        if ticks && again {
            self.read_again();
        }
        self.end_time_without_ppks(now, system);
        if self.lists.is_due(now) {
            self.note_addresses(now, system);
            self.hole_looks.want();
        }
        if self.hole_looks.is_due(now) || (ticks && self.hole_looks.is_free(now)) {
            self.look_for_holes(now, system);
        }
        self.ways.handle_timeout(now);
        self.answer_onlookers(now, system);
        self.handle_prover_timeout(now, system);
        if self.core.as_mut().is_some_and(Core::poll_trial_ended) {
            self.end_trial(now);
        }
    }

    /// What the last input led to is done by now. Takes what came of it; nothing is to be drained before.
    pub fn handle_done(&mut self, now: Instant, system: &mut dyn System) {
        [&mut self.looks, &mut self.lists, &mut self.hole_looks].into_iter().for_each(|pace| pace.end(now));
        self.onlookers.end(now);
        if let Some(core) = &mut self.core {
            if core.wants_look() {
                self.looks.want();
            }
            if let Some(strangers) = core.poll_strangers() {
                let Setup { config, node, .. } = &self.setup;
                let (pairs, exempt) = (config.pairs(node), Exemptions::of(config, Some(node)));
                self.strangers
                    .note(strangers::problems(strangers, Ground { pairs: &pairs, exempt: &exempt }));
            }
        }
        self.heed_farewell(now);
        self.note_end_without_ppks(now);
        self.note_persist(now);
        self.close_sockets(system);
        self.finish_leaving(now, system);
        self.answer_examination(now);
        self.go_on_leaving_later(now, system);
        self.take_waiting_order(now, system);
        self.tell_followers(now);
    }

    /// Answers were taken and put into words, which took so long.
    pub fn handle_told(&mut self, now: Instant, took: Duration) {
        self.onlookers.note_told(now, took);
    }

    fn note_moment(&mut self, moment: Moment) -> Instant {
        let started_at = moment.wall.before(moment.now.saturating_duration_since(self.started));
        // Both are whole seconds, so that is one more or less from time to time.
        if started_at.0.abs_diff(self.started_at.0) > 1 {
            self.started_at = started_at;
        }
        self.moment = moment;
        moment.now
    }
}

/// Outputs.
impl Host {
    /// The next datagram to send, after all probes: the message that follows a probe asks whether that came through.
    pub fn poll_transmit(&mut self) -> Option<ike::Transmit> {
        self.core.as_mut()?.poll_transmit()
    }

    /// The next probe to send; its fate is an input: [`Host::handle_probe`].
    pub fn poll_probe(&mut self) -> Option<ProbeDatagram> {
        self.core.as_mut()?.poll_probe()
    }

    /// The next files to be read; what they say goes to [`Host::handle_files`].
    pub fn poll_read(&mut self) -> Option<Read> {
        self.reads.pop_front()
    }

    /// The next thing to write, after the write that is under way; its end is an input: [`Host::handle_written`].
    pub fn poll_save(&mut self, now: Instant) -> Option<Save> {
        Some(match self.ledger.begin(now) {
            Some(Begun::State) => {
                self.take_records(now);
                Save::State { saved: Box::new(self.saved.clone()), room: self.room().map(Box::new) }
            }
            Some(Begun::Config) => Save::Config(Box::new(self.setup.config.clone())),
            None => {
                let save = self.audit.begin(now).map(Save::Audit);
                let save = save.or_else(|| self.poll_roster(now).map(Save::Roster));
                save.or_else(|| self.poll_keys(now).map(Save::Keys))?
            }
        })
    }

    /// The next answer, and to whom. What it rests on is on the disk, or cannot be written, which `status` says then.
    pub fn poll_reply(&mut self) -> Option<(Vec<Asker>, Reply)> {
        self.ledger.poll_reply()
    }

    /// When [`Host::handle_timeout`] is due, or something is to be written or told.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let core = self.core.as_ref().and_then(Core::poll_timeout);
        let (followers, ledger, ways) =
            (self.followers.deadline(), self.ledger.deadline(), self.ways.deadline());
        let asked = [self.onlookers.deadline(), self.prover.poll_timeout()];
        let key = [self.lease_deadline(), self.audit.deadline()];
        let own = [core, followers, ledger, ways, self.tick_at, self.cluster_deadline()];
        let looks = [&self.looks, &self.lists, &self.hole_looks].map(Pace::deadline);
        own.into_iter().chain(asked).chain(key).chain(looks).flatten().min()
    }

    /// Whether the kernel goes on with what this host has written when its agent ends.
    pub fn goes_on(&self) -> bool {
        self.protection != Protection::Off
    }

    /// Whether an order can be taken: one after the other, as each is carried out when it has been written.
    pub fn takes_requests(&self) -> bool {
        self.wish.is_none()
    }

    /// Whether the host has gone back to the clear since the last call.
    pub fn poll_left(&mut self) -> bool {
        std::mem::take(&mut self.left)
    }

    /// Whether something is to be written before the agent ends, which [`Host::hurry`] was told.
    pub fn is_writing(&self, now: Instant) -> bool {
        self.ledger.is_busy(now) || self.is_writing_roster() || self.audit.is_busy()
    }

    /// What the files in force say.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The joined deciders of its pairs, while it is at work.
    pub fn core(&self) -> Option<&Core> {
        self.core.as_ref()
    }

    fn boot_at(&self, now: Instant) -> Boot {
        Boot { id: self.boot.clone(), uptime: self.moment.uptime_at(now) }
    }
}
