//! What `top` looks like: from the model and a size to a frame.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table, Widget, Wrap};

use super::columns::{Column, columns};
use super::model::Model;
use super::spark::spark;
use crate::cli::render::{self, headline};
use crate::cli::term::{bold, shade};
use crate::observe::status::PeerRow;
use crate::types::units::{counted, human_duration, si};
use crate::types::{RowState, Severity};

/// Below this many lines, rows are worth more than words about them.
const SMALL: u16 = 16;
/// As much as a frame may have of lines.
const HIGHEST: usize = 11_000;

/// A frame of `width` columns and `height` lines for a screen: as many rows as have room, and what one may do.
pub(super) fn screen(model: &mut Model, width: u16, height: u16) -> Buffer {
    let area = Rect::new(0, 0, width, height);
    let mut frame = Buffer::empty(area);
    let small = height < SMALL;
    let head = head(model, width, small, true);
    let details_height = match height {
        ..SMALL => 0,
        SMALL..24 => 4,
        24.. => 5,
    };
    let heights = [head.len(), usize::from(!small), 0, details_height, 1];
    let [head_area, _, table_area, details_area, foot_area] = areas(area, heights);
    paragraph(head, head_area, &mut frame);
    let (rows, at, hidden) = model.in_view(usize::from(table_area.height.saturating_sub(1)));
    table(model, &rows, table_area, Some(at), &mut frame);
    if let Some(row) = model.chosen() {
        details(model, row).render(details_area, &mut frame);
    }
    foot(model, hidden, width).render(foot_area, &mut frame);
    frame
}

/// A frame that is printed: all rows, or as many as fit in `height` lines, and how many do not.
pub(super) fn printed(model: &mut Model, width: u16, height: Option<u16>) -> Buffer {
    let head = head(model, width, false, false);
    // A gap, and the names of the columns.
    let around = head.len() + 2;
    let all = (around + model.rows().len().max(1)).min(HIGHEST);
    let height = height.map_or(all, usize::from).clamp(around + 1, all);
    let area = Rect::new(0, 0, width, u16::try_from(height).unwrap_or(u16::MAX));
    let mut frame = Buffer::empty(area);
    let fits = all <= height;
    let heights = [head.len(), 1, 0, 0, usize::from(!fits)];
    let [head_area, _, table_area, _, foot_area] = areas(area, heights);
    paragraph(head, head_area, &mut frame);
    let (rows, _, [above, below]) = model.in_view(usize::from(table_area.height.saturating_sub(1)));
    table(model, &rows, table_area, None, &mut frame);
    if !fits {
        Line::styled(out_of_view(above + below), bold()).render(foot_area, &mut frame);
    }
    frame
}

/// The head, a gap, the table, what is said of the chosen row and the foot, from above. The table has what is left.
fn areas(area: Rect, [head, gap, _, details, foot]: [usize; 5]) -> [Rect; 5] {
    let lines = |count: usize| Constraint::Length(u16::try_from(count).unwrap_or(u16::MAX));
    let constraints = [lines(head), lines(gap), Constraint::Min(1), lines(details), lines(foot)];
    Layout::vertical(constraints).areas(area)
}

fn paragraph(lines: Vec<Line<'_>>, area: Rect, frame: &mut Buffer) {
    Paragraph::new(Text::from(lines)).render(area, frame);
}

/// The lines about the host; `lasting` where there is a minute to show.
fn head(model: &Model, width: u16, small: bool, lasting: bool) -> Vec<Line<'static>> {
    let status = model.status();
    let mut lines = Vec::new();
    if !small {
        let (protection, rest) = headline(status);
        lines.push(Line::from(vec![Span::styled(protection, bold()), Span::raw(rest)]));
    }
    lines.push(sum(model, width));
    let problems = status.problems.iter().filter(|problem| problem.severity != Severity::Info).count()
        + usize::from(status.config_error.is_some());
    if problems > 0 {
        let words = format!("{}: see `hostseal status`", counted(problems, "problem"));
        lines.push(Line::styled(words, shade(RowState::Clear)));
    }
    lines.push(flow(model, width, lasting));
    lines
}

/// How many rows are how. Where not all of it has room, what is wrong comes first.
fn sum(model: &Model, width: u16) -> Line<'static> {
    let mut parts = render::parts(&model.status().summary);
    let length: usize = parts.iter().map(|(_, words)| words.chars().count() + 2).sum();
    if length > usize::from(width) + 2 {
        parts.reverse();
        parts.iter_mut().for_each(|(_, words)| *words = words.replace(" of them", ""));
    }
    let spans = parts.into_iter().enumerate().flat_map(|(at, (state, words))| {
        let comma = (at > 0).then(|| Span::raw(", "));
        comma.into_iter().chain([Span::styled(words, state.map_or_else(Style::new, shade))])
    });
    Line::from_iter(spans)
}

/// What flows over all pairs, and how it was in the last minute.
fn flow(model: &Model, width: u16, lasting: bool) -> Line<'static> {
    let words = match model.rates().sum() {
        None => "rates are known after a second ".to_owned(),
        Some(sum) => {
            let [tx, rx, packets] = [sum.tx, sum.rx, sum.packets].map(|value| {
                let (number, prefix) = si(value);
                format!("{number} {prefix}")
            });
            let packets = if width < 60 { String::new() } else { format!(" {packets}packets/s ") };
            format!("tx {tx}bit/s  rx {rx}bit/s {packets}")
        }
    };
    let left = usize::from(width).saturating_sub(words.chars().count()).min(60);
    let minute = if lasting { spark(&model.rates().minute(left)) } else { String::new() };
    Line::from(vec![Span::raw(words), Span::styled(minute, shade(RowState::Protected))])
}

fn table(model: &Model, rows: &[PeerRow], area: Rect, at: Option<usize>, frame: &mut Buffer) {
    if rows.is_empty() {
        let words = if model.status().peers.is_empty() { "no pairs" } else { "no pair has that in its name" };
        return Line::raw(words).render(area, frame);
    }
    let columns = columns(model, area.width, at.is_some());
    let cells = |column: &(Column, u16), row: &PeerRow| -> Cell<'static> {
        let (column, width) = *column;
        let text = column.text(model, row, width.into());
        let line = Line::styled(column.fitting(&text, width.into()), column.style(row));
        Cell::from(if column.is_number() { line.right_aligned() } else { line })
    };
    let body = rows.iter().enumerate().map(|(line, row)| {
        let chosen = if at == Some(line) { Modifier::REVERSED } else { Modifier::empty() };
        Row::new(columns.iter().map(|column| cells(column, row))).style(Style::new().add_modifier(chosen))
    });
    let names = columns.iter().map(|(column, _)| {
        // The one that the rows are ordered by stands out, where there are keys to choose it.
        let chosen = at.is_some() && column.sorts() == Some(model.sorted_by());
        let look = if chosen { Modifier::REVERSED } else { Modifier::empty() };
        let line = Line::styled(column.name(), Style::new().add_modifier(look));
        Cell::from(if column.is_number() { line.right_aligned() } else { line })
    });
    let header = Row::new(names.collect::<Vec<_>>()).style(bold());
    let widths = columns.iter().map(|(_, width)| Constraint::Length(*width));
    Widget::render(Table::new(body, widths).header(header).column_spacing(1), area, frame);
}

/// What there is to say of a row: its addresses, its keys, and why it is as it is.
fn details(model: &Model, row: &PeerRow) -> Paragraph<'static> {
    let mut parts = vec![format!("{} <-> {}", row.local, row.remote)];
    let since = row.since.map(|since| human_duration(model.status().time.since(since)));
    parts.push(since.map_or_else(|| row.state.to_string(), |since| format!("{} for {since}", row.state)));
    parts.extend(row.esp.clone());
    let heading = vec![Span::styled(format!("{} ", row.node), bold()), Span::raw(parts.join(" · "))];
    let reason = row.reason.clone().unwrap_or_default();
    let lines = vec![Line::default(), Line::from(heading), Line::raw(reason)];
    Paragraph::new(Text::from(lines)).wrap(Wrap { trim: true })
}

/// How many rows are out of view, what is asked for, and which keys there are.
fn foot(model: &Model, [above, below]: [usize; 2], width: u16) -> Line<'static> {
    let (filter, typing) = model.filter();
    if typing {
        return Line::from(vec![
            Span::styled(format!("filter: {filter}_"), bold()),
            Span::raw("  Enter: keep it  Esc: all rows"),
        ]);
    }
    let mut spans = Vec::new();
    if above + below > 0 {
        spans.push(Span::styled(out_of_view(above + below), bold()));
        spans.push(Span::raw("  "));
    }
    if !filter.is_empty() {
        spans.push(Span::styled(format!("filter: {filter}"), bold()));
        spans.push(Span::raw("  "));
    }
    let by = model.sorted_by().word();
    let reversed = if model.is_reversed() { ", reversed" } else { "" };
    let short = "q quit  / filter  s sort".to_owned();
    let long = format!("by {by}{reversed}  s sort  r reverse  / filter  ↑↓ rows  q quit");
    let used: usize = spans.iter().map(Span::width).sum();
    let fits = used + long.chars().count() <= usize::from(width);
    spans.push(Span::raw(if fits { long } else { short }));
    Line::from(spans)
}

fn out_of_view(rows: usize) -> String {
    format!("{} out of view", counted(rows, "row"))
}

/// A duration in a few characters: `42s`, `5m`, `2h`, `3d`.
pub(super) fn short(seconds: u64) -> String {
    let words = human_duration(Duration::from_secs(seconds));
    words.split(' ').next().unwrap_or_default().to_owned()
}
