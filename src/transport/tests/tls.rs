//! The TLS settings by themselves, without QUIC; and clients that only tests have.

use super::*;
use rustls::{
    ClientConnection, DigitallySignedStruct, ServerConnection, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::CertifiedKey,
};

/// Takes whatever the server shows.
#[derive(Debug)]
pub(super) struct Blind(pub Arc<CryptoProvider>);

impl ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("TLS 1.3 only")
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Shows no certificate.
#[derive(Debug)]
pub(super) struct Nobody;

impl ResolvesClientCert for Nobody {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[test]
fn a_hello_of_tls_1_2_is_refused() {
    let dir = ca("shop");
    let config = super::super::tls::accepting(&node(dir.path(), "n1")).unwrap();
    let mut server = ServerConnection::new(Arc::new(config)).unwrap();
    let mut hello = vec![3, 3];
    hello.extend([7; 32]); // random
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]); // no session, one suite of TLS 1.2, no compression
    let extensions = [0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3]; // P-256, ECDSA with SHA-256
    hello.extend([0, extensions.len() as u8]);
    hello.extend(extensions);
    let mut record = vec![22, 3, 1, 0, hello.len() as u8 + 4, 1, 0, 0, hello.len() as u8];
    record.extend(hello);
    server.read_tls(&mut record.as_slice()).unwrap();
    let refused = server.process_new_packets().unwrap_err();
    assert!(matches!(refused, rustls::Error::PeerIncompatible(_)), "{refused:?}");
}

#[test]
fn no_tickets_are_given_and_no_early_data_is_taken() {
    let dir = ca("shop");
    let server = super::super::tls::accepting(&node(dir.path(), "n1")).unwrap();
    assert_eq!(server.max_early_data_size, 0);
    let mut client = super::super::tls::connecting(&node(dir.path(), "n2"), None).unwrap();
    // Willing to resume, unlike ours.
    client.resumption = rustls::client::Resumption::in_memory_sessions(8);
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let name = "ppdb.internal".try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    for _ in 0..8 {
        let mut wire = vec![];
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        let mut wire = vec![];
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().unwrap();
    }
    assert!(!server.is_handshaking() && !client.is_handshaking());
    assert_eq!(client.tls13_tickets_received(), 0);
    assert_eq!(server.alpn_protocol(), Some(&b"ppdb/1"[..]));
}
