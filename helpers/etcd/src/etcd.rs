//! What is asked of etcd: everything below a prefix, what is new there, and to store what is not there.

use std::sync::Arc;
use std::time::Duration;

use hostseal_store_protocol::{EntryName, LISTED_MAX, LISTED_OCTETS_MAX, StoredEntry, VALUE_MAX};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;

use crate::message::{
    Compare, CompareTarget, EventType, KeyValue, PutRequest, RangeRequest, RangeResponse, RequestOp,
    TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest, WatchResponse,
};
use crate::rpc::{Connection, Followed, RpcError};

/// How long an endpoint may take for one thing.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many keys a page has.
const PAGE: i64 = 256;

/// Where etcd is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// As the operator has written it.
    pub url: String,
    authority: String,
    host: String,
    port: u16,
}

impl Endpoint {
    /// Reads `https://HOST:PORT`.
    pub fn read(url: &str) -> Option<Self> {
        let authority: http::uri::Authority =
            url.strip_prefix("https://")?.trim_end_matches('/').parse().ok()?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16()?;
        (!host.is_empty()).then(|| Self { url: url.to_owned(), authority: authority.to_string(), host, port })
    }
}

/// A way to etcd.
pub struct Etcd {
    connection: Connection,
    prefix: String,
}

/// What etcd has below the prefix.
pub struct Listing {
    /// The entries, in the order in which they were stored.
    pub entries: Vec<StoredEntry>,
    /// How many things lie there that are none.
    pub strange: u64,
    /// The state of the store that this is.
    pub revision: i64,
}

/// What has changed.
pub enum Change {
    /// This was stored.
    Stored(StoredEntry),
    /// This is not there any more.
    Gone(EntryName),
}

impl Etcd {
    /// Connects to an endpoint.
    ///
    /// # Errors
    /// It cannot be reached, does not prove itself, or takes too long.
    pub async fn connect(
        endpoint: &Endpoint,
        config: &Arc<ClientConfig>,
        prefix: &str,
    ) -> Result<Self, RpcError> {
        in_time(async {
            let Endpoint { authority, host, port, .. } = endpoint;
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            let name =
                ServerName::try_from(host.clone()).map_err(|error| RpcError::Broken(error.to_string()))?;
            let stream = TlsConnector::from(config.clone()).connect(name, stream).await?;
            let connection = Connection::begin(stream, authority).await?;
            Ok(Self { connection, prefix: prefix.to_owned() })
        })
        .await
    }

    /// Everything below the prefix.
    ///
    /// # Errors
    /// etcd does not answer, or there is more than a roster can be.
    pub async fn list(&mut self) -> Result<Listing, RpcError> {
        let (mut found, mut octets, mut strange, mut revision) = (Vec::new(), 0, 0, 0);
        let mut from = self.prefix.clone().into_bytes();
        loop {
            let page = self.range(from, PAGE, revision, false).await?;
            revision = page.header.unwrap_or_default().revision;
            let last = page.kvs.last().map(|last| last.key.clone());
            for kv in page.kvs {
                let created = kv.create_revision;
                let Some(entry) = self.entry(kv) else {
                    strange += 1;
                    continue;
                };
                octets += entry.value.len();
                found.push((created, entry));
            }
            if found.len() + strange > LISTED_MAX || octets > LISTED_OCTETS_MAX {
                return Err(RpcError::TooLong);
            }
            match last.filter(|_| page.more) {
                // The first key after it.
                Some(last) => from = [last.as_slice(), &[0]].concat(),
                None => break,
            }
        }
        found.sort_by_key(|(created, _)| *created);
        let entries = found.into_iter().map(|(_, entry)| entry).collect();
        Ok(Listing { entries, strange: strange as u64, revision })
    }

    /// Whether etcd answers, and knows a leader.
    ///
    /// # Errors
    /// It does not.
    pub async fn check(&mut self) -> Result<(), RpcError> {
        let from = self.prefix.clone().into_bytes();
        self.range(from, 1, 0, true).await.map(drop)
    }

    /// Follows all changes after a revision.
    ///
    /// # Errors
    /// etcd does not answer.
    pub async fn follow(&mut self, revision: i64) -> Result<Changes, RpcError> {
        let create = WatchCreateRequest {
            key: self.prefix.clone().into_bytes(),
            range_end: end_of(&self.prefix),
            start_revision: revision + 1,
            fragment: true,
        };
        let request = WatchRequest { create: Some(create) };
        let followed = in_time(self.connection.follow("etcdserverpb.Watch/Watch", &request)).await?;
        Ok(Changes { followed, prefix: self.prefix.clone() })
    }

    /// Stores an entry, unless its name is there.
    ///
    /// # Errors
    /// etcd does not answer, or says no: it may be stored all the same.
    pub async fn store(&mut self, entry: StoredEntry) -> Result<(), RpcError> {
        let key = format!("{}{}", self.prefix, entry.name).into_bytes();
        let target = CompareTarget::Create.into();
        let absent = Compare { target, key: key.clone(), create_revision: Some(0) };
        let put = RequestOp { put: Some(PutRequest { key, value: entry.value }) };
        let request = TxnRequest { compare: vec![absent], success: vec![put] };
        let answer = self.connection.call::<_, TxnResponse>("etcdserverpb.KV/Txn", &request);
        in_time(answer).await.map(drop)
    }

    async fn range(
        &mut self,
        key: Vec<u8>,
        limit: i64,
        revision: i64,
        keys_only: bool,
    ) -> Result<RangeResponse, RpcError> {
        let range_end = end_of(&self.prefix);
        let request = RangeRequest { key, range_end, limit, revision, keys_only };
        in_time(self.connection.call("etcdserverpb.KV/Range", &request)).await
    }

    fn entry(&self, kv: KeyValue) -> Option<StoredEntry> {
        entry(&self.prefix, kv)
    }
}

/// What changes below the prefix, as it does.
pub struct Changes {
    followed: Followed,
    prefix: String,
}

impl Changes {
    /// The next changes. A call that is dropped loses none.
    ///
    /// # Errors
    /// etcd tells of no more: everything is to be listed again.
    pub async fn next(&mut self) -> Result<Vec<Change>, RpcError> {
        let response: Option<WatchResponse> = self.followed.next().await?;
        let WatchResponse { canceled, compact_revision, cancel_reason, events } =
            response.ok_or_else(|| RpcError::Broken("it has ended the watch".to_owned()))?;
        if canceled || compact_revision != 0 {
            return Err(RpcError::Broken(format!("it has ended the watch: {cancel_reason}")));
        }
        let change = |event: crate::message::Event| {
            let kv = event.kv?;
            match event.kind == i32::from(EventType::Delete) {
                true => name(&self.prefix, &kv.key).map(Change::Gone),
                false => entry(&self.prefix, kv).map(Change::Stored),
            }
        };
        Ok(events.into_iter().filter_map(change).collect())
    }
}

fn entry(prefix: &str, kv: KeyValue) -> Option<StoredEntry> {
    let name = name(prefix, &kv.key)?;
    (kv.value.len() <= VALUE_MAX).then_some(StoredEntry { name, value: kv.value })
}

fn name(prefix: &str, key: &[u8]) -> Option<EntryName> {
    let name = std::str::from_utf8(key.strip_prefix(prefix.as_bytes())?).ok()?;
    name.to_owned().try_into().ok()
}

/// The first key after all that begin so.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    // Text ends with no octet that cannot be raised.
    end.iter_mut().last().into_iter().for_each(|last| *last += 1);
    end
}

async fn in_time<T>(work: impl Future<Output = Result<T, RpcError>>) -> Result<T, RpcError> {
    let late = |_| RpcError::Broken(format!("no answer within {} s", PATIENCE.as_secs()));
    timeout(PATIENCE, work).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read() {
        let read = |url| Endpoint::read(url).map(|it| (it.authority, it.host, it.port));
        let known = |authority: &str, host: &str| Some((authority.to_owned(), host.to_owned(), 2379));
        assert_eq!(read("https://a.example:2379"), known("a.example:2379", "a.example"));
        assert_eq!(read("https://[fd00::1]:2379/"), known("[fd00::1]:2379", "fd00::1"));
        for wrong in ["http://a:1", "a:1", "https://a", "https://:1", "https://a:99999", ""] {
            assert_eq!(Endpoint::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_entries_of_the_prefix_are_taken() {
        let kv = |key: String, length| KeyValue {
            key: key.into_bytes(),
            create_revision: 1,
            value: vec![0; length],
        };
        let name = "ab".repeat(32);
        assert!(entry("/p/", kv(format!("/p/{name}"), VALUE_MAX)).is_some());
        assert!(entry("/p/", kv(format!("/p/{name}"), VALUE_MAX + 1)).is_none());
        assert!(entry("/p/", kv(format!("/q/{name}"), 1)).is_none());
        assert!(entry("/p/", kv("/p/config".to_owned(), 1)).is_none());
        assert_eq!(end_of("/p/"), b"/p0");
    }
}
