//! Asks hosts that no agent can talk to: where somebody runs `doctor --listen` there, it says what came.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use rand::TryRng as _;
use rand::rngs::SysRng;

use super::raw::EspSocket;
use crate::observe::doctor::knock::{self, Came, KnockNonce};
use crate::observe::doctor::{BothWays, PairFinding, PathWays};
use crate::types::Pair;

/// So many hosts are asked.
const HOSTS_MOST: usize = 32;
/// How often each is asked.
const TIMES: u32 = 5;
/// The time between two questions, and how long the last answer has.
const PAUSE: Duration = Duration::from_millis(250);
/// How often it is looked whether something has come.
const LOOK: Duration = Duration::from_millis(10);

/// Asks the other hosts of these pairs, all at once. It takes less than two seconds.
pub(super) fn knock(pairs: &[Pair], ports: (u16, u16)) -> Vec<PairFinding> {
    thread::scope(|scope| {
        let pairs = pairs.iter().take(HOSTS_MOST);
        let asked: Vec<_> = pairs.map(|pair| scope.spawn(move || ask(*pair, ports))).collect();
        // What this host does not let out is not known.
        asked.into_iter().filter_map(|thread| thread.join().ok()?.ok()).collect()
    })
}

fn ask(pair: Pair, (ike, nat): (u16, u16)) -> io::Result<PairFinding> {
    let mut nonce = KnockNonce::default();
    SysRng.try_fill_bytes(&mut nonce).map_err(io::Error::other)?;
    let sockets = [to(pair, ike)?, to(pair, nat)?];
    let esp = EspSocket::bind(pair.local)?;
    let (mut came, mut back, mut refused) = (None::<Came>, Came::default(), false);
    for _ in 0..TIMES {
        for (at, socket) in sockets.iter().enumerate() {
            let sent = socket.send(&knock::question(&nonce));
            refused |= at == 0 && is_refused(sent.err());
        }
        // A firewall of this host may refuse it: then it does not come.
        let _ = esp.send(pair.remote, &nonce);
        let until = Instant::now() + PAUSE;
        while Instant::now() < until {
            for (at, socket) in sockets.iter().enumerate() {
                let mut room = [0; 128];
                match socket.recv(&mut room) {
                    Ok(length) => {
                        let Some(answer) = knock::answered(room.get(..length).unwrap_or_default(), &nonce)
                        else {
                            continue;
                        };
                        came = Some(came.unwrap_or_default().and(answer));
                        back = back.and(Came { ike: at == 0, nat: at == 1, esp: false });
                    }
                    Err(error) => refused |= at == 0 && is_refused(Some(error)),
                }
            }
            while let Some((from, returned)) = esp.receive() {
                back.esp |= from == pair.remote && returned == nonce;
            }
            if [came, Some(back)].iter().all(|it| *it == Some(Came { ike: true, nat: true, esp: true })) {
                return Ok(finding(pair, came, back, false));
            }
            thread::sleep(LOOK);
        }
    }
    Ok(finding(pair, came, back, refused))
}

/// A socket that sends to a port of the other host, and hears when that refuses.
fn to(pair: Pair, port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::new(pair.local, 0))?;
    socket.connect(SocketAddr::new(pair.remote, port))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn is_refused(error: Option<io::Error>) -> bool {
    error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn finding(pair: Pair, came: Option<Came>, back: Came, refused: bool) -> PairFinding {
    // Each port answers what has come to it. ESP comes back by whatever port was asked.
    let port = |of: fn(Came) -> bool| match came {
        Some(came) => BothWays { out: Some(of(came)), inward: of(came).then_some(of(back)) },
        None => BothWays::default(),
    };
    let esp = came.map(|came| BothWays { out: Some(came.esp), inward: Some(back.esp) });
    PairFinding {
        listens: came.is_some(),
        refused: refused && came.is_none(),
        ways: PathWays {
            ike: port(|came| came.ike),
            nat: port(|came| came.nat),
            esp: esp.unwrap_or_default(),
        },
        ..PairFinding::of(pair)
    }
}

/// Whether `address` is one that nobody else's packets are to be expected from.
pub(super) fn is_of(addresses: &[IpAddr], address: IpAddr) -> bool {
    addresses.is_empty() || addresses.contains(&address)
}
