//! Offers and answers.

use crate::ike::crypto::suite::{
    Groups, OwnKe, choose_esp, choose_ike, concluded_esp, concluded_ike, esp_offer, ike_offer,
};
use crate::ike::reason::{Incompatible, Reason};
use crate::ike::wire::codes::transform;
use crate::ike::wire::{Proposal, Transform};
use crate::types::{EspProposal, Group, IkeCipher, IkeProposal, Prf, Proposals, Spi};

const SPI: Spi = Spi(0xc000_0001);

/// Proposals written with commas in between.
fn ike(text: &str) -> Proposals<IkeProposal> {
    Proposals::new(text.split(", ").map(|text| text.parse().unwrap()).collect()).unwrap()
}

fn esp(text: &str) -> Proposals<EspProposal> {
    Proposals::new(text.split(", ").map(|text| text.parse().unwrap()).collect()).unwrap()
}

#[test]
fn who_answers_chooses_by_its_own_order() {
    let ours = ike("aes256gcm16-aes128gcm16-prfsha384-prfsha256-x25519-ecp384, aes256-sha256-ecp256");
    let theirs = ike("aes256-sha256-ecp256, aes128gcm16-aes256gcm16-prfsha256-prfsha384-ecp384-x25519");
    let offers = ike_offer(&theirs, &[]);
    let (answer, suite, spi) = choose_ike(&ours, &offers, true).unwrap();
    assert_eq!((suite.cipher, suite.integrity), (IkeCipher::AesGcm16(256), None));
    assert_eq!((suite.prf, suite.group), (Prf::HmacSha384, Some(Group::X25519)));
    assert_eq!((answer.number, spi), (2, [].as_slice()), "it has the number of the offer");
    assert_eq!(concluded_ike(&theirs, &[answer]).unwrap().0, suite);
    let (answer, suite, _) = choose_ike(&ike("aes256-sha256-ecp256"), &offers, true).unwrap();
    assert_eq!((answer.number, suite.cipher), (1, IkeCipher::AesCbc(256)));
    assert_eq!(concluded_ike(&theirs, &[answer]).unwrap().0, suite);
}

/// Hosts whose files differ during a migration agree on what they have in common, and on nothing else.
#[test]
fn what_is_in_common_is_found() {
    for (one, other, common) in [
        ("aes256gcm16-prfsha384-x25519", "aes256gcm16-prfsha384-x25519", true),
        ("aes256gcm16-prfsha384-x25519", "aes128gcm16-prfsha384-x25519", false),
        ("aes256gcm16-prfsha384-x25519", "aes256gcm16-prfsha256-x25519", false),
        ("aes256gcm16-prfsha384-x25519", "aes256gcm16-prfsha384-ecp384", false),
        ("aes256-sha256-x25519", "aes256-sha384-prfsha256-x25519", false),
        ("aes256gcm16-prfsha256-x25519", "aes256-sha256-x25519", false),
        (
            "aes256gcm16-prfsha384-x25519, aes128gcm16-prfsha256-ecp256",
            "aes128gcm16-prfsha256-ecp256, aes256-sha256-ecp384",
            true,
        ),
        ("aes256gcm16-aes128gcm16-prfsha256-ecp256", "aes128gcm16-prfsha384-prfsha256-x25519-ecp256", true),
    ] {
        for (ours, theirs) in [(ike(one), ike(other)), (ike(other), ike(one))] {
            let offers = ike_offer(&theirs, &[]);
            let chosen = choose_ike(&ours, &offers, true);
            assert_eq!(chosen.is_ok(), common, "{ours} and {theirs}");
            if let Ok((answer, suite, _)) = chosen {
                assert_eq!(concluded_ike(&theirs, &[answer]).unwrap().0, suite);
            }
        }
    }
    for (one, other, agreed) in [
        ("aes256gcm16", "aes256gcm16", Some((256, true))),
        ("aes256gcm16", "aes128gcm16", None),
        ("aes256gcm16-esn", "aes256gcm16-noesn", None),
        ("aes256gcm16, aes128gcm16", "aes128gcm16-noesn", Some((128, false))),
    ] {
        for (ours, theirs) in [(esp(one), esp(other)), (esp(other), esp(one))] {
            let offers = esp_offer(&theirs, SPI);
            let chosen = choose_esp(&ours, &offers, OwnKe::Never);
            let suite = chosen.as_ref().ok().map(|choice| (choice.suite.key_bits, choice.suite.esn));
            assert_eq!(suite, agreed, "{ours} and {theirs}");
            if let Ok(choice) = chosen {
                assert_eq!(
                    concluded_esp(&theirs, &[choice.answer(SPI)], OwnKe::Never).unwrap().suite,
                    choice.suite
                );
            }
        }
    }
}

/// A version that knows one suite alone offers and takes just that.
#[test]
fn the_default_has_what_the_first_version_knew() {
    let first = ike("aes256gcm16-prfsha384-x25519");
    let default = Proposals::<IkeProposal>::default();
    assert_eq!(default.first_group(), Some(Group::X25519), "its public value is the one that is brought");
    let offers = ike_offer(&default, &[]);
    let (answer, ..) = choose_ike(&first, &offers, true).unwrap();
    assert!(concluded_ike(&default, &[answer]).is_ok());
    let offers = ike_offer(&first, &[]);
    let (answer, ..) = choose_ike(&default, &offers, true).unwrap();
    assert_eq!(answer, offers[0], "and the answer is what it expects");
}

#[test]
fn an_answer_is_one_of_ours_and_nothing_else() {
    let ours = ike("aes256gcm16-prfsha384-prfsha256-x25519, aes256-sha256-ecp256");
    let offers = ike_offer(&ours, &[]);
    let (answer, ..) = choose_ike(&ours, &offers, true).unwrap();
    let accepted = |change: fn(&mut Vec<crate::ike::wire::Proposal>)| {
        let mut changed = vec![answer.clone()];
        change(&mut changed);
        concluded_ike(&ours, &changed).is_ok()
    };
    assert!(accepted(|_| {}));
    assert!(!accepted(|all| all.clear()));
    assert!(!accepted(|all| all.push(all[0].clone())), "two answers");
    assert!(!accepted(|all| all[0].number = 2), "the number of another offer");
    assert!(!accepted(|all| all[0].number = 3), "the number of no offer");
    assert!(!accepted(|all| all[0].protocol = 3));
    assert!(!accepted(|all| all[0].transforms.truncate(2)), "no group");
    assert!(!accepted(|all| all[0].transforms.push(Transform::new(transform::PRF, 5))), "two prfs");
    assert!(!accepted(|all| all[0].transforms[0].key_bits = Some(128)));
    assert!(!accepted(|all| all[0].transforms[0].unknown_attribute = true));
    assert!(!accepted(|all| all[0].transforms.push(Transform::new(transform::INTEG, 12))));
}

#[test]
fn proposals_that_we_cannot_have_are_passed_over() {
    let ours = ike("aes256gcm16-prfsha384-x25519");
    let offer = ike_offer(&ours, &[]).remove(0);
    let mut unknown_kind = offer.clone();
    unknown_kind.transforms.push(Transform::new(99, 1));
    assert!(
        choose_ike(&ours, std::slice::from_ref(&unknown_kind), true).is_err(),
        "it would have to be chosen"
    );
    let mut second = offer.clone();
    second.number = 2;
    let offers = [unknown_kind, second];
    let (answer, _, _) = choose_ike(&ours, &offers, true).unwrap();
    assert_eq!(answer.number, 2);
    let mut integrity = offer.clone();
    integrity.transforms.push(Transform::new(transform::INTEG, 12));
    assert!(choose_ike(&ours, &[integrity], true).is_err());
    let mut attribute = offer;
    attribute.transforms[0].unknown_attribute = true;
    assert!(choose_ike(&ours, &[attribute], true).is_err());
}

#[test]
fn a_child_gets_extended_sequence_numbers_where_both_can() {
    let ours = Proposals::of_key_bits(256);
    let mut offer = esp_offer(&ours, SPI).remove(0);
    let chosen = choose_esp(&ours, std::slice::from_ref(&offer), OwnKe::Never).unwrap();
    assert!(chosen.suite.esn && chosen.out_spi == SPI);
    offer.transforms.retain(|it| (it.kind, it.id) != (transform::ESN, transform::ESN_YES));
    assert!(!choose_esp(&ours, std::slice::from_ref(&offer), OwnKe::Never).unwrap().suite.esn);
    offer.transforms.retain(|it| it.kind != transform::ESN);
    assert!(!choose_esp(&ours, std::slice::from_ref(&offer), OwnKe::Never).unwrap().suite.esn);
    assert!(choose_esp(&esp("aes256gcm16-esn"), std::slice::from_ref(&offer), OwnKe::Never).is_err());
    assert!(choose_esp(&esp("aes128gcm16"), std::slice::from_ref(&offer), OwnKe::Never).is_err());
    offer.spi = vec![0, 0, 0, 9];
    assert!(choose_esp(&ours, &[offer], OwnKe::Never).is_err(), "a reserved SPI");
}

/// What comes of an offer with a public value of `brought`: the key exchange, or the group that is asked for.
fn exchanged(
    ours: &Proposals<EspProposal>,
    offers: &[Proposal],
    brought: Option<u16>,
) -> Result<Option<String>, Reason> {
    let choice = choose_esp(ours, offers, OwnKe::Brought(brought))?;
    Ok(choice.key_exchange.map(|it| it.to_string()))
}

#[test]
fn a_child_has_a_key_exchange_of_its_own_where_one_end_insists() {
    let [x25519, ecp256] = [Some(transform::DH_CURVE25519), Some(transform::DH_ECP_256)];
    let is = |name: &str| Ok(Some(name.to_owned()));
    let refused = |chosen: Result<Option<String>, Reason>| {
        matches!(chosen, Err(Reason::Incompatible(Incompatible::Algorithms(_))))
    };
    let offers = esp_offer(&esp("aes256gcm16-x25519"), SPI);
    let default = Proposals::default();
    assert_eq!(exchanged(&default, &offers, x25519), is("x25519"));
    for brought in [ecp256, None] {
        assert_eq!(exchanged(&default, &offers, brought), Err(Incompatible::Group(31).into()));
    }
    assert_eq!(
        choose_esp(&default, &offers, OwnKe::Never).unwrap().key_exchange,
        None,
        "no room in IKE_AUTH"
    );
    assert!(refused(exchanged(&esp("aes256gcm16"), &offers, x25519)), "it is not listed");
    assert!(refused(exchanged(&esp("aes256gcm16-ecp384"), &offers, x25519)));
    assert!(refused(exchanged(&esp("aes256gcm16-x25519-ke1_mlkem768"), &offers, x25519)));
    // Where it need not be, the own order counts.
    let both = esp_offer(&esp("aes256gcm16-x25519-ecp256, aes256gcm16"), SPI);
    assert_eq!(exchanged(&default, &both, x25519), Ok(None));
    assert_eq!(exchanged(&esp("aes256gcm16-ecp256-x25519"), &both, x25519), is("x25519"), "it came");
    assert_eq!(
        exchanged(&esp("aes256gcm16-ecp256-x25519"), &both, None),
        Err(Incompatible::Group(19).into())
    );
    let hybrid = esp_offer(&esp("aes256gcm16-ecp256-x25519-ke1_mlkem768"), SPI);
    assert_eq!(exchanged(&default, &hybrid, x25519), is("x25519-ke1_mlkem768"));
    assert!(refused(exchanged(&esp("aes256gcm16-x25519"), &hybrid, x25519)));
}

/// strongSwan offers so what it can do without.
#[test]
fn a_key_exchange_that_is_optional_is_declined_by_name() {
    let mut offer = esp_offer(&esp("aes256gcm16-x25519-ke1_mlkem768"), SPI).remove(0);
    for kind in [transform::DH, transform::ADDKE1] {
        assert!(exchanged(&esp("aes256gcm16"), std::slice::from_ref(&offer), Some(31)).is_err());
        offer.transforms.push(Transform::new(kind, transform::ADDKE_NONE));
    }
    let choice = choose_esp(&esp("aes256gcm16"), &[offer], OwnKe::Brought(Some(31))).unwrap();
    let answer = choice.answer(SPI);
    assert_eq!(choice.key_exchange, None);
    for kind in [transform::DH, transform::ADDKE1] {
        let chosen: Vec<_> = answer.transforms.iter().filter(|it| it.kind == kind).map(|it| it.id).collect();
        assert_eq!(chosen, [0]);
    }
}

#[test]
fn the_answer_about_a_child_is_one_of_what_was_offered() {
    let ours = Proposals::default();
    let offers = esp_offer(&ours, SPI);
    for (theirs, brought) in [
        ("aes256gcm16", None),
        ("aes256gcm16-x25519", Some(31)),
        ("aes256gcm16-ecp384-ke1_mlkem768", Some(20)),
    ] {
        let own_ke = OwnKe::Brought(brought);
        let choice = choose_esp(&esp(theirs), &offers, own_ke).unwrap();
        let answer = [choice.answer(SPI)];
        let concluded = concluded_esp(&ours, &answer, own_ke).unwrap();
        assert_eq!((concluded.key_exchange, concluded.suite), (choice.key_exchange, choice.suite));
        // Another public value than the one chosen should have been asked for.
        let other = concluded_esp(&ours, &answer, OwnKe::Brought(Some(19)));
        assert_eq!(other.is_ok(), brought.is_none(), "{theirs}");
        assert!(concluded_esp(&esp("aes128gcm16-x25519"), &answer, own_ke).is_err());
    }
}

#[test]
fn an_additional_exchange_is_chosen_where_both_know_it() {
    let hybrid = ike("aes256gcm16-prfsha384-x25519-ke1_mlkem768");
    let classical = ike("aes256gcm16-prfsha384-x25519");
    let both = ike("aes256gcm16-prfsha384-x25519-ke1_mlkem768, aes256gcm16-prfsha384-x25519");
    let chosen = |ours: &Proposals<IkeProposal>, theirs: &Proposals<IkeProposal>, additional| {
        let offers = ike_offer(theirs, &[]);
        let (answer, suite, _) = choose_ike(ours, &offers, additional).ok()?;
        assert_eq!(concluded_ike(theirs, &[answer]).unwrap().0, suite);
        Some(suite.additional.is_some())
    };
    for additional in [true, false] {
        assert_eq!(chosen(&both, &both, additional), Some(additional));
        assert_eq!(chosen(&both, &hybrid, additional), additional.then_some(true));
        assert_eq!(chosen(&hybrid, &both, additional), additional.then_some(true));
        assert_eq!(chosen(&classical, &both, additional), Some(false));
        assert_eq!(chosen(&both, &classical, additional), Some(false));
        assert_eq!(chosen(&hybrid, &classical, additional), None);
        assert_eq!(chosen(&classical, &hybrid, additional), None);
    }
}

/// A peer may offer an additional exchange together with NONE, which is then chosen by name.
#[test]
fn an_additional_exchange_that_is_optional_is_declined_by_name() {
    let classical = ike("aes256gcm16-prfsha384-x25519");
    let mut offer = ike_offer(&ike("aes256gcm16-prfsha384-x25519-ke1_mlkem768"), &[]).remove(0);
    offer.transforms.push(Transform::new(transform::ADDKE1, transform::ADDKE_NONE));
    offer.transforms.push(Transform::new(transform::ADDKE7, 35));
    offer.transforms.push(Transform::new(transform::ADDKE7, transform::ADDKE_NONE));
    let offers = [offer.clone()];
    let (answer, suite, _) = choose_ike(&classical, &offers, true).unwrap();
    assert_eq!(suite.additional, None);
    for kind in [transform::ADDKE1, transform::ADDKE7] {
        assert!(answer.transforms.contains(&Transform::new(kind, transform::ADDKE_NONE)));
    }
    offer.transforms.pop();
    assert!(choose_ike(&classical, &[offer], true).is_err(), "one that we do not know is not optional");
}
