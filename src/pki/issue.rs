//! Issues certificates: one key, one identity, a validity that makes sense.
//!
//! Puts only *who* into a certificate. What someone may do is a role in the metadata group, so that a
//! change of roles needs no new certificate.

use super::ca::{BACKDATED, CA_CERT_FILE, Ca, distinguished_name, random_serial, unsigned};
use super::files::{self, bad};
use super::info::{CertInfo, rfc3339, this_second};
use super::principal::{Principal, Subject};
use crate::types::{Code, Error, Result};
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};
use time::{Duration, OffsetDateTime};

/// Days that a node's certificate is valid unless asked otherwise.
pub const NODE_DAYS: u32 = 90;
/// Days that a user's certificate is valid unless asked otherwise. Short, because a lost one works until
/// it expires.
pub const USER_DAYS: u32 = 7;
/// Most days that may be asked for. The end of the CA bounds it further.
pub const DAYS_MAX: u32 = 3_650;
/// Further host names in one certificate.
pub const HOSTS_MAX: usize = 32;

/// How a certificate shall differ from the default.
#[derive(Clone, Debug, Default)]
pub struct IssueOptions {
    /// Folder for the files; the CA's folder if none. Another folder also receives a copy of `ca.crt`, so
    /// that it can be carried to the node as it is.
    pub out: Option<PathBuf>,
    /// Days of validity, 1 to `DAYS_MAX`; `NODE_DAYS` or `USER_DAYS` if none.
    pub days: Option<u32>,
    /// Further DNS names and IP addresses, for tools that check the address they call. PPDB itself looks
    /// only at the identity.
    pub hosts: Vec<String>,
    /// Exact start of validity, instead of five minutes ago.
    pub not_before: Option<OffsetDateTime>,
    /// Exact end of validity, instead of counting days.
    pub not_after: Option<OffsetDateTime>,
}

/// A certificate that was issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Who it is for.
    pub principal: Principal,
    /// The certificate.
    pub cert: PathBuf,
    /// Its key, mode 0600.
    pub key: PathBuf,
    /// The CA's certificate, in the same folder.
    pub ca: PathBuf,
    /// What the certificate says.
    pub info: CertInfo,
}

/// Issues a certificate of the CA in `dir`: `node-NAME.crt` and `.key`, or `user-NAME.crt` and `.key`.
/// The cluster is the CA's. Refuses, naming the file, to overwrite.
pub fn issue(dir: &Path, subject: Subject, options: IssueOptions) -> Result<Issued> {
    let now = this_second();
    let ca = Ca::load(dir, now)?;
    let principal = Principal::new(&ca.cluster, subject)?;
    let (not_before, not_after) = validity(&principal.subject, &options, ca.not_after, now)?;
    let mut params = params(&principal, &options.hosts)?;
    (params.not_before, params.not_after) = (not_before, not_after);

    let out = options.out.as_deref().unwrap_or(dir);
    files::make_folder(out)?;
    let ca_copy = out.join(CA_CERT_FILE);
    if options.out.is_some() {
        files::copy_certificate(&dir.join(CA_CERT_FILE), &ca_copy)?;
    }
    let stem = principal.subject.file_stem();
    let (cert, key) = (out.join(format!("{stem}.crt")), out.join(format!("{stem}.key")));
    let key_pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(unsigned)?;
    let certificate = params.signed_by(&key_pair, &ca.issuer).map_err(unsigned)?;
    files::write_pair((&key, &key_pair.serialize_pem()), (&cert, &certificate.pem()))?;
    let info = CertInfo::of(&cert, certificate.der(), now)?;
    Ok(Issued { principal, cert, key, ca: ca_copy, info })
}

/// From when to when. Never beyond the CA's own end: such a certificate would stop working before the
/// date it shows.
fn validity(
    subject: &Subject,
    options: &IssueOptions,
    ca_not_after: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<(OffsetDateTime, OffsetDateTime)> {
    if ca_not_after <= now {
        return Err(bad(format!("the CA expired on {}", rfc3339(ca_not_after))));
    }
    let days = options.days.unwrap_or(if subject.is_node() { NODE_DAYS } else { USER_DAYS });
    if !(1..=DAYS_MAX).contains(&days) {
        let why = format!("{days} days of validity; allowed are 1 to {DAYS_MAX}");
        return Err(Error::new(Code::BadRequest, why));
    }
    let not_before = options.not_before.unwrap_or(now - BACKDATED);
    let not_after = options.not_after.unwrap_or(now + Duration::days(days.into()));
    let not_after = not_after.min(ca_not_after);
    if not_before >= not_after {
        let (from, to) = (rfc3339(not_before), rfc3339(not_after));
        let why = format!("the certificate would be valid from {from} to {to}");
        return Err(Error::new(Code::BadRequest, why));
    }
    Ok((not_before, not_after))
}

fn params(principal: &Principal, hosts: &[String]) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    let name = principal.subject.name();
    params.distinguished_name = distinguished_name(name, &principal.cluster);
    params.serial_number = Some(random_serial());
    params.use_authority_key_identifier_extension = true;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let uri = principal.to_string().try_into().map_err(unsigned)?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    if principal.subject.is_node() {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        let dns = format!("{name}.{}.ppdb.internal", principal.cluster);
        params.subject_alt_names.push(SanType::DnsName(dns.try_into().map_err(unsigned)?));
    }
    if hosts.len() > HOSTS_MAX {
        let why = format!("{} host names; at most {HOSTS_MAX} are allowed", hosts.len());
        return Err(Error::new(Code::BadRequest, why));
    }
    for host in hosts {
        params.subject_alt_names.push(host_name(host)?);
    }
    Ok(params)
}

fn host_name(host: &str) -> Result<SanType> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let is_dns = rustls::pki_types::DnsName::try_from(host).is_ok();
    match host.try_into() {
        Ok(name) if is_dns => Ok(SanType::DnsName(name)),
        _ => {
            let why = format!("`{host}` is neither a DNS name nor an IP address");
            Err(Error::new(Code::BadRequest, why))
        }
    }
}
