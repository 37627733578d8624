//! What is answered to whoever asks on the control socket, and to those who follow.

use std::time::{Duration, Instant, SystemTime};

use super::Service;
use super::save::refusal;
use super::wish::Wish;
use crate::agent::control::Call;
use crate::agent::report;
use crate::agent::sockets::Sockets;
use crate::control::{ErrorCode, PlanLine, Reply, Request, Terms};
use crate::host::setup::Secrets;
use crate::host::unlisted;
use crate::machine::{self, present_addresses};
use crate::observe::status::{Known, Status, without_agent};
use crate::observe::{forwarding, unpaired};
use crate::types::{Pair, Protection, UnixTime};
use crate::xfrm;

impl Service {
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
            let progress =
                report::progress(&self.agent, self.core.as_ref(), named, self.followers.revision(), changed);
            self.answer(now, held.reply, Reply::Progress(progress));
        }
    }

    /// Answers a question, or takes an order.
    pub(super) fn handle_call(&mut self, call: Call, events: &mut xfrm::Events) {
        let (now, Call { request, reply }) = (Instant::now(), call);
        let code = match &request {
            Request::Reload | Request::PlanWith { .. } | Request::Preview { .. } => ErrorCode::Configuration,
            _ => ErrorCode::Failed,
        };
        let answer = match request {
            Request::Enable => return self.order(now, Wish::Enable(Terms::default()), reply),
            Request::EnableWith(terms) => return self.order(now, Wish::Enable(terms), reply),
            Request::Confirm => return self.order(now, Wish::Confirm, reply),
            Request::Disable => return self.order(now, Wish::Disable, reply),
            Request::Follow { after, hold_ms } => {
                return self.followers.hold(now, after, Duration::from_millis(hold_ms), reply);
            }
            Request::Ping => Ok(Reply::Done),
            Request::Status => self.status(events).map(|status| Reply::Status(Box::new(status))),
            Request::Plan => self.plan().map(Reply::Plan),
            Request::PlanWith { file, text } => {
                self.preview(&file, &text).map(|preview| Reply::Plan(preview.kernel))
            }
            Request::Preview { file, text } => self.preview(&file, &text).map(Reply::Preview),
            Request::Reload => self.reload_by_request().map(Reply::Reloaded),
        };
        self.answer(now, reply, answer.unwrap_or_else(|error| refusal(code, &error)));
    }

    fn status(&mut self, events: &mut xfrm::Events) -> anyhow::Result<Status> {
        // The dump first, then the ends that it cannot have seen: no SA is missed and none counts twice.
        let mut kernel = self.kernel.read()?;
        for ended in self.handle_events(events) {
            kernel.sas.remove(&ended);
        }
        let (now, wall) = (Instant::now(), UnixTime::from(SystemTime::now()));
        let mut saved = self.saved.clone();
        if let Some(core) = &mut self.core {
            core.set_clock(now, wall);
            core.listen(now, &kernel.sas);
            core.date(now, wall, &mut kernel.sas);
            saved.pairs = core.records_beside(&kernel.sas, now, wall);
        }
        let present = present_addresses()?;
        let (config, node) = (&self.setup.config, &self.setup.node);
        let known = Known { config, node, present: &present, kernel: &kernel, saved: &saved };
        let secret_id = self.secrets.as_ref().and_then(Secrets::id);
        let mut status = without_agent(known, &xfrm::statistics()?, secret_id, wall);
        status.config_error.clone_from(&self.trouble);
        if self.agent.protection != Protection::Off {
            status.problems.extend_from_slice(self.routes.problems());
            status.problems.extend(forwarding::problem(config, node, &machine::forwarding()));
            status.problems.extend(unpaired::problem(config, node, &present));
            status.problems.extend(self.sockets.iter().filter_map(Sockets::problem));
            status.problems.extend(self.holes_now());
        }
        if let Some(core) = &self.core {
            status.problems.extend(unlisted::problems(core, &self.setup.config, now));
        }
        let about = self.secrets.as_ref().map(|secrets| self.setup.about(secrets));
        Ok(report::complete(status, &self.agent, self.core.as_ref(), about.as_ref(), now))
    }

    fn plan(&mut self) -> anyhow::Result<Vec<PlanLine>> {
        let Some(core) = &self.core else {
            return Ok(Vec::new());
        };
        Ok(report::preview(&core.plan(self.kernel.read()?)))
    }
}
