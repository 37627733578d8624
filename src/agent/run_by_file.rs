//! How a member of a cluster comes to run by a file again (`hostseal leave --to-file`): the file lists all nodes with the
//! keys that they have, so this host goes on as it is, and the others need not know.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use toml::{Table, Value};

use super::process;
use super::service::make_directory;
use super::single::Single;
use crate::config::{Config, KmsRules, Node, local_part};
use crate::control::FormerMember;
use crate::identity::AuthMethod;
use crate::machine::{named_node, own_addresses};
use crate::store::{ClusterFiles, ClusterState, Places, Saved, config_file, owner, private_file};
use crate::types::units::listed;
use crate::types::{NodeName, Protection};

/// So many addresses are named in an error.
const NAMED: usize = 8;

/// Has this member run by what `file` says, which `hostseal settings --export` has printed, from its next start on; its
/// agent ends. `path` is where its configuration lies. Its key for IKE goes to where the file says. The roster is kept for
/// people, and the key by which it spoke for its cluster is gone. Call it as root.
///
/// # Errors
/// It is no member, or the file is not one that it could go on by: then nothing is changed.
pub fn run_by_file(path: &Path, file: &Path) -> anyhow::Result<FormerMember> {
    process::harden()?;
    owner::check(path)?;
    let places = Places::of(path);
    owner::check(&places.state_dir)?;
    let files = ClusterFiles::of(&places.state_dir);
    let member = files.load()?.context("this host belongs to no cluster")?;
    ensure!(!member.is_over(), "this host was removed from its cluster: there is nothing to go on with");
    let next = Next::read(path, file, &member)?;
    let saved = Saved::load(&places.state_path())?;
    let single = Single::new(&places.run_dir);
    if single.runs()? {
        single.end()?;
    }
    make_directory(&places.run_dir)?;
    let _claim = single.claim()?;
    let key_file = next.config.auth.private_key.clone();
    files.give_key(&key_file)?;
    let former_file = if path.exists() {
        config_file::set_aside(path)?;
        Some(config_file::former(path))
    } else {
        None
    };
    config_file::write(path, next.config.text())?;
    files.set_aside()?;
    Ok(FormerMember {
        cluster: next.config.cluster.clone(),
        node: next.node,
        key_file,
        former_file,
        protected: saved.protection == Protection::On,
    })
}

/// What a member is to go on by.
struct Next {
    config: Config,
    node: NodeName,
}

impl Next {
    fn read(path: &Path, file: &Path, member: &ClusterState) -> anyhow::Result<Self> {
        let text = config_file::read(file)?;
        let name = file.display().to_string();
        let local = config_file::read_local(path)?;
        let before = member.config(&local, &path.display().to_string())?;
        let config = Config::parse(&with_own(&text, &local, before.kms.as_ref()), &name)?;
        let own = own_addresses().context("this host's addresses cannot be listed")?;
        let node = config.whoami(&own, named_node().as_deref(), before.node.as_ref())?.clone();
        ensure!(
            before.node.as_ref() == Some(&node.name),
            "this host is {} in {name}, and {} in its cluster",
            node.name,
            before.node.as_ref().map(ToString::to_string).unwrap_or_default()
        );
        let is_proven = config.method_of(&node) == AuthMethod::PublicKey
            && node.public_key.as_ref() == Some(member.keys.ike.public());
        ensure!(
            is_proven,
            "{name} does not say of this host that it proves itself with the key that it has in its cluster: take what \
             `hostseal settings --export` prints"
        );
        if let Some(words) = before.needs_restart(&config) {
            bail!("{name}: {words}");
        }
        let addresses = |config: &Config| -> BTreeSet<IpAddr> {
            let nodes = config.nodes.iter().flat_map(|node| node.addresses.iter().copied());
            nodes.chain(config.floating_addresses()).collect()
        };
        let missing: BTreeSet<IpAddr> = addresses(&before).difference(&addresses(&config)).copied().collect();
        ensure!(
            missing.is_empty(),
            "{name} does not list {}, and this host would drop them: take what `hostseal settings --export` prints now",
            listed(missing, NAMED)
        );
        ensure!(
            said_of(&before) == said_of(&config),
            "{name} says something else of the nodes, of their keys or of who is blocked than the cluster does by now: take \
             what `hostseal settings --export` prints now"
        );
        let key = &config.auth.private_key;
        let there = key.exists().then(|| private_file::load_key(key)).transpose()?;
        ensure!(
            there.is_none_or(|there| there.public() == member.keys.ike.public()),
            "{} is another key than the one that this host has in its cluster: move it away first",
            key.display()
        );
        Ok(Self { node: node.name, config })
    }
}

/// Who is a node, by which addresses and keys, and who is blocked: an older file could trust who was removed since.
fn said_of(config: &Config) -> (BTreeSet<String>, BTreeSet<IpAddr>) {
    let node = |node: &Node| {
        let addresses: BTreeSet<&IpAddr> = node.addresses.iter().collect();
        format!("{} {addresses:?} {:?}", node.name, node.public_key)
    };
    (config.nodes.iter().map(node).collect(), config.protection.blocked.iter().copied().collect())
}

/// A file that is the same for all, with what concerns this host alone: what its own file, `local`, says besides, the PPKs
/// that it has for other nodes, and where it has the helper of the KMS by which it goes.
fn with_own(file: &str, local: &str, kms: Option<&KmsRules>) -> String {
    // What is no TOML is reported as it is.
    let Ok(mut table) = file.parse::<Table>() else { return file.to_owned() };
    let mut local: Table = local_part(local, None).parse().unwrap_or_default();
    let was = table.clone();
    keep_ppks(&mut table, &mut local);
    local.retain(|key, _| !table.contains_key(key));
    // A helper that has nothing to unwrap is of no use.
    if local.get("kms").is_some_and(|kms| kms.get("provider").is_none()) {
        local.remove("kms");
    }
    table.extend(local);
    if let (Some(rules), Some(Value::Table(said))) = (kms, table.get_mut("kms"))
        && said.get("provider").and_then(Value::as_str) == Some(&*rules.provider)
    {
        let program = rules.needs_program().then_some(("program", &rules.program));
        for (key, path) in program.into_iter().chain([("socket", &rules.socket)]) {
            said.insert(key.to_owned(), path.display().to_string().into());
        }
    }
    // Where it says nothing more, it stays as it was written.
    if table == was { file.to_owned() } else { table.to_string() }
}

/// The PPKs of single nodes that `local` names take the place of those in `table`: they lie in files of this host. It may
/// still name a node that is gone: that one goes.
fn keep_ppks(table: &mut Table, local: &mut Table) {
    let list = |within: Option<&Value>| within.and_then(Value::as_array).cloned().unwrap_or_default();
    let same =
        |key: &str, one: &Value, other: &Value| one.get(key).is_some_and(|it| other.get(key) == Some(it));
    let there = list(table.get("nodes"));
    let Some(Value::Table(ours)) = local.get_mut("ppk") else { return };
    let mut own = list(ours.remove("nodes").as_ref());
    own.retain(|it| there.iter().any(|node| same("name", it, node)));
    match table.get_mut("ppk") {
        Some(Value::Table(ppk)) if !own.is_empty() => {
            let mut nodes = list(ppk.get("nodes"));
            nodes.retain(|it| !own.iter().any(|own| same("name", own, it) || same("id", own, it)));
            ppk.insert("nodes".to_owned(), [own, nodes].concat().into());
        }
        _ if !own.is_empty() => drop(ours.insert("nodes".to_owned(), own.into())),
        _ if ours.is_empty() => drop(local.remove("ppk")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_a_host_alone_is_said_once() {
        let local = "run_dir = \"/r\"\nstate_dir = \"/s\"\n[secret]\nfile = \"/k\"\n";
        let file = "# as it was exported\ncluster = \"x\"\nrun_dir = \"/other\"\n";
        let of = |local: &str| with_own(file, local, None).parse::<Table>().unwrap();
        let told = of(local);
        assert_eq!((told["run_dir"].as_str(), told["state_dir"].as_str()), (Some("/other"), Some("/s")));
        assert!(!told.contains_key("secret"));
        assert_eq!(with_own(file, "", None), file);
        assert_eq!(with_own("[[[", local, None), "[[[");
        // A section of the host's takes nothing that follows.
        let told = of("[metrics]\nlisten = \"127.0.0.1:9999\"\n");
        assert!(told["cluster"].is_str() && told["metrics"].is_table(), "{told}");
    }

    #[test]
    fn a_member_keeps_its_helper_and_has_none_where_nothing_is_wrapped() {
        let local = "[kms]\nprogram = \"/p\"\nsocket = \"/s\"\n";
        let plain = "cluster = \"x\"\n";
        assert_eq!(with_own(plain, local, None), plain);
        let kms = KmsRules::of("exec", Some("/p".into()), "k", None).unwrap();
        let kms = KmsRules { socket: "/s".into(), ..kms };
        let exported = "cluster = \"x\"\n[kms]\nprovider = \"exec\"\nkey = \"k\"\nprogram = \"/theirs\"\nsocket = \"/t\"\n";
        let told: Table = with_own(exported, local, Some(&kms)).parse().unwrap();
        let said = |key: &str| told["kms"][key].as_str();
        assert_eq!((said("program"), said("socket"), said("key")), (Some("/p"), Some("/s"), Some("k")));
        let other = exported.replace("exec", "aws").replace("program = \"/theirs\"\n", "");
        assert_eq!(with_own(&other, local, Some(&kms)), other, "that is another one");
    }

    /// The file may name a node that was removed, and the exporter a PPK that is called like one of this host's.
    #[test]
    fn a_member_keeps_its_ppks_for_the_nodes_that_there_are() {
        let nodes = |names: &[&str]| -> String {
            let node = |(at, name): (usize, &&str)| {
                format!("[[nodes]]\nname = \"{name}\"\naddresses = [\"10.0.0.{at}\"]\n")
            };
            names.iter().enumerate().map(node).collect()
        };
        let ppk = |name: &str, id: &str, file: &str| {
            format!("[[ppk.nodes]]\nname = \"{name}\"\nid = \"{id}\"\nfile = \"{file}\"\n")
        };
        let files = |file: &str, local: &str| -> Vec<String> {
            let told = with_own(file, local, None);
            Config::parse(&told, "told").unwrap();
            let told: Table = told.parse().unwrap();
            let nodes = told.get("ppk").and_then(|ppk| ppk.get("nodes")).and_then(Value::as_array);
            nodes.into_iter().flatten().map(|it| it["file"].as_str().unwrap().to_owned()).collect()
        };
        let plain = format!("cluster = \"x\"\n{}", nodes(&["e", "f", "g"]));
        let local = [ppk("f", "one", "/own"), ppk("gone", "two", "/two")].concat();
        let exported = [
            &plain,
            "[ppk]\nid = \"k\"\nfile = \"/k\"\n",
            &ppk("f", "three", "/theirs"),
            &ppk("g", "four", "/g"),
        ]
        .concat();
        assert_eq!(files(&exported, &local), ["/own", "/g"]);
        assert_eq!(files(&exported, &ppk("f", "four", "/own")), ["/own"]);
        assert_eq!(files(&exported, &ppk("gone", "two", "/two")), ["/theirs", "/g"]);
        assert_eq!(files(&plain, &local), ["/own"]);
        assert!(files(&plain, &ppk("gone", "two", "/two")).is_empty());
        assert_eq!(with_own(&exported, "", None), exported);
    }

    #[test]
    fn who_is_no_member_is_told_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hostseal.toml");
        std::fs::write(&path, format!("state_dir = \"{}\"\n", directory.path().display())).unwrap();
        let words = run_by_file(&path, Path::new("/none")).unwrap_err().to_string();
        assert_eq!(words, "this host belongs to no cluster");
    }
}
