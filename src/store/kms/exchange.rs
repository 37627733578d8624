//! One ask, and one line in answer, within a time: whoever runs helpers may be slow, or never end.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// How long all of it may take: whoever runs the program ends it before that.
const PATIENCE: Duration = Duration::from_secs(12);

/// Why there is no answer.
pub(super) enum NoLine {
    /// Nobody listens there.
    Nobody(io::Error),
    /// He does not answer in time.
    Silent,
    /// He has ended.
    Ended(io::Error),
}

impl From<io::Error> for NoLine {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            _ => Self::Ended(error),
        }
    }
}

/// Says `asked` to whoever listens at `place`, and reads one line of his, without its end, or as much of it as has room in
/// `line`. Returns how long that is.
pub(super) fn exchange(place: &Path, asked: &[u8], line: &mut [u8]) -> Result<usize, NoLine> {
    exchange_within(PATIENCE, place, asked, line)
}

fn exchange_within(patience: Duration, place: &Path, asked: &[u8], line: &mut [u8]) -> Result<usize, NoLine> {
    let time = AskTime::begin(patience)?;
    let mut stream = reach(place, &time)?;
    // One that ends at once may have answered all the same.
    let sent = say(&mut stream, &time, asked);
    let _ = sent.and_then(|()| stream.shutdown(Shutdown::Write));
    let mut length = 0;
    while length < line.len() {
        let read = time.left().and_then(|left| {
            stream.set_read_timeout(Some(left))?;
            stream.read(&mut line[length..])
        });
        match read {
            Ok(0) => break,
            Ok(more) => {
                let end = line[length..length + more].iter().position(|octet| *octet == b'\n');
                if let Some(end) = end {
                    return Ok(length + end);
                }
                length += more;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if length > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(length)
}

fn reach(place: &Path, time: &AskTime) -> Result<UnixStream, NoLine> {
    let nobody = |error: nix::Error| NoLine::Nobody(error.into());
    let socket =
        socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(nobody)?;
    // Where others wait to be let in, to reach him takes as long as to say something.
    let left = time.left()?;
    let left = TimeVal::new(left.as_secs() as i64, i64::from(left.subsec_micros()));
    setsockopt(&socket, sockopt::SendTimeout, &left).map_err(nobody)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(place).map_err(nobody)?).map_err(|error| match error {
        nix::Error::EAGAIN => NoLine::Silent,
        error => nobody(error),
    })?;
    Ok(socket.into())
}

fn say(stream: &mut UnixStream, time: &AskTime, mut asked: &[u8]) -> io::Result<()> {
    while !asked.is_empty() {
        stream.set_write_timeout(Some(time.left()?))?;
        match stream.write(asked) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(said) => asked = &asked[said..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The time that an ask has.
struct AskTime(TimerFd);

impl AskTime {
    fn begin(patience: Duration) -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
        timer.set(Expiration::OneShot(patience.into()), TimerSetTimeFlags::empty())?;
        Ok(Self(timer))
    }

    /// How much of it is left.
    fn left(&self) -> io::Result<Duration> {
        let left = match self.0.get()? {
            Some(Expiration::OneShot(left)) => Duration::from(left),
            _ => Duration::ZERO,
        };
        // The system takes less than that for no bound at all.
        Some(left).filter(|left| *left > Duration::from_millis(1)).ok_or(io::ErrorKind::TimedOut.into())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    const SOON: Duration = Duration::from_millis(300);

    /// What comes of asking whoever does this with the connection, in this time.
    fn asked(patience: Duration, act: impl FnOnce(UnixStream) + Send + 'static) -> Result<Vec<u8>, NoLine> {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("socket");
        let listener = UnixListener::bind(&place).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
            act(stream);
        });
        let mut line = [0; 64];
        exchange_within(patience, &place, b"ask\n", &mut line).map(|length| line[..length].to_vec())
    }

    #[test]
    fn a_line_ends_where_it_ends() {
        let said =
            |octets: &'static [u8]| asked(PATIENCE, |mut stream| stream.write_all(octets).unwrap()).ok();
        assert_eq!(said(b"one\n").as_deref(), Some(&b"one"[..]));
        assert_eq!(said(b"one\ntwo\n").as_deref(), Some(&b"one"[..]), "it is followed by something else");
        assert_eq!(said(b"one").as_deref(), Some(&b"one"[..]), "he ends without it");
        assert_eq!(said(b"").as_deref(), Some(&b""[..]));
    }

    /// Each octet of one who never ends his line comes in time.
    #[test]
    fn all_of_it_has_one_time() {
        let dawdles = |mut stream: UnixStream| {
            while stream.write_all(b"x").is_ok() {
                thread::sleep(SOON);
            }
        };
        assert!(asked(2 * SOON, dawdles).map_or(true, |line| line.len() < 64));
        let (done, is_done) = channel::<()>();
        let keeps_silent = move |stream| {
            let _ = is_done.recv();
            drop(stream);
        };
        assert!(matches!(asked(SOON, keeps_silent), Err(NoLine::Silent)));
        drop(done);
    }

    #[test]
    fn where_others_wait_to_be_let_in_nobody_waits_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("socket");
        let listener = UnixListener::bind(&place).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
        let mut waiting = Vec::new();
        let outcome = loop {
            let mut line = [0; 8];
            match reach(&place, &AskTime::begin(SOON).unwrap()) {
                Ok(stream) if waiting.len() < 16 => waiting.push(stream),
                other => break other.map(drop).and(exchange_within(SOON, &place, b"ask", &mut line)),
            }
        };
        assert!(matches!(outcome, Err(NoLine::Silent)));
        assert!(matches!(exchange(&directory.path().join("none"), b"", &mut [0]), Err(NoLine::Nobody(_))));
    }
}
