//! A certificate chain, its key and the CA to trust, read from files and ready for handshakes.

use super::ca::CA_CERT_FILE;
use super::files::{self, bad};
use super::info::{CertInfo, days_between};
use super::principal::Principal;
use crate::types::Result;
use rustls::{RootCertStore, crypto::CryptoProvider, sign::CertifiedKey};
use std::{fmt, path::Path, sync::Arc};
use time::OffsetDateTime;

/// The one crypto provider of the process. Always passed by hand: rustls' process-wide default panics
/// when a dependency brings a second one along.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A certificate chain, its key, and the CA to trust: everything one side of a handshake needs.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    principal: Principal,
    not_after: OffsetDateTime,
    roots: RootCertStore,
    certified_key: Arc<CertifiedKey>,
    seed: [u8; 32],
}

impl Identity {
    /// Reads the CA's certificate (several may stand in the file while a CA is being replaced), a
    /// certificate and its key. Refuses a key that others may read, a key of another certificate, and a
    /// certificate without exactly one identity. An expired one is loaded: whoever meets it refuses it,
    /// and `expires_in_days` tells beforehand.
    pub fn load(ca: &Path, cert: &Path, key: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in files::read_certificates(ca)? {
            // webpki would trust any certificate that is put here.
            CertInfo::of_ca(ca, &certificate, OffsetDateTime::now_utc())?;
            roots
                .add(certificate)
                .map_err(|error| bad(format!("`{}` is not a CA: {error}", ca.display())))?;
        }
        let chain = files::read_certificates(cert)?;
        let say = |why: String| bad(format!("`{}`: {why}", cert.display()));
        let (_, parsed) = x509_parser::parse_x509_certificate(&chain[0])
            .map_err(|error| say(format!("it is not an X.509 certificate ({error})")))?;
        let principal = Principal::of_parsed(&parsed).map_err(say)?;
        let not_after = parsed.validity().not_after.to_datetime();

        let private_key = files::read_key(key)?;
        let seed = seed(private_key.secret_der());
        let certified_key =
            CertifiedKey::from_der(chain, private_key, &provider()).map_err(|error| {
                let (key, cert) = (key.display(), cert.display());
                bad(format!("`{key}` does not serve as the key of `{cert}`: {error}"))
            })?;
        let certified_key = Arc::new(certified_key);
        Ok(Self(Arc::new(Inner { principal, not_after, roots, certified_key, seed })))
    }

    /// Reads `ca.crt`, `NAME.crt` and `NAME.key` in a folder as `issue` leaves them. `name` is the file
    /// stem, such as `node-n1` or `user-alice`.
    pub fn from_dir(dir: &Path, name: &str) -> Result<Self> {
        let (cert, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        Self::load(&dir.join(CA_CERT_FILE), &cert, &key)
    }

    /// Who this is.
    pub fn principal(&self) -> &Principal {
        &self.0.principal
    }

    /// The end of the certificate's validity.
    pub fn not_after(&self) -> OffsetDateTime {
        self.0.not_after
    }

    /// Whole days until the certificate expires, rounded down; negative once it has.
    pub fn expires_in_days(&self) -> i64 {
        days_between(OffsetDateTime::now_utc(), self.0.not_after)
    }

    /// The same owner, who shows another certificate.
    #[cfg(test)]
    pub(crate) fn showing(&self, certificate: &rcgen::Certificate, key: &rcgen::KeyPair) -> Self {
        let private_key = key.serialize_der().try_into().unwrap();
        let chain = vec![certificate.der().clone()];
        let certified_key = CertifiedKey::from_der(chain, private_key, &provider()).unwrap();
        let Inner { principal, not_after, roots, seed, .. } = &*self.0;
        Self(Arc::new(Inner {
            principal: principal.clone(),
            not_after: *not_after,
            roots: roots.clone(),
            certified_key: Arc::new(certified_key),
            seed: *seed,
        }))
    }

    pub(crate) fn roots(&self) -> &RootCertStore {
        &self.0.roots
    }

    pub(crate) fn certified_key(&self) -> Arc<CertifiedKey> {
        self.0.certified_key.clone()
    }

    /// 32 secret bytes that are the same after a restart, and tell nothing about the key.
    pub(crate) fn seed(&self) -> &[u8; 32] {
        &self.0.seed
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.0.principal)
    }
}

fn seed(private_key: &[u8]) -> [u8; 32] {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, private_key);
    let tag = ring::hmac::sign(&key, b"ppdb identity seed");
    let mut seed = [0; 32];
    seed.copy_from_slice(tag.as_ref());
    seed
}
