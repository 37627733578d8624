//! What another configuration would change, and what of it an agent at work cannot take.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::PathBuf;

use super::{
    AuthRules, Config, Esp, Floating, Keying, KmsRules, Node, OfferedSecret, PpkRules, ProtectionRules,
    SecretFiles, StoreRules, WrappedSecret,
};
use crate::identity::AuthMethod;
use crate::types::units::{human_bytes, human_duration};

impl Config {
    /// What `next` changes, one line a change, in the words of the file; empty where both mean the same.
    pub fn changes(&self, next: &Config) -> Vec<String> {
        let mut changes = Changes(Vec::new());
        let SecretFiles { file, previous_file, wrapped_file, wrapped } = &self.secret;
        changes.note("secret.file", file.display(), next.secret.file.display());
        let shown = |file: &Option<PathBuf>| file.as_ref().map(|file| file.display().to_string());
        changes.note_optional(
            "secret.previous_file",
            shown(previous_file),
            shown(&next.secret.previous_file),
        );
        changes.note_optional("secret.wrapped_file", shown(wrapped_file), shown(&next.secret.wrapped_file));
        let inline = |it: &Option<WrappedSecret>| it.as_ref().map(WrappedSecret::in_words);
        changes.note_optional("secret.wrapped", inline(wrapped), inline(&next.secret.wrapped));
        let offered = |it: &Option<OfferedSecret>| it.as_ref().map(|offered| offered.wrapped.in_words());
        changes.note_optional("secret.next", offered(&self.offered), offered(&next.offered));
        changes.note_optional(
            "kms",
            self.kms.as_ref().map(KmsRules::in_words),
            next.kms.as_ref().map(KmsRules::in_words),
        );
        changes.auth(&self.auth, &next.auth);
        changes.ppk(&self.ppk, &next.ppk);
        changes.keying(&self.keying, &next.keying);
        let Esp { proposals, replay_window, encapsulation } = &self.esp;
        changes.note("esp.proposals", proposals, &next.esp.proposals);
        changes.note("esp.replay_window", replay_window, next.esp.replay_window);
        changes.note("esp.encapsulation", encapsulation, next.esp.encapsulation);
        changes.protection(&self.protection, &next.protection);
        changes.nodes(&self.nodes, &next.nodes);
        changes.floating(&self.floating, &next.floating);
        changes.note("metrics.listen", &self.metrics.listen, &next.metrics.listen);
        changes.note("metrics.pairs", self.metrics.pairs, next.metrics.pairs);
        changes.store(self.store.as_ref(), next.store.as_ref());
        changes.0
    }

    /// What of `next` takes a new agent, and how to get there, in words; `None` where an agent that runs with
    /// this configuration can go on with `next`.
    pub fn needs_restart(&self, next: &Config) -> Option<String> {
        let restart = "stop the agent (SIGTERM, protection stays in place) and start it again";
        let differs = |key: &str, before: &dyn Display, after: &dyn Display| {
            (before.to_string() != after.to_string()).then(|| format!("{key} is {after} and was {before}"))
        };
        let ports = [
            differs("keying.port", &self.keying.port, &next.keying.port),
            differs("keying.nat_port", &self.keying.nat_port, &next.keying.nat_port),
        ];
        if let Some(words) = ports.into_iter().flatten().next() {
            return Some(format!(
                "{words}: hosts agree on keys by one port only. Write it on all hosts, then on each {restart}; \
                 the kernel goes on with its keys meanwhile"
            ));
        }
        [
            differs("cluster", &self.cluster, &next.cluster),
            differs("run_dir", &self.run_dir.display(), &next.run_dir.display()),
            differs("state_dir", &self.state_dir.display(), &next.state_dir.display()),
        ]
        .into_iter()
        .flatten()
        .next()
        .map(|words| format!("{words}: {restart}"))
    }
}

/// The lines that were found so far.
struct Changes(Vec<String>);

impl Changes {
    fn note(&mut self, key: &str, before: impl Display, after: impl Display) {
        let (before, after) = (before.to_string(), after.to_string());
        if before != after {
            self.0.push(format!("{key}: {after}, was {before}"));
        }
    }

    fn note_optional(&mut self, key: &str, before: Option<impl Display>, after: Option<impl Display>) {
        let words = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
        let [before, after] = [before.map(|it| it.to_string()), after.map(|it| it.to_string())];
        self.note(key, words(before), words(after));
    }

    fn auth(&mut self, before: &AuthRules, after: &AuthRules) {
        let AuthRules { method, accept, private_key, certificate, ca, crl } = before;
        self.note("auth.method", method, after.method);
        self.entries("auth.accept", accept, &after.accept);
        self.note("auth.private_key", private_key.display(), after.private_key.display());
        self.note("auth.certificate", certificate.display(), after.certificate.display());
        self.note("auth.ca", ca.display(), after.ca.display());
        let shown = |file: &Option<PathBuf>| file.as_ref().map(|file| file.display().to_string());
        self.note_optional("auth.crl", shown(crl), shown(&after.crl));
    }

    fn ppk(&mut self, before: &PpkRules, after: &PpkRules) {
        for ((key, before), (_, after)) in before.said().into_iter().zip(after.said()) {
            self.note(&key, before, after);
        }
        self.entries("ppk.nodes", &before.exceptions(), &after.exceptions());
    }

    fn keying(&mut self, before: &Keying, after: &Keying) {
        let Keying {
            method,
            accept,
            port: _,
            nat_port: _,
            rekey_after,
            rekey_bytes,
            rekey_packets,
            expire_after,
            proposals,
        } = before;
        self.note("keying.method", method, after.method);
        self.entries("keying.accept", accept, &after.accept);
        self.note("keying.rekey_after", human_duration(*rekey_after), human_duration(after.rekey_after));
        self.note_optional(
            "keying.rekey_bytes",
            rekey_bytes.map(human_bytes),
            after.rekey_bytes.map(human_bytes),
        );
        self.note_optional("keying.rekey_packets", *rekey_packets, after.rekey_packets);
        self.note("keying.proposals", proposals, &after.proposals);
        self.note("keying.expire_after", human_duration(*expire_after), human_duration(after.expire_after));
    }

    fn protection(&mut self, before: &ProtectionRules, after: &ProtectionRules) {
        let ProtectionRules { mode, exempt, networks, allow_peer_disable, forwarded, blocked, withheld } =
            before;
        self.note("protection.mode", mode, after.mode);
        self.entries("protection.exempt", exempt, &after.exempt);
        let list = |networks: &Option<Vec<_>>| networks.iter().flatten().copied().collect::<Vec<_>>();
        self.entries("protection.networks", &list(networks), &list(&after.networks));
        self.note("protection.allow_peer_disable", allow_peer_disable, after.allow_peer_disable);
        self.note("protection.forwarded", forwarded, after.forwarded);
        self.entries("protection.blocked", blocked, &after.blocked);
        self.entries("protection.withheld", withheld, &after.withheld);
    }

    fn store(&mut self, before: Option<&StoreRules>, after: Option<&StoreRules>) {
        let words = |rules: &StoreRules| {
            let StoreRules { endpoints, ca, certificate, key, prefix, socket } = rules;
            let files = [ca, certificate, key, socket].map(|file| file.display().to_string());
            format!("etcd at {}, below {prefix} ({})", endpoints.join(", "), files.join(", "))
        };
        self.note_optional("cluster.store", before.map(words), after.map(words));
    }

    /// Entries of a list that come and go, whatever their order.
    fn entries<T: Display>(&mut self, key: &str, before: &[T], after: &[T]) {
        let set = |list: &[T]| list.iter().map(T::to_string).collect::<BTreeSet<String>>();
        let (before, after) = (set(before), set(after));
        self.0.extend(after.difference(&before).map(|entry| format!("{key}: with {entry}")));
        self.0.extend(before.difference(&after).map(|entry| format!("{key}: without {entry}")));
    }

    fn nodes(&mut self, before: &[Node], after: &[Node]) {
        for node in after {
            match before.iter().find(|old| old.name == node.name) {
                None => self.0.push(format!("node {} comes ({})", node.name, addresses(node))),
                Some(old) => {
                    self.note(&format!("node {}", node.name), addresses(old), addresses(node));
                    let [before, after] = [old, node].map(|node| node.public_key.as_ref());
                    self.note_optional(&format!("node {}: public_key", node.name), before, after);
                    let [before, after] = [old, node].map(|node| node.previous_public_key.as_ref());
                    self.note_optional(&format!("node {}: previous_public_key", node.name), before, after);
                    self.note_optional(&format!("node {}: auth", node.name), old.auth, node.auth);
                    let [before, after] =
                        [old, node].map(|node| node.expects_secret.then_some(AuthMethod::Secret));
                    self.note_optional(&format!("node {}: expects", node.name), before, after);
                }
            }
        }
        let gone = before.iter().filter(|old| !after.iter().any(|node| node.name == old.name));
        self.0.extend(gone.map(|node| format!("node {} goes ({})", node.name, addresses(node))));
    }

    fn floating(&mut self, before: &[Floating], after: &[Floating]) {
        for entry in after {
            let (name, now) = (&entry.name, entry.in_words());
            match before.iter().find(|old| old.name == *name) {
                None => self.0.push(format!("floating {name} comes ({now})")),
                Some(old) => self.note(&format!("floating {name}"), old.in_words(), now),
            }
        }
        let gone = before.iter().filter(|old| !after.iter().any(|entry| entry.name == old.name));
        self.0.extend(gone.map(|entry| format!("floating {} goes ({})", entry.name, entry.in_words())));
    }
}

/// The addresses of a node, whatever their order in the file.
fn addresses(node: &Node) -> String {
    let addresses: BTreeSet<_> = node.addresses_in_words().into_iter().collect();
    addresses.into_iter().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "\n[[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n\
                         [[nodes]]\nname = \"b\"\naddresses = [\"10.0.0.2\", \"10.0.1.2\"]\n";

    fn config(text: &str) -> Config {
        Config::parse(text, "test").unwrap()
    }

    fn base() -> Config {
        config(&format!("cluster = \"x\"\n{NODES}"))
    }

    #[test]
    fn layout_order_and_defaults_change_nothing() {
        let other = config(
            "cluster = \"x\" # the same\n[esp]\nkey_bits = 256\n[[nodes]]\nname = \"b\"\n\
             addresses = [\"10.0.1.2\", \"10.0.0.2\"]\n[[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n",
        );
        assert_eq!(base().changes(&other), [""; 0]);
        assert_eq!(base().needs_restart(&other), None);
    }

    #[test]
    fn every_change_is_told() {
        let other = config(
            "cluster = \"x\"\n[secret]\nfile = \"/k/new\"\nprevious_file = \"/k/old\"\n\
             [keying]\nrekey_after = \"30m\"\nrekey_bytes = \"1GiB\"\nrekey_packets = 7\nexpire_after = \"2h\"\n\
             proposals = [\"aes128gcm16-prfsha256-ecp256\"]\n\
             [esp]\nkey_bits = 128\nreplay_window = 64\n\
             [protection]\nexempt = [\"tcp/22\"]\nnetworks = [\"10.0.0.0/16\"]\nallow_peer_disable = false\nforwarded = \"block\"\n\
             [[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.9\"]\n[[nodes]]\nname = \"c\"\naddresses = [\"10.0.0.3\"]\n",
        );
        assert_eq!(
            base().changes(&other),
            [
                "secret.file: /k/new, was /etc/hostseal/secret",
                "secret.previous_file: /k/old, was none",
                "keying.rekey_after: 30m, was 1h",
                "keying.rekey_bytes: 1.00 GiB, was none",
                "keying.rekey_packets: 7, was none",
                &format!("keying.proposals: aes128gcm16-prfsha256-ecp256, was {}", base().keying.proposals),
                "keying.expire_after: 2h, was 1d",
                &format!("esp.proposals: {}, was {}", other.esp.proposals, base().esp.proposals),
                "esp.replay_window: 64, was 4096",
                "protection.exempt: with tcp/22",
                "protection.networks: with 10.0.0.0/16",
                "protection.allow_peer_disable: false, was true",
                "protection.forwarded: block, was leave",
                "node a: 10.0.0.9, was 10.0.0.1",
                "node c comes (10.0.0.3)",
                "node b goes (10.0.0.2, 10.0.1.2)",
            ]
        );
        let back = other.changes(&base());
        assert!(back.contains(&"protection.exempt: without tcp/22".to_owned()), "{back:?}");
    }

    #[test]
    fn what_takes_a_new_agent_is_told_with_the_way_there() {
        for (line, key) in [
            ("cluster = \"y\"", "cluster"),
            ("cluster = \"x\"\nrun_dir = \"/tmp/r\"", "run_dir"),
            ("cluster = \"x\"\nstate_dir = \"/tmp/s\"", "state_dir"),
            ("cluster = \"x\"\nkeying.port = 501", "keying.port"),
            ("cluster = \"x\"\nkeying.nat_port = 4501", "keying.nat_port"),
        ] {
            let words = base().needs_restart(&config(&format!("{line}\n{NODES}"))).unwrap();
            assert!(words.starts_with(key) && words.contains("start it again"), "{words}");
        }
    }
}
