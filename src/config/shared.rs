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
    let (has_id, has_end) = (has("ppk", "id"), has("ppk", "optional_until"));
    let is_optional = table.get("ppk").and_then(|ppk| ppk.get("required")) == Some(&Value::Boolean(false));
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
    // Where nothing is wrapped, this may have gone with what was.
    if is_optional && !has_end {
        put("ppk", "optional_until", text("2999-12-31"));
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
mod tests;
