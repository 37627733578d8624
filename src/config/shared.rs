//! The configuration of a member of a cluster: its file says what concerns this host alone, and the cluster says the
//! rest. What comes of both is text of the same grammar, so nothing else has to know the difference.

use std::net::IpAddr;
use std::path::Path;

use toml::de::DeTable;
use toml::{Table, Value};

use super::values::Problems;
use super::{Config, ConfigError, Floating, HelperPlace, Node, STATE_DIR, SecretFiles, named_path, store};
use crate::identity::AuthMethod;
use crate::types::NodeName;

/// What the file of a member may say.
const LOCAL: [&str; 6] = ["run_dir", "state_dir", "secret", "ppk", "kms", "metrics"];
/// Where the key of a member for IKE lies, below its state directory.
pub(super) const MEMBER_KEY: &str = "cluster/ike.key";
/// What the cluster says of it.
const SETTINGS: [&str; 3] = ["keying", "esp", "protection"];
/// What the cluster may say of its wrapped secret, by the section. Who asks the KMS, and where, each host says itself: no
/// roster has anybody run a program.
const WRAPPING: [(&str, &[&str]); 3] = [
    ("kms", &["provider", "key", "check_every", "max_offline", "restore_window"]),
    ("ppk", &["id", "wrapped", "required", "optional_until"]),
    ("secret", &["wrapped", "next"]),
];
/// What a member says of it where its cluster says the rest.
const OF_HELPER: [&str; 2] = ["program", "socket"];

/// What all hosts of a cluster have in common.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SharedConfig {
    /// What people call the cluster.
    pub cluster: String,
    /// `[keying]`, `[esp]`, `[protection]`, and what the cluster says of its wrapped secret, as TOML.
    pub settings: String,
    /// The hosts. Those that have not joined may prove themselves with the secret, and expect it: a member keeps it for
    /// them as long as its own file names it.
    pub nodes: Vec<Node>,
    /// Addresses that move between them.
    pub floating: Vec<Floating>,
    /// Those of hosts that were taken out, as somebody else may have their keys.
    pub blocked: Vec<IpAddr>,
    /// Those of hosts that are none until somebody decides.
    pub withheld: Vec<IpAddr>,
}

impl SharedConfig {
    /// The configuration of the host that is `node` there. `local` is its own file, which errors call `name`; its key
    /// for IKE lies in `key`, below its state directory.
    ///
    /// # Errors
    /// Its file says what the cluster says, or one of both does not say what it must.
    pub fn of_node(
        &self,
        local: &str,
        name: &str,
        node: &NodeName,
        key: &Path,
    ) -> Result<Config, ConfigError> {
        let mut table = self.local(local, name)?;
        if !table.contains_key("secret") && self.nodes.iter().any(|node| node.expects_secret) {
            return self.without_secret().of_node(local, name, node, key);
        }
        let state_dir = named_path(local, &["state_dir"]).unwrap_or_else(|| STATE_DIR.into());
        let auth = [
            ("method", AuthMethod::PublicKey.as_str().into()),
            ("private_key", text(state_dir.join(key).display())),
        ];
        self.retain_ppks(&mut table);
        let store = table.remove("cluster");
        table.extend(store.map(|store| ("store".to_owned(), store)));
        table.insert("cluster".to_owned(), text(&self.cluster));
        table.insert("node".to_owned(), text(node));
        table.insert("auth".to_owned(), table_of(auth));
        table.extend(self.settings(name)?);
        self.wrap_in(&mut table, local, name)?;
        table.insert("nodes".to_owned(), self.nodes.iter().map(node_value).collect::<Vec<_>>().into());
        table.insert("floating".to_owned(), self.floating.iter().map(floating).collect::<Vec<_>>().into());
        let text = toml::to_string(&table).unwrap_or_default();
        Config::parse(&text, &format!("{name} and the roster of {}", self.cluster))
    }

    /// Checks that `settings` could be those of this cluster, and go with `local`, the file of the member that gives them.
    ///
    /// # Errors
    /// All that is wrong with them, with its place.
    pub fn check_settings(&self, settings: &str, local: &str) -> Result<(), ConfigError> {
        let name = "the settings";
        let known: Vec<&str> = SETTINGS.into_iter().chain(WRAPPING.map(|(section, _)| section)).collect();
        refuse_others(settings, name, &known, "is no setting of a cluster")?;
        for (section, known) in WRAPPING {
            refuse_within(
                settings,
                name,
                (section, known),
                "is no setting of a cluster: each host says it itself",
            )?;
        }
        let Some(first) = self.nodes.iter().find(|node| !node.expects_secret) else { return Ok(()) };
        let of = |settings: &str, local: &str| {
            let shared = Self { settings: settings.to_owned(), ..self.clone() };
            shared.of_node(local, name, &first.name, Path::new(MEMBER_KEY))
        };
        refuse_unknown_servers(settings, name, self)?;
        of(settings, local)?;
        // What is said of a key that has wrapped nothing yet is read as it will be.
        of(&with_stand_in(settings), "")?;
        // Those in force need not go with the file: they may be what is to be mended.
        let (before, after) = (of(&self.settings, "")?, of(settings, "")?);
        match before.needs_restart(&after) {
            Some(_) => Err(ConfigError::Cluster(
                "keying.port and keying.nat_port of a cluster cannot be changed: members would not find each other".into(),
            )),
            None => Ok(()),
        }
    }

    /// As a member sees it that has no secret: it has no keys with those that expect it, and what was sealed stays closed.
    fn without_secret(&self) -> Self {
        let (others, nodes): (Vec<Node>, Vec<Node>) =
            self.nodes.iter().cloned().partition(|node| node.expects_secret);
        let mut floating = self.floating.clone();
        for it in &mut floating {
            it.nodes.retain(|name| nodes.iter().any(|node| node.name == *name));
        }
        let (floating, lost): (Vec<Floating>, Vec<Floating>) =
            floating.into_iter().partition(|it| it.nodes.len() > 1);
        let closed = others.into_iter().flat_map(|node| node.addresses);
        let closed = closed.chain(lost.into_iter().flat_map(|it| it.addresses));
        let withheld = self.withheld.iter().copied().chain(closed).collect();
        Self { nodes, floating, withheld, ..self.clone() }
    }

    fn local(&self, local: &str, name: &str) -> Result<Table, ConfigError> {
        let message = format!(
            "this host is a member of the cluster {:?}, which says that: remove it here (`hostseal settings` shows what \
             the cluster says, `hostseal settings set` changes it)",
            self.cluster
        );
        let table = parsed(local, name)?;
        // Its name is the cluster's to say, and its store is this host's.
        let of_store = table.get("cluster").filter(|value| value.is_table()).map(|_| "cluster");
        let known: Vec<&str> = LOCAL.into_iter().chain(of_store).collect();
        refuse_others(local, name, &known, &message)?;
        let files = ["file", "previous_file", "wrapped_file"];
        refuse_within(local, name, ("secret", &files), "is for the settings of a cluster: name a file here")?;
        match store::check(local) {
            problems if of_store.is_none() || problems.is_empty() => Ok(table),
            problems => Err(ConfigError::Invalid { file: name.to_owned(), problems }),
        }
    }

    /// The settings. What is different for clusters where they do not say so: a node does not open pairs of others.
    fn settings(&self, name: &str) -> Result<Table, ConfigError> {
        let mut settings = parsed(&self.settings, name)?;
        settings.retain(|key, _| SETTINGS.contains(&key));
        let protection = settings.entry("protection").or_insert_with(|| Table::new().into());
        if let Value::Table(protection) = protection {
            protection.entry("allow_peer_disable").or_insert(false.into());
            let blocked = protection.entry("blocked").or_insert_with(|| Vec::<Value>::new().into());
            if let Value::Array(blocked) = blocked {
                blocked.extend(self.blocked.iter().map(text));
                // Whoever was let in since is no stranger.
                blocked.retain(|value| !self.has_node_at(value));
            }
            if let Some(Value::Array(exempt)) = protection.get_mut("exempt") {
                exempt.retain_mut(|entry| self.is_served(entry));
            }
            if !self.withheld.is_empty() {
                protection.insert("withheld".to_owned(), texts(&self.withheld));
            }
        }
        Ok(settings)
    }

    /// Puts what the cluster says of its wrapped secret in the place of what the file says of the helper alone.
    fn wrap_in(&self, table: &mut Table, local: &str, name: &str) -> Result<(), ConfigError> {
        let mut settings = parsed(&self.settings, name)?;
        let [kms, ppk, mut secret] = WRAPPING.map(|(section, known)| {
            let mut said = settings.remove(section).and_then(into_table).unwrap_or_default();
            said.retain(|key, _| known.contains(&key));
            said
        });
        let own = table.get("kms").and_then(Value::as_table).cloned().unwrap_or_default();
        let helper: Table = own.clone().into_iter().filter(|(key, _)| OF_HELPER.contains(&&**key)).collect();
        let is_whole = own.len() > helper.len();
        let in_force = match secret.remove("wrapped") {
            Some(Value::Table(wrapped)) => Some(wrapped),
            // It is reported with the rest.
            Some(other) => {
                secret.insert("wrapped".to_owned(), other);
                None
            }
            None => None,
        };
        if is_whole && in_force.is_none() && secret.is_empty() {
            return Ok(());
        }
        if !is_whole {
            table.remove("kms");
        }
        table.insert("helper".to_owned(), helper.into());
        if let Some(mut wrapped) = in_force {
            self.refuse_twice(local, name)?;
            let provider = wrapped.remove("provider");
            let said = [("provider", provider), ("key", wrapped.get("key").cloned())];
            let mut kms = kms;
            kms.extend(said.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
            table.insert("kms".to_owned(), kms.into());
            let ours = table.entry("ppk").or_insert_with(|| Table::new().into());
            if let Value::Table(ours) = ours {
                ours.extend(ppk);
                ours.insert("wrapped".to_owned(), true.into());
            }
            table.remove("secret");
            secret.insert("wrapped".to_owned(), wrapped.into());
        }
        let ours = table.entry("secret").or_insert_with(|| Table::new().into());
        if let Value::Table(ours) = ours {
            ours.extend(secret);
        }
        if ours.as_table().is_some_and(Table::is_empty) {
            table.remove("secret");
        }
        Ok(())
    }

    /// Reports what the file of a member says and its cluster does too.
    fn refuse_twice(&self, local: &str, name: &str) -> Result<(), ConfigError> {
        let message = format!(
            "the secret of the cluster {:?} is wrapped, and the cluster says who unwraps it: remove it here (`hostseal \
             settings` shows what the cluster says)",
            self.cluster
        );
        let own: [(&str, &[&str]); 3] = [("kms", &OF_HELPER), ("ppk", &["nodes"]), ("secret", &[])];
        own.into_iter().try_for_each(|of| refuse_within(local, name, of, &message))
    }

    fn has_node_at(&self, address: &Value) -> bool {
        let address = address.as_str().and_then(|text| text.parse::<IpAddr>().ok());
        address.is_some_and(|address| self.nodes.iter().any(|node| node.addresses.contains(&address)))
    }

    /// What the file says of PPKs for nodes that are gone, or are not there yet, is of no use.
    fn retain_ppks(&self, table: &mut Table) {
        let is_node = |name: &str| self.nodes.iter().any(|node| node.name.as_str() == name);
        let Some(Value::Table(ppk)) = table.get_mut("ppk") else { return };
        let Some(Value::Array(nodes)) = ppk.get_mut("nodes") else { return };
        nodes.retain(|it| it.get("name").and_then(Value::as_str).is_none_or(is_node));
        if nodes.is_empty() && !ppk.contains_key("id") {
            table.remove("ppk");
        }
    }

    /// Whether an exemption is served by anybody, without those that are gone.
    fn is_served(&self, exemption: &mut Value) -> bool {
        let servers = exemption.get_mut("served_by").and_then(Value::as_array_mut);
        servers.is_none_or(|servers| {
            servers.retain(|name| self.nodes.iter().any(|node| name.as_str() == Some(node.name.as_str())));
            !servers.is_empty()
        })
    }
}

/// What stays in the file of a host that becomes a member: what concerns it alone. `secret` says where the secret lies,
/// where the hosts that have not joined yet are proven by it. A wrapped one stays where it is.
pub fn local_part(file: &str, secret: Option<&SecretFiles>) -> String {
    let mut table = only(file, &LOCAL);
    if !table.contains_key("kms") {
        table.remove("secret");
    }
    if let Some(SecretFiles { file, previous_file, .. }) = secret {
        let previous = previous_file.iter().map(|file| ("previous_file", file));
        let files = [("file", file)].into_iter().chain(previous);
        let files: Table = files.map(|(key, file)| (key.to_owned(), text(file.display()))).collect();
        table.insert("secret".to_owned(), files.into());
    }
    table.to_string()
}

/// What the file of a member says, by the configuration that it has led to.
pub fn own_part(member: &Config) -> String {
    let mut table = only(member.text(), &LOCAL);
    let helper = only(member.text(), &["helper"]).remove("helper");
    if member.secret.wrapped.is_some() {
        // All but this is the cluster's.
        table.remove("secret");
        table.remove("kms");
        retain_in(&mut table, "ppk", |key| key == "nodes");
    } else {
        retain_in(&mut table, "secret", |key| key != "next");
    }
    let helper = helper.filter(|helper| helper.as_table().is_some_and(|helper| !helper.is_empty()));
    if let Some(helper) = helper.filter(|_| !table.contains_key("kms")) {
        table.insert("kms".to_owned(), helper);
    }
    // There the cluster has its name, and the store has the section.
    let mut store = only(member.text(), &["store"]);
    table.extend(store.remove("store").map(|store| ("cluster".to_owned(), store)));
    table.to_string()
}

/// What of a file is said by the cluster, once its host is a member.
pub fn settings_part(file: &str) -> String {
    only(file, &SETTINGS).to_string()
}

/// The configuration of a member as a file by which hosts run that are in no cluster: the same for all of them. Each proves
/// itself with the key that it has, which lies where keys of hosts do.
pub fn as_file(member: &Config) -> String {
    let mut table = only(
        member.text(),
        &["cluster", "secret", "kms", "ppk", "keying", "esp", "protection", "nodes", "floating"],
    );
    if !member.uses(AuthMethod::Secret) && member.kms.is_none() {
        table.remove("secret");
    }
    retain_in(&mut table, "secret", |key| key != "next");
    if let (Some(kms), Some(Value::Table(said))) = (&member.kms, table.get_mut("kms")) {
        let HelperPlace { program, socket } = &member.helper;
        let program = program.as_ref().or(kms.needs_program().then_some(&kms.program));
        let said_here = [("program", program.filter(|_| kms.needs_program())), ("socket", socket.as_ref())];
        for (key, path) in said_here.into_iter().filter_map(|(key, path)| Some((key, path?))) {
            said.insert(key.to_owned(), text(path.display()));
        }
    }
    if let Some(Value::Table(protection)) = table.get_mut("protection") {
        protection.remove("withheld");
        protection.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
    }
    table.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
    table.insert("auth".to_owned(), table_of([("method", text(AuthMethod::PublicKey))]));
    table.to_string()
}

/// The sections of a valid file that are among the `known` ones.
fn only(file: &str, known: &[&str]) -> Table {
    let mut table: Table = file.parse().unwrap_or_default();
    table.retain(|key, _| known.contains(&key));
    table
}

/// Keeps of a section what `stays`; it goes where nothing is left.
fn retain_in(table: &mut Table, section: &str, stays: impl Fn(&str) -> bool) {
    let Some(Value::Table(said)) = table.get_mut(section) else { return };
    said.retain(|key, _| stays(key));
    if said.is_empty() {
        table.remove(section);
    }
}

/// The settings as if the key that they name had wrapped a secret.
fn with_stand_in(settings: &str) -> String {
    let mut table: Table = settings.parse().unwrap_or_default();
    let has = |section: &str, key: &str| table.get(section).is_some_and(|it| it.get(key).is_some());
    if !table.contains_key("kms") || has("secret", "wrapped") {
        return settings.to_owned();
    }
    let named = |key: &str, other: &str| {
        table.get("kms").and_then(|kms| kms.get(key)).cloned().unwrap_or_else(|| text(other))
    };
    let wrapped = table_of([
        ("provider", named("provider", "aws")),
        ("key", named("key", "key")),
        ("secret_id", text("0".repeat(64))),
        ("blob", text("AAAA")),
    ]);
    let has_id = has("ppk", "id");
    let mut put = |section: &str, key: &str, value: Value| {
        let section = table.entry(section).or_insert_with(|| Table::new().into());
        section.as_table_mut().into_iter().for_each(|section| {
            section.insert(key.to_owned(), value.clone());
        });
    };
    put("secret", "wrapped", wrapped);
    if !has_id {
        put("ppk", "id", text("key"));
    }
    table.to_string()
}

fn into_table(value: Value) -> Option<Table> {
    match value {
        Value::Table(table) => Some(table),
        _ => None,
    }
}

/// Whether a configuration says which nodes there are. A broken one may.
pub fn lists_nodes(text: &str) -> bool {
    match text.parse::<Table>() {
        Ok(table) => table.contains_key("nodes"),
        Err(_) => text.lines().any(|line| line.trim_start().starts_with("[[nodes]]")),
    }
}

/// Reports each key at the top of `text` that is not among the `known` ones.
fn refuse_others(text: &str, name: &str, known: &[&str], message: &str) -> Result<(), ConfigError> {
    let problems = Problems::new(text);
    match DeTable::parse(text) {
        Ok(table) => {
            for (key, _) in table.get_ref().iter().filter(|(key, _)| !known.contains(&key.get_ref().as_ref()))
            {
                problems.add(key.span(), key.get_ref(), message.to_owned());
            }
        }
        Err(error) => {
            problems.add(error.span().unwrap_or(0..0), "", error.message().replace('\n', "; "));
        }
    }
    match problems.into_vec() {
        problems if problems.is_empty() => Ok(()),
        problems => Err(ConfigError::Invalid { file: name.to_owned(), problems }),
    }
}

/// Reports each key of a section of `text` that is not among the `known` ones.
fn refuse_within(
    text: &str,
    name: &str,
    (section, known): (&str, &[&str]),
    message: &str,
) -> Result<(), ConfigError> {
    let problems = Problems::new(text);
    // What is no TOML was reported before.
    let table = DeTable::parse(text);
    let section_of = table.as_ref().ok().and_then(|table| table.get_ref().get(section));
    match section_of.map(|value| (value, value.get_ref().as_table())) {
        Some((_, Some(said))) => {
            for (key, _) in said.iter().filter(|(key, _)| !known.contains(&key.get_ref().as_ref())) {
                problems.add(key.span(), &format!("{section}.{}", key.get_ref()), message.to_owned());
            }
        }
        Some((value, None)) => problems.add(value.span(), section, "must be a table".to_owned()),
        None => {}
    }
    match problems.into_vec() {
        problems if problems.is_empty() => Ok(()),
        problems => Err(ConfigError::Invalid { file: name.to_owned(), problems }),
    }
}

/// Reports servers of exemptions that are no nodes: later they may be gone, but now it is a mistake.
fn refuse_unknown_servers(settings: &str, name: &str, shared: &SharedConfig) -> Result<(), ConfigError> {
    let table = parsed(settings, name)?;
    let exempt = table.get("protection").and_then(|protection| protection.get("exempt")?.as_array());
    let servers = exempt.into_iter().flatten().filter_map(|entry| entry.get("served_by")?.as_array());
    let mut names = servers.flatten().filter_map(Value::as_str);
    match names.find(|name| !shared.nodes.iter().any(|node| node.name.as_str() == *name)) {
        Some(unknown) => {
            Err(ConfigError::Cluster(format!("protection.exempt: there is no node \"{unknown}\"").into()))
        }
        None => Ok(()),
    }
}

fn parsed(text: &str, name: &str) -> Result<Table, ConfigError> {
    text.parse().map_err(|error: toml::de::Error| {
        let problems = Problems::new(text);
        problems.add(error.span().unwrap_or(0..0), "", error.message().replace('\n', "; "));
        ConfigError::Invalid { file: name.to_owned(), problems: problems.into_vec() }
    })
}

fn text(value: impl ToString) -> Value {
    Value::String(value.to_string())
}

fn table_of<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Table(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn texts<T: ToString>(values: impl IntoIterator<Item = T>) -> Value {
    values.into_iter().map(text).collect::<Vec<_>>().into()
}

fn node_value(node: &Node) -> Value {
    let mut entries = Table::new();
    entries.insert("name".to_owned(), text(&node.name));
    entries.insert("addresses".to_owned(), texts(&node.addresses));
    if !node.inside.is_empty() {
        let inside = node.inside.iter().map(|(listed, own)| (listed.to_string(), text(own)));
        entries.insert("inside".to_owned(), Value::Table(inside.collect()));
    }
    let keys = [("public_key", &node.public_key), ("previous_public_key", &node.previous_public_key)];
    let keys = keys.into_iter().filter_map(|(name, key)| Some((name.to_owned(), text(key.as_ref()?))));
    entries.extend(keys);
    entries.extend(node.auth.map(|method| ("auth".to_owned(), text(method))));
    entries.extend(node.expects_secret.then(|| ("expects".to_owned(), text(AuthMethod::Secret))));
    entries.into()
}

fn floating(floating: &Floating) -> Value {
    table_of([
        ("name", text(&floating.name)),
        ("addresses", texts(&floating.addresses)),
        ("nodes", texts(&floating.nodes)),
    ])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::PpkSource;
    use crate::identity::{KeyKind, PrivateKey};
    use crate::types::Inside;

    fn shared(settings: &str) -> SharedConfig {
        let node = |at: u8| Node {
            name: format!("n{at}").parse().unwrap(),
            addresses: vec![[10, 0, 0, at].into()],
            inside: Inside::default(),
            public_key: Some(PrivateKey::from_seed(&[at; 32]).unwrap().public().clone()),
            previous_public_key: None,
            auth: None,
            expects_secret: false,
        };
        SharedConfig {
            cluster: "prod".to_owned(),
            settings: settings.to_owned(),
            nodes: [1, 2].map(node).into(),
            floating: Vec::new(),
            blocked: vec![[10, 0, 0, 9].into()],
            withheld: Vec::new(),
        }
    }

    const TWO_NODES: &str = "cluster = \"demo\"\n[[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n\
        [[nodes]]\nname = \"b\"\naddresses = [\"10.0.0.2\"]\n";

    fn of_node(local: &str, shared: &SharedConfig) -> Result<Config, String> {
        let config = shared.of_node(local, "file", &"n1".parse().unwrap(), Path::new("cluster/ike.key"));
        config.map_err(|error| error.to_string())
    }

    #[test]
    fn what_the_host_says_and_what_the_cluster_says_come_together() {
        let settings = "[keying]\nrekey_after = \"2h\"\n[protection]\nmode = \"prefer\"\n";
        let config = of_node("run_dir = \"/r\"\nstate_dir = \"/s \\\"q\\\"\"\n", &shared(settings)).unwrap();
        assert_eq!((&*config.cluster, config.node.as_ref().unwrap().as_str()), ("prod", "n1"));
        assert_eq!(config.auth.private_key, Path::new("/s \"q\"/cluster/ike.key"));
        assert_eq!(
            (config.auth.method, &config.auth.accept),
            (AuthMethod::PublicKey, &vec![AuthMethod::PublicKey])
        );
        assert_eq!(
            (config.keying.rekey_after.as_secs(), config.protection.mode),
            (7200, super::super::Mode::Prefer)
        );
        assert_eq!(
            config.blocked_pairs(&config.nodes[0]),
            [crate::types::Pair::new([10, 0, 0, 1].into(), [10, 0, 0, 9].into()).unwrap()]
        );
        assert!(!config.protection.allow_peer_disable, "a node does not open pairs of others");
        assert_eq!(config.nodes, shared("").nodes);
        let open = of_node("", &shared("[protection]\nallow_peer_disable = true\n")).unwrap();
        assert!(open.protection.allow_peer_disable && open.state_dir == Path::new(STATE_DIR));
    }

    #[test]
    fn a_host_that_has_not_joined_is_proven_by_the_secret_as_long_as_the_member_has_it() {
        let mut shared = shared("");
        shared.nodes[1] = Node {
            public_key: None,
            auth: Some(AuthMethod::Secret),
            expects_secret: true,
            ..shared.nodes[1].clone()
        };
        let with = of_node("[secret]\nfile = \"/k\"\n", &shared).unwrap();
        assert_eq!((with.nodes.clone(), with.secret.file.as_path()), (shared.nodes.clone(), Path::new("/k")));
        assert!(with.uses(AuthMethod::Secret) && with.protection.withheld.is_empty());
        let without = of_node("", &shared).unwrap();
        assert_eq!(without.nodes, &shared.nodes[..1]);
        assert!(!without.uses(AuthMethod::Secret));
        assert_eq!(without.protection.withheld, shared.nodes[1].addresses, "what was sealed stays so");
        assert!(shared.check_settings("[esp]\nkey_bits = 128\n", "").is_ok());
    }

    #[test]
    fn a_host_says_itself_who_unwraps_its_secret() {
        let kms = "[secret]\nwrapped_file = \"/w\"\n[kms]\nprovider = \"aws\"\nkey = \"k\"\n";
        let local = format!("{kms}[ppk]\nid = \"one\"\nwrapped = true\n");
        let config = of_node(&local, &shared("")).unwrap();
        let (keys, _) = config.ppks_between(&config.nodes[0], &config.nodes[1]).unwrap();
        assert_eq!((&keys[0].source, config.kms.is_some()), (&PpkSource::Wrapped, true));
        for part in [own_part(&config), as_file(&config), local_part(&local, None)] {
            assert!(
                part.contains("wrapped_file") && part.contains("[kms]") && part.contains("wrapped = true")
            );
        }
        let error = of_node(kms, &shared("")).unwrap_err().to_string();
        assert!(error.contains("need it as a PPK"), "members prove themselves with their keys: {error}");
        let slow =
            shared("").check_settings("[keying]\nrekey_after = \"3h\"\n", &local).unwrap_err().to_string();
        assert!(slow.contains("2 times keying.rekey_after (3h)"), "{slow}");
        let mended = shared("[keying]\nrekey_after = \"3h\"\n");
        let local = format!("state_dir = \"/s\"\n{local}");
        assert!(mended.check_settings("[keying]\nrekey_after = \"1h\"\n", &local).is_ok());
    }

    const ID: &str = "0000000000000000000000000000000000000000000000000000000000000001";

    fn wrapped(table: &str, provider: &str, key: &str) -> String {
        format!(
            "[secret.{table}]\nprovider = \"{provider}\"\nkey = \"{key}\"\nsecret_id = \"{ID}\"\nblob = \"AAAA\"\n"
        )
    }

    fn in_force(provider: &str) -> String {
        let wrapped = wrapped("wrapped", provider, "k");
        format!(
            "[kms]\nprovider = \"aws\"\nkey = \"k2\"\ncheck_every = \"1m\"\n[ppk]\nid = \"one\"\n{wrapped}"
        )
    }

    #[test]
    fn what_the_cluster_has_wrapped_is_unwrapped_by_who_the_host_says() {
        let config =
            of_node("[kms]\nprogram = \"/p\"\nsocket = \"/s\"\n", &shared(&in_force("exec"))).unwrap();
        let kms = config.kms.clone().unwrap();
        // The key that is to wrap the next one has nothing to do with this one.
        assert_eq!((&*kms.provider, &*kms.key, kms.check_every.as_secs()), ("exec", "k", 60));
        assert_eq!((kms.program.to_str(), kms.socket.to_str()), (Some("/p"), Some("/s")));
        let (keys, required) = config.ppks_between(&config.nodes[0], &config.nodes[1]).unwrap();
        assert_eq!((&keys[0].source, &*keys[0].id, required), (&PpkSource::Wrapped, "one", true));
        assert!(config.secret.wrapped.is_some() && config.files_for_proofs().len() == 1);
        // What is kept of it says the same, and the host says what it has said.
        let again = Config::parse(config.text(), "last").unwrap();
        assert_eq!(
            (again.kms, again.secret, again.ppk),
            (config.kms.clone(), config.secret.clone(), config.ppk.clone())
        );
        let own: Table = own_part(&config).parse().unwrap();
        assert_eq!(own.to_string(), "[kms]\nprogram = \"/p\"\nsocket = \"/s\"\n");
        assert!(of_node(&own.to_string(), &shared(&in_force("exec"))).is_ok());
        assert!(shared("").check_settings(&in_force("exec"), &own_part(&config)).is_ok());
        let file = as_file(&config);
        let file_says = |what: &str| assert!(file.contains(what), "{what}: {file}");
        ["program = \"/p\"", "blob = ", "[ppk]", "[kms]"].into_iter().for_each(file_says);
        let file = Config::parse(&file, "file").unwrap();
        assert_eq!((file.kms, file.secret.wrapped), (config.kms, config.secret.wrapped));
    }

    #[test]
    fn a_host_that_says_nothing_has_the_helper_where_helpers_are() {
        let program =
            |provider: &str| of_node("", &shared(&in_force(provider))).unwrap().kms.unwrap().program;
        assert_eq!(program("exec"), Path::new("/usr/local/libexec/hostseal/kms-exec"));
        assert_eq!(program("aws"), Path::new("/usr/libexec/hostseal/kms-aws"));
        // A program stands for the provider "exec" alone.
        let other = of_node("[kms]\nprogram = \"/p\"\n", &shared(&in_force("vault"))).unwrap();
        assert_eq!(other.kms.unwrap().program, Path::new("/usr/libexec/hostseal/kms-vault"));
    }

    #[test]
    fn what_is_offered_is_tried_and_nothing_rests_on_it() {
        let next = wrapped("next", "exec", "k3");
        let config = of_node("[kms]\nprogram = \"/p\"\n", &shared(&next)).unwrap();
        let offered = config.offered.clone().unwrap();
        assert_eq!((&*offered.rules.key, offered.rules.program.to_str()), ("k3", Some("/p")));
        assert!(config.kms.is_none() && !config.has_ppks() && config.secret.wrapped.is_none());
        assert_eq!(config.config_id(), of_node("", &shared("")).unwrap().config_id());
        assert_eq!(own_part(&config).parse::<Table>().unwrap().to_string(), "[kms]\nprogram = \"/p\"\n");
        assert!(!as_file(&config).contains("next"));
        let both = of_node("", &shared(&format!("{}{next}", in_force("aws")))).unwrap();
        assert_eq!((both.kms.unwrap().key.as_str(), both.offered.unwrap().wrapped.key.as_str()), ("k", "k3"));
        // A host that says all of it itself goes on with that.
        let local = "[secret]\nwrapped_file = \"/w\"\n[kms]\nprovider = \"vault\"\nkey = \"own\"\n[ppk]\nid = \"p\"\nwrapped = true\n";
        let config = of_node(local, &shared(&next)).unwrap();
        assert_eq!((config.kms.as_ref().unwrap().key.as_str(), config.offered.is_some()), ("own", true));
        assert!(own_part(&config).contains("wrapped_file") && !own_part(&config).contains("next"));
    }

    #[test]
    fn what_the_host_and_the_cluster_say_both_is_named() {
        let local = "[kms]\nprogram = \"/p\"\nkey = \"k\"\n[ppk]\nid = \"one\"\n[secret]\nfile = \"/k\"\n";
        let refused = |local: &str| of_node(local, &shared(&in_force("exec"))).unwrap_err();
        let error = refused(local);
        assert!(
            error.contains("file:3:1: kms.key: the secret of the cluster \"prod\" is wrapped"),
            "{error}"
        );
        assert!(refused("[ppk]\nid = \"one\"\nfile = \"/k\"\n").contains("ppk.id: "));
        assert!(refused("[secret]\nfile = \"/k\"\n").contains("secret.file: "));
        let nodes = "[[ppk.nodes]]\nname = \"n2\"\nid = \"two\"\nfile = \"/two\"\n";
        let config = of_node(nodes, &shared(&in_force("exec"))).unwrap();
        assert!(own_part(&config).contains("[[ppk.nodes]]") && !own_part(&config).contains("\"one\""));
        let inline = wrapped("wrapped", "exec", "k");
        assert!(of_node(&inline, &shared("")).unwrap_err().contains("name a file here"));
        let by_file = format!("{TWO_NODES}{}", wrapped("next", "exec", "k"));
        assert!(Config::parse(&by_file, "file").unwrap_err().to_string().contains("clusters with a roster"));
        let by_file = format!("{TWO_NODES}[helper]\nprogram = \"/p\"\n");
        assert!(Config::parse(&by_file, "file").unwrap_err().to_string().contains("have joined a cluster"));
    }

    #[test]
    fn a_roster_has_nobody_run_a_program_and_a_key_is_good_before_it_wraps() {
        let check =
            |settings: &str| shared("").check_settings(settings, "").map_err(|error| error.to_string());
        assert!(check("[kms]\nkey = \"k\"\n").is_ok() && check("[kms]\nprovider = \"vault\"\n").is_ok());
        assert!(
            of_node("", &shared("[kms]\nkey = \"k\"\n")).unwrap().kms.is_none(),
            "nothing is wrapped yet"
        );
        for (wrong, words) in [
            ("[kms]\nprogram = \"/p\"\n", "kms.program: is no setting of a cluster"),
            ("[kms]\nsocket = \"/p\"\n", "kms.socket: is no setting of a cluster"),
            ("[secret]\nfile = \"/p\"\n", "secret.file: is no setting of a cluster"),
            ("[ppk]\nfile = \"/p\"\n", "ppk.file: is no setting of a cluster"),
            ("[kms]\nkey = \"a b\"\n", "kms.key"),
            ("[kms]\nkey = \"k\"\ncheck_every = \"x\"\n", "kms.check_every"),
            ("[kms]\nmax_offline = \"1h\"\n", "2 times keying.rekey_after"),
            ("[secret]\nwrapped = 7\n", "secret.wrapped: must be a table"),
            ("secret = 7\n", "must be a table"),
        ] {
            let error = check(wrong).unwrap_err();
            assert!(error.contains(words), "{wrong}: {error}");
        }
        let without_id = in_force("aws").replace("id = \"one\"\n", "");
        assert!(check(&without_id).unwrap_err().contains("ppk.id: is missing"));
        let no_blob = in_force("aws").replace("blob = \"AAAA\"\n", "blob = \"A:\"\n");
        assert!(check(&no_blob).unwrap_err().contains("must be base64"));
        let long = in_force("aws").replace("key = \"k\"", &format!("key = \"{}\"", "k".repeat(513)));
        assert!(
            check(&long).unwrap_err().contains("512 characters at most"),
            "two of them fit into an entry"
        );
        let long = in_force("aws").replace("blob = \"AAAA\"", &format!("blob = \"{}\"", "A".repeat(1025)));
        assert!(check(&long).unwrap_err().contains("must be base64, 1024"));
    }

    #[test]
    fn a_host_says_itself_which_ppks_it_has() {
        let local = "[ppk]\nid = \"one\"\nfile = \"/k\"\n[[ppk.nodes]]\nname = \"n2\"\nrequired = false\n\
            [[ppk.nodes]]\nname = \"gone\"\nid = \"of-gone\"\nfile = \"/g\"\n";
        let config = of_node(local, &shared("")).unwrap();
        let (keys, required) = config.ppks_between(&config.nodes[0], &config.nodes[1]).unwrap();
        assert_eq!((keys[0].id.as_str(), keys.len(), required), ("one", 1, false));
        let files: Vec<String> =
            config.files_for_proofs().iter().map(|file| file.display().to_string()).collect();
        assert!(files.contains(&"/k".to_owned()) && !files.contains(&"/g".to_owned()), "{files:?}");
        assert!(own_part(&config).contains("[ppk]") && as_file(&config).contains("[ppk]"));
        let of_gone =
            of_node("[[ppk.nodes]]\nname = \"gone\"\nid = \"g\"\nfile = \"/g\"\n", &shared("")).unwrap();
        assert!(!of_gone.has_ppks(), "who is taken out leaves a file that is good");
        // An end of what is optional stays in the file when the last node for which it was is gone.
        let end = "[ppk]\nid = \"one\"\nfile = \"/k\"\noptional_until = \"2027-01-31\"\n\
            [[ppk.nodes]]\nname = \"gone\"\nrequired = false\n";
        assert_eq!(of_node(end, &shared("")).unwrap().ppks_optional_until(), None);
        let here = end.replace("gone", "n2");
        assert!(of_node(&here, &shared("")).unwrap().ppks_optional_until().is_some());
        let refused = shared("").check_settings("[ppk]\nfile = \"/k\"\n", "").unwrap_err().to_string();
        assert!(refused.contains("is no setting of a cluster"), "{refused}");
    }

    #[test]
    fn a_host_says_itself_where_the_roster_is_kept_too() {
        let local = "[cluster]\nstore = \"etcd\"\nendpoints = [\"https://10.0.0.7:2379\", \"https://[fd00::7]:2379\"]\n\
            key = \"/k\"\n";
        let store = of_node(local, &shared("")).unwrap().store.unwrap();
        assert_eq!(store.endpoints, ["https://10.0.0.7:2379", "https://[fd00::7]:2379"]);
        assert_eq!((&*store.prefix, store.key.to_str()), ("/hostseal/", Some("/k")));
        // What is kept of it says the same.
        let again = Config::parse(of_node(local, &shared("")).unwrap().text(), "last").unwrap();
        assert_eq!(again.store, Some(store.clone()));
        let own = own_part(&of_node(local, &shared("")).unwrap());
        assert_eq!(of_node(&own, &shared("")).unwrap().store, Some(store));
        assert!(shared("").check_settings("[esp]\nkey_bits = 128\n", &own).is_ok());
        assert_eq!(of_node("", &shared("")).unwrap().store, None);

        let wrong = "\n[cluster]\nstore = \"zookeeper\"\nendpoints = [\"http://a:1\"]\nprefix = \"x\"\nuser = \"x\"\n";
        let error = of_node(wrong, &shared("")).unwrap_err();
        for (place, what) in [
            ("3:9", "cluster.store"),
            ("4:14", "cluster.endpoints[0]"),
            ("5:10", "cluster.prefix"),
            ("6:1", "cluster.user"),
        ] {
            assert!(error.contains(&format!("file:{place}: {what}: ")), "{what}: {error}");
        }
        let error = of_node("[cluster]\nstore = \"etcd\"\n", &shared("")).unwrap_err();
        assert!(error.contains("cluster.endpoints: is missing"), "{error}");
        assert!(of_node("cluster = \"prod\"\n", &shared("")).unwrap_err().contains("member of the cluster"));
        // Neither the settings of a cluster nor the file of a host without one say it.
        assert!(
            shared("").check_settings(local, "").unwrap_err().to_string().contains("no setting of a cluster")
        );
        let by_file = format!("{}\n[store]\nstore = \"etcd\"\nendpoints = [\"https://a:1\"]\n", TWO_NODES);
        assert!(Config::parse(&by_file, "file").unwrap_err().to_string().contains("have joined a cluster"));
    }

    #[test]
    fn what_only_names_nodes_that_are_gone_is_left_out() {
        let settings = "[protection]\nblocked = [\"10.0.0.2\", \"10.0.0.8\"]\n\
            exempt = [\"tcp/22\", { port = \"tcp/80\", served_by = [\"n2\", \"x\"] }, { port = \"tcp/81\", served_by = [\"x\"] }]\n";
        let mut shared = shared(settings);
        shared.withheld = vec![[10, 0, 0, 7].into()];
        let config = of_node("[secret]\nfile = \"/x\"\n", &shared).unwrap();
        assert_eq!(config.protection.exempt.len(), 2);
        assert_eq!(config.protection.blocked, [[10, 0, 0, 8].into(), IpAddr::from([10, 0, 0, 9])]);
        assert_eq!(config.protection.withheld, shared.withheld);
        assert!(
            shared.check_settings(settings, "").unwrap_err().to_string().contains("there is no node \"x\"")
        );
    }

    #[test]
    fn a_file_that_says_what_the_cluster_says_is_refused_with_its_lines() {
        let error = of_node("run_dir = \"/r\"\n[[nodes]]\nname = \"x\"\n[keying]\nport = 1\n", &shared(""))
            .unwrap_err();
        assert!(error.contains("file:2:3: nodes: ") && error.contains("file:4:2: keying: "), "{error}");
        assert!(error.contains("member of the cluster \"prod\"") && !error.contains("run_dir:"), "{error}");
        assert!(of_node("run_dir = [", &shared("")).unwrap_err().contains("file:1:"));
        assert!(of_node("run_dir = 7", &shared("")).unwrap_err().contains("run_dir"));
    }

    #[test]
    fn a_file_is_what_stays_and_what_the_cluster_says() {
        let file = "cluster = \"x\"\nrun_dir = \"/r\"\n[secret]\nprevious_file = \"/p\"\n[esp]\nkey_bits = 128\n\
            [[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n";
        assert_eq!(settings_part(file), "[esp]\nkey_bits = 128\n");
        assert_eq!(local_part(file, None), "run_dir = \"/r\"\n");
        let secret = Config::parse(file, "file").unwrap().secret;
        let with = local_part(file, Some(&secret));
        assert!(
            with.contains("file = \"/etc/hostseal/secret\"") && with.contains("previous_file = \"/p\""),
            "{with}"
        );
        assert!(of_node(&with, &shared(&settings_part(file))).is_ok());
    }

    #[test]
    fn what_a_member_goes_by_is_a_file_for_all() {
        let mut shared = shared("[esp]\nkey_bits = 128\n");
        shared.nodes.push(Node {
            name: "n3".parse().unwrap(),
            addresses: vec![[10, 0, 0, 3].into()],
            public_key: None,
            auth: Some(AuthMethod::Secret),
            expects_secret: true,
            ..shared.nodes[0].clone()
        });
        shared.withheld = vec![[10, 0, 0, 8].into()];
        let of = |node: &str, shared: &SharedConfig| {
            let local = "run_dir = \"/r\"\n[secret]\nfile = \"/k\"\n";
            shared.of_node(local, "file", &node.parse().unwrap(), Path::new("cluster/ike.key")).unwrap()
        };
        let text = as_file(&of("n1", &shared));
        assert_eq!(text, as_file(&of("n2", &shared)), "on all hosts");
        let (member, file) = (of("n1", &shared), Config::parse(&text, "file").unwrap());
        assert_eq!((&file.nodes, &file.esp, &file.keying), (&member.nodes, &member.esp, &member.keying));
        assert_eq!(file.protection.blocked, member.protection.blocked);
        assert!(!file.protection.allow_peer_disable && file.protection.withheld.is_empty());
        assert_eq!((file.node.as_ref(), &*file.run_dir), (None, Path::new("/run/hostseal")));
        assert_eq!(file.auth.private_key, Path::new(super::super::PRIVATE_KEY));
        shared.nodes.pop();
        let text = as_file(&of("n1", &shared));
        assert!(!text.contains("secret") && !text.contains("floating"), "{text}");
    }

    #[test]
    fn a_file_that_lists_nodes_is_told_from_one_that_does_not() {
        for yes in ["[[nodes]]\nname = \"a\"\n", "nodes = []\n", "broken = [[[\n[[nodes]]\n"] {
            assert!(lists_nodes(yes), "{yes}");
        }
        for no in ["", "state_dir = \"/x\"\n# [[nodes]]\n", "[metrics]\n", "broken = [[[\n"] {
            assert!(!lists_nodes(no), "{no}");
        }
    }

    #[test]
    fn settings_that_no_host_could_go_by_are_refused() {
        let check =
            |settings: &str| shared("").check_settings(settings, "").map_err(|error| error.to_string());
        assert!(check("[esp]\nkey_bits = 128\n").is_ok() && check("").is_ok());
        assert!(check("cluster = \"x\"\n").unwrap_err().contains("no setting of a cluster"));
        assert!(check("[esp]\nkey_bits = 127\n").unwrap_err().contains("127"));
        assert!(check("[keying]\nmethod = \"derived\"\n").unwrap_err().contains("secret"));
        assert!(check("[keying]\nport = 501\n").unwrap_err().contains("cannot be changed"));
        assert!(check("[esp\n").unwrap_err().contains("the settings:1:"));
    }

    proptest! {
        #[test]
        fn whatever_the_directories_are_called_they_come_back(name in "[^\\x00-\\x1f\\x7f]{1,40}") {
            let local = toml::to_string(&Table::from_iter([("state_dir".to_owned(), text(format!("/{name}")))])).unwrap();
            let config = of_node(&local, &shared("")).unwrap();
            prop_assert_eq!(config.state_dir.to_str(), Some(&*format!("/{name}")));
        }
    }

    #[test]
    fn keys_of_other_kinds_are_written_as_they_are_read() {
        let mut shared = shared("");
        let pem = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
        shared.nodes[1].public_key = Some(PrivateKey::from_pem(&pem).unwrap().public().clone());
        assert_eq!(of_node("", &shared).unwrap().nodes, shared.nodes);
    }
}
