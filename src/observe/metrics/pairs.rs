//! The series of each pair. Nearly all of a page with thousands of pairs is this: whatever its lines share is put into
//! words once.

use std::fmt::Display;

use super::kinds;
use super::page::{Kind, MetricsPage, Word, write_labels};
use crate::observe::figures::PairFigures;
use crate::observe::status::Encapsulation;
use crate::types::{Family, RowState, SaErrors, Traffic, UnixTime};

/// Writes them, and whether there are any.
pub fn write(page: &mut MetricsPage, pairs: Option<&[PairFigures]>) {
    let enabled = u8::from(pairs.is_some());
    page.one(Kind::Gauge, "pair_series_enabled", "Whether each pair has series.", enabled);
    let pairs = pairs.unwrap_or_default();
    let mut ends = String::new();
    let named = pairs.iter().map(|pair| {
        let begin = ends.len();
        write_labels(&mut ends, &[("peer", &pair.node), ("local", &pair.local), ("remote", &pair.remote)]);
        (begin..ends.len(), pair)
    });
    let named: Vec<_> = named.collect();
    let named: Vec<(&str, &PairFigures)> = named.into_iter().map(|(at, pair)| (&ends[at], pair)).collect();
    PairPages { page, pairs: &named }.write();
}

/// A label behind those of the pair, with a word of a closed set.
fn label(name: &str, word: impl Display) -> String {
    format!(",{name}=\"{word}\"")
}

struct PairPages<'a> {
    page: &'a mut MetricsPage,
    pairs: &'a [(&'a str, &'a PairFigures)],
}

impl PairPages<'_> {
    fn write(mut self) {
        let families = [Family::V4, Family::V6].map(|family| (family, label("family", Word(family))));
        self.family(Kind::Gauge, "info", "The pair.", |pair| {
            let own = pair.family();
            families.iter().filter(move |(family, _)| *family == own).map(|(_, label)| (label, 1))
        });
        let states = RowState::ALL.map(|state| (state, label("state", state)));
        self.family(Kind::Gauge, "state", "1 for the state of the pair.", |pair| {
            let own = pair.state;
            states.iter().map(move |(state, label)| (label, u64::from(*state == own)))
        });
        self.family(Kind::Gauge, "reason_info", "Why the pair is neither protected nor off.", |pair| {
            pair.reason.map(|reason| (label("code", Word(reason)), 1))
        });
        let [none, udp] = ["none", "udp"].map(|kind| label("kind", kind));
        self.family(Kind::Gauge, "encapsulation_info", "What ESP is wrapped in.", |pair| {
            let kind = match pair.encapsulation {
                Encapsulation::None => &none,
                Encapsulation::Udp => &udp,
            };
            Some((kind, 1))
        });
        self.time("state_since", "Since when the pair is in its state.", |pair| pair.since);
        for (way, word, of) in [
            ("transmit", "sent", (|pair| pair.tx) as fn(&PairFigures) -> Traffic),
            ("receive", "received", |pair| pair.rx),
        ] {
            let help =
                format!("Bytes {word} through the SAs of the pair, without IP header and ESP overhead.");
            self.value(Kind::Counter, &format!("{way}_bytes_total"), &help, |pair| Some(of(pair).bytes));
            let help = format!("Packets {word} through the SAs of the pair.");
            self.value(Kind::Counter, &format!("{way}_packets_total"), &help, |pair| Some(of(pair).packets));
        }
        let errors = kinds(SaErrors::default()).map(|(kind, _)| label("kind", kind));
        self.family(Kind::Counter, "errors_total", "Packets that the SAs of the pair refused.", |pair| {
            errors.iter().zip(kinds(pair.errors).map(|(_, count)| count))
        });
        let help = "When the other host last gave a sign of life: by a packet (esp), or inside IKE (ike).";
        let [esp, ike] = ["esp", "ike"].map(|via| label("via", via));
        self.family(Kind::Gauge, "last_heard_timestamp_seconds", help, |pair| {
            let heard = [(&esp, pair.heard_esp), (&ike, pair.heard_ike)];
            heard.into_iter().filter_map(|(via, at)| Some((via, at?.0)))
        });
        self.time("rekey_due", "When the keys of the pair are to be replaced.", |pair| pair.rekey_due);
        self.time("expiry", "When the keys of the pair end, if nobody replaces them.", |pair| pair.expiry);
    }

    fn time(&mut self, name: &str, help: &str, at: impl Fn(&PairFigures) -> Option<UnixTime>) {
        let name = format!("{name}_timestamp_seconds");
        self.value(Kind::Gauge, &name, help, |pair| at(pair).map(|at| at.0));
    }

    /// A family whose samples have no label beside those of the pair.
    fn value(&mut self, kind: Kind, name: &str, help: &str, value: impl Fn(&PairFigures) -> Option<u64>) {
        self.family(kind, name, help, |pair| value(pair).map(|value| ("", value)));
    }

    /// A family with samples for each pair, each with its label beside those of the pair.
    fn family<L: AsRef<str>, S: IntoIterator<Item = (L, u64)>>(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        samples: impl Fn(&PairFigures) -> S,
    ) {
        self.page.family(kind, &format!("pair_{name}"), help);
        for (ends, pair) in self.pairs {
            for (label, value) in samples(pair) {
                self.page.with([ends, label.as_ref()], value);
            }
        }
    }
}
