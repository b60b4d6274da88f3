//! Certificates for the peers, made for one run: a CA, and one certificate that servers and clients use.
//!
//! PPDB makes its own, with the rules of its own identities.

use crate::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The files, and what a client needs of them.
#[derive(Clone)]
pub struct Certs {
    /// The CA's certificate.
    pub ca: PathBuf,
    /// The certificate, good for either end.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    roots: Arc<rustls::RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key_der: Vec<u8>,
}

impl Certs {
    /// Makes them, in `dir`.
    pub fn make(dir: &Path) -> Result<Self> {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        ca.distinguished_name.push(DnType::CommonName, "bench CA");
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
        let mut leaf = CertificateParams::new(["localhost".into(), "127.0.0.1".into()])?;
        leaf.distinguished_name.push(DnType::CommonName, "bench");
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let leaf = leaf.signed_by(&key, &ca)?;

        let file = |name: &str, text: String| {
            let path = dir.join(name);
            std::fs::write(&path, text).map(|()| path)
        };
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.der().clone())?;
        Ok(Self {
            ca: file("ca.crt", ca.pem())?,
            cert: file("peer.crt", leaf.pem())?,
            key: file("peer.key", key.serialize_pem())?,
            roots: Arc::new(roots),
            chain: vec![leaf.der().clone()],
            key_der: key.serialize_der(),
        })
    }

    /// Connects to a port of this machine with mutual TLS 1.3.
    pub async fn connect(&self, port: u16, alpn: &[&[u8]]) -> Result<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_der.clone()));
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(self.chain.clone(), key)?;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        Ok(TlsConnector::from(Arc::new(config)).connect(name, tcp).await?)
    }
}
