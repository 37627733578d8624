//! hostseal's control socket without a process for each request, as `vici.rs` is strongSwan's.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hostseal::control::{Reply, Request, decode_reply, encode_request};

use crate::lab::Host;

/// Where the agent listens.
const SOCKET: &str = "/run/hostseal/hostseal.sock";
/// How long the agent may take for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to the agent of a host.
pub(super) struct Control(BufReader<UnixStream>);

impl Control {
    /// Connects.
    pub(super) fn connect(host: &Host) -> Result<Self> {
        let stream = host.within(|| UnixStream::connect(SOCKET))??;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Asks and goes on at once.
    pub(super) fn ask(&mut self, request: Request) -> Result<()> {
        Ok(self.0.get_mut().write_all(encode_request(&request).as_bytes())?)
    }

    /// The answer to what was asked.
    pub(super) fn answer(&mut self) -> Result<Reply> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).context("the agent does not answer")?;
        match decode_reply(&line)? {
            Reply::Error { message, .. } => bail!("the agent says: {message}"),
            reply => Ok(reply),
        }
    }

    /// Asks the agent to say how far it has come, once that is more than was known at revision `after`.
    pub(super) fn follow(&mut self, after: u64) -> Result<()> {
        self.ask(Request::Follow { after, hold_ms: 5_000 })
    }

    /// Waits until the agent, which was asked to [`Control::follow`], says that every pair is protected.
    pub(super) fn await_protected(&mut self) -> Result<()> {
        loop {
            let Reply::Progress(progress) = self.answer()? else { bail!("that is no progress") };
            if progress.summary.protected == progress.summary.peers {
                return Ok(());
            }
            self.follow(progress.revision)?;
        }
    }
}
