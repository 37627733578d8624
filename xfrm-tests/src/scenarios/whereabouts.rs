//! The first minute of a cluster, of which nothing was said: hosts find out what they are called and where they are.

use anyhow::{Result, ensure};
use serde_json::json;

use super::members::{await_cluster, is_protected};
use crate::lab::Lab;
use crate::lab::agent::{hostseal, hostseal_called};
use crate::lab::members::token;
use crate::tests::Test;

pub(super) const ALL: &[Test] =
    &[Test::new("whereabouts::hosts_find_their_names_and_addresses", 3, names_and_addresses)];

fn names_and_addresses(lab: &mut Lab) -> Result<()> {
    let [a, b, c] = lab.all();
    // With no way to anywhere else, each address that lasts could be meant.
    a.run(
        "ip address add 10.99.8.1/16 dev eth0 && \
         ip address add fd99::8:1/64 dev eth0 nodad valid_lft forever preferred_lft 0",
    )?;
    let several = hostseal_called(&a, "db-a", "init lab")?;
    let words = &several.stderr;
    ensure!(several.code != 0 && words.contains("10.99.0.1, 10.99.8.1: say by which"), "{several:?}");
    ensure!(words.contains("--address ADDRESS") && !words.contains("fd99"), "{several:?}");
    // The default route says which.
    a.run(&format!("ip route add default via {} src {}", b.v4(), a.v4()))?;
    hostseal_called(&a, "db-a", "init lab")?.expect_code(0)?;

    let join = |host, name: &str| -> Result<_> {
        hostseal_called(host, name, &format!("join {} --timeout 50s", token(&a, "")?))
    };
    // It is where it sends to the others from, whatever else it has.
    b.run("ip address add 10.99.8.2/16 dev eth0")?;
    join(&b, "db-b.example.com")?.expect_code(0)?;
    await_cluster(&a, "b is a member", |status| status["summary"]["answering"] == 2)?;
    c.run(&format!(
        "ip address add 10.99.8.3/16 dev eth0 && ip route add {}/32 dev eth0 src 10.99.8.3",
        b.v4()
    ))?;
    let several = join(&c, "db-c")?;
    ensure!(
        several.code != 0 && several.stderr.contains("10.99.0.3, 10.99.8.3: say by which"),
        "{several:?}"
    );
    c.run(&format!("ip route del {}/32", b.v4()))?;
    let nameless = join(&c, "localhost")?;
    ensure!(nameless.code != 0 && nameless.stderr.contains("--node node-10-99-0-3"), "{nameless:?}");
    let taken = join(&c, "db-a")?;
    ensure!(taken.code != 0 && taken.stderr.contains("db-a"), "{taken:?}");
    join(&c, "db-c")?.expect_code(0)?;

    hostseal(&c, "enable --cluster --timeout 50s")?.expect_code(0)?;
    let status = await_cluster(&c, "all is protected", |status| is_protected(status, 3))?;
    let nodes = status["nodes"].as_array().into_iter().flatten();
    let found: Vec<_> = nodes.map(|node| json!([node["name"], node["addresses"]])).collect();
    let expected = json!([
        ["db-a", ["10.99.0.1", "fd99::1"]],
        ["db-b.example.com", ["10.99.0.2", "fd99::2"]],
        ["db-c", ["10.99.0.3", "fd99::3"]],
    ]);
    ensure!(json!(found) == expected, "{found:?}");
    Ok(())
}
