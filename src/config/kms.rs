//! `[kms]`: the key that wraps the secret, who keeps it, and for how long a host goes on without asking for it.

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::read::{absolute, duration, path};
use super::values::{Placed, Problems, Section, text};
use super::wrapped;
use super::{Keying, Node, OfferedSecret, PpkRules, SecretFiles, SharedSecret, WrappedSecret};
use crate::identity::AuthMethod;
use crate::types::units::human_duration;

/// The provider whose program the operator names.
const EXEC: &str = "exec";
/// Where helpers lie: those of the others, and whatever else root puts there. Their names begin with [`HELPER`].
pub const HELPERS: [&str; 2] = ["/usr/libexec/hostseal", "/usr/local/libexec/hostseal"];
/// How the name of a helper begins.
pub const HELPER: &str = "kms-";
/// What is wrong where nobody names the program of that one.
const NO_PROGRAM: &str = "is missing: the provider \"exec\" runs a program that you name";
/// The default of `socket`, where systemd listens for whoever wants a program run.
const SOCKET: &str = "/run/hostseal-kms.sock";
/// The longest name of a provider, and of a key.
const PROVIDER_MAX: usize = 32;
const KEY_MAX: usize = 2048;
/// The default of `check_every`.
const CHECK_EVERY: Duration = Duration::from_secs(5 * 60);
/// The default of `max_offline`.
const MAX_OFFLINE: Duration = Duration::from_secs(4 * 60 * 60);
/// The default of `restore_window`.
const RESTORE_WINDOW: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long a host goes on whose key is not to be used any more; `check_every` where that is less.
const GRACE: Duration = Duration::from_secs(60);
/// How many times in a lease the key is asked for, at least: one that cannot be had is noticed, and asked for again.
const CHECKS_LEAST: u32 = 4;
/// How many times in a lease keys are replaced, at least: each rests on a part of it that is left.
const REKEYS_LEAST: u32 = 2;

/// The key that wraps the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsRules {
    /// Who keeps it.
    pub provider: String,
    /// The program that speaks to him.
    pub program: PathBuf,
    /// What he calls it.
    pub key: String,
    /// How often it is used to unwrap the secret.
    pub check_every: Duration,
    /// How long a host goes on after it was last used: the lease.
    pub max_offline: Duration,
    /// How long a host that was cut asks for it.
    pub restore_window: Duration,
    /// Where the program is run, apart from the agent.
    pub socket: PathBuf,
}

impl KmsRules {
    /// How long a host goes on whose key is not to be used any more.
    pub fn grace(&self) -> Duration {
        GRACE.min(self.check_every)
    }

    /// Whether whoever names the provider has to name the program, too.
    pub fn needs_program(&self) -> bool {
        self.provider == EXEC
    }

    /// After what time nothing is encrypted any more once the key is revoked, where its KMS answers at once.
    pub fn bound(&self) -> Duration {
        self.check_every + self.grace()
    }

    /// What of it all hosts must agree on: a host that goes on for longer keeps what others have lost.
    pub(super) fn canonical(&self) -> String {
        let Self { provider, key, check_every, max_offline, .. } = self;
        format!("kms {provider} {key:?} {check_every:?} {max_offline:?}\n")
    }

    /// All of it, for people.
    pub(super) fn in_words(&self) -> String {
        let Self { provider, program, key, check_every, max_offline, restore_window, socket } = self;
        let [check, offline, restore] =
            [check_every, max_offline, restore_window].map(|it| human_duration(*it));
        format!(
            "{key} at {provider} ({}, {}), asked for every {check}, without it for {offline} at most, asked for again for {restore}",
            program.display(),
            socket.display()
        )
    }
}

impl KmsRules {
    /// A key that nothing but this is said of, and `before` the rest, where there is one.
    ///
    /// # Errors
    /// It cannot be one, in words.
    pub fn of(
        provider: &str,
        program: Option<PathBuf>,
        key: &str,
        before: Option<&KmsRules>,
    ) -> Result<Self, String> {
        let wrong = |name: &str, words: String| format!("kms.{name} {words}");
        let provider = provider_of(provider).map_err(|words| wrong("provider", words))?;
        let key = key_of(key).map_err(|words| wrong("key", words))?;
        let program = match program.filter(|_| provider == EXEC) {
            Some(program) => absolute(program).map_err(|words| wrong("program", words))?,
            None if provider == EXEC => return Err(wrong("program", NO_PROGRAM.to_owned())),
            None => program_of(&provider),
        };
        Ok(Self {
            provider,
            program,
            key,
            check_every: CHECK_EVERY,
            max_offline: MAX_OFFLINE,
            restore_window: RESTORE_WINDOW,
            socket: before.map_or_else(|| SOCKET.into(), |kms| kms.socket.clone()),
        })
    }
}

/// What the file of a member says of the helper: its cluster names the provider and the key, and no program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HelperPlace {
    /// The program that speaks for the provider "exec".
    pub program: Option<PathBuf>,
    /// Where helpers are run.
    pub socket: Option<PathBuf>,
}

impl HelperPlace {
    /// How this host asks this provider for this key.
    ///
    /// # Errors
    /// They cannot be one, in words.
    pub fn rules(&self, provider: &str, key: &str) -> Result<KmsRules, String> {
        let mut rules = KmsRules::of(provider, Some(self.program_of(provider)), key, None)?;
        rules.socket = self.socket();
        Ok(rules)
    }

    /// How this host tries what its cluster offers.
    pub(super) fn offered(
        &self,
        Placed { value, key, span }: Placed<SharedSecret>,
        problems: &Problems<'_>,
    ) -> Option<OfferedSecret> {
        let SharedSecret { provider, wrapped } = value;
        match self.rules(&provider, &wrapped.key) {
            Ok(rules) => Some(OfferedSecret { rules, wrapped }),
            Err(message) => {
                problems.add(span, &key, message);
                None
            }
        }
    }

    /// A member whose file names no program has it where operators put helpers.
    fn program_of(&self, provider: &str) -> PathBuf {
        match &self.program {
            Some(program) if provider == EXEC => program.clone(),
            None if provider == EXEC => format!("{}/{HELPER}{EXEC}", HELPERS[1]).into(),
            _ => program_of(provider),
        }
    }

    fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| SOCKET.into())
    }
}

/// What the file of a member says of the helper; `None` in other files.
pub(super) fn helper(mut section: Section<'_>) -> Option<HelperPlace> {
    if section.is_absent() {
        return None;
    }
    let mut said = |key| section.optional(key, path).map(|placed| placed.value);
    let helper = HelperPlace { program: said("program"), socket: said("socket") };
    section.finish();
    Some(helper)
}

/// What the section says; `None` where it says nothing. In a cluster, what is said of the `helper` comes from elsewhere.
pub(super) fn read(
    mut section: Section<'_>,
    helper: Option<&HelperPlace>,
    problems: &Problems<'_>,
) -> Option<KmsRules> {
    if section.is_absent() {
        return None;
    }
    let provider = section.required("provider", provider).value;
    let program = section.optional("program", path);
    if provider == EXEC && program.is_none() && helper.is_none() {
        section.require("program", NO_PROGRAM);
    } else if provider != EXEC {
        section.refuse("program", "is for the provider \"exec\" alone");
    }
    let elsewhere = || helper.map_or_else(|| program_of(&provider), |helper| helper.program_of(&provider));
    let program = program.map_or_else(elsewhere, |placed| placed.value);
    let key = section.required("key", key).value;
    let check = section.optional("check_every", duration);
    let offline = section.optional("max_offline", duration);
    let restore_window = section.value("restore_window", RESTORE_WINDOW, duration);
    let elsewhere = helper.map_or_else(|| SOCKET.into(), HelperPlace::socket);
    let socket = section.value("socket", elsewhere, path);
    section.finish();

    let [check_every, max_offline] = [(&check, CHECK_EVERY), (&offline, MAX_OFFLINE)]
        .map(|(placed, default)| placed.as_ref().map_or(default, |placed| placed.value));
    if check_every.saturating_mul(CHECKS_LEAST) > max_offline
        && let Some(wrong) = check.or(offline)
    {
        let [check, offline] = [check_every, max_offline].map(human_duration);
        let message = format!(
            "max_offline ({offline}) must be {CHECKS_LEAST} times check_every ({check}) at least: a KMS that is away for a \
             moment must cut nobody"
        );
        problems.add(wrong.span, &wrong.key, message);
    }
    Some(KmsRules { provider, program, key, check_every, max_offline, restore_window, socket })
}

/// What `[secret]` says beside it, and what else has to fit.
pub(super) struct KmsSurroundings<'c> {
    pub(super) wrapped: Option<&'c Placed<()>>,
    /// The wrapped secret itself, where the text holds it.
    pub(super) inline: Option<&'c WrappedSecret>,
    pub(super) kms: Option<&'c KmsRules>,
    pub(super) ppk: &'c PpkRules,
    pub(super) accept: &'c [AuthMethod],
    pub(super) keying: &'c Keying,
    pub(super) nodes: &'c [Node],
}

impl KmsSurroundings<'_> {
    /// All ways in which any host proves itself.
    fn methods(&self) -> impl Iterator<Item = AuthMethod> {
        let of_nodes = self.nodes.iter().filter_map(|node| node.auth);
        let expected = self.nodes.iter().filter(|node| node.expects_secret).map(|_| AuthMethod::Secret);
        self.accept.iter().copied().chain(of_nodes).chain(expected)
    }
}

/// Checks that the rest of the file leaves no way around the key.
pub(super) fn check(beside: &KmsSurroundings<'_>, root: &Section<'_>, problems: &Problems<'_>) {
    let KmsSurroundings { wrapped, kms, ppk, keying, .. } = beside;
    let (wrapped, kms) = match (wrapped, kms) {
        (None, None) if ppk.is_wrapped() => {
            return root
                .refuse("ppk", "has `wrapped`, which needs [kms] and secret.wrapped_file: who unwraps what");
        }
        (None, None) => return,
        (Some(wrapped), None) => {
            return problems.add(
                wrapped.span.clone(),
                &wrapped.key,
                "needs [kms]: who can unwrap it".to_owned(),
            );
        }
        (None, Some(_)) => {
            return root
                .refuse("kms", "is there, and secret.wrapped_file is not: `hostseal secret wrap` makes one");
        }
        (Some(wrapped), Some(kms)) => (wrapped, kms),
    };
    if let Some(inline) = beside.inline.filter(|inline| inline.key != kms.key) {
        let message = format!("was wrapped with the key {}, and kms.key is {}", inline.key, kms.key);
        problems.add(wrapped.span.clone(), &wrapped.key, message);
    }
    let [with_secret, without] =
        [true, false].map(|by_secret| beside.methods().any(|it| (it == AuthMethod::Secret) == by_secret));
    // Whoever has another proof must need the key, too: as a PPK.
    let wrong = match (with_secret, without, ppk.is_wrapped()) {
        (true, false, false) | (false, true, true) => None,
        (true, _, true) => Some(
            "cannot be a PPK of hosts that prove themselves with the secret: it is in their keys anyway. Leave `wrapped` \
             out of [ppk]",
        ),
        (true, true, false) => Some(
            "is of use only if no host can do without it: set auth.method and auth.accept to \"secret\" alone, and leave \
             auth out of [[nodes]]",
        ),
        (false, _, _) => Some(
            "is of use only if no host can do without it: hosts that prove themselves with keys or certificates need it as \
             a PPK. Say `id` and `wrapped = true` in [ppk]",
        ),
    };
    if let Some(message) = wrong {
        problems.add(wrapped.span.clone(), &wrapped.key, message.to_owned());
    }
    if keying.rekey_after.saturating_mul(REKEYS_LEAST) > kms.max_offline {
        let [rekey, offline] = [keying.rekey_after, kms.max_offline].map(human_duration);
        let message = format!(
            "kms.max_offline ({offline}) must be {REKEYS_LEAST} times keying.rekey_after ({rekey}) at least, as no keys \
             outlive the lease: set a shorter keying.rekey_after"
        );
        root.refuse("kms", &message);
    }
}

/// What `[secret]` says.
pub(super) struct SecretSection {
    pub(super) files: SecretFiles,
    /// Where the wrapped one is named.
    pub(super) wrapped: Option<Placed<()>>,
    /// The one that a cluster offers.
    pub(super) next: Option<Placed<SharedSecret>>,
}

/// What the section says.
pub(super) fn secret_files(mut section: Section<'_>, problems: &Problems<'_>) -> SecretSection {
    let file = section.optional("file", path);
    let previous = section.optional("previous_file", path);
    let wrapped = section.optional("wrapped_file", path);
    let inline = wrapped::read(section.section("wrapped"));
    let next = wrapped::read_shared(section.section("next"));
    section.finish();
    if wrapped.is_some() || inline.is_some() {
        for plain in file.iter().chain(&previous) {
            let message = "lies in the clear beside the wrapped secret, so revoking the key would revoke nothing: delete the \
                           file, and this line";
            problems.add(plain.span.clone(), &plain.key, message.to_owned());
        }
    }
    if let Some(both) = wrapped.as_ref().filter(|_| inline.is_some()) {
        let message = "stands beside secret.wrapped: leave out the one or the other".to_owned();
        problems.add(both.span.clone(), &both.key, message);
    }
    let files = SecretFiles {
        file: file.map_or_else(|| PathBuf::from("/etc/hostseal/secret"), |placed| placed.value),
        previous_file: previous.map(|placed| placed.value),
        wrapped_file: wrapped.as_ref().map(|placed| placed.value.clone()),
        wrapped: inline.as_ref().map(|placed| placed.value.clone()),
    };
    let wrapped = wrapped.map(|placed| placed.with(())).or(inline.map(|placed| placed.with(())));
    SecretSection { files, wrapped, next }
}

pub(super) fn provider(value: &DeValue<'_>) -> Result<String, String> {
    provider_of(text(value)?)
}

fn provider_of(name: &str) -> Result<String, String> {
    let is_good = !name.is_empty()
        && name.len() <= PROVIDER_MAX
        && name.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit());
    is_good.then(|| name.to_owned()).ok_or_else(|| {
        format!("must be a name such as \"exec\" or \"vault\", in small letters, not \"{name}\"")
    })
}

pub(super) fn key(value: &DeValue<'_>) -> Result<String, String> {
    key_of(text(value)?)
}

fn key_of(key: &str) -> Result<String, String> {
    let is_good = !key.is_empty() && key.len() <= KEY_MAX && key.chars().all(|c| c.is_ascii_graphic());
    is_good
        .then(|| key.to_owned())
        .ok_or_else(|| format!("must have {KEY_MAX} plain characters at most, as the KMS calls the key"))
}

/// The helper of a provider whose program nobody names.
fn program_of(provider: &str) -> PathBuf {
    format!("{}/{HELPER}{provider}", HELPERS[0]).into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::KmsRules;
    use crate::config::proofs::tests::{key as listed, parse};
    use crate::config::{Config, ConfigError, PpkSource};

    const NODES: &str = "[[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n\
                         [[nodes]]\nname = \"b\"\naddresses = [\"10.0.0.2\"]\n";
    const SECRET: &str = "[secret]\nwrapped_file = \"/etc/hostseal/secret.wrapped\"\n";

    fn config(rest: &str) -> Result<Config, ConfigError> {
        Config::parse(&format!("cluster = \"demo\"\n{rest}\n{NODES}"), "f")
    }

    fn error(rest: &str) -> String {
        config(rest).unwrap_err().to_string()
    }

    #[test]
    fn little_has_to_be_said() {
        let config = config(&format!("{SECRET}[kms]\nprovider = \"aws\"\nkey = \"arn:aws:kms:x\"")).unwrap();
        let kms = config.kms.clone().unwrap();
        assert_eq!((&*kms.provider, &*kms.key), ("aws", "arn:aws:kms:x"));
        assert_eq!(kms.program, Path::new("/usr/libexec/hostseal/kms-aws"));
        assert_eq!(kms.socket, Path::new("/run/hostseal-kms.sock"));
        assert_eq!([kms.check_every, kms.max_offline].map(|it| it.as_secs()), [300, 4 * 3600]);
        assert_eq!(config.secret.wrapped_file.as_deref(), Some(Path::new("/etc/hostseal/secret.wrapped")));
        assert_eq!(config.files_for_proofs(), [Path::new("/etc/hostseal/secret.wrapped")]);
    }

    #[test]
    fn hosts_without_it_are_as_they_were() {
        let [without, with] =
            ["", &format!("{SECRET}[kms]\nprovider = \"aws\"\nkey = \"k\"")].map(|it| config(it).unwrap());
        assert_eq!((&without.kms, &without.secret.wrapped_file), (&None, &None));
        assert_ne!(without.config_id(), with.config_id(), "who has it and who does not are told apart");
        let changes = without.changes(&with);
        assert_eq!(changes[0], "secret.wrapped_file: /etc/hostseal/secret.wrapped, was none");
        assert!(changes.iter().any(|line| line.starts_with("kms: ")), "{changes:?}");
    }

    #[test]
    fn there_is_no_way_around_the_key() {
        let kms = "[kms]\nprovider = \"exec\"\nprogram = \"/p\"\nkey = \"k\"\n";
        for (file, place) in [("file", "3:8"), ("previous_file", "3:17")] {
            let plain = SECRET.replace('\n', &format!("\n{file} = \"/k\"\n"));
            let plain =
                plain.split_inclusive('\n').take(2).collect::<String>() + "wrapped_file = \"/w\"\n" + kms;
            assert!(
                error(&plain).contains(&format!("f:{place}: secret.{file}: lies in the clear")),
                "{}",
                error(&plain)
            );
        }
        assert!(error(SECRET).contains("secret.wrapped_file: needs [kms]"));
        assert!(error(kms).contains("kms: is there, and secret.wrapped_file is not"));
        let by_key = format!("[auth]\nmethod = \"public_key\"\n{SECRET}{kms}");
        assert!(error(&by_key).contains("need it as a PPK"));
        let both =
            format!("[auth]\nmethod = \"secret\"\naccept = [\"secret\", \"public_key\"]\n{SECRET}{kms}");
        assert!(error(&both).contains("set auth.method and auth.accept to \"secret\" alone"));
        let ppk = "[ppk]\nid = \"k\"\nwrapped = true\n";
        assert!(error(&format!("{both}{ppk}")).contains("Leave `wrapped` out of [ppk]"));
        assert!(error(ppk).contains("ppk: has `wrapped`, which needs [kms]"));
        let nameless = "[ppk]\nwrapped = true\n[[ppk.nodes]]\nname = \"b\"\nid = \"of-b\"\nfile = \"/b\"\n";
        assert!(error(nameless).contains("ppk.id: is missing"));
        let plain = format!("{by_key}{ppk}previous_id = \"j\"\nprevious_file = \"/j\"\n");
        assert!(error(&plain).contains("ppk.previous_file: lies in the clear beside ppk.wrapped"));
    }

    #[test]
    fn hosts_with_keys_need_it_as_a_ppk() {
        let head = format!(
            "[auth]\nmethod = \"public_key\"\n{SECRET}[kms]\nprovider = \"aws\"\nkey = \"k\"\n\
             [ppk]\nid = \"one\"\nwrapped = true\n"
        );
        let config = parse(&head, &listed(0), &listed(1));
        let [a, b] = &config.nodes[..] else { panic!() };
        let (keys, required) = config.ppks_between(a, b).unwrap();
        assert_eq!((&*keys[0].id, &keys[0].source, required), ("one", &PpkSource::Wrapped, true));
        assert!(config.files_for_proofs().contains(&"/etc/hostseal/secret.wrapped".into()));
        assert_eq!(
            config.ppk.in_words(),
            ["one from the wrapped secret, required: without it no keys are made"]
        );
        assert!(!config.is_outside_kms(a, b));
        assert!(error(&format!("{head}required = false\n")).contains("ppk.optional_until: is missing"));
        let of_b = format!("{head}[[ppk.nodes]]\nname = \"b\"\nid = \"of-b\"\nfile = \"/b\"\n");
        let config = parse(&of_b, &listed(0), &listed(1));
        let [a, b] = &config.nodes[..] else { panic!() };
        assert!(config.is_outside_kms(a, b));
        assert!(!config.is_outside_kms(b, a), "b is the one that may have no KMS");
    }

    #[test]
    fn no_keys_outlive_the_lease_and_a_moment_cuts_nobody() {
        let kms = format!("{SECRET}[kms]\nprovider = \"exec\"\nprogram = \"/p\"\nkey = \"k\"\n");
        assert!(error(&format!("{kms}max_offline = \"1h\"\n")).contains("2 times keying.rekey_after (1h)"));
        assert!(config(&format!("{kms}max_offline = \"1h\"\n[keying]\nrekey_after = \"30m\"\n")).is_ok());
        assert!(error(&format!("{kms}check_every = \"2h\"\n")).contains("4 times check_every (2h)"));
    }

    /// By the same rules as the file.
    #[test]
    fn a_key_that_a_command_names_is_what_the_file_would_say() {
        let of = |provider, program: Option<&str>, key, before: Option<&KmsRules>| {
            KmsRules::of(provider, program.map(Into::into), key, before)
        };
        for (provider, program) in [("aws", None), ("exec", Some("/p"))] {
            let named = program.map(|program| format!("program = \"{program}\"\n")).unwrap_or_default();
            let file = format!("{SECRET}[kms]\nprovider = \"{provider}\"\nkey = \"k\"\n{named}");
            assert_eq!(config(&file).unwrap().kms, of(provider, program, "k", None).ok());
        }
        for (wrong, words) in [
            (of("AWS", None, "k", None), "kms.provider must be a name"),
            (of("", None, "k", None), "kms.provider must be a name"),
            (of("exec", None, "k", None), "kms.program is missing"),
            (of("exec", Some("p"), "k", None), "not an absolute path"),
            (of("aws", None, "a b", None), "kms.key must have"),
            (of("aws", None, "", None), "kms.key must have"),
        ] {
            assert!(wrong.as_ref().is_err_and(|it| it.contains(words)), "{wrong:?}");
        }
        let before = KmsRules { socket: "/s".into(), ..of("aws", None, "k", None).unwrap() };
        assert_eq!(of("aws", None, "n", Some(&before)).unwrap().socket, Path::new("/s"));
    }

    #[test]
    fn programs_are_named_by_whoever_brings_them() {
        let of = |rest: &str| format!("{SECRET}[kms]\nkey = \"k\"\n{rest}");
        assert!(error(&of("provider = \"exec\"")).contains("kms.program: is missing"));
        assert!(
            error(&of("provider = \"aws\"\nprogram = \"/p\"")).contains("for the provider \"exec\" alone")
        );
        for wrong in ["../x", "AWS", "a/b"] {
            assert!(error(&of(&format!("provider = \"{wrong}\""))).contains("kms.provider: must be a name"));
        }
        assert!(error(&of("provider = \"aws\"\nkey2 = \"\"")).contains("unknown key"));
    }
}
