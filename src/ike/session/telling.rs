//! What the ends tell each other of a child, or of themselves: octets of whoever uses the engine. Foreign peers are told
//! nothing, and what they tell is not taken in.
//!
//! The latest octets are the news. They go out in a request of ours, again and again until the peer has
//! answered one, or in an answer, which the peer has for certain or asks for again.
//! ```text
//!   --- octets of a child, of another, of this host --->
//!   <-- octets of these children, of that host ---------   at once, unless news of a child waits
//! ```

use std::time::Instant;

use super::child::ChildSa;
use super::established::Established;
use super::pending::{Asked, Task};
use crate::ike::outbox::Cx;
use crate::ike::wire::codes::Exchange;
use crate::ike::wire::{Parts, Payload, private};
use crate::ike::{ControlEvent, Event, Octets, Topic};
use crate::types::Spi;

/// News for the peer, and whether the peer has it.
#[derive(Default)]
pub struct Telling {
    octets: Option<Octets>,
    /// Counts what was to be told.
    number: u64,
    /// The last of these that the peer has.
    known: u64,
    /// Until then it waits for what may take its place.
    waits: Option<Instant>,
}

impl Telling {
    /// There is this to tell. The same once more is no news.
    pub(super) fn tell(&mut self, now: Instant, octets: Octets) {
        let same = match &self.octets {
            Some(before) => before(now) == octets(now),
            None => octets(now).is_empty(),
        };
        self.number += u64::from(!same);
        self.octets = Some(octets);
    }

    /// Whether the peer is to be told now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.number != self.known && !self.is_waiting(now)
    }

    /// Whether it waits, and answers with it.
    pub(super) fn is_waiting(&self, now: Instant) -> bool {
        self.waits.is_some_and(|until| until > now)
    }

    /// Until when it waits.
    pub(super) fn waits(&self) -> Option<Instant> {
        self.waits
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.waits.take_if(|until| *until <= now);
    }
}

impl Established {
    /// The peer is to be told this.
    pub fn tell(&mut self, now: Instant, topic: Topic, octets: Octets) {
        let Some(telling) = self.telling_mut(topic) else { return };
        telling.tell(now, octets);
        // News of a child goes out as soon as the window is free, news of this host with the next message.
        let of_child = matches!(topic, Topic::Child(_));
        if !of_child && telling.is_due(now) && !self.is_foreign() {
            self.add_task(Task::Liveness);
        }
    }

    /// News of a child waits until then, and so do answers to what the peer tells of it.
    pub fn hold_telling(&mut self, in_spi: Spi, until: Option<Instant>) {
        self.children.get_mut(in_spi).into_iter().for_each(|child| child.telling.waits = until);
    }

    fn telling(&self, topic: Topic) -> Option<&Telling> {
        match topic {
            Topic::Session | Topic::Control | Topic::Join => Some(&self.telling),
            Topic::Question => Some(&self.question),
            Topic::Answer => Some(&self.answer),
            Topic::Child(in_spi) => self.child(in_spi).map(|child| &child.telling),
        }
    }

    fn telling_mut(&mut self, topic: Topic) -> Option<&mut Telling> {
        match topic {
            Topic::Session | Topic::Control | Topic::Join => Some(&mut self.telling),
            Topic::Question => Some(&mut self.question),
            Topic::Answer => Some(&mut self.answer),
            Topic::Child(in_spi) => self.children.get_mut(in_spi).map(|child| &mut child.telling),
        }
    }

    /// What a message of now tells: the payloads, and the number of the news of each topic.
    pub(super) fn say(
        &self,
        now: Instant,
        topics: impl IntoIterator<Item = Topic>,
    ) -> (Vec<Payload>, Vec<(Topic, u64)>) {
        let said = |topic| {
            let telling = self.telling(topic).filter(|_| !self.is_foreign())?;
            let octets = telling.octets.as_ref()?(now);
            let payload = match topic {
                Topic::Child(in_spi) => private::of_child(in_spi, &octets),
                Topic::Session | Topic::Control | Topic::Join => Some(private::of_session(octets)),
                Topic::Question => Some(private::of_question(octets)),
                Topic::Answer => Some(private::of_answer(octets)),
            };
            Some((payload?, (topic, telling.number)))
        };
        topics.into_iter().filter_map(said).unzip()
    }

    /// What is to be told of this host, or is asked and answered, where the peer does not know it.
    pub(super) fn untold(&self, now: Instant) -> impl Iterator<Item = Topic> + use<> {
        let news = [
            (&self.telling, Topic::Session),
            (&self.question, Topic::Question),
            (&self.answer, Topic::Answer),
        ];
        news.map(|(telling, topic)| telling.is_due(now).then_some(topic)).into_iter().flatten()
    }

    /// The peer has that, by its numbers.
    pub(super) fn note_known(&mut self, cx: &mut Cx<'_>, said: Vec<(Topic, u64)>) {
        for (topic, number) in said {
            let Some(telling) = self.telling_mut(topic) else { continue };
            let is_last = telling.known < number && number == telling.number;
            telling.known = telling.known.max(number);
            // A question that was heard is not kept, and neither is an answer.
            telling.octets.take_if(|_| is_last && matches!(topic, Topic::Question | Topic::Answer));
            if is_last && self.is_childless() {
                let (pair, purpose) = (self.pair(), self.purpose());
                cx.out.events.push_back(Event::Control { pair, purpose, event: ControlEvent::Heard });
            }
        }
    }

    /// Tells what the peer does not know yet.
    pub(super) fn telling_request(&self, now: Instant) -> Option<(Exchange, Vec<Payload>, Asked)> {
        let news = self.children.iter().filter(|child| child.is_to_be_told(now));
        let mut topics: Vec<Topic> = news.map(|child| Topic::Child(child.in_spi())).collect();
        if topics.is_empty() || self.is_foreign() {
            return None;
        }
        topics.extend(self.untold(now));
        let (payloads, says) = self.say(now, topics);
        let asked = Asked::Inform { says, confirms: Vec::new() };
        (!payloads.is_empty()).then_some((Exchange::INFORMATIONAL, payloads, asked))
    }

    /// What the peer tells in a message, once of each child. Gives back the children.
    pub(super) fn hear(&mut self, cx: &mut Cx<'_>, parts: &Parts<'_>) -> Vec<Spi> {
        if self.is_foreign() {
            return Vec::new();
        }
        let pair = self.pair();
        let told = |topic, octets| Event::Told { pair, topic, octets };
        if let Some(octets) = parts.notifies().find_map(private::from_session) {
            self.told_at = Some(cx.now);
            cx.out.events.push_back(told(self.topic(), octets));
        }
        let asked = [
            (Topic::Question, parts.notifies().find_map(private::from_question)),
            (Topic::Answer, parts.notifies().find_map(private::from_answer)),
        ];
        let asked = asked.into_iter().filter(|_| !self.is_childless());
        cx.out.events.extend(asked.filter_map(|(topic, octets)| Some(told(topic, octets?))));
        let mut heard = Vec::new();
        for (spi, octets) in parts.notifies().filter_map(private::from_child) {
            let of = |child: &&ChildSa| child.out_spi() == spi && !heard.contains(&child.in_spi());
            if let Some(in_spi) = self.children.iter().find(of).map(|child| child.in_spi()) {
                heard.push(in_spi);
                cx.out.events.push_back(told(Topic::Child(in_spi), octets));
            }
        }
        heard
    }
}
