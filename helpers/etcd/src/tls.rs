//! TLS to etcd: which CA is believed, and what this end proves itself with.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use hostseal_store_protocol::FILES;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// More octets than this are something else.
const FILE_MAX: u64 = 256 << 10;
/// What HTTP/2 is called where TLS begins (RFC 9113 section 3.3).
const HTTP_2: &[u8] = b"h2";

/// Reads the files that the agent has opened: the CA, the certificate, the key.
///
/// # Errors
/// One of them holds something else, or they do not belong together. What they hold is not repeated.
pub fn config(files: [OwnedFd; FILES]) -> anyhow::Result<Arc<ClientConfig>> {
    let [ca, certificate, key] = files;
    let mut roots = RootCertStore::empty();
    for one in certificates(ca).context("ca")? {
        roots.add(one).context("ca: this is no certificate of a CA")?;
    }
    let chain = certificates(certificate).context("certificate")?;
    let key = PrivateKeyDer::from_pem_slice(&read(key).context("key")?)
        .map_err(|_| anyhow::anyhow!("key: there is no private key in it (PEM)"))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots).with_client_auth_cert(chain, key);
    let mut config = config.context("certificate and key do not go together")?;
    config.alpn_protocols = vec![HTTP_2.to_vec()];
    Ok(Arc::new(config))
}

fn certificates(file: OwnedFd) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = read(file)?;
    let certificates = CertificateDer::pem_slice_iter(&read).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|_| anyhow::anyhow!("this is no PEM"))?;
    ensure!(!certificates.is_empty(), "there is no certificate in it (PEM)");
    Ok(certificates)
}

fn read(file: OwnedFd) -> anyhow::Result<Vec<u8>> {
    let mut octets = Vec::new();
    File::from(file).take(FILE_MAX + 1).read_to_end(&mut octets)?;
    ensure!(octets.len() as u64 <= FILE_MAX, "it is too long");
    Ok(octets)
}
