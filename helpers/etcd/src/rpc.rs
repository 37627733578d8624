//! gRPC over HTTP/2, as much of it as etcd takes (grpc.github.io, "gRPC over HTTP2"): calls with one answer, and with
//! many.

use std::io;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, StatusCode, Version};
use prost::Message;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls;

/// The most octets of an answer: etcd sends pages that are smaller, unless somebody keeps other things there.
pub const ANSWER_MAX: usize = 4 << 20;
/// How much may be under way that nobody has read.
const WINDOW: u32 = 1 << 20;
/// What stands before each message: whether it is compressed (1), and its length (4).
const HEAD: usize = 5;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// The connection broke, or there was none.
    #[error("{0}")]
    Broken(String),
    /// etcd says no.
    #[error("{message}")]
    Refused {
        /// gRPC's status.
        code: u32,
        /// In etcd's words.
        message: String,
    },
    /// There is more than an answer may have.
    #[error("its answer is longer than {ANSWER_MAX} octets")]
    TooLong,
    /// The answer is none.
    #[error("its answer cannot be read: is this the client port of an etcd 3.4 or later?")]
    Malformed,
}

impl RpcError {
    /// Whether etcd works and says no to this alone: it would say so again, on whatever connection.
    pub fn is_refusal(&self) -> bool {
        /// What gRPC calls its codes, where the fault is not with the connection, nor passes by itself.
        const REFUSALS: [u32; 6] = [3, 7, 8, 9, 12, 16];
        matches!(self, Self::Refused { code, .. } if REFUSALS.contains(code))
    }
}

impl From<h2::Error> for RpcError {
    fn from(error: h2::Error) -> Self {
        Self::Broken(error.get_io().map_or_else(|| error.to_string(), words))
    }
}

impl From<io::Error> for RpcError {
    fn from(error: io::Error) -> Self {
        Self::Broken(words(&error))
    }
}

/// What an error of a connection means: libraries say it in other words.
fn words(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match (tls, error.kind()) {
        (Some(rustls::Error::InvalidCertificate(why)), _) => {
            format!("its certificate is not good ({why}): is it of that CA, and for this address?")
        }
        (Some(other), _) => other.to_string(),
        // HTTP/2 has kept the words alone of what TLS says.
        (None, io::ErrorKind::InvalidData) => {
            format!("it refuses TLS ({error}): does it take the certificate of this host?")
        }
        // With TLS 1.3 what it has against a certificate may come too late to be read.
        (None, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof) => {
            "it has closed the connection: does it run, and take the certificate of this host?".to_owned()
        }
        (None, _) => error.to_string(),
    }
}

/// A connection to an endpoint; it closes with this.
pub struct Connection {
    sender: SendRequest<Bytes>,
    authority: String,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Begins HTTP/2 on a connection to `authority`.
    ///
    /// # Errors
    /// The other end speaks something else.
    pub async fn begin(stream: TlsStream<TcpStream>, authority: &str) -> Result<Self, RpcError> {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW).enable_push(false);
        let (sender, connection) = builder.handshake(stream).await?;
        // How it ends is told to the calls.
        let driver = tokio::spawn(async { drop(connection.await) });
        Ok(Self { sender, authority: authority.to_owned(), driver })
    }

    /// Calls `method`, which gives one answer.
    pub async fn call<Q: Message, A: Message + Default>(
        &mut self,
        method: &str,
        question: &Q,
    ) -> Result<A, RpcError> {
        let (mut answers, mut sender) = self.open(method).await?;
        sender.send_data(framed(question)?, true)?;
        let answer = answers.next().await?.ok_or(RpcError::Malformed)?;
        match answers.next::<A>().await? {
            None => Ok(answer),
            Some(_) => Err(RpcError::Malformed),
        }
    }

    /// Calls `method`, which gives answers for as long as what comes back is held.
    pub async fn follow<Q: Message>(&mut self, method: &str, question: &Q) -> Result<Followed, RpcError> {
        let (answers, mut sender) = self.open(method).await?;
        sender.send_data(framed(question)?, false)?;
        Ok(Followed { answers, _sender: sender })
    }

    async fn open(&mut self, method: &str) -> Result<(Answers, SendStream<Bytes>), RpcError> {
        let request = Request::post(format!("https://{}/{method}", self.authority))
            .version(Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            // A member that has lost the others says so, where it would keep silent.
            .header("hasleader", "true")
            .body(())
            .map_err(|error| RpcError::Broken(error.to_string()))?;
        let mut ready = self.sender.clone().ready().await?;
        let (answer, sender) = ready.send_request(request, false)?;
        Ok((Answers::Awaited(answer), sender))
    }
}

/// A call that gives many answers; it ends with this.
pub struct Followed {
    answers: Answers,
    /// Held, as the call is over when its end of the conversation is.
    _sender: SendStream<Bytes>,
}

impl Followed {
    /// The next answer; `None` after the last one. A call of this that is dropped loses none.
    pub async fn next<A: Message + Default>(&mut self) -> Result<Option<A>, RpcError> {
        self.answers.next().await
    }
}

/// The answers to a call.
enum Answers {
    /// Nothing has come yet.
    Awaited(h2::client::ResponseFuture),
    Coming(Body),
}

struct Body {
    stream: RecvStream,
    buffer: BytesMut,
}

impl Answers {
    /// The next message; `None` after the last one, where the call went well.
    async fn next<A: Message + Default>(&mut self) -> Result<Option<A>, RpcError> {
        let body = match self {
            Answers::Coming(body) => body,
            Answers::Awaited(answer) => {
                let (head, stream) = answer.await?.into_parts();
                if head.status != StatusCode::OK {
                    return Err(RpcError::Broken(format!("it answers with HTTP status {}", head.status)));
                }
                judge(&head.headers)?;
                *self = Answers::Coming(Body { stream, buffer: BytesMut::new() });
                let Answers::Coming(body) = self else { return Err(RpcError::Malformed) };
                body
            }
        };
        loop {
            if let Some(message) = body.take()? {
                return A::decode(message).map(Some).map_err(|_| RpcError::Malformed);
            }
            match body.stream.data().await {
                Some(data) => {
                    let data = data?;
                    body.stream.flow_control().release_capacity(data.len())?;
                    body.buffer.extend_from_slice(&data);
                }
                None => {
                    let trailers = body.stream.trailers().await?;
                    judge(&trailers.unwrap_or_default())?;
                    return if body.buffer.is_empty() { Ok(None) } else { Err(RpcError::Malformed) };
                }
            }
        }
    }
}

impl Body {
    /// Takes a whole message off the buffer.
    fn take(&mut self) -> Result<Option<Bytes>, RpcError> {
        let Some(head) = self.buffer.first_chunk::<HEAD>() else { return Ok(None) };
        let [compressed, length @ ..] = *head;
        let length = u32::from_be_bytes(length) as usize;
        match () {
            () if compressed != 0 => Err(RpcError::Malformed),
            () if length > ANSWER_MAX => Err(RpcError::TooLong),
            () if self.buffer.len() < HEAD + length => Ok(None),
            () => {
                self.buffer.advance(HEAD);
                Ok(Some(self.buffer.split_to(length).freeze()))
            }
        }
    }
}

/// What gRPC says of a call in its headers.
fn judge(headers: &HeaderMap) -> Result<(), RpcError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status").map(str::parse) {
        None | Some(Ok(0)) => Ok(()),
        Some(Ok(code)) => {
            Err(RpcError::Refused { code, message: unescaped(text("grpc-message").unwrap_or_default()) })
        }
        Some(Err(_)) => Err(RpcError::Malformed),
    }
}

/// gRPC's messages have `%` and two digits for what is not plain ASCII.
fn unescaped(message: &str) -> String {
    let mut octets = Vec::new();
    let mut rest = message.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.first_chunk::<2>().and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(octet) => {
                octets.push(octet);
                rest = &after[2..];
            }
            None => {
                octets.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&octets).into_owned()
}

fn framed(message: &impl Message) -> Result<Bytes, RpcError> {
    let length = message.encoded_len();
    let mut octets = BytesMut::with_capacity(HEAD + length);
    octets.put_u8(0);
    octets.put_u32(u32::try_from(length).map_err(|_| RpcError::TooLong)?);
    message.encode(&mut octets).map_err(|_| RpcError::TooLong)?;
    Ok(octets.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_refusal_are_read() {
        assert_eq!(unescaped("no%20space%3A 100% %zz %e"), "no space: 100% %zz %e");
        assert_eq!(unescaped("caf%C3%A9 %FF"), "café \u{fffd}");
    }

    #[test]
    fn what_etcd_says_no_to_is_told_from_a_broken_connection() {
        let status = |code: &str| {
            let pairs = [("grpc-status", code), ("grpc-message", "etcdserver: no")];
            let pairs = pairs.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            judge(&HeaderMap::from_iter(pairs))
        };
        assert!(status("0").is_ok() && judge(&HeaderMap::new()).is_ok());
        let no = status("7").unwrap_err();
        assert!(no.is_refusal() && no.to_string() == "etcdserver: no");
        assert!(!status("14").unwrap_err().is_refusal() && !status("x").unwrap_err().is_refusal());
    }
}
