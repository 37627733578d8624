//! Connections, within bounds: of their number, of the time that each may take, of headers, and of what nobody takes.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{AbortHandle, LocalSet, spawn_local};
use tokio::time::{sleep, sleep_until};

use super::listen::ScrapeSocket;
use super::routes::{self, Desk, Doorway};
use crate::control::{SeatId, SeatLimits, SeatOwner, Seats};

/// Connections, how long each may take or be idle, and octets of answers that were not taken.
const LIMITS: SeatLimits =
    SeatLimits { seats: 32, patience: Duration::from_secs(20), octets: 64 * 1024 * 1024 };
/// How long the head of a request may take.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// Octets of the head of a request.
const HEAD_LIMIT: usize = 16 * 1024;
/// Lines of it.
const HEADERS_MOST: usize = 64;
/// How long it waits where a connection cannot be taken.
const PAUSE: Duration = Duration::from_millis(100);

/// All connections.
struct Hall {
    desk: Desk,
    seats: RefCell<Seats<AbortHandle>>,
}

/// Serves until it is killed.
///
/// # Errors
/// The system refuses.
pub(super) fn run(sockets: Vec<ScrapeSocket>, desk: Desk) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let hall = Rc::new(Hall { desk, seats: RefCell::new(Seats::new(LIMITS)) });
        for socket in sockets {
            match socket {
                ScrapeSocket::Tcp(listener) => {
                    let listener = TcpListener::from_std(listener)?;
                    spawn_local(hall.clone().accept(async move || {
                        let (stream, from) = listener.accept().await?;
                        Ok((stream, SeatOwner::Address(from.ip())))
                    }));
                }
                ScrapeSocket::Unix(listener) => {
                    let listener = UnixListener::from_std(listener)?;
                    spawn_local(hall.clone().accept(async move || {
                        let (stream, _) = listener.accept().await?;
                        let user = stream.peer_cred()?.uid();
                        Ok((stream, SeatOwner::User(user)))
                    }));
                }
            }
        }
        hall.tidy().await;
        Ok(())
    })
}

impl Hall {
    /// Lets those go that take too long.
    async fn tidy(&self) {
        loop {
            let next = {
                let mut seats = self.seats.borrow_mut();
                end(seats.overdue(Instant::now()));
                seats.deadline()
            };
            let soon = Instant::now() + LIMITS.patience;
            sleep_until(next.map_or(soon, |next| next.min(soon)).into()).await;
        }
    }

    async fn accept<S: AsyncRead + AsyncWrite + Unpin + 'static>(
        self: Rc<Self>,
        next: impl AsyncFn() -> io::Result<(S, SeatOwner)>,
    ) {
        loop {
            match next().await {
                Ok((stream, owner)) => self.let_in(stream, owner),
                // There is no descriptor: somebody will be gone soon.
                Err(error) => {
                    tracing::debug!("a connection cannot be taken: {error}");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn let_in<S: AsyncRead + AsyncWrite + Unpin + 'static>(self: &Rc<Self>, stream: S, owner: SeatOwner) {
        let seat = self.seats.borrow_mut().reserve();
        let hall = self.clone();
        let door = match owner {
            SeatOwner::Address(_) => Doorway::Network,
            SeatOwner::User(_) => Doorway::Unix,
        };
        let task = spawn_local(async move {
            let service = service_fn(|request| hall.answer(seat, door, request));
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
            builder.max_buf_size(HEAD_LIMIT).max_headers(HEADERS_MOST);
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!("a connection: {error}");
            }
            hall.seats.borrow_mut().leave(seat);
        });
        end(self.seats.borrow_mut().sit(Instant::now(), seat, owner, task.abort_handle()));
    }

    async fn answer(
        &self,
        seat: SeatId,
        door: Doorway,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        self.seats.borrow_mut().work(seat);
        let response = routes::answer(&self.desk, door, &request).await;
        let octets = response.body().size_hint().exact().and_then(|octets| octets.try_into().ok());
        end(self.seats.borrow_mut().hold(Instant::now(), seat, octets.unwrap_or(usize::MAX)));
        Ok(response)
    }
}

fn end(tasks: impl IntoIterator<Item = AbortHandle>) {
    tasks.into_iter().for_each(|task| task.abort());
}
