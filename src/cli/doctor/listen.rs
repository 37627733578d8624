//! `hostseal doctor --listen`: answers `doctor` of other hosts, where no agent runs.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use super::raw::EspSocket;
use crate::cli::args::Invocation;
use crate::cli::exit::{CommandError, Exit};
use crate::cli::term::{print, tell};
use crate::config::{Config, ConfigError, NAT_PORT};
use crate::observe::doctor::knock::{self, Came, KnockNonce};
use crate::store::config_file;

/// The port of IKE where no file says another.
const IKE_PORT: u16 = 500;
/// It ends by itself, so that nobody forgets it.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// How often it is looked whether something has come.
const LOOK: Duration = Duration::from_millis(10);
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

/// What listens, and whom it answers.
struct Doorkeeper {
    /// With whether it is the port of IKE.
    udp: Vec<(UdpSocket, bool)>,
    esp: Vec<EspSocket>,
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
    fn open(config: Option<&Config>, (ike, nat): (u16, u16)) -> Result<Self, CommandError> {
        let mut listener = Self {
            udp: Vec::new(),
            esp: Vec::new(),
            listed: Vec::new(),
            heard: VecDeque::new(),
            named: BTreeSet::new(),
        };
        if let Some(config) = config {
            listener.listed = config.nodes.iter().flat_map(|node| node.addresses.iter().copied()).collect();
        }
        let families = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        for any in families {
            match listener.open_family(any, [ike, nat]) {
                // A kernel without IPv6.
                Err((_, error)) if any.is_ipv6() && lacks_family(&error) => {}
                Err((what, error)) => return Err(refused(&what, &error)),
                Ok(()) => {}
            }
        }
        Ok(listener)
    }

    fn open_family(&mut self, any: IpAddr, ports: [u16; 2]) -> Result<(), (String, io::Error)> {
        for port in ports {
            let socket = bind(SocketAddr::new(any, port)).map_err(|error| (format!("UDP {port}"), error))?;
            self.udp.push((socket, port == ports[0]));
        }
        let esp = EspSocket::bind(any).map_err(|error| ("IP protocol 50".to_owned(), error))?;
        self.esp.push(esp);
        Ok(())
    }

    /// Takes what has come, and answers it.
    fn look(&mut self) {
        for _ in 0..ANSWERED_MOST {
            let Some((from, nonce)) = self.esp.iter().find_map(EspSocket::receive) else { break };
            self.note(from, nonce, Came { esp: true, ..Came::default() });
        }
        for at in 0..self.udp.len() {
            for _ in 0..ANSWERED_MOST {
                let mut room = [0; 128];
                let Some((socket, is_ike)) = self.udp.get(at) else { return };
                let Ok((length, from)) = socket.recv_from(&mut room) else { break };
                let Some(nonce) = room.get(..length).and_then(knock::asked) else { continue };
                let is_ike = *is_ike;
                let way = Came { ike: is_ike, nat: !is_ike, esp: false };
                if let Some(came) = self.note(from.ip(), nonce, way) {
                    self.answer(at, from, &nonce, came);
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

    /// One datagram back, and one packet that stands in for ESP. What does not leave does not come.
    fn answer(&self, at: usize, to: SocketAddr, nonce: &KnockNonce, came: Came) {
        if let Some((socket, _)) = self.udp.get(at) {
            let _ = socket.send_to(&knock::answer(nonce, came), to);
        }
        let esp = self.esp.get(usize::from(to.is_ipv6()));
        esp.into_iter().for_each(|esp| drop(esp.send(to.ip(), nonce)));
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

fn lacks_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT)
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
