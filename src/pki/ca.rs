//! The cluster's own certificate authority: made once, then loaded to sign.
//!
//! Keys are ECDSA P-256: every TLS stack, `openssl` of any age and hardware modules read them, and `ring`
//! signs in constant time. Ed25519 would do as well, but its PKCS#8 form is not read everywhere.

use super::files::{self, bad};
use super::info::{CertInfo, this_second};
use super::principal::check_cluster_name;
use crate::types::{Error, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};

/// Days that a CA is valid: ten years.
const CA_DAYS: i64 = 3_650;
/// A certificate is valid from a little before it was made, because clocks differ.
pub(super) const BACKDATED: Duration = Duration::minutes(5);

/// The certificate of the CA in a folder of certificates.
pub const CA_CERT_FILE: &str = "ca.crt";
/// Its key. Whoever holds it can make any identity of the cluster.
pub const CA_KEY_FILE: &str = "ca.key";

/// A CA that was made.
#[derive(Clone, Debug)]
pub struct CaInfo {
    /// The cluster it is for.
    pub cluster: String,
    /// Its certificate, which every node and user needs.
    pub cert: PathBuf,
    /// Its key, which stays with the operator.
    pub key: PathBuf,
    /// What the certificate says.
    pub info: CertInfo,
}

/// Makes a CA for `cluster`: `ca.crt` and `ca.key` in `dir`, which is created if needed. Refuses, naming
/// the file, if either exists: a second CA would cut off every certificate of the first.
pub fn init(dir: &Path, cluster: &str) -> Result<CaInfo> {
    check_cluster_name(cluster)?;
    let (cert, key) = (dir.join(CA_CERT_FILE), dir.join(CA_KEY_FILE));
    // Said before the work, with the file that an operator knows best.
    files::refuse_existing(&cert)?;
    files::refuse_existing(&key)?;
    let now = this_second();
    let (certificate, key_pair) = certificate(cluster, now).map_err(unsigned)?;
    files::make_folder(dir)?;
    files::write_pair((&key, &key_pair.serialize_pem()), (&cert, &certificate.pem()))?;
    let info = CertInfo::of(&cert, certificate.der(), now)?;
    Ok(CaInfo { cluster: cluster.to_owned(), cert, key, info })
}

fn certificate(
    cluster: &str,
    now: OffsetDateTime,
) -> Result<(rcgen::Certificate, KeyPair), rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(&format!("PPDB CA of {cluster}"), cluster);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(random_serial());
    params.not_before = now - BACKDATED;
    params.not_after = now + Duration::days(CA_DAYS);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok((params.self_signed(&key)?, key))
}

/// A CA that can sign.
pub(super) struct Ca {
    pub(super) cluster: String,
    pub(super) not_after: OffsetDateTime,
    pub(super) issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// Reads `ca.crt` and `ca.key`, and checks that they belong together.
    pub(super) fn load(dir: &Path, now: OffsetDateTime) -> Result<Self> {
        let path = dir.join(CA_CERT_FILE);
        let der: CertificateDer<'static> = files::read_certificates(&path)?.swap_remove(0);
        let info = CertInfo::of_ca(&path, &der, now)?;
        let key_path = dir.join(CA_KEY_FILE);
        let key = KeyPair::from_pem(&files::read_key_text(&key_path)?)
            .map_err(|error| bad(format!("`{}` is not a key: {error}", key_path.display())))?;
        if !info.has_public_key(key.public_key_raw()) {
            return Err(bad(format!(
                "`{}` is not the key of `{}`",
                key_path.display(),
                path.display()
            )));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(unsigned)?;
        Ok(Self { cluster: info.cluster, not_after: info.not_after, issuer })
    }
}

/// CN and O; the cluster of a CA is read from its O.
pub(super) fn distinguished_name(common: &str, cluster: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name.push(DnType::OrganizationName, cluster);
    name
}

/// 16 random bytes that are positive and of full length as a DER integer: 126 bits are random, so that
/// two certificates never share a serial and none can be foretold.
pub(super) fn random_serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = bytes[0] & 0x3f | 0x40;
    SerialNumber::from_slice(&bytes)
}

pub(super) fn unsigned(error: rcgen::Error) -> Error {
    bad(format!("cannot make the certificate: {error}"))
}
