use std::time::{Duration, Instant};

use super::model::{Model, Onward};
use super::rates::{Rate, Rates};
use super::view;
use crate::cli::keyboard::Key;
use crate::cli::live::Live;
use crate::cli::term::{Style, lines};
use crate::cli::tests::{node_name, row, status};
use crate::observe::status::{Encapsulation, PeerRow, SaRow, SaState, Status, Summary};
use crate::types::{Direction, Family, Protection, ReasonCode, RowState, Spi, Traffic, UnixTime};

const SECOND: Duration = Duration::from_secs(1);

fn on(peers: Vec<PeerRow>) -> Status {
    let summary = Summary::of_rows(&peers);
    Status { summary, ..status(Protection::On, peers) }
}

/// A protected row that has carried so much.
fn carried(host: u8, tx: u64, rx: u64) -> PeerRow {
    let mut row = row(&format!("n{host}"), host, RowState::Protected);
    row.tx = Traffic { bytes: tx, packets: tx / 1000 };
    row.rx = Traffic { bytes: rx, packets: rx / 1000 };
    row.totals_since = Some(UnixTime(1000));
    row
}

/// The rate of the first row after looks a second apart.
fn rate_after(looks: &[Status]) -> Option<Rate> {
    let (mut rates, start) = (Rates::default(), Instant::now());
    for (status, at) in looks.iter().zip(0..) {
        rates.note(status, start + SECOND * at);
    }
    rates.of(looks[0].peers[0].pair())
}

#[test]
fn rates_are_bits_in_a_second() {
    let (mut rates, start) = (Rates::default(), Instant::now());
    rates.note(&on(vec![carried(2, 0, 0), carried(3, 0, 0)]), start);
    assert_eq!((rates.sum(), rates.of(carried(2, 0, 0).pair())), (None, None));
    rates.note(&on(vec![carried(2, 500_000, 2_000), carried(3, 0, 0)]), start + SECOND * 2);
    let expected = Rate { tx: 2_000_000.0, rx: 8_000.0, packets: 251.0 };
    assert_eq!((rates.of(carried(2, 0, 0).pair()), rates.sum()), (Some(expected), Some(expected)));
    assert_eq!(rates.of(carried(3, 0, 0).pair()), Some(Rate::default()));
}

#[test]
fn counters_that_begin_anew_are_no_rate() {
    let grown = |bytes, since| {
        let mut row = carried(2, bytes, bytes);
        row.totals_since = since;
        on(vec![row])
    };
    let (one, two) = (Some(UnixTime(1)), Some(UnixTime(2)));
    assert!(rate_after(&[grown(10, one), grown(20, one)]).is_some());
    assert_eq!(rate_after(&[grown(10, one), grown(0, two)]), None);
    assert_eq!(rate_after(&[grown(10, one), grown(20, two)]), None, "another count");
    assert_eq!(rate_after(&[grown(10, one), grown(0, one)]), None, "less than before");
    assert_eq!(rate_after(&[grown(10, one), grown(0, two), grown(3, two)]).unwrap().tx, 24.0);
    // The agent adds what it remembers to what the kernel has.
    let mut by_kernel = grown(10, one);
    by_kernel.agent.answering = false;
    assert_eq!(rate_after(&[by_kernel, grown(1 << 40, one)]), None);
}

#[test]
fn looks_at_the_same_moment_are_no_rate() {
    let (mut rates, now) = (Rates::default(), Instant::now());
    for bytes in [0, 10] {
        rates.note(&on(vec![carried(2, bytes, 0)]), now);
    }
    assert_eq!(rates.sum(), None);
}

#[test]
fn rows_come_and_go() {
    let (mut rates, start) = (Rates::default(), Instant::now());
    let [one, two] = [carried(2, 0, 0), carried(3, 9_000, 0)];
    rates.note(&on(vec![one.clone()]), start);
    rates.note(&on(vec![one.clone(), two.clone()]), start + SECOND);
    assert_eq!((rates.of(two.pair()), rates.sum()), (None, Some(Rate::default())));
    rates.note(&on(vec![two.clone()]), start + SECOND * 2);
    assert_eq!((rates.of(one.pair()), rates.of(two.pair())), (None, Some(Rate::default())));
    rates.note(&on(vec![one.clone()]), start + SECOND * 3);
    assert_eq!(rates.of(one.pair()), None, "it is a new row");
}

#[test]
fn a_minute_is_remembered() {
    let (mut rates, start) = (Rates::default(), Instant::now());
    let mut bytes = 0;
    for second in 0..=200u32 {
        // Only in the last ten seconds something flows.
        bytes += if second > 190 { 125 } else { 0 };
        rates.note(&on(vec![carried(2, bytes, 0)]), start + SECOND * second);
    }
    let parts = rates.minute(6);
    assert_eq!(parts, [Some(0.0), Some(0.0), Some(0.0), Some(0.0), Some(0.0), Some(1000.0)]);
    assert_eq!(rates.minute_of(carried(2, 0, 0).pair(), 6), parts);
    assert_eq!(rates.minute_of(carried(9, 0, 0).pair(), 2), [None, None]);
    assert_eq!(rates.minute(60).len(), 60);

    // A look every three seconds leaves no holes.
    let mut rates = Rates::default();
    for look in 0..=4u32 {
        rates.note(&on(vec![carried(2, u64::from(look) * 375, 0)]), start + SECOND * 3 * look);
    }
    let parts = rates.minute(60);
    assert!(parts[..47].iter().all(Option::is_none), "{parts:?}");
    assert!(parts[49..].iter().all(|part| *part == Some(1000.0)), "{parts:?}");
}

/// A model that has looked twice: rows with the given states that carry so many bytes in a second.
fn model(rows: &[(&str, RowState, u64)]) -> Model {
    let at = |second: u64| {
        let rows = rows.iter().zip(2..).map(|((name, state, bytes), host)| {
            let carried = carried(host, bytes * second, 0);
            let reason = (*state == RowState::Blocked).then(|| "no answer on UDP 500 for 8s".to_owned());
            PeerRow { node: node_name(name), state: *state, reason, ..carried }
        });
        on(rows.collect())
    };
    let start = Instant::now();
    let mut model = Model::new(at(0), start);
    model.note(at(1), start + SECOND);
    model
}

fn names(model: &Model) -> Vec<&str> {
    model.rows().into_iter().map(|row| row.node.as_str()).collect()
}

fn press(model: &mut Model, keys: &str) {
    for key in keys.chars() {
        assert_eq!(model.press(Key::Character(key)), Onward::Yes, "{key}");
    }
}

const MIXED: [(&str, RowState, u64); 6] = [
    ("quiet", RowState::Protected, 0),
    ("busy", RowState::Protected, 1_000_000),
    ("asks", RowState::Negotiating, 0),
    ("open", RowState::Clear, 0),
    ("shut", RowState::Blocked, 0),
    ("some", RowState::Protected, 1000),
];

#[test]
fn what_needs_somebody_comes_first_then_the_rate() {
    let mut model = model(&MIXED);
    assert_eq!(names(&model), ["shut", "open", "asks", "busy", "some", "quiet"]);
    let mut silent = model.status().clone();
    silent.peers[0].reason_code = Some(ReasonCode::Silent);
    model.note(silent, Instant::now() + SECOND * 2);
    assert_eq!(names(&model)[..4], ["shut", "open", "asks", "quiet"]);
}

#[test]
fn keys_sort_and_reverse() {
    let mut model = model(&MIXED);
    press(&mut model, "s");
    assert_eq!(names(&model), ["asks", "busy", "open", "quiet", "shut", "some"]);
    press(&mut model, "r");
    assert_eq!(names(&model)[0], "some");
    press(&mut model, "s");
    assert_eq!((names(&model)[0], model.is_reversed()), ("busy", false), "by what is sent");
    press(&mut model, "SS");
    assert_eq!(names(&model)[0], "shut");
    press(&mut model, "S");
    assert_eq!(model.sorted_by().word(), "rekey");
}

#[test]
fn keys_filter() {
    let mut model = model(&MIXED);
    press(&mut model, "/S");
    assert_eq!(names(&model), ["shut", "asks", "busy", "some"], "names, whatever the case");
    press(&mut model, "q");
    assert_eq!((names(&model).len(), model.filter()), (0, ("Sq", true)), "q is a letter here");
    model.press(Key::Backspace);
    press(&mut model, "o");
    model.press(Key::Enter);
    assert_eq!((names(&model), model.filter()), (vec!["some"], ("So", false)));
    model.press(Key::Escape);
    assert_eq!(names(&model).len(), 6);
    press(&mut model, "/10.99.0.3");
    assert_eq!(names(&model), ["busy"], "addresses");
    model.press(Key::Escape);
    press(&mut model, "/");
    for _ in 0..100 {
        press(&mut model, "ö");
    }
    assert!(model.filter().0.len() < 70);
    assert_eq!(model.press(Key::Escape), Onward::Yes);
    assert_eq!(model.press(Key::Character('q')), Onward::No);
}

/// The names in view, the chosen one, and how many rows are out of it.
fn seen(model: &mut Model, room: usize) -> (Vec<String>, usize, [usize; 2]) {
    let (rows, at, hidden) = model.in_view(room);
    (rows.iter().map(|row| row.node.to_string()).collect(), at, hidden)
}

#[test]
fn the_view_follows_the_chosen_row() {
    let mut model = model(&MIXED);
    let of = |names: [&str; 2], at, hidden| (names.map(str::to_owned).to_vec(), at, hidden);
    assert_eq!(seen(&mut model, 2), of(["shut", "open"], 0, [0, 4]));
    model.press(Key::Down);
    model.press(Key::Down);
    assert_eq!(seen(&mut model, 2), of(["open", "asks"], 1, [1, 3]));
    // The chosen pair moves on its own, and the view with it.
    let mut worse = model.status().clone();
    worse.peers[2].state = RowState::Blocked;
    model.note(worse, Instant::now() + SECOND * 2);
    let (names, at, _) = seen(&mut model, 2);
    assert_eq!(names[at], "asks");
    model.press(Key::End);
    assert_eq!(seen(&mut model, 2), of(["quiet", "some"], 1, [4, 0]));
    model.press(Key::PageUp);
    assert_eq!(seen(&mut model, 2).2, [3, 1]);
    model.press(Key::Home);
    model.press(Key::Up);
    assert_eq!(seen(&mut model, 2).2, [0, 4]);
    // All go; somewhat later one comes.
    model.press(Key::End);
    seen(&mut model, 2);
    model.note(on(Vec::new()), Instant::now() + SECOND * 3);
    assert_eq!(seen(&mut model, 2), (Vec::new(), 0, [0, 0]));
    for key in [Key::Down, Key::End, Key::PageUp, Key::Home] {
        model.press(key);
    }
    model.note(on(vec![carried(9, 0, 0)]), Instant::now() + SECOND * 4);
    assert_eq!(seen(&mut model, 2).0, ["n9"]);
}

fn drawn(model: &mut Model, width: u16, height: u16) -> Vec<String> {
    let plain = |line: &String| line.replace("\x1b[7m", "").replace("\x1b[0m", "").trim_end().to_owned();
    lines(&view::screen(model, width, height), Style::PLAIN).iter().map(plain).collect()
}

/// A row with SAs and all that is known of one.
fn full(mut row: PeerRow) -> PeerRow {
    row.last_heard = Some(UnixTime(1_000_300));
    row.esp = Some("aes256gcm16-esn".to_owned());
    row.encapsulation = Encapsulation::Udp;
    row.sas = vec![SaRow {
        direction: Direction::Out,
        spi: Spi(0xc1d2_e3f4),
        state: SaState::Active,
        bytes: 1500,
        packets: 3,
        age_s: 12,
        rekey_in_s: Some(3588),
        expires_in_s: Some(86_388),
    }];
    row
}

#[test]
fn a_screen() {
    let mut rows = MIXED.to_vec();
    rows.push(("idle", RowState::Protected, 0));
    let mut model = model(&rows);
    let mut known = model.status().clone();
    known.peers[1] = full(known.peers[1].clone());
    model.note(known, Instant::now() + SECOND * 2);
    let expected = "\
protection on (require) · cluster demo · node a · agent up 12s (pid 41)
4 of 7 pairs protected, 1 negotiating, 1 clear, 1 blocked
tx 0 bit/s  rx 0 bit/s  0 packets/s                                            ▁

NODE       STATE       TX BIT/S RX BIT/S PKT/S    TOTAL HEARD REKEY VIA MINUTE
shut       blocked            0        0     0      0 B     -     - -          ▁
open       clear              0        0     0      0 B     -     - -          ▁
asks       negotiating        0        0     0      0 B     -     - -          ▁
busy       protected          0        0     0  977 KiB    3s   59m udp        ▁
idle       protected          0        0     0      0 B     -     - -          ▁
quiet      protected          0        0     0      0 B     -     - -          ▁

shut 10.99.0.1 <-> 10.99.0.6 · blocked for 5m 3s
no answer on UDP 500 for 8s

1 row out of view  by state  s sort  r reverse  / filter  ↑↓ rows  q quit";
    let lines = drawn(&mut model, 80, 16);
    // What stood in the minute depends on how long this took.
    let bars = |c: char| ('▁'..='█').contains(&c) || c == ' ';
    let without = |line: &str| line.trim_end_matches(bars).to_owned();
    let lines: Vec<String> = lines.iter().map(|line| without(line)).collect();
    let expected: Vec<String> = expected.lines().map(without).collect();
    assert_eq!(lines, expected, "\n{}", lines.join("\n"));
}

#[test]
fn a_small_screen_is_for_the_rows() {
    let mut model = model(&MIXED);
    let lines = drawn(&mut model, 40, 10);
    assert_eq!(lines[0], "1 blocked, 1 clear, 1 negotiating, 3 of");
    assert!(lines[1].starts_with("tx 8.01 Mbit/s  rx 0 bit/s"), "{lines:#?}");
    assert_eq!(lines[2], "NODE       STATE       TX BIT/S RX BIT/S");
    assert_eq!(lines[3], "shut       blocked            0        0");
    assert_eq!((lines.len(), lines[8].as_str()), (10, "quiet      protected          0        0"));
    assert!(lines[9].starts_with("by state") || lines[9].starts_with("q quit"), "{lines:#?}");
}

/// Many rows with long names, by both families.
fn crowd(count: u16) -> Model {
    let rows = |second: u64| {
        let rows = (0..count).map(|at| {
            let mut row = full(carried(2, u64::from(at) * second, 7));
            row.node = node_name(&format!("db-frontend-{:04}.eu-central-1.example", at / 2));
            let host = |last| [0x2001, 0xdb8, 0x1111, 0x2222, 0x3333, 0x4444, 0x5555, last];
            row.remote = match at % 2 {
                0 => [10, 99, (at >> 8) as u8, at as u8].into(),
                _ => host(0x1000 + at).into(),
            };
            if at % 2 == 1 {
                (row.family, row.local) = (Family::V6, host(1).into());
            }
            if at % 7 == 3 {
                row.state = RowState::Blocked;
                row.reason =
                    Some("no answer on UDP 500: is it up and enabled? Does its file list this host?".into());
            }
            row
        });
        on(rows.collect())
    };
    let start = Instant::now();
    let mut model = Model::new(rows(0), start);
    model.note(rows(1), start + SECOND);
    model
}

#[test]
fn every_size_is_drawn() {
    let mut models = [model(&[]), model(&MIXED), crowd(80)];
    for model in &mut models {
        for (width, height) in (1..=140).zip([1, 2, 3, 5, 10, 15, 16, 23, 24, 50].iter().cycle()) {
            let lines = drawn(model, width, *height);
            assert_eq!(lines.len(), usize::from(*height));
            assert!(
                lines.iter().all(|line| line.chars().count() <= usize::from(width)),
                "{width} {lines:#?}"
            );
        }
    }
}

#[test]
fn a_terminal_that_claims_to_be_huge_costs_little() {
    assert_eq!(Live::lines(&mut model(&MIXED), (65_535, 65_535), Style::PLAIN).len(), 1000);
    assert_eq!(Live::lines(&mut model(&MIXED), (0, 0), Style::PLAIN).len(), 0);
}

#[test]
fn rows_out_of_view_are_counted_and_names_stay_apart() {
    for (width, height, out) in [(80, 24, 987), (200, 50, 961), (40, 10, 994)] {
        let lines = drawn(&mut crowd(1000), width, height);
        let foot = lines.last().unwrap();
        assert!(foot.starts_with(&format!("{out} rows out of view")), "{lines:#?}");
        let rows: Vec<&str> =
            lines.iter().filter(|line| line.contains(" blocked ")).map(|line| &**line).collect();
        let first: Vec<&str> = rows.iter().filter_map(|row| row.split(" blocked").next()).collect();
        let mut apart = first.clone();
        apart.dedup();
        assert_eq!(first, apart);
    }
    let wide = drawn(&mut crowd(1000), 200, 50).join("\n");
    for part in ["REMOTE", "REASON", "2001:db8:1111:2222:3333:4444:5555:13e5", "no answer on UDP 500"] {
        assert!(wide.contains(part), "{part} is not in\n{wide}");
    }
}

#[test]
fn what_others_say_cannot_steer_the_terminal() {
    let mut model = model(&MIXED);
    let mut evil = model.status().clone();
    for row in &mut evil.peers {
        row.reason = Some("a\x1b[2J\x1b]0;b\x07\u{9b}31m\nc\r\u{202e}d".to_owned());
    }
    evil.cluster = "x\x1b[31m".to_owned();
    model.note(evil, Instant::now());
    for width in [40, 80, 200] {
        for line in lines(&view::screen(&mut model, width, 24), Style::PLAIN) {
            let line = line.replace("\x1b[7m", "").replace("\x1b[0m", "");
            assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
        }
    }
}

#[test]
fn what_is_printed_needs_no_terminal() {
    let all = lines(&view::printed(&mut crowd(100), 200, None), Style::PLAIN);
    assert_eq!(all.len(), 3 + 1 + 1 + 100, "all rows: {all:#?}");
    let text = all.join("\n");
    assert!(
        !text.contains('\x1b') && text.contains("REASON") && text.contains("no answer on UDP 500"),
        "{text}"
    );
    assert!(!text.contains("MINUTE"), "it has looked for a second: {text}");
    let some = lines(&view::printed(&mut crowd(100), 80, Some(23)), Style::PLAIN);
    assert_eq!((some.len(), some[22].as_str()), (23, "83 rows out of view"));
    let tiny = lines(&view::printed(&mut model(&[]), 1, Some(1)), Style::PLAIN);
    assert!(tiny.len() < 10);
    let coloured = lines(&view::printed(&mut model(&MIXED), 80, None), Style::COLOURED).join("\n");
    assert!(coloured.contains("\x1b[31mblocked") && !coloured.contains("\x1b[7m"), "{coloured}");
}
