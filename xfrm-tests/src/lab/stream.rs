//! A UDP stream with sequence numbers: what arrives, what does not, and in which order.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use super::host::{End, Family, Host};

/// How long the receiver goes on listening when nothing comes any more.
const SILENCE: Duration = Duration::from_millis(1000);
/// Room for a second of packets at the receiver, in bytes.
const RECEIVE_BUFFER: usize = 8 << 20;

/// What a stream looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Packets a second.
    pub rate: u32,
    /// The UDP payload in bytes, 8 at least.
    pub size: usize,
    /// The port it goes to.
    pub port: u16,
}

impl Default for Shape {
    fn default() -> Self {
        Self { family: Family::V4, rate: 1000, size: 100, port: 7000 }
    }
}

/// What became of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Count {
    /// Sequence numbers that were used up, whether the kernel took the packet or refused it.
    pub sent: u64,
    /// Of these, how many the kernel refused to take.
    pub refused: u64,
    /// The first refusal in words.
    pub first_refusal: Option<String>,
    /// Different packets that arrived.
    pub received: u64,
    /// Sent and not arrived, the refused ones included.
    pub lost: u64,
    /// The runs of consecutive packets that did not arrive: 1 where all that was lost was lost in one go.
    pub gaps: u64,
    /// Arrived once more.
    pub duplicated: u64,
    /// Arrived after a later one.
    pub reordered: u64,
    /// The longest time in which nothing arrived.
    pub longest_silence: Duration,
}

impl Count {
    /// Checks that everything arrived, and once. Where a path changes, the order may: a packet that is being
    /// decrypted is overtaken by one that need not be.
    ///
    /// # Errors
    /// With all figures.
    pub fn ensure_complete(&self) -> Result<()> {
        let complete = (self.lost, self.duplicated, self.refused) == (0, 0, 0);
        ensure!(complete && self.sent > 0, "the stream is not complete: {self:?}");
        Ok(())
    }

    /// Checks that everything arrived once and in order.
    ///
    /// # Errors
    /// With all figures.
    pub fn ensure_perfect(&self) -> Result<()> {
        let perfect = (self.lost, self.duplicated, self.reordered, self.refused) == (0, 0, 0, 0);
        ensure!(perfect && self.sent > 0, "the stream is not perfect: {self:?}");
        Ok(())
    }
}

/// A stream under way.
pub struct Stream {
    stopping: Arc<AtomicBool>,
    arrived: Arc<AtomicU64>,
    sender: JoinHandle<Result<Count>>,
    receiver: JoinHandle<Result<Seen>>,
    done: Arc<AtomicBool>,
}

impl Stream {
    /// Starts a stream between two hosts.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn start(from: &Host, to: &Host, shape: Shape) -> Result<Self> {
        Self::between([&from.end(shape.family), &to.end(shape.family)], shape)
    }

    /// Starts a stream between two addresses, whose family is that of `shape`.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn between([from, to]: [&End; 2], shape: Shape) -> Result<Self> {
        Self::sent_to(to.address, [from, to], shape)
    }

    /// The same, sent to another address, which something on the way turns into the receiver's.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn sent_to(address: IpAddr, [from, to]: [&End; 2], shape: Shape) -> Result<Self> {
        ensure!(shape.size >= 8 && shape.rate > 0, "a stream of {shape:?}");
        let target = SocketAddr::new(address, shape.port);
        let inbox = to.host.within(|| UdpSocket::bind((to.address, shape.port)))?;
        let inbox = inbox.context("the receiver's socket")?;
        setsockopt(&inbox, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        inbox.set_read_timeout(Some(Duration::from_millis(20)))?;
        let outbox = from
            .host
            .within(|| -> Result<UdpSocket> {
                let socket = UdpSocket::bind((from.address, 0))?;
                socket.connect(target)?;
                Ok(socket)
            })?
            .context("the sender's socket")?;
        let stopping = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicBool::new(false));
        let arrived = Arc::new(AtomicU64::new(0));
        let sender = thread::spawn({
            let stopping = Arc::clone(&stopping);
            move || send(&outbox, shape, &stopping)
        });
        let receiver = thread::spawn({
            let (done, arrived) = (Arc::clone(&done), Arc::clone(&arrived));
            move || receive(&inbox, shape.size, &done, &arrived)
        });
        Ok(Self { stopping, arrived, sender, receiver, done })
    }

    /// How many packets have arrived so far.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Ends the stream, waits for what is still on its way and counts.
    ///
    /// # Errors
    /// When a socket failed in an unexpected way.
    pub fn stop(self) -> Result<Count> {
        self.stopping.store(true, Ordering::Relaxed);
        let mut count = self.sender.join().map_err(|_| anyhow!("the sender panicked"))??;
        self.done.store(true, Ordering::Relaxed);
        let seen = self.receiver.join().map_err(|_| anyhow!("the receiver panicked"))??;
        count.received = seen.different;
        count.lost = count.sent - seen.different;
        count.gaps = seen.gaps(count.sent);
        count.duplicated = seen.duplicated;
        count.reordered = seen.reordered;
        count.longest_silence = seen.longest_silence;
        Ok(count)
    }

    /// Runs a stream for a time.
    ///
    /// # Errors
    /// As [`Stream::start`] and [`Stream::stop`].
    pub fn run(from: &Host, to: &Host, shape: Shape, time: Duration) -> Result<Count> {
        let stream = Self::start(from, to, shape)?;
        sleep(time);
        stream.stop()
    }
}

/// Sends by an absolute schedule, so that a late wake-up does not slow the stream down.
fn send(outbox: &UdpSocket, shape: Shape, stopping: &AtomicBool) -> Result<Count> {
    let mut count = Count::default();
    let mut payload = vec![0u8; shape.size];
    let start = Instant::now();
    while !stopping.load(Ordering::Relaxed) {
        let due = start + Duration::from_nanos(count.sent * 1_000_000_000 / u64::from(shape.rate));
        sleep(due.saturating_duration_since(Instant::now()));
        payload[..8].copy_from_slice(&count.sent.to_be_bytes());
        if let Err(error) = outbox.send(&payload) {
            count.refused += 1;
            count.first_refusal.get_or_insert_with(|| error.to_string());
        }
        count.sent += 1;
    }
    Ok(count)
}

/// What the receiver saw.
#[derive(Default)]
struct Seen {
    arrivals: Vec<bool>,
    different: u64,
    duplicated: u64,
    reordered: u64,
    highest: Option<u64>,
    longest_silence: Duration,
}

impl Seen {
    fn take(&mut self, number: u64) -> Result<()> {
        let index = usize::try_from(number)?;
        // A day at a million packets a second: more than that is not a number of ours.
        ensure!(number < 100_000_000_000, "a packet numbered {number}");
        if self.arrivals.len() <= index {
            self.arrivals.resize(index + 1, false);
        }
        if std::mem::replace(&mut self.arrivals[index], true) {
            self.duplicated += 1;
        } else {
            self.different += 1;
            self.reordered += u64::from(self.highest.is_some_and(|highest| number < highest));
        }
        self.highest = self.highest.max(Some(number));
        Ok(())
    }

    fn note_silence(&mut self, time: Duration) {
        self.longest_silence = self.longest_silence.max(time);
    }

    /// Runs of packets among the first `sent` that did not arrive.
    fn gaps(&self, sent: u64) -> u64 {
        let (mut gaps, mut before) = (0, true);
        for arrived in (0..sent).map(|number| self.has(number)) {
            gaps += u64::from(before && !arrived);
            before = arrived;
        }
        gaps
    }

    fn has(&self, number: u64) -> bool {
        let index = usize::try_from(number).ok();
        index.and_then(|index| self.arrivals.get(index)).is_some_and(|arrived| *arrived)
    }
}

fn receive(inbox: &UdpSocket, size: usize, done: &AtomicBool, arrived: &AtomicU64) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut buffer = vec![0u8; size + 1];
    let mut last_arrival = Instant::now();
    let mut done_since = None;
    loop {
        match inbox.recv(&mut buffer) {
            Ok(length) => {
                ensure!(length == size, "a packet of {length} bytes in a stream of {size}");
                let now = Instant::now();
                seen.note_silence(now - std::mem::replace(&mut last_arrival, now));
                let number = buffer[..8].try_into().map(u64::from_be_bytes)?;
                seen.take(number)?;
                arrived.store(seen.different, Ordering::Relaxed);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("the receiver"),
        }
        if done.load(Ordering::Relaxed) {
            let since = *done_since.get_or_insert_with(Instant::now);
            seen.note_silence(since.saturating_duration_since(last_arrival));
            if since.max(last_arrival).elapsed() >= SILENCE {
                return Ok(seen);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_told_apart() {
        let mut seen = Seen::default();
        for number in [0, 1, 3, 2, 3, 5] {
            seen.take(number).expect("a sensible number");
        }
        assert_eq!((seen.different, seen.duplicated, seen.reordered), (5, 1, 1));
        assert_eq!([4, 5, 6, 7, 9].map(|sent| seen.gaps(sent)), [0, 1, 1, 2, 2]);
    }

    #[test]
    fn a_count_with_anything_in_it_is_not_perfect() {
        let perfect = Count { sent: 10, received: 10, ..Count::default() };
        assert!(perfect.ensure_perfect().is_ok());
        assert!(Count { lost: 1, ..perfect.clone() }.ensure_perfect().is_err());
        assert!(Count { duplicated: 1, ..perfect.clone() }.ensure_perfect().is_err());
        assert!(Count { lost: 1, ..perfect.clone() }.ensure_complete().is_err());
        assert!(Count { duplicated: 1, ..perfect.clone() }.ensure_complete().is_err());
        assert!(Count { reordered: 1, ..perfect.clone() }.ensure_complete().is_ok());
        assert!(Count { reordered: 1, ..perfect }.ensure_perfect().is_err());
        assert!(Count::default().ensure_perfect().is_err(), "nothing was sent");
    }
}
