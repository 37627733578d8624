//! For tests and fuzzing: everything that is done with bytes that a socket delivered.

use super::wire::{Attributes, Messages};
use super::{decode, monitor, strangers};

/// Reads a datagram as whatever it could be taken for.
///
/// # Panics
/// When more comes out than went in.
pub fn digest(datagram: &[u8]) {
    let mut total = 0;
    for message in Messages(datagram) {
        monitor::notification(message);
        let Ok(message) = message else { continue };
        total += message.body.len();
        let _ = decode::sa(message);
        let _ = decode::policy(message);
        let _ = strangers::sa(message);
        let _ = strangers::policy(message);
        let _ = decode::verdict(message).map(|verdict| verdict.reason());
    }
    assert!(total <= datagram.len(), "more came out than went in");
    assert!(Attributes(datagram).map(|(_, value)| value.len()).sum::<usize>() <= datagram.len());
}
