//! The columns of `top`: which of them have room, how wide they are and what they say of a row.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ratatui::style::{Modifier, Style};

use super::model::{Model, SortedBy, rekey_in, total};
use super::spark::spark;
use super::view::short;
use crate::cli::layout::middle;
use crate::cli::term::shade;
use crate::observe::status::{Encapsulation, PeerRow};
use crate::types::units::{human_bytes, si};
use crate::types::{Family, NodeName, RowState};

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    /// The other host. `true` where several rows have the same name and no room for their addresses.
    Node {
        with_address: bool,
    },
    State,
    Tx,
    Rx,
    Packets,
    Total,
    Heard,
    Rekey,
    Via,
    Minute,
    Local,
    Remote,
    Reason,
}

/// The least that a name gets.
const NAME: u16 = 10;
/// The least that is worth being called a line, and the most that is of use.
const MINUTE: (u16, u16) = (6, 60);
/// The most beside a reason.
const MINUTE_BESIDE: u16 = 20;
/// The least that a reason is readable in.
const REASON: u16 = 24;
/// What there is always, with its width beside the name: `negotiating`, `999Gbit/s`.
const ALWAYS: [(Column, u16); 3] = [(Column::State, 11), (Column::Tx, 8), (Column::Rx, 8)];
/// What comes in this order as far as there is room.
const MORE: [(Column, u16); 5] =
    [(Column::Packets, 5), (Column::Heard, 5), (Column::Total, 8), (Column::Rekey, 5), (Column::Via, 3)];
/// In which order they stand.
const PLACES: [Column; 10] = [
    Column::State,
    Column::Tx,
    Column::Rx,
    Column::Packets,
    Column::Total,
    Column::Heard,
    Column::Rekey,
    Column::Via,
    Column::Minute,
    Column::Reason,
];

/// The columns that have room in `width`, and their widths; `lasting` where there is a minute to show.
pub(super) fn columns(model: &Model, width: u16, lasting: bool) -> Vec<(Column, u16)> {
    let mut chosen = ALWAYS.to_vec();
    let mut left = width.saturating_sub(NAME + ALWAYS.iter().map(|(_, width)| width + 1).sum::<u16>());
    let mut take = |column: (Column, u16), left: &mut u16| {
        let fits = column.1 < *left;
        if fits {
            chosen.push(column);
            *left -= column.1 + 1;
        }
        fits
    };
    let all = MORE.iter().all(|column| take(*column, &mut left));
    let rows = &model.status().peers;
    let longest = |text: &dyn Fn(&PeerRow) -> usize| {
        u16::try_from(rows.iter().map(text).max().unwrap_or(0)).unwrap_or(u16::MAX)
    };
    let length = |address: IpAddr| address.to_string().len();
    let (remote, local) = (longest(&|row| length(row.remote)), longest(&|row| length(row.local)));
    let names: BTreeSet<&NodeName> = rows.iter().map(|row| &row.node).collect();
    let several = names.len() < rows.len();
    let plain = longest(&|row| row.node.as_str().len()).saturating_sub(NAME);
    // The addresses have columns where the names have room beside them.
    let has_remote = all && left > plain + remote && take((Column::Remote, remote), &mut left);
    let locals = |family| rows.iter().filter(move |row| row.family == family).map(|row| row.local);
    let several_locals =
        [Family::V4, Family::V6].into_iter().any(|family| locals(family).collect::<BTreeSet<_>>().len() > 1);
    let has_local =
        has_remote && several_locals && left > plain + local && take((Column::Local, local), &mut left);
    let with_address = several && !has_remote;
    let node = Column::Node { with_address };
    let name = longest(&|row| node.text(model, row, 0).len()).saturating_sub(NAME).min(left);
    left -= name;
    let has_reason = rows.iter().any(|row| row.reason.is_some());
    let most = if has_reason && left > REASON + MINUTE_BESIDE { MINUTE_BESIDE } else { MINUTE.1 };
    let minute = left.saturating_sub(1).min(most);
    let has_minute = lasting && all && minute >= MINUTE.0 && take((Column::Minute, minute), &mut left);
    if has_reason && all && (has_minute || !lasting) && left > REASON {
        let width = left - 1;
        take((Column::Reason, width), &mut left);
    }
    let mut ordered = vec![(node, NAME + name)];
    ordered.extend(has_local.then_some((Column::Local, local)));
    ordered.extend(has_remote.then_some((Column::Remote, remote)));
    ordered
        .extend(PLACES.iter().filter_map(|place| chosen.iter().find(|(column, _)| column == place)).copied());
    ordered
}

impl Column {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Node { .. } => "NODE",
            Self::State => "STATE",
            Self::Tx => "TX BIT/S",
            Self::Rx => "RX BIT/S",
            Self::Packets => "PKT/S",
            Self::Total => "TOTAL",
            Self::Heard => "HEARD",
            Self::Rekey => "REKEY",
            Self::Via => "VIA",
            Self::Minute => "MINUTE",
            Self::Local => "LOCAL",
            Self::Remote => "REMOTE",
            Self::Reason => "REASON",
        }
    }

    /// The order that it shows.
    pub(super) fn sorts(self) -> Option<SortedBy> {
        Some(match self {
            Self::Node { .. } => SortedBy::Node,
            Self::State => SortedBy::State,
            Self::Tx => SortedBy::Tx,
            Self::Rx => SortedBy::Rx,
            Self::Packets => SortedBy::Packets,
            Self::Total => SortedBy::Total,
            Self::Heard => SortedBy::Heard,
            Self::Rekey => SortedBy::Rekey,
            Self::Via | Self::Minute | Self::Local | Self::Remote | Self::Reason => return None,
        })
    }

    /// Whether it is read from its right end.
    pub(super) fn is_number(self) -> bool {
        matches!(self, Self::Tx | Self::Rx | Self::Packets | Self::Total | Self::Heard | Self::Rekey)
    }

    /// `text` in a column of `width`.
    pub(super) fn fitting(self, text: &str, width: usize) -> String {
        match self {
            // Words are read from their beginning.
            Self::Reason if text.chars().count() > width => {
                text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
            }
            _ => middle(text, width),
        }
    }

    pub(super) fn style(self, row: &PeerRow) -> Style {
        match self {
            Self::State if row.is_silent() => shade(RowState::Negotiating),
            Self::State => shade(row.state),
            // What is drawn of bars cannot be reversed.
            Self::Minute => shade(RowState::Protected).remove_modifier(Modifier::REVERSED),
            _ => Style::new(),
        }
    }

    /// What it says of a row, in a column of `width`.
    pub(super) fn text(self, model: &Model, row: &PeerRow, width: usize) -> String {
        let none = || "-".to_owned();
        let rate = model.rate(row);
        let si = |value: f64| {
            let (number, prefix) = si(value);
            number + prefix
        };
        match self {
            Self::Node { with_address: false } => row.node.to_string(),
            Self::Node { with_address: true } => format!("{} {}", row.node, row.remote),
            Self::State if row.is_silent() => "silent".to_owned(),
            Self::State => row.state.to_string(),
            Self::Tx => rate.map_or_else(none, |rate| si(rate.tx)),
            Self::Rx => rate.map_or_else(none, |rate| si(rate.rx)),
            Self::Packets => rate.map_or_else(none, |rate| si(rate.packets)),
            Self::Total => human_bytes(total(row)),
            Self::Heard => {
                let ago = row.last_heard.map(|heard| model.status().time.since(heard).as_secs());
                ago.map_or_else(none, short)
            }
            Self::Rekey => rekey_in(row).map_or_else(none, short),
            Self::Via if row.sas.is_empty() => none(),
            Self::Via => match row.encapsulation {
                Encapsulation::None => "esp".to_owned(),
                Encapsulation::Udp => "udp".to_owned(),
            },
            Self::Minute => spark(&model.rates().minute_of(row.pair(), width)),
            Self::Local => row.local.to_string(),
            Self::Remote => row.remote.to_string(),
            Self::Reason => row.reason.clone().unwrap_or_default(),
        }
    }
}
