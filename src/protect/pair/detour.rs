//! The way around a network that drops ESP by itself: ESP in UDP.

use std::time::Instant;

use super::{Order, PairMachine};
use crate::protect::child::Child;
use crate::protect::clock::Clock;
use crate::protect::timing::DETOUR_PATIENCE;

/// What is known of that way.
#[derive(Debug, Default)]
pub(super) struct Detour {
    /// An agent before this one has found it, and its SAs go that way.
    found: bool,
    /// Until when it is waited for, while it is being tried.
    until: Option<Instant>,
    /// It was tried since ESP got through last.
    tried: bool,
}

impl Detour {
    /// The SAs of an agent before this one go that way.
    pub(super) fn adopt(&mut self, encapsulated: bool) {
        self.found = encapsulated;
    }

    /// The way may lead elsewhere from now on.
    pub(super) fn let_go(&mut self) {
        *self = Self::default();
    }

    /// Whether it is being tried, and may succeed soon.
    pub(super) fn is_tried(&self) -> bool {
        self.until.is_some()
    }

    /// Whether it was tried, and did not succeed.
    pub(super) fn was_tried(&self) -> bool {
        self.tried
    }
}

impl PairMachine {
    /// ESP is being tried in UDP.
    pub fn handle_detour(&mut self, now: Instant) {
        (self.detour.until, self.detour.tried) = (Some(now + DETOUR_PATIENCE), true);
        self.advance(now);
    }

    /// What an agent before this one found out need not be found out again.
    pub(super) fn go_on_in_udp(&mut self) {
        if std::mem::take(&mut self.detour.found) {
            self.orders.push_back(Order::Encapsulate);
        }
    }

    /// It is asked for once for each child whose ESP is found not to get through; the key exchange goes on trying.
    pub(super) fn evade(&mut self, clock: &mut Clock) {
        self.detour.until = self.detour.until.filter(|until| !clock.due(*until));
        if !self.way.is_on() || !self.is_esp_blocked() {
            self.detour.tried &= self.detour.is_tried();
            return;
        }
        let blocked = self.children.iter_mut().filter(|child| child.seems_blocked());
        if blocked.map(Child::ask_encapsulation).fold(false, |any, asks| any | asks) {
            self.orders.push_back(Order::Encapsulate);
        }
    }
}
