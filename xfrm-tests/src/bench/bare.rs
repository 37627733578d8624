//! The least that can be asked of the kernel: netlink requests of which only the bytes are fetched.

use std::io;

use anyhow::{Context as _, Result, ensure};
use netlink_sys::protocols::NETLINK_XFRM;
use netlink_sys::{Socket, SocketAddr};

use crate::lab::Host;

/// `XFRM_MSG_GETSA`.
const GETSA: u16 = 0x12;
/// `XFRM_MSG_GETSADINFO`.
const GETSADINFO: u16 = 0x23;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NLM_F_ROOT | NLM_F_MATCH`.
const DUMP: u16 = 0x300;
/// `XFRMA_SAD_CNT`.
const SAD_CNT: u16 = 1;

/// A netlink socket of a host.
pub(super) struct Bare {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Bare {
    /// A socket that reads `buffer` bytes at a time.
    pub(super) fn open(host: &Host, buffer: usize) -> Result<Self> {
        let socket = host.within(|| -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_XFRM)?;
            socket.bind_auto()?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        })??;
        Ok(Self { socket, buffer: vec![0; buffer] })
    }

    /// Fetches all SAs and looks at none. Returns how many bytes came.
    pub(super) fn dump(&mut self) -> Result<usize> {
        self.ask(GETSA, DUMP, &[])?;
        let mut total = 0;
        // The kernel makes the next part inside the call that fetches the one before.
        while let Some(length) = self.receive()? {
            total += length;
        }
        ensure!(total > 0, "a dump without a byte");
        Ok(total)
    }

    /// How many SAs there are, whosever they are. It costs the kernel next to nothing.
    pub(super) fn count(&mut self) -> Result<u32> {
        self.ask(GETSADINFO, 0, &[0; 4])?;
        let length = self.receive()?.context("no answer to GETSADINFO")?;
        // The header, the flags, and one attribute after the other.
        let mut rest = self.buffer.get(20..length).unwrap_or_default();
        while let Some((&[low, high, kind_low, kind_high], _)) = rest.split_first_chunk() {
            let (length, kind) = (u16::from_ne_bytes([low, high]), u16::from_ne_bytes([kind_low, kind_high]));
            let value =
                rest.get(4..usize::from(length)).context("GETSADINFO is answered by something else")?;
            if let (SAD_CNT, Some(count)) = (kind, value.first_chunk()) {
                return Ok(u32::from_ne_bytes(*count));
            }
            rest = rest.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
        }
        anyhow::bail!("GETSADINFO is answered without a count")
    }

    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> Result<()> {
        let length = u32::try_from(16 + body.len())?;
        let mut request = length.to_ne_bytes().to_vec();
        request.extend_from_slice(&kind.to_ne_bytes());
        request.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        request.extend_from_slice(&[0; 8]);
        request.extend_from_slice(body);
        self.socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;
        Ok(())
    }

    /// The next datagram's length, `None` when there is none.
    fn receive(&mut self) -> Result<Option<usize>> {
        match self.socket.recv(&mut self.buffer.as_mut_slice(), 0) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("cannot read from a netlink socket"),
        }
    }
}
