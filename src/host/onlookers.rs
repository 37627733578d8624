//! Those who may look at a host and order nothing. There may be many of them, and they may ask all the time: one look at
//! the kernel serves all who wait, and looks take a small part of the agent's time.

use std::time::{Duration, Instant};

use super::Host;
use super::answer::refusal;
use super::ledger::Asker;
use super::pace::Pace;
use super::reading::Scrutiny;
use super::system::{Moment, System};
use super::told::ToldTraffic;
use crate::control::{ErrorCode, FiguresTable, Reply, Request};
use crate::observe::{Figures, status};

/// How often at most the kernel is looked at for them.
const PAUSE: Duration = Duration::from_millis(250);
/// The part of the time that may go into it: one of so many.
const SHARE: u32 = 4;
/// How often at most the other members of a cluster are asked for them.
const ASK_PAUSE: Duration = Duration::from_secs(2);
/// So many questions wait at a time.
const WAITING_MOST: usize = 64;

/// Those who wait.
pub(super) struct Onlookers {
    waiting: Vec<(Asker, Request)>,
    looks: Pace,
    asks: Pace,
    told: ToldTraffic,
}

impl Onlookers {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            waiting: Vec::new(),
            looks: Pace::new(now, PAUSE, SHARE),
            asks: Pace::new(now, ASK_PAUSE, SHARE),
            told: ToldTraffic::default(),
        }
    }

    /// Nobody waits for this answer any more.
    pub(super) fn forget(&mut self, gone: Asker) {
        self.waiting.retain(|(asker, _)| *asker != gone);
    }

    /// When those who wait get their answers.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [&self.looks, &self.asks].into_iter().filter_map(Pace::deadline).min()
    }

    /// Whatever was begun has ended.
    pub(super) fn end(&mut self, now: Instant) {
        self.looks.end(now);
        self.asks.end(now);
    }

    /// Answers were put into words, which may have been theirs.
    pub(super) fn note_told(&mut self, now: Instant, took: Duration) {
        self.looks.add(now, took);
    }

    /// Takes the questions of a kind, each with all who ask it.
    fn take(&mut self, is_of_kind: impl Fn(&Request) -> bool) -> Vec<(Request, Vec<Asker>)> {
        let mut taken: Vec<(Request, Vec<Asker>)> = Vec::new();
        for (asker, request) in self.waiting.extract_if(.., |(_, request)| is_of_kind(request)) {
            match taken.iter_mut().find(|(known, _)| *known == request) {
                Some((_, askers)) => askers.push(asker),
                None => taken.push((request, vec![asker])),
            }
        }
        taken
    }
}

fn concerns_cluster(request: &Request) -> bool {
    request.only_looks() && matches!(request, Request::Cluster(_))
}

/// An order is refused in its turn: one that is refused at once could be given again at once.
fn refuse_order(request: &Request) -> Reply {
    let message = format!(
        "{} is for root alone, and this socket answers questions: use the other one, as root",
        request.in_words()
    );
    Reply::Error { code: ErrorCode::NotPermitted, message }
}

impl Host {
    /// Somebody who may look has a question.
    pub fn handle_question(&mut self, moment: Moment, asker: Asker, request: Request) {
        let now = self.note_moment(moment);
        if self.onlookers.waiting.len() >= WAITING_MOST {
            let message = "many questions wait already: try again".to_owned();
            return self.answer(now, asker, Reply::Error { code: ErrorCode::Failed, message });
        }
        let onlookers = &mut self.onlookers;
        if concerns_cluster(&request) { &mut onlookers.asks } else { &mut onlookers.looks }.want();
        onlookers.waiting.push((asker, request));
    }

    /// Answers those whose turn it is.
    pub(super) fn answer_onlookers(&mut self, now: Instant, system: &mut dyn System) {
        if self.onlookers.asks.is_due(now) {
            self.onlookers.asks.begin(now);
            for (request, askers) in self.onlookers.take(concerns_cluster) {
                if let Request::Cluster(request) = request {
                    self.ask_cluster(now, &request, askers);
                }
            }
        }
        if self.onlookers.looks.is_due(now) {
            self.onlookers.looks.begin(now);
            let looks = |request: &Request| {
                matches!(request, Request::Status | Request::Metrics { .. } | Request::MetricsTable { .. })
            };
            let (views, others) =
                (self.onlookers.take(looks), self.onlookers.take(|it| !concerns_cluster(it)));
            for (request, askers) in others {
                if !request.only_looks() {
                    self.answer_all(now, askers, refuse_order(&request));
                    continue;
                }
                for asker in askers {
                    self.handle_request(self.moment, system, asker, request.clone());
                }
            }
            if !views.is_empty() {
                self.show(now, system, views);
            }
        }
    }

    /// Tells all of them how the host stands, by one look.
    fn show(&mut self, now: Instant, system: &mut dyn System, views: Vec<(Request, Vec<Asker>)>) {
        let (requests, askers): (Vec<Request>, Vec<Vec<Asker>>) = views.into_iter().unzip();
        let cluster_part = self.cluster_figures();
        let whole = requests.contains(&Request::Status);
        let scrutiny = if whole { Scrutiny::Whole } else { Scrutiny::Counters };
        let replies = self.look(system, scrutiny, |evidence, found, volume| {
            let reply = |request: &Request| match request {
                Request::Metrics { pairs } | Request::MetricsTable { pairs } => {
                    let figures = Figures::of(evidence, found.iter().cloned(), volume, *pairs);
                    Reply::Figures(Box::new(Figures { cluster_part: cluster_part.clone(), ..figures }))
                }
                _ => Reply::Status(Box::new(status::status(*evidence, found.iter().cloned()))),
            };
            requests.iter().map(reply).collect::<Vec<_>>()
        });
        match replies {
            Ok(replies) => {
                self.note_persist(now);
                for ((askers, request), reply) in askers.into_iter().zip(requests).zip(replies) {
                    let reply = match reply {
                        Reply::Figures(mut figures) => {
                            self.onlookers.told.hold(&mut figures);
                            match request {
                                Request::MetricsTable { .. } => {
                                    Reply::Table(Box::new(FiguresTable::of(*figures)))
                                }
                                _ => Reply::Figures(figures),
                            }
                        }
                        reply => reply,
                    };
                    self.ledger.tell_onlookers(now, askers, reply);
                }
            }
            Err(error) => {
                self.answer_all(
                    now,
                    askers.into_iter().flatten().collect(),
                    refusal(ErrorCode::Failed, &error),
                );
            }
        }
    }
}
