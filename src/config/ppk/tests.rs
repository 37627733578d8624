use crate::config::proofs::tests::{parse, text};
use crate::config::{Config, ConfigError, ConfigProblem};
use crate::types::UnixTime;

fn problems(head: &str) -> Vec<String> {
    match Config::parse(&text(head, "", ""), "f.toml") {
        Err(ConfigError::Invalid { problems, .. }) => problems.iter().map(ConfigProblem::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

/// What the pairs of a and b have: the ids of their PPKs, and whether one is required.
fn between(config: &Config) -> Option<(Vec<&str>, bool)> {
    let nodes = &config.nodes;
    let there = config.ppks_between(&nodes[0], &nodes[1]);
    assert_eq!(there, config.ppks_between(&nodes[1], &nodes[0]), "both ends see the same");
    there.map(|(keys, required)| (keys.iter().map(|key| key.id.as_str()).collect(), required))
}

const ONE: &str = "[ppk]\nid = \"one\"\nfile = \"/k/one\"\n";

#[test]
fn hosts_have_a_ppk_where_the_file_says_so() {
    assert_eq!(between(&parse("", "", "")), None);
    assert_eq!(between(&parse(ONE, "", "")), Some((vec!["one"], true)));
    let optional = format!("{ONE}required = false\nprevious_id = \"zero\"\nprevious_file = \"/k/zero\"\n");
    let config = parse(&optional, "", "");
    assert_eq!(between(&config), Some((vec!["one", "zero"], false)));
    let files: Vec<_> = config.files_for_proofs().iter().map(|file| file.display().to_string()).collect();
    assert_eq!(files, ["/etc/hostseal/secret", "/k/one", "/k/zero"]);
}

#[test]
fn a_node_may_have_its_own() {
    let own = "[[ppk.nodes]]\nname = \"b\"\nid = \"of-b\"\nfile = \"/k/b\"\n";
    assert_eq!(between(&parse(own, "", "")), Some((vec!["of-b"], true)));
    assert_eq!(between(&parse(&format!("{ONE}{own}"), "", "")), Some((vec!["of-b"], true)));
    assert_eq!(
        between(&parse(&format!("{ONE}{own}required = false\n"), "", "")),
        Some((vec!["of-b"], false))
    );
    let both = format!("{own}[[ppk.nodes]]\nname = \"a\"\nid = \"of-a\"\nfile = \"/k/a\"\n");
    assert_eq!(between(&parse(&both, "", "")), Some((vec!["of-a"], true)), "the first name");
    let lenient = format!("{ONE}[[ppk.nodes]]\nname = \"a\"\nrequired = false\n");
    assert_eq!(between(&parse(&lenient, "", "")), Some((vec!["one"], false)));
    let mixed = format!("{lenient}[[ppk.nodes]]\nname = \"b\"\nrequired = true\n");
    assert_eq!(between(&parse(&mixed, "", "")), Some((vec!["one"], false)), "who cannot is not made to");
    let strict = format!("{ONE}required = false\n[[ppk.nodes]]\nname = \"b\"\nrequired = true\n");
    assert_eq!(between(&parse(&strict, "", "")), Some((vec!["one"], true)));
}

/// Whoever has the key of one of the nodes of a floating address speaks from there.
#[test]
fn nodes_of_a_floating_address_have_the_same_ppks() {
    const VIP: &str = "[[floating]]\nname = \"vip\"\naddresses = [\"10.99.0.9\"]\nnodes = [\"a\", \"b\"]\n";
    let of = |node: &str, what: &str| format!("[[ppk.nodes]]\nname = \"{node}\"\n{what}");
    let (own, lenient) = ("id = \"own\"\nfile = \"/k/own\"\n", "required = false\n");
    for head in [of("a", own), of("b", lenient), of("a", lenient) + &of("b", "required = true\n")] {
        let problems = problems(&format!("{ONE}{head}{VIP}"));
        let words = "have the floating addresses \"vip\", so their PPKs must not differ";
        assert!(
            problems.iter().any(|it| it.contains("ppk.nodes[0].name") && it.contains(words)),
            "{problems:?}"
        );
    }
    let same = of("a", lenient) + &of("b", lenient);
    assert_eq!(between(&parse(&format!("{ONE}{same}{VIP}"), "", "")), Some((vec!["one"], false)));
}

#[test]
fn what_is_wrong_is_told_by_its_name() {
    for (head, key, words) in [
        ("[ppk]\n".to_owned(), "ppk.id", "is missing"),
        ("[ppk]\nid = \"one\"\n".to_owned(), "ppk.id", "needs `file`"),
        ("[ppk]\nfile = \"/k\"\n".to_owned(), "ppk.file", "needs `id`"),
        ("[ppk]\nid = \"a b\"\nfile = \"/k\"\n".to_owned(), "ppk.id", "is not a name"),
        ("[ppk]\nid = \"\"\nfile = \"/k\"\n".to_owned(), "ppk.id", "is empty"),
        (format!("{ONE}previous_id = \"zero\"\n"), "ppk.previous_id", "needs `previous_file`"),
        (
            format!("{ONE}previous_id = \"one\"\nprevious_file = \"/k\"\n"),
            "ppk.previous_id",
            "another PPK is called",
        ),
        (
            "[ppk]\nprevious_id = \"zero\"\nprevious_file = \"/k\"\n".to_owned(),
            "ppk.previous_id",
            "needs `id` and `file`",
        ),
        (format!("{ONE}keep = 1\n"), "ppk.keep", "unknown key"),
        (format!("{ONE}[[ppk.nodes]]\nname = \"c\"\n"), "ppk.nodes[0].name", "there is no node \"c\""),
        ("[[ppk.nodes]]\nname = \"a\"\n".to_owned(), "ppk.nodes[0].name", "there is no PPK for \"a\""),
        (
            format!("{ONE}[[ppk.nodes]]\nname = \"a\"\n[[ppk.nodes]]\nname = \"a\"\n"),
            "ppk.nodes[1].name",
            "listed twice",
        ),
        (format!("{ONE}[keying]\nmethod = \"derived\"\n"), "ppk.id", "derived from the secret have no PPK"),
        (
            format!("{ONE}[keying]\naccept = [\"ike\", \"derived\"]\n"),
            "ppk.id",
            "derived from the secret have no PPK",
        ),
        (
            "[secret]\nfile = \"/k\"\n[ppk]\nid = \"one\"\nfile = \"/k\"\n".to_owned(),
            "ppk.file",
            "is the secret of the hosts",
        ),
        (
            format!(
                "[secret]\nprevious_file = \"/s\"\n{ONE}previous_id = \"zero\"\nprevious_file = \"/k/zero\"\n"
            ),
            "ppk.previous_id",
            "finish replacing the secret first",
        ),
    ] {
        let found = problems(&head);
        assert!(found.iter().any(|it| it.contains(key) && it.contains(words)), "{head}: {found:?}");
    }
}

#[test]
fn the_config_id_says_what_hosts_must_agree_on() {
    let id = |head: &str| parse(head, "", "").config_id();
    assert_ne!(id(ONE), id(""));
    assert_ne!(id(ONE), id(&format!("{ONE}required = false\n")));
    assert_ne!(id(ONE), id(&format!("{ONE}[[ppk.nodes]]\nname = \"a\"\nrequired = false\n")));
    assert_eq!(id(ONE), id(&ONE.replace("/k/one", "/elsewhere")), "where it lies is a host's own matter");
    let both = format!("{ONE}previous_id = \"zero\"\nprevious_file = \"/k/zero\"\n");
    assert_eq!(id(ONE), id(&both), "hosts have the same file a moment later");
}

#[test]
fn changes_are_told() {
    let changes = |from: &str, to: &str| parse(from, "", "").changes(&parse(to, "", ""));
    assert_eq!(changes("", ONE), ["ppk.id: one in /k/one, was none"]);
    let other = "[ppk]\nid = \"two\"\nfile = \"/k/two\"\nprevious_id = \"one\"\nprevious_file = \"/k/one\"\n\
                 required = false\n[[ppk.nodes]]\nname = \"b\"\nrequired = true\n";
    assert_eq!(
        changes(ONE, other),
        [
            "ppk.id: two in /k/two, was one in /k/one",
            "ppk.previous_id: one in /k/one, was none",
            "ppk.required: false, was true",
            "ppk.nodes: with b, required",
        ]
    );
}

#[test]
fn a_time_without_a_ppk_has_an_end() {
    let optional = format!("{ONE}required = false\noptional_until = \"2027-01-31\"\n");
    let config = || parse(&optional, "", "");
    let end = UnixTime(1_801_353_600);
    assert_eq!(config().ppks_optional_until(), Some(end));
    assert_eq!(
        config().ppk.in_words(),
        ["one, optional until 2027-01-31T00:00:00Z: hosts that do not have it go without"]
    );
    assert_eq!(between(&config().at(UnixTime(end.0 - 1))), Some((vec!["one"], false)));
    let ended = config().at(end);
    assert_eq!((between(&ended), ended.ppks_optional_until()), (Some((vec!["one"], true)), None));
    assert_eq!(ended.config_id(), config().config_id(), "hosts whose clocks differ have the same file");
    // Whoever makes it of something else than the file, and whichever clock is set back.
    assert_eq!(between(&config().after_end(ended.ppks_required_since())), Some((vec!["one"], true)));
    let later = parse(&optional.replace("2027-01-31", "2027-02-01T12:00:00Z"), "", "");
    assert_eq!(between(&later.after_end(Some(end))), Some((vec!["one"], false)), "the operator wants it");
    let for_ever = parse(&format!("{ONE}required = false\n"), "", "");
    assert_eq!(between(&for_ever.after_end(Some(end))), Some((vec!["one"], false)));
    let node =
        format!("{ONE}optional_until = \"2027-01-31\"\n[[ppk.nodes]]\nname = \"b\"\nrequired = false\n");
    assert_eq!(between(&parse(&node, "", "").at(end)), Some((vec!["one"], true)));
    let of = |lines: &str| problems(&format!("{ONE}{lines}\n")).join("\n");
    // The last exception may have gone, and the line stays: it says nothing then.
    let needless = parse(&format!("{ONE}optional_until = \"2027-01-31\"\n"), "", "");
    assert_eq!(needless.ppks_optional_until(), None);
    assert_eq!(needless.config_id(), parse(ONE, "", "").config_id());
    assert_eq!(between(&needless), Some((vec!["one"], true)));
    for wrong in ["2027-01-31T12:00:00", "2027-01-31T12:00:00[Europe/Berlin]", "20270131"] {
        let said = of(&format!("required = false\noptional_until = \"{wrong}\""));
        assert!(said.contains("is neither a day"), "{wrong}: {said}");
    }
    assert!(of("required = false\noptional_until = \"soon\"").contains("\"soon\" is neither a day"));
    let unquoted = parse(&optional.replace("\"2027-01-31\"", "2027-01-31"), "", "");
    assert_eq!(unquoted.ppks_optional_until(), Some(end), "TOML has days");
}
