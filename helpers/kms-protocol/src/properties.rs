//! Whatever comes is read or refused, and what one end writes the other reads back.

use proptest::prelude::*;
use zeroize::Zeroizing;

use crate::{ANSWER_MAX, Answer, Given, Order, PLAINTEXT_MAX, Question, REQUEST_MAX, Refusal, WORDS_MAX};

/// Octets, or what looks like a line of the protocol at first.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let member = "\"(answer|op|plaintext|blob|date|why|request_id|version|key|program)\":(\"[ -~]{0,12}\"|1|null|\\{\\})";
    let object =
        prop::collection::vec(member, 0..5).prop_map(|all| format!("{{{}}}", all.join(",")).into_bytes());
    prop_oneof![prop::collection::vec(any::<u8>(), 0..200), object]
}

fn outcome() -> impl Strategy<Value = Result<Vec<u8>, Refusal>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..PLAINTEXT_MAX).prop_map(Ok),
        Just(Err(Refusal::Denied)),
        Just(Err(Refusal::Disabled)),
        prop::option::of("[0-9-]{1,12}").prop_map(|date| Err(Refusal::PendingDeletion(date))),
        Just(Err(Refusal::NotFound)),
        Just(Err(Refusal::Broken)),
        Just(Err(Refusal::Unavailable)),
    ]
}

proptest! {
    #[test]
    fn whatever_comes_panics_nobody_and_stays_within_bounds(octets in line()) {
        if let Ok(answer) = Answer::from_line(&octets) {
            prop_assert!(answer.why.is_none_or(|why| why.chars().count() <= WORDS_MAX));
            prop_assert!(answer.request_id.is_none_or(|id| id.chars().count() <= REQUEST_MAX));
        }
        let _ = Order::from_line(&octets);
        let _ = Question::read(&mut &octets[..]);
    }

    /// Words are trimmed and have one line.
    #[test]
    fn an_answer_reads_back(outcome in outcome(), why in prop::option::of("[!-~]([ -~]{0,200}[!-~])?")) {
        let given = outcome.clone().map(|octets| Given::Plaintext(Zeroizing::new(octets)));
        let line = Answer { outcome: given, why: why.clone(), request_id: Some("r-1".to_owned()) }.to_line();
        prop_assert!(line.len() <= ANSWER_MAX);
        let answer = Answer::from_line(&line).unwrap();
        prop_assert_eq!((answer.why, answer.request_id.as_deref()), (why, Some("r-1")));
        match (answer.outcome, outcome) {
            (Ok(Given::Plaintext(back)), Ok(octets)) => prop_assert_eq!(&*back, &octets),
            (back, outcome) => prop_assert_eq!(back.err(), outcome.err()),
        }
    }

    #[test]
    fn an_order_reads_back(program in "/\\PC{0,100}") {
        let order = Order { program: program.into() };
        let line = order.to_line();
        prop_assert_eq!(line.iter().filter(|octet| **octet == b'\n').count(), 1);
        prop_assert_eq!(Order::from_line(&line), Ok(order));
    }
}
