//! The demo: five hosts, one command, and the proof on the wire.
//!
//! It uses the product as an operator does, by its command line, and believes only what independent eyes
//! see: captures on the cables, a stream with sequence numbers, the kernel's own tables. Everything that it
//! claims is a check, and the last line says what was proved only when all of them passed.

mod page;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use self::page::Page;
use crate::lab::agent::{Status, hostseal, status};
use crate::lab::exporter;
use crate::lab::inside::show_page;
use crate::lab::members::{self, place};
use crate::lab::picture::PageLook;
use crate::lab::session::Show;
use crate::lab::stream::Shape;
use crate::lab::{Count, Direction, Family, Host, Kind, Lab, Packet, Report, Stream, until};
use crate::shows::Entry;

/// How the lab finds it.
pub(crate) const ENTRY: Entry = Entry {
    name: "demo",
    about: "five hosts, one command, and the proof on the wire",
    mortal: false,
    aws: false,
    body: run,
};

/// How many hosts it takes.
pub(crate) const HOSTS: usize = 5;
/// What is asked for over HTTP. It is what nobody but the two hosts should read.
const PAGE: &str = "/salaries";
/// What is answered.
const ANSWER: &str = "ada,91000\ngrace,93000\n";
/// The bytes of Ethernet's and IPv4's headers.
const HEADERS: usize = 14 + 20;
/// How many pings the counters are to count.
const PINGS: u32 = 20;
/// How long each measurement of bandwidth takes, in seconds.
const IPERF_SECONDS: u32 = 3;
/// How long a stream goes on before and after a change, so that it meets all of it.
const MARGIN: Duration = Duration::from_millis(500);

/// The hosts by the parts that they play.
struct Cast {
    /// Asks.
    a: Host,
    /// Serves.
    b: Host,
    /// Receives the stream.
    c: Host,
    /// Is there.
    d: Host,
    /// Comes later, and goes.
    e: Host,
}

fn run(show: &Show) -> Result<i32> {
    perform(&Lab::new(HOSTS)?, show.colour)
}

/// Shows everything on the [`HOSTS`] hosts of `lab`; returns the exit status.
pub(crate) fn perform(lab: &Lab, colour: bool) -> Result<i32> {
    let [a, b, c, d, e] = lab.all();
    let cast = Cast { a, b, c, d, e };
    let mut page = Page::new(colour);
    introduce(&page, &cast)?;
    serve(&cast.b)?;

    let clear = in_the_clear(&mut page, lab, &cast)?;
    found(&mut page, &cast)?;
    let enabled = enable(&mut page, &cast)?;
    the_same_request(&mut page, lab, &cast, &clear.request)?;
    counters(&mut page, &cast)?;
    bandwidth(&mut page, &cast, clear.bits_per_second)?;
    let changed = come_and_go(&mut page, &cast)?;
    watched(&mut page, &cast)?;
    let disabled = disable(&mut page, lab, &cast)?;

    Ok(page.end(&format!(
        "one command sealed all traffic, one more opened it, and a host came and went; 0 of {} packets lost.",
        enabled.sent + changed.sent + disabled.sent
    )))
}

fn introduce(page: &Page, cast: &Cast) -> Result<()> {
    let kernel = cast.a.run("uname -r")?;
    let place = match std::env::var("LAB_PLACE").as_deref() {
        Ok("uml") => "user-mode Linux: a real kernel, run as a program",
        _ => "this machine's kernel, in network namespaces",
    };
    page.title(
        "hostseal: everything that hosts say to each other, encrypted in the kernel",
        &[
            "Five hosts on one wire, with a listener on every cable.",
            &format!("Linux {} ({place}).", kernel.trim()),
            "",
            "     a 10.99.0.1  ───┬───  b 10.99.0.2",
            "                     ├───  c 10.99.0.3",
            "                     ├───  d 10.99.0.4",
            "                     └───  e 10.99.0.5",
        ],
    );
    Ok(())
}

/// Answers HTTP on a host for as long as the demo runs.
fn serve(host: &Host) -> Result<()> {
    let listener = host.within(|| TcpListener::bind((host.v4(), 80)))??;
    thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { continue };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{ANSWER}",
                ANSWER.len()
            );
            // Whoever asks and goes away gets no answer.
            let _ = connection.read(&mut [0; 1024]);
            let _ = connection.write_all(answer.as_bytes());
        }
    });
    Ok(())
}

/// What there was before protection.
struct Clear {
    /// The packet with the HTTP request.
    request: Packet,
    bits_per_second: f64,
}

fn in_the_clear(page: &mut Page, lab: &Lab, cast: &Cast) -> Result<Clear> {
    page.step("In the clear");
    let (answer, report) = ask(page, lab, cast)?;
    let request = request_in(&report).context("the HTTP request was not captured in the clear")?;
    show_request(page, &request, 6);
    let read = answer == ANSWER && contains(&request.bytes, PAGE.as_bytes());
    page.check("b answers, and whoever listens on the wire reads along", read.then_some(()).ok_or(answer));
    println!();
    let bits_per_second = iperf(page, cast)?;
    page.figures(&[("in the clear", rate(bits_per_second))]);
    Ok(Clear { request, bits_per_second })
}

/// Asks b for the page and hands over what curl printed and what passed b's cable meanwhile.
fn ask(page: &Page, lab: &Lab, cast: &Cast) -> Result<(String, Report)> {
    let capture = lab.capture(&cast.b)?;
    let command = format!("curl -s http://{}{PAGE}", cast.b.v4());
    page.command("a", &command);
    let answer = cast.a.run(&format!("{command} --max-time 10"))?;
    page.output(&answer);
    Ok((answer, capture.stop()?))
}

/// The request among what was captured, when it can be read.
fn request_in(report: &Report) -> Option<Packet> {
    let asks = |packet: &&Packet| packet.kind == Kind::Clear && contains(&packet.bytes, PAGE.as_bytes());
    report.packets.iter().find(asks).cloned()
}

fn found(page: &mut Page, cast: &Cast) -> Result<()> {
    page.step("A cluster");
    page.command("a", "hostseal init prod");
    println!();
    exporter::make_group(&cast.a)?;
    hostseal(&cast.a, &format!("init prod {}", place(&cast.a)))?.expect_code(0)?;
    for host in [&cast.b, &cast.c, &cast.d] {
        join(page, cast, host)?;
    }
    let all_answer = until("all answer", Duration::from_secs(10), || {
        let status = cluster(&cast.d)?;
        ensure!(status["summary"]["answering"] == 4, "{status:#}");
        Ok::<_, anyhow::Error>(())
    });
    page.check("four hosts know each other, each with keys that it made for itself", all_answer);
    Ok(())
}

/// A host joins by a token that a makes.
fn join(page: &Page, cast: &Cast, host: &Host) -> Result<()> {
    page.command("a", "hostseal token create");
    println!();
    page.command(host.name(), "hostseal join hostseal1_…");
    println!();
    members::join(&cast.a, host).map(drop)
}

/// How the cluster stands, as a host sees it.
fn cluster(host: &Host) -> Result<Value> {
    hostseal(host, "status --cluster --json")?.json()
}

fn enable(page: &mut Page, cast: &Cast) -> Result<Count> {
    page.step("One command, on any of them");
    page.command("d", "hostseal enable --cluster");
    println!();
    let stream = start_stream(cast)?;
    let started = Instant::now();
    let outcome = hostseal(&cast.d, "enable --cluster")?;
    let took = started.elapsed();
    let count = stop_stream(stream)?;
    let failure = (outcome.code != 0).then(|| format!("{}{}", outcome.stdout, outcome.stderr));
    let claim =
        format!("every pair of addresses is protected, {:.1} s after the command", took.as_secs_f64());
    page.check(&claim, failure.map_or(Ok(()), Err));
    let claim = format!("{} packets were on their way meanwhile, {} lost", count.sent, count.lost);
    page.check(&claim, nothing_lost(&count));
    page.command("a", "hostseal status --cluster");
    page.output(&hostseal(&cast.a, "status --cluster")?.stdout);
    Ok(count)
}

/// A host joins and is protected by itself; then it is removed.
fn come_and_go(page: &mut Page, cast: &Cast) -> Result<Count> {
    page.step("A host comes, and goes");
    let stream = start_stream(cast)?;
    let started = Instant::now();
    join(page, cast, &cast.e)?;
    let protected = hostseal(&cast.e, "status --wait 20s")?;
    let failure = (protected.code != 0).then_some(protected.stdout);
    let claim =
        format!("e is protected with all others, {:.1} s after it began", started.elapsed().as_secs_f64());
    page.check(&claim, failure.map_or(Ok(()), Err));
    page.command("a", "hostseal remove e");
    println!();
    hostseal(&cast.a, "remove e")?.expect_code(0)?;
    let address = cast.e.v4().to_string();
    let gone = until("no SA with e is left", Duration::from_secs(20), || {
        let states = cast.b.run("ip xfrm state")?;
        ensure!(!states.contains(&format!("src {address} ")), "{states}");
        Ok::<_, anyhow::Error>(())
    });
    page.check("no other host has keys with e any more", gone);
    let clear = until("e is in the clear", Duration::from_secs(20), || {
        let status = status(&cast.e)?;
        ensure!(status.at("/protection") == "off", "{:#}", status.0);
        Ok::<_, anyhow::Error>(())
    });
    page.check("e has gone to the clear by itself", clear);
    let count = stop_stream(stream)?;
    let claim = format!("{} packets of others were on their way meanwhile, {} lost", count.sent, count.lost);
    page.check(&claim, nothing_lost(&count));
    Ok(count)
}

/// 1,000 packets a second from a to c, which a change is to leave alone.
fn start_stream(cast: &Cast) -> Result<Stream> {
    let stream = Stream::start(&cast.a, &cast.c, Shape::default())?;
    thread::sleep(MARGIN);
    Ok(stream)
}

fn stop_stream(stream: Stream) -> Result<Count> {
    thread::sleep(MARGIN);
    stream.stop()
}

/// Clear packets can overtake sealed ones; that is not a loss.
fn nothing_lost(count: &Count) -> Result<()> {
    ensure!(count.sent > 0 && count.lost == 0 && count.duplicated == 0, "{count:?}");
    Ok(())
}

/// Shows the request as ESP, and that all hosts speak nothing else.
fn the_same_request(page: &mut Page, lab: &Lab, cast: &Cast, before: &Packet) -> Result<()> {
    page.step("The same request again");
    let others = [lab.capture(&cast.a)?, lab.capture(&cast.c)?];
    let (answer, at_b) = ask(page, lab, cast)?;
    for family in crate::lab::FAMILIES {
        for (from, to) in [(&cast.a, &cast.b), (&cast.b, &cast.c), (&cast.c, &cast.a)] {
            let answered = from.ping(to, family, 3)?;
            ensure!(answered == 3, "{} of 3 pings from {} to {}", answered, from.name(), to.name());
        }
    }
    let esp_length = esp_length(before);
    let is_request = |packet: &&Packet| {
        packet.kind == Kind::Esp && packet.direction == Direction::In && packet.length == esp_length
    };
    match at_b.packets.iter().find(is_request) {
        Some(packet) => {
            let esp = packet.bytes.get(HEADERS..).unwrap_or_default();
            page.packet(packet.kind, &describe(packet, "ESP"), esp, 6);
        }
        None => page.note("(no ESP packet of its length was captured)"),
    }
    let as_esp = answer == ANSWER && at_b.packets.iter().any(|packet| is_request(&packet));
    let seen = || format!("curl printed {answer:?}; {at_b}");
    page.check("b answers as before, and the wire shows ESP", as_esp.then_some(()).ok_or_else(seen));
    let mut reports = vec![at_b];
    for capture in others {
        reports.push(capture.stop()?);
    }
    let total: usize = reports.iter().map(|report| report.count(Kind::Esp)).sum();
    page.check(
        &format!("{total} ESP packets on three cables, IPv4 and IPv6, and none in the clear"),
        only_esp(&reports),
    );
    Ok(())
}

/// Every cable carried ESP, and nothing that somebody could read.
fn only_esp(reports: &[Report]) -> Result<()> {
    for report in reports {
        report.ensure_nothing_clear()?;
        ensure!(report.count(Kind::Esp) > 0, "nothing passed: {report}");
        let leaked = report.packets.iter().any(|packet| contains(&packet.bytes, PAGE.as_bytes()));
        ensure!(!leaked, "the request is readable on the cable of {}", report.host);
    }
    Ok(())
}

/// The length on the wire of a TCP packet over IPv4 once it is ESP: header and IV of 8 bytes each, payload
/// with two bytes of trailer padded to a multiple of 4, ICV of 16 (RFC 4303 section 2, RFC 4106).
fn esp_length(clear: &Packet) -> u32 {
    let headers = HEADERS as u32;
    let payload = clear.length.saturating_sub(headers);
    headers + 8 + 8 + (payload + 2).next_multiple_of(4) + 16
}

fn counters(page: &mut Page, cast: &Cast) -> Result<()> {
    page.step("What hostseal knows, from the kernel's own counters");
    page.command("a", "hostseal status");
    page.output(&hostseal(&cast.a, "status")?.stdout);
    let before = pair_with(cast, &cast.b)?;
    let command = format!("ping -c {PINGS} {}", cast.b.v4());
    page.command("a", &command);
    println!();
    let answered = cast.a.ping(&cast.b, Family::V4, PINGS)?;
    let after = pair_with(cast, &cast.b)?;
    for (way, verb) in [("tx", "sent to"), ("rx", "received from")] {
        let path = format!("/{way}/packets");
        let (from, to) = (before.number(&path), after.number(&path));
        let seen = || format!("{answered} of {PINGS} were answered");
        let exact = answered == PINGS && to == from + u64::from(PINGS);
        let claim = format!("{PINGS} pings are {PINGS} packets {verb} b ({from} before, {to} after)");
        page.check(&claim, exact.then_some(()).ok_or_else(seen));
    }
    Ok(())
}

/// a's row of the IPv4 pair with another host.
fn pair_with(cast: &Cast, other: &Host) -> Result<Status> {
    status(&cast.a)?.peer(other.v4().into())
}

fn bandwidth(page: &mut Page, cast: &Cast, before: f64) -> Result<()> {
    page.step("Bandwidth");
    let counted = pair_with(cast, &cast.b)?.number("/tx/bytes");
    let after = iperf(page, cast)?;
    let counted = pair_with(cast, &cast.b)?.number("/tx/bytes") - counted;
    page.figures(&[("in the clear", rate(before)), ("as ESP", rate(after))]);
    println!();
    if std::env::var("LAB_PLACE").as_deref() == Ok("uml") {
        page.note("Here one processor plays all five hosts. In the clear it only moves memory;");
        page.note("as ESP it encrypts in portable C, without the AES instructions of real machines.");
        println!();
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // far below 2^53
    let transferred = (after * f64::from(IPERF_SECONDS) / 8.0 * 0.9) as u64;
    let seen = || format!("{counted} bytes counted, more than {transferred} transferred");
    page.check(
        "all of it through the SA: the kernel counted it",
        (counted >= transferred).then_some(()).ok_or_else(seen),
    );
    Ok(())
}

/// What flows now, as `top` sees it.
fn watched(page: &mut Page, cast: &Cast) -> Result<()> {
    page.step("What flows");
    let stream = start_stream(cast)?;
    page.command("a", "hostseal top --once");
    let seen = hostseal(&cast.a, "top --once")?;
    stop_stream(stream)?;
    page.output(&seen.stdout);
    let flows = |line: &&str| line.starts_with("c ") && line.contains("protected") && line.contains('k');
    let is_seen = seen.code == 0 && seen.stdout.lines().any(|line| flows(&line));
    page.check("the pair with c carries the stream", is_seen.then_some(()).ok_or(seen.stdout));
    in_a_browser(page, cast)
}

/// All pairs of the cluster, as a browser shows them.
fn in_a_browser(page: &mut Page, cast: &Cast) -> Result<()> {
    println!();
    page.command("a", "hostseal exporter");
    println!();
    let _exporter = exporter::start(&cast.a, true, &format!("127.0.0.1:{}", exporter::PORT))?;
    let all = until("both ends of all pairs are shown as protected", Duration::from_secs(30), || {
        let served = exporter::served(&cast.a, "demo", &[PageLook::Light])?;
        // Four hosts: six pairs, in both halves of the square.
        ensure!(served.http.matches("<td class=\"p\"").count() == 12, "{}", served.http);
        Ok::<_, anyhow::Error>(served)
    });
    page.note(&format!(
        "http://127.0.0.1:{}/ in a browser (pictures need chromium on this machine):",
        exporter::PORT
    ));
    all.iter().for_each(show_page);
    page.check("its page shows all pairs, as both ends of each say", all.map(drop));
    Ok(())
}

/// Measures TCP from a to b, in bits a second as the receiver saw them.
fn iperf(page: &Page, cast: &Cast) -> Result<f64> {
    let measure = format!("iperf3 -c {} -t {IPERF_SECONDS}", cast.b.v4());
    page.command("a", &measure);
    println!();
    let mut command = Command::new("iperf3");
    let mut server = cast.b.spawn(command.args(["-s", "-1"]).stdout(Stdio::null()))?;
    until("iperf3 listens", Duration::from_secs(10), || {
        cast.b.run("ss -ltnH sport = :5201 | grep -q LISTEN")
    })?;
    let said = cast.a.run(&format!("{measure} -J"))?;
    server.wait(Duration::from_secs(10))?;
    let said: Value = serde_json::from_str(&said).context("iperf3 printed no JSON")?;
    said.pointer("/end/sum_received/bits_per_second")
        .and_then(Value::as_f64)
        .context("iperf3 gives no figure")
}

/// Bits a second with three significant digits.
fn rate(bits_per_second: f64) -> String {
    let (value, unit) = match bits_per_second / 1e6 {
        mega if mega >= 1000.0 => (mega / 1000.0, "Gbit/s"),
        mega => (mega, "Mbit/s"),
    };
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {unit}")
}

fn disable(page: &mut Page, lab: &Lab, cast: &Cast) -> Result<Count> {
    page.step("And back");
    page.command("a", "hostseal disable --cluster");
    let stream = start_stream(cast)?;
    let outcome = hostseal(&cast.a, "disable --cluster")?;
    let count = stop_stream(stream)?;
    let (answer, report) = ask(page, lab, cast)?;
    let request = request_in(&report);
    if let Some(request) = &request {
        show_request(page, request, 2);
    }
    let failure = (outcome.code != 0).then(|| format!("{}{}", outcome.stdout, outcome.stderr));
    page.check("disabled on every host", failure.map_or(Ok(()), Err));
    let readable = request.is_some() && answer == ANSWER;
    page.check("the request is in the clear again", readable.then_some(()).ok_or_else(|| report.to_string()));
    let claim = format!("{} packets were on their way meanwhile, {} lost", count.sent, count.lost);
    page.check(&claim, nothing_lost(&count));
    page.check("no state and no policy is left in any kernel", nothing_left(lab));
    Ok(count)
}

/// The hosts of the lab have nothing but what hostseal makes.
fn nothing_left(lab: &Lab) -> Result<()> {
    for host in lab.hosts() {
        let left = host.run("ip xfrm state list && ip xfrm policy list nosock")?;
        ensure!(left.trim().is_empty(), "on {}:\n{left}", host.name());
    }
    Ok(())
}

/// The request from its first word on.
fn show_request(page: &Page, request: &Packet, lines: usize) {
    let is_get = |at: &usize| request.bytes[*at..].starts_with(b"GET ");
    let start = (0..request.bytes.len()).find(is_get).unwrap_or_default();
    page.packet(request.kind, &describe(request, "TCP"), &request.bytes[start..], lines);
}

/// A packet in words.
fn describe(packet: &Packet, protocol: &str) -> String {
    let addresses = packet.addresses.map(|(from, to)| format!("{from} > {to}")).unwrap_or_default();
    let spi = packet.spi.map(|spi| format!(", SPI {spi:#010x}")).unwrap_or_default();
    format!("{addresses}  {protocol}{spi}, {} bytes", packet.length)
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        let shown = [981e3, 82.4e6, 940e6, 1.23e9, 25.4e9].map(rate);
        assert_eq!(shown, ["0.98 Mbit/s", "82.4 Mbit/s", "940 Mbit/s", "1.23 Gbit/s", "25.4 Gbit/s"]);
    }

    #[test]
    fn bytes_are_found() {
        assert!(contains(b"GET /salaries HTTP", b"/salaries"));
        assert!(!contains(b"GET /sal", b"/salaries"));
        assert!(!contains(b"", b"x"));
    }
}
