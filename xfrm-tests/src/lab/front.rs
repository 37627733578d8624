//! What stands before ministack, at another port of its host: it hands connections on as they are, unless it is to say what
//! ministack cannot. Then TLS ends here, with the certificate of ministack, and the answer is as AWS documents it
//! (<https://docs.aws.amazon.com/kms/latest/APIReference/CommonErrors.html> and the errors of Decrypt), or is one of somebody
//! who is not AWS.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::host::Host;

/// What it does with whoever connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrontWord {
    /// Hands it on to ministack.
    HandsOn,
    /// Says that there were too many requests.
    Throttled,
    /// Says that the credentials have expired.
    Expired,
    /// Says that there is no such key.
    NotFound,
    /// Takes the connection, and says nothing.
    Silent,
    /// Says what makes no sense.
    Garbage,
    /// Says more and more.
    Endless,
    /// Gives another secret.
    OtherSecret,
}

/// It ends with its lab.
pub struct Front {
    word: Arc<Mutex<FrontWord>>,
    address: SocketAddr,
}

impl Front {
    /// Starts it on a host, before what listens there at the port `behind`.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(host: &Host, port: u16, behind: u16, tls: Arc<ServerConfig>) -> Result<Self> {
        let address = SocketAddr::from((host.v4(), port));
        let listener = host.within(|| TcpListener::bind(address))??;
        let word = Arc::new(Mutex::new(FrontWord::HandsOn));
        let (host, now) = (host.clone(), Arc::clone(&word));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let word = *now.lock().unwrap_or_else(PoisonError::into_inner);
                let (host, tls) = (host.clone(), Arc::clone(&tls));
                // Whoever asked sees what became of it.
                thread::spawn(move || drop(serve(&host, behind, stream, word, tls)));
            }
        });
        Ok(Self { word, address })
    }

    /// Where it is asked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it does from now on.
    pub fn say(&self, word: FrontWord) {
        *self.word.lock().unwrap_or_else(PoisonError::into_inner) = word;
    }
}

fn serve(
    host: &Host,
    behind: u16,
    mut stream: TcpStream,
    word: FrontWord,
    tls: Arc<ServerConfig>,
) -> Result<()> {
    match word {
        FrontWord::HandsOn => {
            let other = host.within(|| TcpStream::connect((host.v4(), behind)))??;
            let back = (other.try_clone()?, stream.try_clone()?);
            thread::spawn(move || drop(pass_on(back.0, back.1)));
            pass_on(stream, other)?;
        }
        // Until whoever asked goes.
        FrontWord::Silent => drop(io::copy(&mut stream, &mut io::sink())?),
        _ => {
            let mut stream = StreamOwned::new(ServerConnection::new(tls)?, stream);
            read_request(&mut stream)?;
            answer(&mut stream, word)?;
            stream.conn.send_close_notify();
            stream.flush()?;
        }
    }
    Ok(())
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    io::copy(&mut from, &mut to)?;
    to.shutdown(Shutdown::Write)
}

/// Reads a request to its end.
fn read_request(stream: &mut impl io::Read) -> io::Result<()> {
    let (mut head, mut octet) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut octet)?;
        head.push(octet[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    io::copy(&mut stream.take(length.unwrap_or(0)), &mut io::sink())?;
    Ok(())
}

fn answer(to: &mut impl io::Write, word: FrontWord) -> io::Result<()> {
    let error = |code: &str, message: &str| format!(r#"{{"__type":"{code}","message":"{message}"}}"#);
    let (status, body) = match word {
        FrontWord::Throttled => ("400 Bad Request", error("ThrottlingException", "Rate exceeded")),
        FrontWord::Expired => (
            "403 Forbidden",
            error("ExpiredTokenException", "The security token included in the request is expired"),
        ),
        FrontWord::NotFound => {
            ("400 Bad Request", error("NotFoundException", "Key 'arn:aws:kms:…' does not exist"))
        }
        FrontWord::OtherSecret => (
            "200 OK",
            r#"{"KeyId":"k","Plaintext":"b3VyIHNlY3JldCBpcyBhbm90aGVyLCAzMiBieXRlcy4=","EncryptionAlgorithm":"SYMMETRIC_DEFAULT"}"#
                .to_owned(),
        ),
        FrontWord::Endless => return say_more_and_more(to),
        FrontWord::HandsOn | FrontWord::Silent | FrontWord::Garbage => ("200 OK", "\0<!doctype".repeat(100)),
    };
    let length = body.len();
    write!(
        to,
        "HTTP/1.1 {status}\r\ncontent-type: application/x-amz-json-1.1\r\nx-amzn-requestid: front-1\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

fn say_more_and_more(to: &mut impl io::Write) -> io::Result<()> {
    write!(
        to,
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.1\r\ntransfer-encoding: chunked\r\n\r\n\
         e\r\n{{\"Plaintext\":\"\r\n"
    )?;
    loop {
        write!(to, "10000\r\n{}\r\n", "A".repeat(0x1_0000))?;
    }
}
