//! What a session is to do next, and what is half done.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::pending::{FollowUp, Half, HalfMade, Task};
use crate::ike::Entropy;
use crate::ike::outbox::backoff;
use crate::types::Spi;

/// What a session is to do next.
#[derive(Default)]
pub struct Agenda {
    /// What is done when the window is free.
    tasks: VecDeque<Task>,
    /// Tasks that the peer had no time for.
    put_off: Vec<(Instant, Task)>,
    /// How often in a row the peer refused to make something anew.
    refusals: u32,
    /// The additional exchange that we are to make next.
    follow_up: Option<FollowUp>,
    /// What the peer has begun, and is to go on with.
    half_made: Option<HalfMade>,
    /// The session ends: nothing new is begun.
    closed: bool,
}

impl Agenda {
    /// Adds a task, once.
    pub(super) fn add(&mut self, task: Task) {
        if !self.closed && !self.tasks.contains(&task) {
            self.tasks.push_back(task);
        }
    }

    /// The peer refused: does `task` after `turn`, later still each time.
    pub(super) fn put_off(&mut self, now: Instant, turn: Duration, task: Task, entropy: &mut dyn Entropy) {
        if !self.closed && !self.put_off.iter().any(|(_, waiting)| *waiting == task) {
            self.refusals = self.refusals.saturating_add(1);
            self.put_off.push((now + turn + backoff(self.refusals, entropy), task));
        }
    }

    /// The SA that was asked for was made.
    pub(super) fn succeeded(&mut self) {
        self.refusals = 0;
    }

    /// Does what was put off until now.
    pub(super) fn resume(&mut self, now: Instant) {
        let (due, waiting) = std::mem::take(&mut self.put_off).into_iter().partition(|(at, _)| *at <= now);
        self.put_off = waiting;
        let due: Vec<(Instant, Task)> = due;
        due.into_iter().for_each(|(_, task)| self.add(task));
    }

    /// The next task that can be done now. `making_child`: what replaces the IKE SA waits for a child that is being made
    /// (RFC 7296 section 2.25.2).
    pub(super) fn next(&mut self, making_child: bool) -> Option<Task> {
        for _ in 0..self.tasks.len() {
            let task = self.tasks.pop_front()?;
            match task {
                // The peer is about to do it, and refuses children meanwhile.
                Task::RekeyIke(_) if self.is_ike_half_made() => {}
                Task::NewChild | Task::RekeyChild(_) | Task::ChildOf(..) if self.half_made.is_some() => {
                    self.tasks.push_back(task);
                }
                Task::RekeyIke(_) if making_child => self.tasks.push_back(task),
                task => return Some(task),
            }
        }
        None
    }

    /// A child is gone, and with it what was to be done about it.
    pub(super) fn forget_child(&mut self, in_spi: Spi) {
        self.tasks.retain(|task| {
            let about = match task {
                Task::DeleteChild(spi) | Task::RekeyChild(spi) | Task::ChildOf(_, Some(spi)) => Some(*spi),
                _ => None,
            };
            about != Some(in_spi)
        });
    }

    /// Whether a child is to be made, now or later.
    pub(super) fn makes_child(&self) -> bool {
        let makes = |task: &Task| matches!(task, Task::NewChild | Task::ChildOf(_, None));
        self.tasks.iter().chain(self.put_off.iter().map(|(_, task)| task)).any(makes)
            || self.is_child_half_made()
    }

    /// When something is due.
    pub(super) fn deadlines(&self) -> impl Iterator<Item = (Instant, &'static str)> {
        let put_off = self.put_off.iter().map(|(at, _)| (*at, "task that was put off"));
        put_off.chain(self.half_made.as_ref().map(|made| (made.until, "what the peer has half made")))
    }

    /// Nothing new is begun any more.
    pub(super) fn close(&mut self) {
        *self = Self { closed: true, refusals: self.refusals, ..Self::default() };
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The additional exchange that we are to make next.
    pub(super) fn follow_up(&self) -> Option<&FollowUp> {
        self.follow_up.as_ref()
    }

    pub(super) fn follow_up_mut(&mut self) -> Option<&mut FollowUp> {
        self.follow_up.as_mut()
    }

    /// There is one more exchange to make.
    pub(super) fn go_on(&mut self, follow_up: FollowUp) {
        self.follow_up = Some(follow_up);
    }

    /// It is made now.
    pub(super) fn take_follow_up(&mut self) -> Option<FollowUp> {
        self.follow_up.take()
    }

    /// The peer is to go on with that. There is one at a time: another takes its place.
    pub(super) fn leave_half_made(&mut self, made: HalfMade) {
        self.half_made = Some(made);
    }

    /// What the peer is to go on with, if it is that.
    pub(super) fn take_half_made(&mut self, is_it: impl FnOnce(&HalfMade) -> bool) -> Option<HalfMade> {
        self.half_made.take_if(|made| is_it(made))
    }

    /// What the peer has begun.
    pub(super) fn half(&self) -> Option<&Half> {
        self.half_made.as_ref().map(|made| &made.half)
    }

    /// Whether the peer has begun a successor of the IKE SA.
    pub(super) fn is_ike_half_made(&self) -> bool {
        matches!(self.half(), Some(Half::Ike(_)))
    }

    /// Whether the peer has begun a child.
    pub(super) fn is_child_half_made(&self) -> bool {
        matches!(self.half(), Some(Half::Child(_)))
    }
}
