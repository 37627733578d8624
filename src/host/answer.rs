//! Answers to requests, and to those who follow.

use std::time::{Duration, Instant};

use super::Host;
use super::ledger::Asker;
use super::reading::Scrutiny;
use super::reload::Read;
use super::setup::{Secrets, Setup};
use super::system::{Moment, System};
use super::wish::Wish;
use crate::control::{ErrorCode, FiguresTable, PlanLine, Reply, Request, Terms};
use crate::observe::status::{self, Agent, Evidence, Status};
use crate::observe::{Figures, Progress, causes, unpaired};
use crate::types::{Pair, Problem, Protection, Volume};

/// An order, or a question, that comes to nothing.
pub(super) fn refusal(code: ErrorCode, error: &anyhow::Error) -> Reply {
    Reply::Error { code, message: causes::words(error.as_ref()) }
}

impl Host {
    /// Answers a question, or takes an order.
    pub fn handle_request(
        &mut self,
        moment: Moment,
        system: &mut dyn System,
        asker: Asker,
        request: Request,
    ) {
        let now = self.note_moment(moment);
        let answer = match request {
            Request::Enable => return self.order_protection(now, system, Terms::default(), asker),
            Request::EnableWith(terms) => return self.order_protection(now, system, terms, asker),
            Request::Confirm => return self.order(now, system, Wish::Confirm, Some(asker)),
            Request::Disable => return self.order(now, system, Wish::Disable, Some(asker)),
            Request::Follow { after, hold_ms } => {
                return self.followers.hold(now, after, Duration::from_millis(hold_ms), asker);
            }
            Request::PlanWith { file, text } => {
                return self.reads.push_back(Read::Preview { asker, file, text, kernel_alone: true });
            }
            Request::Preview { file, text } => {
                return self.reads.push_back(Read::Preview { asker, file, text, kernel_alone: false });
            }
            Request::Reload => return self.reads.push_back(Read::Reload(asker)),
            Request::Ping => Ok(Reply::Done),
            Request::Status => self.status(system).map(|status| Reply::Status(Box::new(status))),
            Request::Metrics { pairs } => {
                self.figures(system, pairs).map(|figures| Reply::Figures(Box::new(figures)))
            }
            Request::MetricsTable { pairs } => {
                self.figures(system, pairs).map(|figures| Reply::Table(Box::new(FiguresTable::of(figures))))
            }
            Request::Plan => self.plan(system).map(Reply::Plan),
            Request::Prove(order) => return self.handle_prove(now, asker, order),
            Request::Cluster(request) => return self.handle_cluster_request(now, asker, request),
            Request::Doctor(request) => return self.examine(now, asker, request),
        };
        let reply = answer.unwrap_or_else(|error| refusal(ErrorCode::Failed, &error));
        self.answer(now, asker, reply);
    }

    /// Answers, once the state is on the disk: whoever hears that a pair is protected may cut the power.
    pub(super) fn answer(&mut self, now: Instant, asker: Asker, reply: Reply) {
        self.answer_all(now, vec![asker], reply);
    }

    /// The same for all who wait for one answer.
    pub(super) fn answer_all(&mut self, now: Instant, askers: Vec<Asker>, reply: Reply) {
        self.note_persist(now);
        self.ledger.tell(now, askers, reply);
    }

    /// Answers those who follow what was changed.
    pub(super) fn tell_followers(&mut self, now: Instant) {
        if let Some(core) = &mut self.core {
            while let Some((pair, state)) = core.poll_changed() {
                self.followers.note_row(pair, state);
            }
        }
        for held in self.followers.take_due(now) {
            let changed = |pair| self.followers.has_changed(pair, held.after);
            let here = |pair: &Pair| self.core.as_ref().is_none_or(|core| core.is_possible(*pair));
            let mut named = self.setup.config.pairs(&self.setup.node);
            named.retain(|(_, pair)| here(pair));
            let snapshot = self.snapshot_of(now, Scrutiny::Whole, changed);
            let progress = Progress::of(&snapshot, named, self.followers.revision(), changed);
            self.answer(now, held.asker, Reply::Progress(progress));
        }
    }

    /// How the host stands.
    pub(super) fn status(&mut self, system: &mut dyn System) -> anyhow::Result<Status> {
        self.look(system, Scrutiny::Whole, |evidence, found, _| status::status(*evidence, found))
    }

    /// The same in numbers: of each pair if that is `asked` for, or else as the configuration says.
    fn figures(&mut self, system: &mut dyn System, asked: Option<bool>) -> anyhow::Result<Figures> {
        let cluster_part = self.cluster_figures();
        self.look(system, Scrutiny::Counters, |evidence, found, volume| Figures {
            cluster_part,
            ..Figures::of(evidence, found, volume, asked)
        })
    }

    /// Looks how the host stands: what that rests on, what is wrong with its system, and all that went through its SAs,
    /// where that is known.
    pub(super) fn look<T>(
        &mut self,
        system: &mut dyn System,
        scrutiny: Scrutiny,
        tell: impl FnOnce(&Evidence<'_>, Vec<Problem>, Option<Volume>) -> T,
    ) -> anyhow::Result<T> {
        let (now, wall) = (self.moment.now, self.moment.wall);
        let mut read = self.read_kernel(now, system, scrutiny)?;
        if let Some(core) = &mut self.core {
            core.set_clock(now, wall);
            core.listen(now, &read.sas);
            core.date(now, wall, &mut read.sas);
        }
        let present = system.here()?.present;
        let facts = system.facts(&self.setup)?;
        let mut found = Vec::new();
        let Setup { config, node, .. } = &self.setup;
        if self.protection != Protection::Off {
            found = facts.problems;
            found.extend_from_slice(self.ways.problems());
            found.extend(unpaired::problem(config, node, &present));
            found.extend(self.holes_now(system));
        }
        found.extend(self.store_problems());
        let secret_id = self.secrets.as_ref().and_then(Secrets::id);
        let of_core = self.core.as_ref().map(|core| core.totals(&read.sas, now, wall));
        let evidence = Evidence {
            now: wall,
            config,
            config_id: self.setup.config_id(),
            node,
            secret_id: secret_id.as_deref(),
            present: &present,
            kernel: read.sight(self.core.as_ref()),
            statistics: &facts.statistics,
            saved: &self.saved,
            totals: match &of_core {
                Some(totals) => totals,
                None => &self.saved.pairs,
            },
            agent: Agent::Answers { pid: facts.pid, snapshot: &self.snapshot_of(now, scrutiny, |_| true) },
        };
        let volume = match &self.core {
            Some(core) => Some(core.volume(&read.sas)),
            // What SAs count that nobody has taken over is not known.
            None => read.sas.is_empty().then_some(self.saved.volume.told),
        };
        Ok(tell(&evidence, found, volume))
    }

    fn plan(&self, system: &mut dyn System) -> anyhow::Result<Vec<PlanLine>> {
        let Some(core) = &self.core else {
            return Ok(Vec::new());
        };
        Ok(core.plan(system.read()?).lines())
    }
}
