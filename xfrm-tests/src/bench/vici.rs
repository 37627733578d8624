//! strongSwan's control socket, as far as starting children without a process for each goes: a `swanctl`
//! for every pair would count against strongSwan.
//!
//! A packet is its length in 4 bytes, its type, and for a request the name of the command; a message is a
//! row of typed elements, here only keys with values (strongSwan, `src/libcharon/plugins/vici/README.md`).

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::lab::Host;

/// Where charon listens.
const SOCKET: &str = "/run/charon.vici";
/// `CMD_REQUEST`.
const REQUEST: u8 = 0;
/// `CMD_RESPONSE`.
const RESPONSE: u8 = 1;
/// `KEY_VALUE`.
const KEY_VALUE: u8 = 3;
/// How long charon may think about an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to the charon of a host.
pub(super) struct Vici {
    stream: UnixStream,
    /// Requests whose answers have not been read.
    open: usize,
}

impl Vici {
    /// Connects.
    pub(super) fn connect(host: &Host) -> Result<Self> {
        let stream = host.within(|| UnixStream::connect(SOCKET))??;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, open: 0 })
    }

    /// Asks for a child and goes on at once.
    pub(super) fn initiate(&mut self, child: &str) -> Result<()> {
        // A negative timeout: charon answers when it has begun.
        let packet = request("initiate", &[("child", child), ("timeout", "-1")])?;
        self.stream.write_all(&packet)?;
        self.open += 1;
        Ok(())
    }

    /// Checks that charon began all that was asked for.
    pub(super) fn check(&mut self) -> Result<()> {
        while self.open > 0 {
            let mut length = [0; 4];
            self.stream.read_exact(&mut length).context("charon does not answer")?;
            let mut packet = vec![0; u32::from_be_bytes(length) as usize];
            self.stream.read_exact(&mut packet)?;
            let succeeded = packet.windows(12).any(|bytes| bytes == b"success\0\x03yes");
            ensure!(
                packet.first() == Some(&RESPONSE) && succeeded,
                "charon says: {}",
                String::from_utf8_lossy(&packet)
            );
            self.open -= 1;
        }
        Ok(())
    }
}

fn request(command: &str, values: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut packet = vec![REQUEST, u8::try_from(command.len())?];
    packet.extend_from_slice(command.as_bytes());
    for (key, value) in values {
        packet.extend_from_slice(&[KEY_VALUE, u8::try_from(key.len())?]);
        packet.extend_from_slice(key.as_bytes());
        packet.extend_from_slice(&u16::try_from(value.len())?.to_be_bytes());
        packet.extend_from_slice(value.as_bytes());
    }
    Ok([&u32::try_from(packet.len())?.to_be_bytes()[..], &packet].concat())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_request_has_its_bytes() {
        let packet = super::request("initiate", &[("child", "b")]).expect("it is short");
        assert_eq!(packet, b"\0\0\0\x14\0\x08initiate\x03\x05child\0\x01b");
    }
}
