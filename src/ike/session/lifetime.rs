//! What time and silence do to a session, and how it ends.

use std::time::{Duration, Instant};

use super::established::Established;
use super::ike_sa::Stage;
use super::pending::{Asked, Makes, Task};
use crate::ike::limits::{HOLD_LIFE, TRIES_ESTABLISHED};
use crate::ike::outbox::{Cx, FailureScope};
use crate::ike::reason::{Lapsed, Unanswered};
use crate::types::{Method, Spi};

impl Established {
    /// When the next thing is due, and what.
    pub fn deadline(&self) -> Option<(Instant, &'static str)> {
        let of_sas = self.sas.iter().flat_map(|sa| {
            let stage = match sa.stage {
                Stage::Replaced(at) => Some((at, "replaced IKE SA expires")),
                Stage::Ended(at) => Some((at, "deleted IKE SA is forgotten")),
                Stage::Live | Stage::Doomed => None,
            };
            let held = sa.window.held().filter(|held| held.waits());
            let rekey = sa.rekey_at.filter(|_| sa.ours() == self.sas.current() && !self.is_closing());
            [
                sa.window.due().map(|at| (at, "request again")),
                stage,
                held.map(|held| (held.since + HOLD_LIFE, "kernel has not answered")),
                rekey.map(|at| (at, "rekey of the IKE SA")),
            ]
        });
        let of_children = self
            .children
            .live()
            .filter(|_| !self.is_closing())
            .map(|child| child.rekey_at().map(|at| (at, "rekey of a child")));
        let holds = self
            .children
            .iter()
            .map(|child| Some((child.telling.waits()?, "what there is to tell of a child")));
        let notice =
            self.notice().map(|at| (at, "end of what rests on a proof or a PPK that is no longer taken"));
        let joiner = self.joiner_end().map(|at| (at, "a joiner's time is over"));
        let keepalive = self.keepalive_at().map(|at| (at, "keeping a NAT's memory fresh"));
        of_sas
            .chain(of_children)
            .chain(holds)
            .chain(self.agenda.deadlines().map(Some))
            .chain([notice, joiner, keepalive])
            .flatten()
            .min()
    }

    /// Does what is due.
    pub fn handle_timeout(mut self: Box<Self>, cx: &mut Cx<'_>) -> Option<Box<Self>> {
        for ours in self.spis().collect::<Vec<_>>() {
            self.retransmit(cx, ours);
            self.age(cx, ours);
        }
        if self.notice().is_some_and(|at| at <= cx.now) {
            let lapsed = self.lapsed(cx.settings);
            self.end_unproven(cx, lapsed);
        }
        self.end_joiner(cx);
        self.children.iter_mut().for_each(|child| child.telling.handle_timeout(cx.now));
        self.keep_alive(cx);
        self.drop_half_made(cx);
        self.start_rekeys(cx);
        self.agenda.resume(cx.now);
        self.unless_over(cx, false)
    }

    /// The peer's time is over. Its keys go at once, whether it answers or not.
    pub fn end_unproven(&mut self, cx: &mut Cx<'_>, lapsed: Lapsed) {
        cx.fail(self.pair(), FailureScope::Ike, lapsed);
        self.end_children(cx, true);
        self.close(TRIES_ESTABLISHED);
    }

    fn retransmit(&mut self, cx: &mut Cx<'_>, ours: u64) {
        let path = *self.path();
        let Some(sent) = self.sas.get_mut(ours).and_then(|sa| sa.window.retransmission()) else { return };
        if !cx.retransmit(&path, sent) {
            self.lose_sa(cx, ours);
        }
    }

    /// Nobody answers on an IKE SA any more.
    fn lose_sa(&mut self, cx: &mut Cx<'_>, ours: u64) {
        let path = *self.path();
        let Some(sa) = self.sas.get_mut(ours) else { return };
        let mut asked = sa.window.abandon();
        let rekeys_child =
            asked.as_mut().and_then(Asked::child_mut).is_some_and(|(rekeys, _)| rekeys.is_some());
        let rekeys_ike = asked.as_ref().is_some_and(Asked::rekeys_ike);
        self.sas.remove(ours);
        self.ask_again(asked);
        if ours != self.sas.current() || self.is_closing() || self.move_on() {
            return;
        }
        let rekeys = &mut cx.out.counters.rekeys;
        rekeys.child.failed += u64::from(rekeys_child);
        rekeys.ike.failed += u64::from(rekeys_ike);
        cx.fail(path.pair, FailureScope::Ike, Unanswered::AnyMore(path.remote));
        self.sas.clear();
    }

    /// What time alone does to an IKE SA.
    fn age(&mut self, cx: &mut Cx<'_>, ours: u64) {
        let Some(sa) = self.sas.get_mut(ours) else { return };
        match sa.stage {
            Stage::Replaced(at) if at <= cx.now => sa.stage = Stage::Doomed,
            Stage::Ended(at) if at <= cx.now => {
                self.sas.remove(ours);
                return;
            }
            _ => {}
        }
        let Some(held) = sa.window.held_mut().filter(|held| held.waits()) else { return };
        if held.since + HOLD_LIFE <= cx.now
            && let Some(child) = &mut held.child
        {
            child.installed = Some(false);
            let in_spi = child.in_spi;
            self.child_closed(cx, in_spi, false);
        }
    }

    fn start_rekeys(&mut self, cx: &Cx<'_>) {
        let now = cx.now;
        if self.child_is_due(now) && self.ages_before(now + cx.settings.rekey_after / 2) {
            self.succeed_ike(cx);
        }
        let ike = self.sas.in_use_mut().is_some_and(|sa| sa.rekey_at.take_if(|at| *at <= now).is_some());
        let children: Vec<_> = self
            .children
            .iter_mut()
            .filter(|child| child.is_live())
            .filter_map(|child| child.take_rekey(now).then_some(child.in_spi()))
            .collect();
        children.into_iter().for_each(|in_spi| self.add_task(Task::RekeyChild(in_spi)));
        if ike {
            self.succeed_ike(cx);
        }
    }

    fn child_is_due(&self, now: Instant) -> bool {
        self.children.live().filter_map(|child| child.rekey_at()).any(|at| at <= now)
    }

    /// Whether another session will take over from this one before `end`, for its age.
    fn ages_before(&self, end: Instant) -> bool {
        let at = self.sas.in_use().and_then(|sa| sa.rekey_at);
        self.basis().method == Method::Derived && at.is_some_and(|at| at <= end)
    }

    /// The current IKE SA is to have a successor: a rekey makes one, or another session where there is no
    /// Diffie-Hellman, which the engine begins. That one makes a child; this one
    /// replaces its children itself only if nothing comes of it.
    pub fn succeed_ike(&mut self, cx: &Cx<'_>) {
        let patience = cx.now + cx.settings.rekey_after / 4;
        match self.basis().method {
            Method::Ike => self.add_task(Task::RekeyIke(None)),
            Method::Derived => {
                self.sas.in_use_mut().into_iter().for_each(|sa| sa.rekey_at = None);
                self.children.iter_mut().for_each(|child| child.move_rekey(|at| at.max(patience)));
            }
        }
    }

    /// Whether another session is to take over from this one: for its age, or as its children have no successors.
    pub fn is_aged(&self) -> bool {
        let sa = self.sas.in_use().filter(|_| self.basis().method == Method::Derived);
        self.is_spent() || sa.is_some_and(|sa| sa.rekey_at.is_none())
    }

    /// How long a replaced or deleted IKE SA is kept.
    pub(super) const LINGER: Duration = Duration::from_secs(30);

    /// Asks again, on the current IKE SA, what had no answer on one that is gone.
    pub(super) fn ask_again(&mut self, asked: Option<Asked>) {
        let child = |rekeys: Option<Spi>| rekeys.map_or(Task::NewChild, Task::RekeyChild);
        match asked {
            Some(Asked::Child(asked)) => self.add_task(child(asked.rekeys)),
            Some(Asked::FollowUp(asked)) => {
                if let Makes::Child(half, _) = asked.makes {
                    self.add_task(child(half.replaces));
                }
            }
            Some(Asked::DeleteChild(in_spi)) => self.add_task(Task::DeleteChild(in_spi)),
            // News is told again until it is answered.
            Some(Asked::Inform { confirms, .. }) if !confirms.is_empty() => self.add_task(Task::Liveness),
            Some(Asked::Inform { .. } | Asked::RekeyIke(_) | Asked::DeleteIke) | None => {}
        }
    }

    /// The current IKE SA is gone: goes on with another one, if there is one. Where rekeys crossed and messages were
    /// lost, each end may have given up the one that the other has kept: so the peer is asked on that one, too.
    pub(super) fn move_on(&mut self) -> bool {
        let goes_on = self.sas.move_on();
        if goes_on {
            self.add_task(Task::Liveness);
        }
        goes_on
    }
}
