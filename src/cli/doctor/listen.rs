//! `hostseal doctor --listen`: answers `doctor` of other hosts, where no agent runs.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use super::raw::EspSocket;
use crate::cli::args::Invocation;
use crate::cli::exit::{CommandError, Exit};
use crate::cli::term::{print, tell};
use crate::config::{Config, ConfigError, NAT_PORT};
use crate::machine::own_addresses;
use crate::observe::doctor::knock::{self, Came, KnockNonce};
use crate::store::config_file;

/// The port of IKE where no file says another.
const IKE_PORT: u16 = 500;
/// It ends by itself, so that nobody forgets it.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// How often it is looked whether something has come.
const LOOK: Duration = Duration::from_millis(10);
/// It listens on so many addresses of this host.
const DOORS_MOST: usize = 128;
/// So many questions are remembered.
const REMEMBERED: usize = 256;
/// So many hosts that ask are named.
const NAMED_MOST: usize = 64;
/// So many are answered in one look: anybody can send some.
const ANSWERED_MOST: usize = 16;

/// A question that has come, or a part of it.
struct HeardKnock {
    from: IpAddr,
    nonce: KnockNonce,
    came: Came,
}

/// What listens on an address of this host: answers leave from where the question has come to.
struct KnockDoor {
    ike: UdpSocket,
    nat: UdpSocket,
    esp: EspSocket,
}

/// What listens, and whom it answers.
struct Doorkeeper {
    doors: Vec<KnockDoor>,
    /// The addresses that the file lists; none where there is no file: then everybody is answered.
    listed: Vec<IpAddr>,
    heard: VecDeque<HeardKnock>,
    /// Those that were named, each once.
    named: BTreeSet<IpAddr>,
}

pub(super) fn run(invocation: &Invocation) -> Result<Exit, CommandError> {
    let config = match config_file::load_or_last_good(&invocation.config) {
        Ok((config, _)) => Some(config),
        // Without a file nobody is listed: everybody is answered then.
        Err(ConfigError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(CommandError::new(Exit::Usage, error.to_string())),
    };
    let ports = config.as_ref().map_or((IKE_PORT, NAT_PORT), |it| (it.keying.port, it.keying.nat_port));
    let mut listener = Doorkeeper::open(config.as_ref(), ports)?;
    print(&format!(
        "listening on UDP {} and {} and for IP protocol 50: run `hostseal doctor` on the other hosts now; Ctrl-C ends \
         this\n",
        ports.0, ports.1
    ))?;
    let end = Instant::now() + LONGEST;
    while Instant::now() < end {
        listener.look();
        thread::sleep(LOOK);
    }
    tell("nobody has ended this for 15 minutes, so it ends now");
    Ok(Exit::Done)
}

impl Doorkeeper {
    fn open(config: Option<&Config>, ports: (u16, u16)) -> Result<Self, CommandError> {
        let own =
            own_addresses().map_err(|error| CommandError::io("listing this host's addresses", &error))?;
        let mut doors = Vec::new();
        for address in own.into_iter().take(DOORS_MOST) {
            match KnockDoor::open(address, ports) {
                // An address that the kernel still tries out, as IPv6 ones are at first.
                Err((_, error)) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                opened => doors.push(opened.map_err(|(what, error)| refused(&what, &error))?),
            }
        }
        if doors.is_empty() {
            let words = "this host has no address that others could reach: give it one, and try again";
            return Err(CommandError::new(Exit::Failed, words));
        }
        let listed = config.iter().flat_map(|config| &config.nodes);
        let listed = listed.flat_map(|node| node.addresses.iter().copied()).collect();
        Ok(Self { doors, listed, heard: VecDeque::new(), named: BTreeSet::new() })
    }

    /// Takes what has come, and answers it.
    fn look(&mut self) {
        for at in 0..self.doors.len() {
            for _ in 0..ANSWERED_MOST {
                let Some((from, nonce)) = self.doors.get(at).and_then(|door| door.esp.receive()) else {
                    break;
                };
                self.note(from, nonce, Came { esp: true, ..Came::default() });
            }
            for is_ike in [true, false] {
                for _ in 0..ANSWERED_MOST {
                    let mut room = [0; 128];
                    let Some(door) = self.doors.get(at) else { return };
                    let Ok((length, from)) = door.udp(is_ike).recv_from(&mut room) else { break };
                    let Some(nonce) = room.get(..length).and_then(knock::asked) else { continue };
                    let way = Came { ike: is_ike, nat: !is_ike, esp: false };
                    let came = self.note(from.ip(), nonce, way);
                    if let (Some(came), Some(door)) = (came, self.doors.get(at)) {
                        door.answer(is_ike, from, &nonce, came);
                    }
                }
            }
        }
    }

    /// What of a question has come by now; `None` from whom nobody answers.
    fn note(&mut self, from: IpAddr, nonce: KnockNonce, way: Came) -> Option<Came> {
        if !super::knock::is_of(&self.listed, from) {
            return None;
        }
        if let Some(known) = self.heard.iter_mut().find(|it| it.from == from && it.nonce == nonce) {
            known.came = known.came.and(way);
            return Some(known.came);
        }
        if self.heard.len() >= REMEMBERED {
            self.heard.pop_front();
        }
        if self.named.len() < NAMED_MOST && self.named.insert(from) {
            tell(&format!("{from} asks"));
        }
        self.heard.push_back(HeardKnock { from, nonce, came: way });
        Some(way)
    }
}

impl KnockDoor {
    fn open(address: IpAddr, (ike, nat): (u16, u16)) -> Result<Self, (String, io::Error)> {
        let udp = |port| {
            bind(SocketAddr::new(address, port)).map_err(|error| (format!("{address}: UDP {port}"), error))
        };
        let esp = || EspSocket::bind(address).map_err(|error| (format!("{address}: IP protocol 50"), error));
        Ok(Self { ike: udp(ike)?, nat: udp(nat)?, esp: esp()? })
    }

    fn udp(&self, is_ike: bool) -> &UdpSocket {
        if is_ike { &self.ike } else { &self.nat }
    }

    /// One datagram back, and one packet that stands in for ESP. What does not leave does not come.
    fn answer(&self, is_ike: bool, to: SocketAddr, nonce: &KnockNonce, came: Came) {
        let _ = self.udp(is_ike).send_to(&knock::answer(nonce, came), to);
        let _ = self.esp.send(to.ip(), nonce);
    }
}

fn bind(local: SocketAddr) -> io::Result<UdpSocket> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, None)?;
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&local.into())?;
    Ok(socket.into())
}

fn refused(what: &str, error: &io::Error) -> CommandError {
    match error.kind() {
        io::ErrorKind::AddrInUse => CommandError::new(
            Exit::Failed,
            format!("{what} is in use: where an agent runs, `hostseal doctor` on the other host asks that"),
        ),
        _ => CommandError::io(what, error),
    }
}
