//! The two sockets of a proof of a pair: one past all policies, and one like any program's.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::Socket;

use super::sockets::bind_udp;
use crate::host::prover::word::ProofPorts;
use crate::host::prover::{NonceArrival, NonceSet};
use crate::types::{Family, NONCE_DATAGRAM, Nonce, NonceKind, Pair};
use crate::xfrm;

/// What may wait to be taken off, in octets as the kernel counts them: some hundred datagrams more than there should be.
const RECEIVE_BUFFER: usize = 1 << 20;
/// So many are taken off at a time at most: whoever may send to it can send more.
const AT_ONCE: usize = 1024;

/// The sockets of one proof.
pub(super) struct ProofSockets {
    /// Nothing is set on it: what leaves and what comes meets the policies of the host. It receives everything.
    ordinary: UdpSocket,
    /// What leaves it goes in the clear. Nothing that comes finds room in it.
    past_policies: Socket,
}

impl ProofSockets {
    /// Opens them at this host's end of `pair`.
    ///
    /// # Errors
    /// The system has none, or does not let us bypass its policies.
    pub(super) fn open(pair: Pair) -> io::Result<Self> {
        let bind = || bind_udp(SocketAddr::new(pair.local, 0));
        let ordinary = UdpSocket::from(bind()?);
        setsockopt(&ordinary, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        let past_policies = bind()?;
        xfrm::bypass(&past_policies, Family::of(pair.local))?;
        past_policies.set_recv_buffer_size(0)?;
        Ok(Self { ordinary, past_policies })
    }

    /// Their ports.
    pub(super) fn ports(&self) -> io::Result<ProofPorts> {
        let past = self.past_policies.local_addr()?.as_socket().map_or(0, |address| address.port());
        Ok(ProofPorts { ordinary: self.ordinary.local_addr()?.port(), past })
    }

    /// Sends the clear ones, and then the others. Returns what has left, and why the rest has not.
    pub(super) fn send(&self, to: SocketAddr, nonces: &NonceSet) -> (NonceSet, Option<String>) {
        let mut unsent = None;
        let mut leaves = |outcome: io::Result<usize>| {
            let left = outcome.is_ok();
            unsent = unsent.take().or(outcome.err().map(|error| error.to_string()));
            left
        };
        let (mut sent, address) = (NonceSet::default(), to.into());
        for nonce in &nonces.clear {
            let bytes = nonce.datagram(NonceKind::Clear);
            if leaves(self.past_policies.send_to(&bytes, &address)) {
                sent.clear.push(*nonce);
            }
        }
        for nonce in &nonces.sealed {
            if leaves(self.ordinary.send_to(&nonce.datagram(NonceKind::Sealed), to)) {
                sent.sealed.push(*nonce);
            }
        }
        (sent, unsent)
    }

    /// What has come from the peer's address of `pair`.
    pub(super) fn came(&self, pair: Pair) -> Vec<NonceArrival> {
        let mut came = Vec::new();
        // One byte more shows that a datagram is longer.
        let mut bytes = [0; NONCE_DATAGRAM + 1];
        for _ in 0..AT_ONCE {
            match self.ordinary.recv_from(&mut bytes) {
                Ok((length, from)) if from.ip() == pair.remote => {
                    let nonce = bytes.get(..length).and_then(Nonce::from_datagram);
                    let port = from.port();
                    came.extend(nonce.map(|(kind, nonce)| NonceArrival { port, kind, nonce }));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // From somebody else, or what ICMP reported of a datagram of ours: nothing authenticates it.
                Ok(_) | Err(_) => {}
            }
        }
        came
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without policies both kinds come. To bypass policies takes root, which not everybody who runs tests is.
    #[test]
    fn what_is_sent_comes_and_nothing_else() {
        let pair = Pair::new([127, 0, 0, 1].into(), [127, 0, 0, 2].into()).unwrap();
        let ends = [ProofSockets::open(pair), ProofSockets::open(pair.mirrored())];
        let [Ok(here), Ok(there)] = ends else { return };
        let nonces = NonceSet { clear: vec![Nonce([1; 8])], sealed: vec![Nonce([2; 8]), Nonce([3; 8])] };
        let to = SocketAddr::new(pair.remote, there.ports().unwrap().ordinary);
        assert_eq!(here.send(to, &nonces), (nonces.clone(), None));
        let stranger = UdpSocket::bind("127.0.0.3:0").unwrap();
        stranger.send_to(&Nonce([4; 8]).datagram(NonceKind::Clear), to).unwrap();
        here.ordinary.send_to(b"hsprovec0123456789", to).unwrap();
        let came = there.came(pair.mirrored());
        let ProofPorts { ordinary, past } = here.ports().unwrap();
        let arrival = |port, kind, nonce: &Nonce| NonceArrival { port, kind, nonce: *nonce };
        let clear = nonces.clear.iter().map(|nonce| arrival(past, NonceKind::Clear, nonce));
        let sealed = nonces.sealed.iter().map(|nonce| arrival(ordinary, NonceKind::Sealed, nonce));
        assert_eq!(came, clear.chain(sealed).collect::<Vec<_>>());
        assert_eq!(there.came(pair.mirrored()), []);
    }
}
