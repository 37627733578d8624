use super::*;
use crate::config::WrappedSecret;
use crate::identity::Secret;
use crate::observe::member_key::MemberKey;

fn secret(key: &str) -> SharedSecret {
    let digest = Secret::new([1; 32]).digest();
    let wrapped = WrappedSecret { key: key.to_owned(), digest, blob: "AAAA".to_owned() };
    SharedSecret { provider: "exec".to_owned(), wrapped }
}

fn row(name: &str, wrapped: Option<MemberKey>) -> MemberRow {
    MemberRow {
        name: name.parse().unwrap(),
        addresses: Vec::new(),
        admin: false,
        foreign: false,
        answers: true,
        last_heard: None,
        version: None,
        protection: None,
        local: None,
        rows: None,
        protected: None,
        under_way: None,
        waiting: None,
        roster_id: None,
        config_id: None,
        secret_id: None,
        keys: None,
        wrapped,
        clock_skew_s: None,
        unready: None,
        unready_code: None,
        reason_code: None,
        reason: None,
    }
}

fn tried(name: &str, secret: &SharedSecret, outcome: Option<Result<(), String>>) -> MemberRow {
    let offer = Some(MemberOffer::new(secret.mark().to_string(), outcome));
    row(name, Some(MemberKey { offer, ..MemberKey::default() }))
}

fn goes_by(name: &str, secret: &SharedSecret) -> MemberRow {
    row(name, Some(MemberKey { mark: Some(secret.mark().to_string()), ..MemberKey::default() }))
}

fn silent(name: &str) -> MemberRow {
    MemberRow { answers: false, reason_code: Some(MemberTrouble::NoAnswer), ..row(name, None) }
}

fn names(waits: &WrapWaits) -> (usize, Vec<&str>, Vec<&str>) {
    let behind = waits.behind.iter().map(|(name, _)| name.as_str()).collect();
    (waits.done, behind, waits.silent.iter().map(NodeName::as_str).collect())
}

#[test]
fn an_offer_waits_for_each_member_that_has_not_unwrapped_that_one() {
    let (next, older) = (secret("k2"), secret("k1"));
    let key = ClusterKey { next: Some(next.clone()), ..ClusterKey::default() };
    let foreign = MemberRow { foreign: true, ..row("swan", None) };
    let not_joined = MemberRow { reason_code: Some(MemberTrouble::NotJoined), ..silent("later") };
    let rows = [
        tried("a", &next, Some(Ok(()))),
        tried("b", &next, Some(Err("the KMS does not let this host use the key".to_owned()))),
        // What it says of another one does not count.
        tried("c", &older, Some(Ok(()))),
        tried("d", &next, None),
        row("old", None),
        silent("e"),
        foreign,
        not_joined,
    ];
    let stage = WrapStage::of(&key, &rows);
    let WrapStage::Offered(waits) = &stage else { panic!("{stage:?}") };
    assert_eq!(names(waits), (1, vec!["b", "c", "d", "old"], vec!["e"]));
    assert!(unheard(&rows).is_some_and(|words| words.starts_with("not heard of: e. ")));
    assert_eq!(unheard(&rows[..1]), None);
    assert!(!waits.are_over(true));
    let words = stage.in_words(&key).unwrap();
    assert!(
        words.contains("k2 at exec") && words.contains("unwrapped by 1 of 6 members; waiting for b: "),
        "{words}"
    );
    assert!(
        words.contains("b: cannot unwrap it: the KMS does not let") && words.contains("secret wrap`"),
        "{words}"
    );
    let WrapStage::Offered(waits) = WrapStage::of(&key, &rows[..1]) else { panic!() };
    assert!(waits.are_over(false));
}

#[test]
fn it_is_required_once_all_go_by_it_with_all_pairs() {
    let in_force = secret("k");
    let key = ClusterKey { in_force: Some(in_force.clone()), required: false, ..ClusterKey::default() };
    let mut clear = goes_by("b", &in_force);
    clear.wrapped.as_mut().unwrap().without_ppk = vec!["a".parse().unwrap()];
    let mut cut = goes_by("c", &in_force);
    cut.wrapped.as_mut().unwrap().refused = Some("denied".to_owned());
    let rows = [goes_by("a", &in_force), clear, cut, goes_by("d", &secret("k0")), row("e", None)];
    let stage = WrapStage::of(&key, &rows);
    let WrapStage::TakenUp { waits, required: false } = &stage else { panic!("{stage:?}") };
    assert_eq!(names(waits), (1, vec!["b", "c", "d", "e"], vec![]));
    assert!(waits.lines()[0].contains("without the PPK with a"), "{:?}", waits.lines());
    assert!(stage.in_words(&key).unwrap().contains("not required yet"));

    let swan = MemberRow { foreign: true, answers: false, ..row("swan", None) };
    let mut beside = goes_by("a", &in_force);
    beside.wrapped.as_mut().unwrap().without_ppk = vec!["swan".parse().unwrap()];
    let WrapStage::TakenUp { waits, .. } = WrapStage::of(&key, &[beside, swan]) else { panic!() };
    assert!(waits.lines()[0].contains("with swan (software of others needs"), "{:?}", waits.lines());

    // Keys with a host that is not there are waited for no more than the host.
    let mut beside = goes_by("b", &in_force);
    beside.wrapped.as_mut().unwrap().without_ppk = vec!["gone".parse().unwrap()];
    let rows = [goes_by("a", &in_force), beside, silent("gone")];
    let WrapStage::TakenUp { waits, .. } = WrapStage::of(&key, &rows) else { panic!() };
    assert!(waits.are_over(true) && !waits.are_over(false));

    let key = ClusterKey { required: true, ..key };
    assert_eq!(WrapStage::of(&key, &rows), WrapStage::InForce);
    let rows = [goes_by("a", &in_force), row("e", None)];
    let stage = WrapStage::of(&key, &rows);
    assert!(matches!(stage, WrapStage::TakenUp { required: true, .. }));
    assert!(stage.in_words(&key).unwrap().contains("e: has not taken it up"));
    assert_eq!(WrapStage::of(&ClusterKey::default(), &rows), WrapStage::None);
}
