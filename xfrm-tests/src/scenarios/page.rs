//! The page at `/` of the exporter: what it shows of a cluster, to whom, and pictures of it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::lab::agent::{hostseal, kill_agent, start_agent};
use crate::lab::exporter::{self, PORT, Scrape, get, request};
use crate::lab::host::Process;
use crate::lab::inside::show_page;
use crate::lab::picture::PageLook;
use crate::lab::session::Show;
use crate::lab::{Family, Host, Lab, Toward, members, until};
use crate::shows::Entry;
use crate::tests::Test;

pub(super) const ALL: &[Test] =
    &[Test::new("page::shows_both_ends_of_all_pairs_by_the_hosts_own_names", 3, shows_a_cluster).within(300)];

/// How the lab finds the pictures.
pub(crate) const PICTURES: Entry = Entry {
    name: "page",
    about: "pictures of the page: 16 nodes, a pair blocked, a pair clear, a node not reached",
    mortal: false,
    aws: false,
    body: pictures,
};

/// How many nodes are on the pictures.
const NODES: usize = 16;
/// How long anything may take on a busy machine. It is no measure.
const LIMIT: Duration = Duration::from_secs(240);
const LOOPBACK: &str = "127.0.0.1:10931";

/// A cluster whose first host has an exporter.
fn found(hosts: &[Host]) -> Result<Process> {
    let first = hosts.first().context("no hosts")?;
    exporter::make_group(first)?;
    members::found(hosts)?;
    exporter::start(first, true, LOOPBACK)
}

/// Waits until the page of a host has so many cells like these.
fn await_cells(host: &Host, cells: &[(&str, usize)]) -> Result<Scrape> {
    until("the page shows it", LIMIT, || {
        let page = get(host, "")?.expect(200)?;
        for (cell, count) in cells {
            let seen = grid(&page.text)?.matches(cell).count();
            ensure!(seen == *count, "{seen} instead of {count} of {cell}: {}", grid(&page.text)?);
        }
        Ok(page)
    })
}

/// The square of all pairs.
fn grid(html: &str) -> Result<&str> {
    let (_, grid) =
        html.split_once("<table class=\"grid\">").with_context(|| format!("no square: {html}"))?;
    Ok(grid.split("</table>").next().unwrap_or_default())
}

fn shows_a_cluster(lab: &mut Lab) -> Result<()> {
    let [a, _, c] = lab.all();
    let _exporter = found(lab.hosts())?;
    await_cells(&a, &[(">O</td>", 6)])?;
    hostseal(&a, "enable --cluster")?.expect_code(0)?;
    let page = await_cells(&a, &[("class=\"p\"", 6), (">P</td>", 6)])?;
    ensure!(page.text.contains("As seen from a</h2>"), "{}", page.text);
    asked_by_names(&a)?;
    // c's word is missing, and a and b are heard all the same.
    kill_agent(&c)?;
    await_cells(&a, &[("class=\"p\"", 2), (" h\"", 4), ("class=\"h\"", 2)])?;
    let _agent = start_agent(&c)?;
    await_cells(&a, &[("class=\"p\"", 6), ("class=\"h\"", 0)])?;
    // Without its agent the page says so, and shows what was known last.
    kill_agent(&a)?;
    let away = until("the agent is away", LIMIT, || get(&a, "")?.expect(503))?;
    ensure!(away.text.contains("Not known now") && grid(&away.text)?.contains(">P</td>"), "{}", away.text);
    Ok(())
}

/// Whoever asks by the name of somebody else gets no page; monitoring systems may ask by any.
fn asked_by_names(host: &Host) -> Result<()> {
    let url = format!("http://127.0.0.1:{PORT}");
    let by = |name: &str, path: &str| request(host, &format!("-H 'Host: {name}' {url}{path}"));
    let refused = by("evil.example", "/")?.expect(421)?;
    ensure!(refused.text.contains("--name") && !refused.text.contains("<table"), "{}", refused.text);
    by("evil.example", "/metrics")?.expect(200)?;
    for name in ["localhost:10931", "10.99.0.1", "[fd99::1]:10931"] {
        by(name, "/")?.expect(200)?;
    }
    request(host, &format!("-X POST {url}/"))?.expect(405)?;
    let head = request(host, &format!("-i {url}/"))?.expect(200)?.text.to_lowercase();
    for line in [
        "content-security-policy: default-src 'none'; script-src 'sha256-",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
        "content-type: text/html; charset=utf-8",
    ] {
        ensure!(head.contains(line), "{line} is missing: {head}");
    }
    Ok(())
}

/// `cargo lab page`
fn pictures(_: &Show) -> Result<i32> {
    let lab = Lab::new(NODES)?;
    let hosts = lab.hosts();
    let [a, b, c, f, g, k, p] = [0, 1, 2, 5, 6, 10, 15].map(|at| &hosts[at]);
    println!("{NODES} hosts become a cluster");
    let _exporter = found(hosts)?;
    // These two have never agreed keys: what they say to each other stays in the clear until they do.
    cut(&lab, g, k)?;
    println!("it is protected, but for a pair whose IKE does not get through");
    hostseal(a, "enable --cluster --timeout 60s")?;
    let all = NODES * (NODES - 1);
    await_cells(a, &[(">P</td>", all - 2), (">C</td>", 2)])?;
    for (from, to) in [(a, b), (a, c), (b, a)] {
        from.ping(to, Family::V4, 20)?;
    }
    // A stranger takes SAs away whose hosts cannot agree new ones.
    println!("a pair loses its SAs, and an agent dies");
    cut(&lab, c, f)?;
    for address in [f.v4().to_string(), f.v6().to_string()] {
        c.run(&format!("ip xfrm state deleteall src {address}; ip xfrm state deleteall dst {address}"))?;
    }
    kill_agent(p)?;
    await_cells(a, &[(">B</td>", 2), (">C</td>", 2), ("class=\"h\"", 2)])?;
    show_page(&exporter::served(a, "page", &[PageLook::Light, PageLook::Dark, PageLook::Still])?);
    Ok(0)
}

/// IKE does not get through between two hosts.
fn cut(lab: &Lab, host: &Host, other: &Host) -> Result<()> {
    for port in [500, 4500] {
        let v4 = format!("protocol ip flower ip_proto udp dst_ip {} dst_port {port}", other.v4());
        let v6 = format!("protocol ipv6 flower ip_proto udp dst_ip {} dst_port {port}", other.v6());
        lab.wire().drop_matching(host, Toward::Wire, &v4)?;
        lab.wire().drop_matching(host, Toward::Wire, &v6)?;
    }
    Ok(())
}
