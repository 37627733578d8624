//! One request to Vault at a time, over HTTPS: what is read of an answer is bounded, and whom this host trusts is settled
//! before a word is said.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, LOCATION};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde::Serialize;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use zeroize::Zeroizing;

use crate::refused::Refused;
use crate::says::Reply;
use crate::settings::{Address, Settings};

/// The most octets of an answer, and of what stands before it.
const ANSWER_MAX: usize = 64 << 10;
/// The size of most asks: a blob, in base64.
const BODY_ROOM: usize = 32 << 10;
/// Where one is sent on to keeps method and body. Another kind of redirect is none of Vault's.
const SENT_ON: [u16; 2] = [307, 308];

/// How long one address of a host may take to answer.
const CONNECT_PATIENCE: Duration = Duration::from_millis(1500);

/// Who speaks to Vault.
pub struct Client {
    address: Address,
    namespace: Option<HeaderValue>,
    server_name: Option<ServerName<'static>>,
    tls: TlsConnector,
}

/// A value as JSON, for a body.
pub fn json(value: &impl Serialize) -> Zeroizing<Vec<u8>> {
    // Its full size at once: growing would leave copies behind. Nothing in it can fail to be written.
    let mut octets = Zeroizing::new(Vec::with_capacity(BODY_ROOM));
    let _ = serde_json::to_writer(&mut *octets, value);
    octets
}

impl Client {
    /// One who goes by `settings`.
    ///
    /// # Errors
    /// There is nobody whom it could trust.
    pub fn new(settings: &Settings) -> Result<Self, Refused> {
        let mut roots = RootCertStore::empty();
        if settings.roots.is_empty() {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        } else {
            roots.add_parsable_certificates(settings.roots.iter().cloned());
        }
        if roots.is_empty() {
            return Err(Refused::unavailable("no CA is trusted here: name Vault's in VAULT_CACERT"));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Refused::unavailable(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let Settings { address, namespace, server_name, .. } = settings;
        Ok(Self {
            address: address.clone(),
            namespace: namespace.clone(),
            server_name: server_name.clone(),
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Reads something.
    ///
    /// # Errors
    /// Nobody answers, or too much.
    pub async fn get(&self, path: &str, token: &str) -> Result<Reply, Refused> {
        self.send(&Method::GET, path, Some(token), Bytes::new()).await
    }

    /// Has something done.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post(
        &self,
        path: &str,
        token: Option<&str>,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Reply, Refused> {
        self.send(&Method::POST, path, token, Bytes::from_owner(body)).await
    }

    /// A standby that cannot pass a request on says where the active node is.
    async fn send(
        &self,
        method: &Method,
        path: &str,
        token: Option<&str>,
        body: Bytes,
    ) -> Result<Reply, Refused> {
        let at = |address: &Address, said: String| {
            Refused::unavailable(format!("https://{}: {said}", address.authority))
        };
        let first = self.exchange(&self.address, method, path, token, body.clone()).await;
        let first = first.map_err(|said| at(&self.address, said))?;
        let status = first.status().as_u16();
        if !SENT_ON.contains(&status) {
            return reply(first).await.map_err(|said| at(&self.address, said));
        }
        let location =
            first.headers().get(LOCATION).and_then(|value| value.to_str().ok()).and_then(Address::read);
        let path_there = format!("/v1/{path}");
        let active = location
            .and_then(|it| Some(Address { prefix: it.prefix.strip_suffix(&path_there)?.to_owned(), ..it }));
        let active = active.ok_or_else(|| {
            at(&self.address, format!("sends this host to no Vault (HTTP status {status})"))
        })?;
        let second =
            self.exchange(&active, method, path, token, body).await.map_err(|said| at(&active, said))?;
        match SENT_ON.contains(&second.status().as_u16()) {
            true => Err(at(&active, "sends this host on again".to_owned())),
            false => reply(second).await.map_err(|said| at(&active, said)),
        }
    }

    async fn exchange(
        &self,
        address: &Address,
        method: &Method,
        path: &str,
        token: Option<&str>,
        body: Bytes,
    ) -> Result<Response<Incoming>, String> {
        let request = self.request(address, method, path, token, body)?;
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(address.host.clone())
                .map_err(|_| "that is no name of a host".to_owned())?,
        };
        let stream = connected(address).await.map_err(|error| error.to_string())?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| of_tls(&error))?;
        let mut connecting = http1::Builder::new();
        connecting.max_buf_size(ANSWER_MAX);
        let (mut sender, connection) =
            connecting.handshake(TokioIo::new(stream)).await.map_err(|error| of_http(&error))?;
        // How it ends is told to the request.
        tokio::spawn(async { drop(connection.await) });
        sender.send_request(request).await.map_err(|error| of_http(&error))
    }

    fn request(
        &self,
        address: &Address,
        method: &Method,
        path: &str,
        token: Option<&str>,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/v1/{path}", address.prefix))
            .header(HOST, &address.authority)
            .header(CONTENT_TYPE, "application/json")
            // Where Vault wants to know that nobody was tricked into this request.
            .header("x-vault-request", "true");
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(token).map_err(|_| "the token is none".to_owned())?;
            value.set_sensitive(true);
            request = request.header("x-vault-token", value);
        }
        if let Some(namespace) = &self.namespace {
            request = request.header("x-vault-namespace", namespace);
        }
        request.body(Full::new(body)).map_err(|error| error.to_string())
    }
}

/// Connects to the first address of a host that answers in time: another node may live where one is down.
async fn connected(address: &Address) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "that name has no address");
    for place in lookup_host((address.host.as_str(), address.port)).await? {
        match timeout(CONNECT_PATIENCE, TcpStream::connect(place)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{place} does not answer")),
        }
    }
    Err(last)
}

/// Reads an answer, as much as it may have.
async fn reply(response: Response<Incoming>) -> Result<Reply, String> {
    let (head, incoming) = response.into_parts();
    let mut coming = Limited::new(incoming, ANSWER_MAX);
    let mut body = Zeroizing::new(Vec::with_capacity(ANSWER_MAX));
    while let Some(frame) = coming.frame().await {
        let frame = frame.map_err(|error| match error.downcast_ref::<hyper::Error>() {
            Some(error) => of_http(error),
            None => format!("its answer is longer than {} KiB", ANSWER_MAX >> 10),
        })?;
        if let Some(octets) = frame.data_ref() {
            body.extend_from_slice(octets);
        }
    }
    Ok(Reply { status: head.status.as_u16(), body })
}

/// What an error of TLS means.
fn of_tls(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => format!(
            "its certificate is not trusted ({why}): name its CA in VAULT_CACERT, and the host as the certificate does \
             (VAULT_SKIP_VERIFY is not honoured)"
        ),
        Some(rustls::Error::InvalidMessage(_)) => "it does not speak TLS".to_owned(),
        Some(other) => format!("TLS fails: {other}"),
        None => match error.kind() {
            io::ErrorKind::UnexpectedEof => "it has closed the connection in the middle of TLS".to_owned(),
            _ => error.to_string(),
        },
    }
}

/// What an error of HTTP means. Whoever has answered nonsense is not quoted.
fn of_http(error: &hyper::Error) -> String {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    let is_cut =
        error.is_incomplete_message() || cause.is_some_and(|it| it.kind() == io::ErrorKind::UnexpectedEof);
    match () {
        () if error.is_parse() => "its answer is no HTTP, or has no end".to_owned(),
        () if is_cut => "it has closed the connection before its answer was complete".to_owned(),
        () => cause.map_or_else(|| error.to_string(), ToString::to_string),
    }
}
