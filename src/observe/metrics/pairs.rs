//! The series of each pair.

use std::fmt::Display;

use super::kinds;
use super::page::{Kind, MetricsPage, Word, write_labels};
use crate::observe::figures::PairFigures;
use crate::observe::status::Encapsulation;
use crate::types::{RowState, Traffic, UnixTime};

/// No label beside those of the pair.
const NONE: Option<(&str, &str)> = None;

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

struct PairPages<'a> {
    page: &'a mut MetricsPage,
    pairs: &'a [(&'a str, &'a PairFigures)],
}

impl PairPages<'_> {
    fn write(mut self) {
        self.family(Kind::Gauge, "info", "The pair.", |pair| Some((("family", Word(pair.family())), 1)));
        self.family(Kind::Gauge, "state", "1 for the state of the pair.", |pair| {
            RowState::ALL.map(|state| (("state", state), u64::from(state == pair.state)))
        });
        self.family(Kind::Gauge, "reason_info", "Why the pair is neither protected nor off.", |pair| {
            Some((("code", Word(pair.reason?)), 1))
        });
        self.family(Kind::Gauge, "encapsulation_info", "What ESP is wrapped in.", |pair| {
            let kind = match pair.encapsulation {
                Encapsulation::None => "none",
                Encapsulation::Udp => "udp",
            };
            Some((("kind", kind), 1))
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
        self.family(Kind::Counter, "errors_total", "Packets that the SAs of the pair refused.", |pair| {
            kinds(pair.errors).map(|(kind, count)| (("kind", kind), count))
        });
        let help = "When the other host last gave a sign of life: by a packet (esp), or inside IKE (ike).";
        self.family(Kind::Gauge, "last_heard_timestamp_seconds", help, |pair| {
            let heard = [("esp", pair.heard_esp), ("ike", pair.heard_ike)];
            heard.into_iter().filter_map(|(via, at)| Some((("via", via), at?.0)))
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
        self.begin(kind, name, help);
        for (ends, pair) in self.pairs {
            value(pair).into_iter().for_each(|value| self.page.with(ends, NONE, value));
        }
    }

    /// A family with samples for each pair, each of which has one label more.
    fn family<W: Display, S: IntoIterator<Item = ((&'static str, W), u64)>>(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        samples: impl Fn(&PairFigures) -> S,
    ) {
        self.begin(kind, name, help);
        for (ends, pair) in self.pairs {
            samples(pair).into_iter().for_each(|(more, value)| self.page.with(ends, Some(more), value));
        }
    }

    fn begin(&mut self, kind: Kind, name: &str, help: &str) {
        self.page.family(kind, &format!("pair_{name}"), help);
    }
}
