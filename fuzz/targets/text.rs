//! What an operator writes into a value or an argument: what can be read says the same once it is printed.

#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use hostseal::roster::{RecoveryKey, Token};
use hostseal::types::units::{parse_duration, parse_size};
use hostseal::types::{EspProposal, Exemption, IkeProposal};
use libfuzzer_sys::fuzz_target;

fn reads_what_it_prints<T: FromStr + Display + PartialEq + Debug>(text: &str)
where
    T::Err: Debug,
{
    if let Ok(value) = text.parse::<T>() {
        let again = value.to_string().parse::<T>();
        assert_eq!(again.as_ref().ok(), Some(&value), "{again:?}");
    }
}

fuzz_target!(|text: &str| {
    reads_what_it_prints::<IkeProposal>(text);
    reads_what_it_prints::<EspProposal>(text);
    reads_what_it_prints::<Exemption>(text);
    let _ = (parse_duration(text), parse_size(text));
    if let Ok(token) = Token::from_line(text) {
        assert!(Token::from_line(&token.to_line()).is_ok());
    }
    if let Ok(key) = RecoveryKey::from_line(text) {
        assert!(RecoveryKey::from_line(&key.to_line()).is_ok());
    }
});
