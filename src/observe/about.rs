//! What hosts tell each other of themselves inside IKE, and what it means where two of them differ.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::exam::ExamWord;
use crate::config::Config;
use crate::identity::Secret;
use crate::types::Exemption;
use crate::types::generation::VERSION;

/// The most octets of one.
const LENGTH_MAX: usize = 4096;
/// The longest text in one.
const TEXT_MAX: usize = 64;

/// What a host tells of itself. It comes from a member of the cluster, who may have gone bad: nothing is decided by
/// it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its version.
    pub version: String,
    /// The hash of its configuration.
    pub config_id: String,
    /// The fingerprint of its secret, where it has one.
    pub secret_id: Option<String>,
    /// The fingerprint of the secret before that, which it takes as well.
    #[serde(default)]
    pub previous_id: Option<String>,
    /// What it leaves in the clear, as its file says it; `None` where that is too much to tell.
    #[serde(default)]
    pub exempt: Option<Vec<String>>,
    /// It answers packets that ask whether they got through.
    #[serde(default)]
    pub sizes: bool,
    /// It knows how to prove that a pair is sealed.
    #[serde(default)]
    pub proves: bool,
    /// Its file does not list whom it tells this any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removes: bool,
    /// It was cut off from the key that wraps its secret, and ends its sessions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut_off: bool,
    /// It answers the questions of `doctor`.
    #[serde(default)]
    pub exams: bool,
    /// Such a question, or an answer to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exam: Option<ExamWord>,
}

impl About {
    /// What a host with that configuration, whose hash is the second, and these secrets tells.
    pub fn of((config, id): (&Config, &str), secret: Option<&Secret>, previous: Option<&Secret>) -> Self {
        let id_of = |secret: &Secret| secret.id().to_string();
        Self {
            version: VERSION.to_owned(),
            config_id: id.to_owned(),
            secret_id: secret.map(id_of),
            previous_id: previous.map(id_of),
            exempt: Some(config.protection.exempt.iter().map(told).collect()),
            sizes: true,
            proves: true,
            removes: false,
            cut_off: false,
            exams: true,
            exam: None,
        }
    }

    /// As it is told.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Plain data: writing it to memory has nothing to fail at.
        let bytes = |about: &Self| serde_json::to_vec(about).unwrap_or_default();
        let whole = bytes(self);
        if whole.len() <= LENGTH_MAX { whole } else { bytes(&Self { exempt: None, ..self.clone() }) }
    }

    /// What a peer told; `None` where it is not that, or would not look well on a terminal.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let about: Self = (bytes.len() <= LENGTH_MAX).then(|| serde_json::from_slice(bytes).ok())??;
        about.is_plain().then_some(about)
    }

    /// Whether all of it can be shown.
    fn is_plain(&self) -> bool {
        let shown = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        let ids = [&self.secret_id, &self.previous_id].into_iter().flatten();
        let texts = [&self.version, &self.config_id].into_iter().chain(ids);
        texts
            .chain(self.exempt.iter().flatten())
            .all(|text| text.len() <= TEXT_MAX && text.bytes().all(shown))
    }

    /// What `self` sends in the clear and `other` drops, as far as both say it.
    pub fn cut_by(&self, other: &About) -> Vec<String> {
        let (Some(ours), Some(theirs)) = (&self.exempt, &other.exempt) else { return Vec::new() };
        let accepted: Vec<Exemption> = theirs.iter().filter_map(|entry| entry.parse().ok()).collect();
        let known = theirs.len() == accepted.len();
        let dropped = |entry: &&String| {
            let sent = entry.parse::<Exemption>().ok().filter(|entry| known && !entry.incoming);
            sent.is_some_and(|sent| !is_covered(&sent, &accepted))
        };
        ours.iter().filter(dropped).cloned().collect()
    }

    /// Whether two hosts can prove themselves to each other with a secret; `None` where one of them has none.
    pub fn shares_secret(&self, other: &About) -> Option<bool> {
        let takes = |about: &About| [about.secret_id.clone(), about.previous_id.clone()];
        let (ours, theirs) = (takes(self), takes(other));
        let both = self.secret_id.is_some() && other.secret_id.is_some();
        both.then(|| ours.iter().flatten().any(|id| theirs.iter().flatten().any(|theirs| theirs == id)))
    }
}

/// The servers are left out: a list of nodes can be long, and hosts whose lists differ have other configurations anyway.
fn told(exemption: &Exemption) -> String {
    Exemption { served_by: None, ..exemption.clone() }.to_string()
}

/// Whether all packets of `sent` fall under one of `accepted`.
fn is_covered(sent: &Exemption, accepted: &[Exemption]) -> bool {
    let same = || accepted.iter().filter(|entry| entry.protocol == sent.protocol);
    let Some(ports) = &sent.ports else { return same().next().is_some() };
    let mut next = u32::from(*ports.start());
    let holds = |range: &RangeInclusive<u16>, port: u32| {
        (u32::from(*range.start())..=u32::from(*range.end())).contains(&port)
    };
    while next <= u32::from(*ports.end()) {
        let Some(range) = same().filter_map(|entry| entry.ports.as_ref()).find(|range| holds(range, next))
        else {
            return false;
        };
        next = u32::from(*range.end()) + 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(exempt: &[&str]) -> About {
        About {
            version: "0.1.0".to_owned(),
            config_id: "5f3a".to_owned(),
            secret_id: Some("91c2".to_owned()),
            previous_id: None,
            exempt: Some(exempt.iter().map(|entry| (*entry).to_owned()).collect()),
            sizes: true,
            proves: true,
            removes: false,
            cut_off: false,
            exams: true,
            exam: None,
        }
    }

    #[test]
    fn it_is_read_back_and_what_is_strange_is_not() {
        let said = about(&["tcp/22", "icmp"]);
        assert_eq!(About::from_bytes(&said.to_bytes()), Some(said.clone()));
        let later = r#"{"version":"9","config_id":"5","secret_id":null,"colour":"red"}"#;
        // As long as nobody is cut off, all agents say what older ones say.
        assert!(!String::from_utf8(said.to_bytes()).unwrap().contains("cut_off"));
        let last = About { cut_off: true, ..said.clone() };
        assert_eq!(About::from_bytes(&last.to_bytes()), Some(last));
        assert_eq!(About::from_bytes(later.as_bytes()).unwrap().exempt, None, "from a later version");
        assert_eq!(About::from_bytes(b""), None);
        assert_eq!(About::from_bytes(b"{}"), None);
        let colours = About { version: "\x1b[31m1".to_owned(), ..said.clone() };
        assert_eq!(About::from_bytes(&colours.to_bytes()), None, "it would paint a terminal");
        let long = About { config_id: "5".repeat(65), ..said.clone() };
        assert_eq!(About::from_bytes(&long.to_bytes()), None);
        let many: Vec<String> = (1..=1000).map(|port| format!("tcp/{port}")).collect();
        let told = About::from_bytes(&About { exempt: Some(many), ..said.clone() }.to_bytes()).unwrap();
        assert_eq!(told, About { exempt: None, ..said }, "too much to tell");
    }

    #[test]
    fn an_exemption_of_one_end_is_cut_by_the_other() {
        let cut = |ours: &[&str], theirs: &[&str]| about(ours).cut_by(&about(theirs));
        assert_eq!(cut(&["tcp/22"], &[]), ["tcp/22"]);
        assert_eq!(cut(&["tcp/22", "icmp"], &["icmp", "tcp/20-30"]), [""; 0]);
        assert_eq!(cut(&["udp/6000-6010"], &["udp/6000-6004", "udp/6005-7000"]), [""; 0]);
        assert_eq!(cut(&["udp/6000-6010"], &["udp/6000-6004", "udp/6006-7000"]), ["udp/6000-6010"]);
        assert_eq!(cut(&["tcp/65535"], &["tcp/60000-65535"]), [""; 0]);
        assert_eq!(cut(&["in:tcp/22"], &[]), [""; 0], "not sent yet");
        assert_eq!(cut(&["tcp/22"], &["in:tcp/22"]), [""; 0], "accepted already");
        assert_eq!(cut(&["tcp/22"], &["quic/1"]), [""; 0], "of a later version: nobody knows");
        let silent = About { exempt: None, ..about(&[]) };
        assert_eq!(about(&["tcp/22"]).cut_by(&silent), [""; 0]);
    }

    #[test]
    fn an_exemption_is_told_without_who_serves_it() {
        let names: Vec<String> = (10..40).map(|n| format!("node{n}")).collect();
        let nodes: String = (names.iter().enumerate())
            .map(|(n, name)| format!("[[nodes]]\nname = \"{name}\"\naddresses = [\"10.0.0.{}\"]\n", n + 1))
            .collect();
        let file = format!(
            "cluster = \"c\"\n[protection]\nexempt = [{{ port = \"tcp/22\", served_by = {names:?} }}]\n{nodes}"
        );
        let said = About::of((&Config::parse(&file, "file").unwrap(), ""), None, None);
        let heard = About::from_bytes(&said.to_bytes()).unwrap();
        assert_eq!(heard.exempt.as_deref(), Some(["tcp/22".to_owned()].as_slice()));
        assert_eq!(said.cut_by(&about(&[])), ["tcp/22"]);
        assert_eq!(said.cut_by(&heard), [""; 0]);
    }

    #[test]
    fn hosts_in_the_middle_of_a_rotation_share_a_secret() {
        let with = |secret: Option<&str>, previous: Option<&str>| {
            let text = |id: Option<&str>| id.map(str::to_owned);
            About { secret_id: text(secret), previous_id: text(previous), ..about(&[]) }
        };
        let old = with(Some("old"), None);
        assert_eq!(old.shares_secret(&old), Some(true));
        assert_eq!(old.shares_secret(&with(Some("new"), Some("old"))), Some(true));
        assert_eq!(with(Some("new"), Some("old")).shares_secret(&old), Some(true));
        assert_eq!(old.shares_secret(&with(Some("new"), None)), Some(false));
        assert_eq!(old.shares_secret(&with(None, None)), None, "it proves itself otherwise");
    }
}
