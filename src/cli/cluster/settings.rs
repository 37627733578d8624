//! `hostseal settings` and `hostseal settings set`: `[keying]`, `[esp]` and `[protection]` for all nodes.

use std::path::Path;

use toml::{Table, Value};

use super::member::{OwnMember, say};
use crate::cli::args::{Invocation, SetSettingsArgs, SettingsArgs, SettingsCommand};
use crate::cli::exit::{CommandError, Exit};
use crate::cli::term::{print, print_json, tell};
use crate::config::{Config, as_file};
use crate::control::{ClusterReply, ClusterRequest, NodePlan, SettingsOrder};
use crate::observe::MemberPlan;
use crate::store::config_file;
use crate::types::units::{counted, human_duration};

pub(in crate::cli) fn settings(invocation: &Invocation, args: &SettingsArgs) -> Result<Exit, CommandError> {
    let member = OwnMember::of(invocation)?;
    if let Some(SettingsCommand::Set(args)) = &args.command {
        return set(&member, args);
    }
    if args.export {
        return export(&member);
    }
    let PresentSettings { toml: text, on_trial, .. } = present(&member)?;
    if on_trial {
        tell("these are on trial: `hostseal confirm --cluster` keeps them");
    }
    match args.json {
        true => print_json(&parsed(&text)?)?,
        false if text.is_empty() => print("# every setting has its default\n")?,
        false => print(&text)?,
    };
    Ok(Exit::Done)
}

/// Prints the file by which the hosts of the cluster could go on without it.
fn export(member: &OwnMember) -> Result<Exit, CommandError> {
    if !member.is_one() {
        return Err(CommandError::new(
            Exit::Failed,
            "this host belongs to no cluster, so its file is all there is",
        ));
    }
    let Config { cluster, .. } = &member.config;
    print(&format!(
        "# The cluster {cluster} as a file, the same for all of its hosts. Each goes on by it after `hostseal leave --to-file \
         FILE`.\n{}",
        as_file(&member.config)
    ))?;
    Ok(Exit::Done)
}

fn set(member: &OwnMember, args: &SetSettingsArgs) -> Result<Exit, CommandError> {
    let wrong = |message| CommandError::new(Exit::Usage, message);
    let (toml, after) = match wanted(&args.what).map_err(wrong)? {
        Wanted::File(file) => {
            let text = config_file::read(file)?;
            let said = text.parse::<Table>().map_err(|error| wrong(no_toml(file, &text, &error)))?;
            let PresentSettings { toml: before, on_trial, entry } = present(member)?;
            if !args.other_secret {
                keeps_secret(&parsed(&before)?, &said).map_err(wrong)?;
            }
            // It replaces those on trial, too.
            (text, (!on_trial).then_some(entry))
        }
        Wanted::Changes(changes) => {
            let PresentSettings { toml: before, on_trial, entry } = present(member)?;
            if on_trial && args.try_for.is_none() && !args.dry_run {
                return Err(CommandError::new(
                    Exit::Failed,
                    "settings are on trial, and one more would make all of them last: confirm them first (`hostseal confirm \
                     --cluster`), wait until they have gone back, or give all settings in a file",
                ));
            }
            let before = parsed(&before)?;
            let after = merged(before.clone(), &changes).map_err(wrong)?;
            if before == after {
                return say(args.order.json, "nothing changes: the settings are that already", &[]);
            }
            (after.to_string(), Some(entry))
        }
    };
    if args.dry_run {
        return preview(member, toml, args.order.json);
    }
    let done = match args.try_for {
        None => "the cluster has new settings: each node takes them as it hears of them".to_owned(),
        Some(time) => format!(
            "the cluster has new settings on trial: each node goes back in {}, unless `hostseal confirm --cluster` comes \
             before",
            human_duration(time)
        ),
    };
    let try_s = args.try_for.map(|time| time.as_secs());
    let order = SettingsOrder { toml, try_s, after, other_secret: args.other_secret };
    say(args.order.json, &done, &member.order(ClusterRequest::SetSettings(order), args.order.alone)?)
}

/// Shows what these settings would change on each node.
fn preview(member: &OwnMember, text: String, json: bool) -> Result<Exit, CommandError> {
    let plans = member.ask(ClusterRequest::Preview(text), |reply| match reply {
        ClusterReply::Plans(plans) => Some(plans),
        _ => None,
    })?;
    match json {
        true => print_json(&plans)?,
        false => print(&plans.iter().map(plan_lines).collect::<String>())?,
    };
    let fits = |plan: &NodePlan| plan.plan.as_ref().is_some_and(|plan| plan.refused.is_none());
    Ok(if plans.iter().all(fits) { Exit::Done } else { Exit::Degraded })
}

fn plan_lines(NodePlan { node, plan }: &NodePlan) -> String {
    let Some(MemberPlan { refused, settings, kernel, more }) = plan else {
        return format!("{node}: it does not answer; it takes new settings when it comes\n");
    };
    if let Some(words) = refused {
        return format!("{node}: it cannot go by them: {words}\n");
    }
    if settings.is_empty() && kernel.is_empty() {
        return format!("{node}: nothing would change\n");
    }
    let mut text = format!("{node}:\n");
    settings.iter().chain(kernel).for_each(|line| text.push_str(&format!("  {line}\n")));
    if *more > 0 {
        text.push_str(&format!(
            "  … and {}: `hostseal plan` there shows all once it has them\n",
            counted(*more as usize, "line")
        ));
    }
    text
}

/// That settings out of a file leave the wrapped secret as it is: one that was kept from before another key wrapped it
/// would bring the old key back.
fn keeps_secret(before: &Table, after: &Table) -> Result<(), String> {
    if ["secret", "ppk"].into_iter().all(|section| before.get(section) == after.get(section)) {
        return Ok(());
    }
    Err("the file says something else of the wrapped secret than the settings do now: take [ppk] and [secret] from what \
         `hostseal settings` shows. To end the use of the secret, say so: `hostseal settings set secret.wrapped=`. To bring \
         another one, which members could not try before, say --other-secret"
        .to_owned())
}

/// What is wrong with a file, and where. What it says is not repeated: it may be another file than was meant.
fn no_toml(file: &Path, text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start);
    let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
    format!("{}:{line}: {}", file.display(), error.message().replace('\n', "; "))
}

/// The settings of the cluster.
pub(super) struct PresentSettings {
    /// As TOML.
    pub(super) toml: String,
    /// They go back by themselves.
    pub(super) on_trial: bool,
    /// The entry that says so: [`SettingsOrder::after`].
    pub(super) entry: String,
}

/// Those of now.
pub(super) fn present(member: &OwnMember) -> Result<PresentSettings, CommandError> {
    member.ask(ClusterRequest::Settings, |reply| match reply {
        ClusterReply::Settings { toml, on_trial, entry } => Some(PresentSettings { toml, on_trial, entry }),
        _ => None,
    })
}

fn parsed(text: &str) -> Result<Table, CommandError> {
    text.parse()
        .map_err(|error| CommandError::new(Exit::Failed, format!("the settings of the cluster: {error}")))
}

/// What the command line wants.
#[derive(Debug, PartialEq)]
enum Wanted<'a> {
    /// What this file says, and nothing else.
    File(&'a Path),
    /// Some other values.
    Changes(Vec<SettingChange>),
}

/// A setting that gets another value, or its default where that is `None`.
#[derive(Debug, Clone, PartialEq)]
struct SettingChange {
    section: String,
    key: String,
    value: Option<Value>,
}

/// What the words of the command line want: one file, or values.
fn wanted(words: &[String]) -> Result<Wanted<'_>, String> {
    let assignments: Vec<Option<(&str, &str)>> = words.iter().map(|word| assignment(word)).collect();
    match (words, assignments.iter().all(Option::is_some)) {
        ([file], false) => Ok(Wanted::File(Path::new(file))),
        (_, true) => assignments
            .into_iter()
            .flatten()
            .map(|(key, value)| change(key, value))
            .collect::<Result<_, _>>()
            .map(Wanted::Changes),
        (_, false) => Err("give one file, or settings such as esp.key_bits=128, but not both".to_owned()),
    }
}

/// The two sides of `KEY=VALUE`; a path is none, as it has other characters on the left.
fn assignment(word: &str) -> Option<(&str, &str)> {
    let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    word.split_once('=').filter(|(key, _)| key.chars().all(is_key))
}

fn change(key: &str, value: &str) -> Result<SettingChange, String> {
    let (section, name) = key
        .split_once('.')
        .filter(|(section, name)| !section.is_empty() && !name.is_empty() && !name.contains('.'))
        .ok_or_else(|| format!("\"{key}\" is not a setting: a section and a key, such as protection.mode"))?;
    let value = match value.trim() {
        "" => None,
        text => Some(typed(text)),
    };
    Ok(SettingChange { section: section.to_owned(), key: name.to_owned(), value })
}

/// A value as TOML has it; what is none is text, so that nobody has to quote quotes.
fn typed(text: &str) -> Value {
    let table: Option<Table> = format!("value = {text}").parse().ok();
    let one = table.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
    one.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// The settings with these changes.
fn merged(mut settings: Table, changes: &[SettingChange]) -> Result<Table, String> {
    for SettingChange { section, key, value } in changes {
        let table = settings.entry(section).or_insert_with(|| Value::Table(Table::new()));
        let table = table.as_table_mut().ok_or_else(|| format!("{section} is not a section"))?;
        match value {
            Some(value) => table.insert(key.clone(), value.clone()),
            None => table.remove(key),
        };
        if table.is_empty() {
            settings.remove(section);
        }
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change_of(word: &str) -> SettingChange {
        let (key, value) = assignment(word).unwrap();
        change(key, value).unwrap()
    }

    fn merge(text: &str, words: &[&str]) -> String {
        let changes: Vec<SettingChange> = words.iter().map(|word| change_of(word)).collect();
        merged(text.parse().unwrap(), &changes).unwrap().to_string()
    }

    #[test]
    fn what_would_change_on_each_node() {
        let lines = |plan: Option<MemberPlan>| plan_lines(&NodePlan { node: "b".parse().unwrap(), plan });
        assert!(lines(None).starts_with("b: it does not answer"));
        assert_eq!(lines(Some(MemberPlan::default())), "b: nothing would change\n");
        assert_eq!(lines(Some(MemberPlan::refused("no\nsecret"))), "b: it cannot go by them: nosecret\n");
        let one = |text: &str| vec![text.to_owned()];
        let plan =
            MemberPlan { more: 2, ..MemberPlan::of(one("esp.replay_window: 64, was 4096"), one("~ SA")) };
        let shown = lines(Some(plan));
        assert!(
            shown.starts_with("b:\n  esp.replay_window: 64, was 4096\n  ~ SA\n  … and 2 lines: "),
            "{shown}"
        );
    }

    #[test]
    fn values_are_toml_or_text() {
        for (word, toml) in [
            ("esp.key_bits=128", "[esp]\nkey_bits = 128\n"),
            ("keying.rekey_after=30m", "[keying]\nrekey_after = \"30m\"\n"),
            ("keying.rekey_after=\"30m\"", "[keying]\nrekey_after = \"30m\"\n"),
            ("protection.mode=prefer", "[protection]\nmode = \"prefer\"\n"),
            ("protection.allow_peer_disable=true", "[protection]\nallow_peer_disable = true\n"),
            ("protection.exempt=[\"tcp/22\"]", "[protection]\nexempt = [\"tcp/22\"]\n"),
            ("protection.networks=10.0.0.0/16", "[protection]\nnetworks = \"10.0.0.0/16\"\n"),
            ("a.b=1\nc = 2", "[a]\nb = \"1\\nc = 2\"\n"),
        ] {
            let merged: Table = merge("", &[word]).parse().unwrap();
            assert_eq!(merged, toml.parse::<Table>().unwrap(), "{word}");
        }
    }

    #[test]
    fn a_setting_without_a_value_has_its_default() {
        let before = "[esp]\nkey_bits = 128\n[protection]\nmode = \"prefer\"\nexempt = [\"tcp/22\"]\n";
        assert_eq!(
            merge(before, &["esp.key_bits=", "protection.mode="]),
            "[protection]\nexempt = [\"tcp/22\"]\n"
        );
        assert_eq!(merge(before, &["keying.port="]), before.parse::<Table>().unwrap().to_string());
    }

    #[test]
    fn a_file_or_settings_and_nothing_in_between() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        for file in ["s.toml", "/etc/x=y.toml", "./a.b=c", "=", "esp"] {
            let words = words(&[file]);
            let expected = if file == "=" { None } else { Some(Wanted::File(Path::new(file))) };
            assert_eq!(wanted(&words).ok(), expected, "{file}");
        }
        for wrong in [
            &["s.toml", "esp.key_bits=128"][..],
            &["a", "b"],
            &["mode=prefer"],
            &["a.b.c=1"],
            &[".b=1"],
            &["a.=1"],
        ] {
            assert!(wanted(&words(wrong)).is_err(), "{wrong:?}");
        }
        assert_eq!(
            merged("esp = 1".parse().unwrap(), &[change_of("esp.key_bits=1")]).unwrap_err(),
            "esp is not a section"
        );
    }

    #[test]
    fn a_file_from_before_brings_no_other_secret_and_takes_none_away() {
        let of = |text: &str| text.parse::<Table>().unwrap();
        let secret = |key: &str| format!("[secret.wrapped]\nkey = \"{key}\"\n");
        let keeps = |before: &str, after: &str| keeps_secret(&of(before), &of(after)).is_ok();
        assert!(keeps("", "[esp]\nkey_bits = 128\n"));
        assert!(keeps(&secret("k2"), &format!("{}[kms]\nkey = \"k3\"\n", secret("k2"))));
        assert!(!keeps(&secret("k2"), &secret("k1")), "from before another key has wrapped it");
        assert!(!keeps(&secret("k2"), "") && !keeps("", &secret("k1")));
        let both = format!("{}[secret.next]\nkey = \"k2\"\n", secret("k1"));
        assert!(!keeps(&secret("k1"), &both) && !keeps(&both, &secret("k1")), "an offer from before");
        let optional = |text: String| format!("{text}[ppk]\nrequired = false\n");
        assert!(!keeps(&secret("k1"), &optional(secret("k1"))), "from the middle of a move");
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Value::Integer),
            any::<bool>().prop_map(Value::Boolean),
            "\\PC{0,12}".prop_map(Value::String),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
                prop::collection::btree_map("[a-z_]{1,6}", inner, 0..3)
                    .prop_map(|map| Value::Table(map.into_iter().collect())),
            ]
        })
    }

    fn settings_of() -> impl Strategy<Value = Table> {
        let section = prop::collection::btree_map("[a-e]", value(), 1..5)
            .prop_map(|map| Value::Table(map.into_iter().collect()));
        prop::collection::btree_map("[a-e]", section, 0..4).prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        /// Whatever is on the command line: what comes out is TOML, the setting has the value, and nothing else differs.
        #[test]
        fn a_change_changes_that_setting_alone(
            before in settings_of(),
            section in "[a-e]",
            key in "[a-e]",
            text in "\\PC{0,20}",
        ) {
            let word = format!("{section}.{key}={text}");
            let change = change_of(&word);
            let value = change.value.clone();
            let after: Table = merged(before.clone(), &[change]).unwrap().to_string().parse().unwrap();
            let get = |table: &Table| table.get(&section).and_then(|table| table.get(&key)).cloned();
            prop_assert_eq!(get(&after), value);
            let rest = |mut table: Table| {
                if let Some(Value::Table(inner)) = table.get_mut(&section) {
                    inner.remove(&key);
                    if inner.is_empty() {
                        table.remove(&section);
                    }
                }
                table
            };
            prop_assert_eq!(rest(after), rest(before));
        }
    }
}
