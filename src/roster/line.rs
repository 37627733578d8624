//! Secrets that people copy from one terminal to another: on one line, with what shows that it is whole.
//!
//! ```text
//! HEAD base64url( a secret (32), what goes with it, the first four octets of the SHA-256 of both )
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// What the lines of any kind and version begin with.
const ANY_HEAD: &str = "hostseal";
/// The octets that show that a line is whole.
const CHECK: usize = 4;
/// The most characters of a line: more is something else.
const LENGTH_MAX: usize = 4096;

/// Why a line is not what it is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotALine {
    /// It is something else.
    SomethingElse,
    /// Another version has made it.
    Later,
    /// It is not whole.
    Damaged,
}

/// The line that begins with `head`.
pub(super) fn write(head: &str, secret: &[u8; 32], rest: &[u8]) -> Zeroizing<String> {
    // Its full size at once: growing would leave copies behind.
    let mut octets = Zeroizing::new(Vec::with_capacity(secret.len() + rest.len() + CHECK));
    octets.extend(*secret);
    octets.extend(rest);
    let check = check(&octets);
    octets.extend(check);
    let base64 = Zeroizing::new(URL_SAFE_NO_PAD.encode(octets.as_slice()));
    Zeroizing::new([head, base64.as_str()].concat())
}

/// The secret on a line that begins with `head`, and what goes with it. White space around the line and within, as
/// terminals break lines, does not matter.
pub(super) fn read(head: &str, line: &str) -> Result<(Zeroizing<[u8; 32]>, Vec<u8>), NotALine> {
    if line.len() > LENGTH_MAX {
        return Err(NotALine::SomethingElse);
    }
    let line: Zeroizing<String> = Zeroizing::new(line.split_ascii_whitespace().collect());
    let Some(base64) = line.strip_prefix(head) else {
        let is_later = is_of_another_version(head, &line);
        return Err(if is_later { NotALine::Later } else { NotALine::SomethingElse });
    };
    let octets = Zeroizing::new(URL_SAFE_NO_PAD.decode(base64).map_err(|_| NotALine::Damaged)?);
    let (whole, end) = octets.split_last_chunk::<CHECK>().ok_or(NotALine::Damaged)?;
    if check(whole) != *end {
        return Err(NotALine::Damaged);
    }
    let (secret, rest) = whole.split_first_chunk().ok_or(NotALine::Damaged)?;
    Ok((Zeroizing::new(*secret), rest.to_vec()))
}

/// Whether it begins as `head` does, but for the number of the version at its end.
fn is_of_another_version(head: &str, line: &str) -> bool {
    let kind = head.trim_end_matches('_').trim_end_matches(|c: char| c.is_ascii_digit());
    let rest = line.strip_prefix(kind).filter(|_| kind.starts_with(ANY_HEAD));
    rest.and_then(|rest| rest.split_once('_')).is_some_and(|(version, _)| version.parse::<u32>().is_ok())
}

fn check(octets: &[u8]) -> [u8; CHECK] {
    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(octets).into();
    [a, b, c, d]
}
