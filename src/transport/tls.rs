//! TLS 1.3 settings of both sides, and the verifier that they share.
//!
//! Neither side takes a certificate by its DNS name. What counts is: our CA signed it, it is valid, it
//! may be used for this, and the identity in its URI name is of our cluster.

use super::Error;
use super::refusal::Refusal;
use crate::pki::{self, Identity, Principal, Subject};
use crate::types::NodeName;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    DigitallySignedStruct, DistinguishedName, PeerIncompatible, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::SingleCertAndKey,
    version::TLS13,
};
use std::sync::Arc;

/// The application protocol; both sides insist on it.
pub(super) const ALPN: &[u8] = b"ppdb/1";

/// TLS of the accepting side: certificates of clients are mandatory, nothing is resumed. A resumed
/// session would not verify the certificate again, and an expired client would get in.
pub(super) fn accepting(identity: &Identity) -> Result<rustls::ServerConfig, Error> {
    let provider = pki::provider();
    let verifier = Arc::new(Verifier::new(identity, &provider, None));
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

/// TLS of an HTTPS server for those who have a certificate of the cluster.
pub fn https_accepting(identity: &Identity) -> Result<rustls::ServerConfig, Error> {
    let mut config = accepting(identity)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// TLS of the connecting side. The other side must be a node of our cluster: `expected`, if given.
pub(super) fn connecting(
    identity: &Identity,
    expected: Option<NodeName>,
) -> Result<rustls::ClientConfig, Error> {
    let provider = pki::provider();
    let verifier = Arc::new(Verifier::new(identity, &provider, expected));
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

pub(super) fn quic_accepting(config: rustls::ServerConfig) -> Result<quinn::ServerConfig, Error> {
    let crypto = QuicServerConfig::try_from(config).map_err(unusable)?;
    Ok(quinn::ServerConfig::with_crypto(Arc::new(crypto)))
}

pub(super) fn quic_connecting(config: rustls::ClientConfig) -> Result<quinn::ClientConfig, Error> {
    let crypto = QuicClientConfig::try_from(config).map_err(unusable)?;
    Ok(quinn::ClientConfig::new(Arc::new(crypto)))
}

fn unusable(error: impl std::fmt::Display) -> Error {
    Error::Setup(format!("the TLS settings are not usable: {error}"))
}

/// Verifies the other side's certificate and the identity in it.
#[derive(Debug)]
struct Verifier {
    identity: Identity,
    algorithms: WebPkiSupportedAlgorithms,
    expected: Option<NodeName>,
}

impl Verifier {
    fn new(identity: &Identity, provider: &CryptoProvider, expected: Option<NodeName>) -> Self {
        let algorithms = provider.signature_verification_algorithms;
        Self { identity: identity.clone(), algorithms, expected }
    }

    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: webpki::KeyUsage,
    ) -> Result<Principal, Refusal> {
        let ours = &self.identity.principal().cluster;
        let refused = |error| Refusal::of(error, certificate, ours);
        let parsed = webpki::EndEntityCert::try_from(certificate).map_err(refused)?;
        let roots = &self.identity.roots().roots;
        parsed
            .verify_for_usage(self.algorithms.all, roots, intermediates, now, usage, None, None)
            .map_err(refused)?;
        let theirs = Principal::of_certificate(certificate).map_err(Refusal::NoIdentity)?;
        if theirs.cluster != *ours {
            return Err(Refusal::OtherCluster { theirs, ours: ours.clone() });
        }
        Ok(theirs)
    }
}

/// The identity of one who answers must be a node's: the expected one, if any was named.
fn check_answering(theirs: Principal, expected: Option<&NodeName>) -> Result<(), Refusal> {
    match (theirs.subject, expected) {
        (Subject::User(name), _) => {
            let (cluster, subject) = (theirs.cluster, Subject::User(name));
            Err(Refusal::NotANode(Principal { cluster, subject }))
        }
        (Subject::Node(theirs), Some(expected)) if theirs != *expected => {
            Err(Refusal::OtherNode { theirs, expected: expected.clone() })
        }
        (Subject::Node(_), _) => Ok(()),
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let usage = webpki::KeyUsage::server_auth();
        let theirs = self.verify(end_entity, intermediates, now, usage)?;
        check_answering(theirs, self.expected.as_ref())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    /// No hints: they would tell a stranger the name of our CA, and nobody needs them to choose.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now, webpki::KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
