//! What a certificate file says, for people: subject, validity, serial.

use super::ca::CA_CERT_FILE;
use super::files::{self, bad};
use super::principal::{Principal, check_cluster_name};
use crate::types::Result;
use serde::{Serialize, Serializer};
use std::path::{Path, PathBuf};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use x509_parser::prelude::X509Certificate;

/// Certificates that `list` reads; a folder with more is refused.
const LISTED_MAX: usize = 10_000;

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CertKind {
    /// Signs the others.
    Ca,
    /// Serves, and connects to other nodes.
    Node,
    /// Connects only.
    User,
}

/// One certificate, as read from its file.
#[derive(Clone, Debug, Serialize)]
pub struct CertInfo {
    /// CA, node or user.
    pub kind: CertKind,
    /// Name of the node or user, or the common name of the CA.
    pub name: String,
    /// The cluster it belongs to.
    pub cluster: String,
    /// Serial number in hexadecimal.
    pub serial: String,
    /// Valid from here; RFC 3339 when serialized.
    #[serde(serialize_with = "as_rfc3339")]
    pub not_before: OffsetDateTime,
    /// Valid up to here; RFC 3339 when serialized.
    #[serde(serialize_with = "as_rfc3339")]
    pub not_after: OffsetDateTime,
    /// Whole days until `not_after`, rounded down; negative once it has expired.
    pub days_left: i64,
    /// True after `not_after`.
    pub expired: bool,
    /// Where it was read.
    pub file: PathBuf,
    #[serde(skip)]
    public_key: Vec<u8>,
}

impl CertInfo {
    /// Reads a DER certificate; `file` is for messages, `now` for the days that are left.
    pub(super) fn of(file: &Path, der: &[u8], now: OffsetDateTime) -> Result<Self> {
        let say = |why: String| bad(format!("`{}`: {why}", file.display()));
        let (_, parsed) = x509_parser::parse_x509_certificate(der)
            .map_err(|error| say(format!("it is not an X.509 certificate ({error})")))?;
        let (kind, name, cluster) = if parsed.is_ca() {
            let (name, cluster) = ca_names(&parsed).map_err(say)?;
            (CertKind::Ca, name, cluster)
        } else {
            let principal = Principal::of_parsed(&parsed).map_err(say)?;
            let kind = if principal.subject.is_node() { CertKind::Node } else { CertKind::User };
            (kind, principal.subject.name().to_owned(), principal.cluster)
        };
        let not_after = parsed.validity().not_after.to_datetime();
        Ok(Self {
            kind,
            name,
            cluster,
            serial: parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            not_before: parsed.validity().not_before.to_datetime(),
            not_after,
            days_left: days_between(now, not_after),
            expired: now > not_after,
            file: file.to_owned(),
            public_key: parsed.public_key().subject_public_key.data.to_vec(),
        })
    }

    /// The same for what must be the certificate of a PPDB CA.
    pub(super) fn of_ca(file: &Path, der: &[u8], now: OffsetDateTime) -> Result<Self> {
        let info = Self::of(file, der, now)?;
        match info.kind {
            CertKind::Ca => Ok(info),
            _ => Err(bad(format!("`{}` is not the certificate of a CA", file.display()))),
        }
    }

    pub(super) fn has_public_key(&self, key: &[u8]) -> bool {
        self.public_key == key
    }
}

/// The second we are in. Certificates know no smaller unit.
pub(super) fn this_second() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now - time::Duration::nanoseconds(now.nanosecond().into())
}

/// Whole days from `now` to `then`, rounded down: -1 is less than a day ago.
pub(super) fn days_between(now: OffsetDateTime, then: OffsetDateTime) -> i64 {
    (then - now).whole_seconds().div_euclid(24 * 3600)
}

fn ca_names(parsed: &X509Certificate<'_>) -> Result<(String, String), String> {
    let subject = parsed.subject();
    let text = |value: Option<&x509_parser::x509::AttributeTypeAndValue<'_>>| {
        value.and_then(|value| value.as_str().ok()).unwrap_or_default().to_owned()
    };
    let cluster = text(subject.iter_organization().next());
    check_cluster_name(&cluster)
        .map_err(|_| format!("it is a CA, but its O {cluster:?} is not the name of a cluster"))?;
    Ok((text(subject.iter_common_name().next()), cluster))
}

/// Every certificate that `init` and `issue` put into `dir`: the CA, then nodes, then users, by name.
/// Other files are passed over; a damaged certificate is an error that names its file.
pub fn list(dir: &Path) -> Result<Vec<CertInfo>> {
    list_at(dir, OffsetDateTime::now_utc())
}

fn list_at(dir: &Path, now: OffsetDateTime) -> Result<Vec<CertInfo>> {
    let unreadable = |error| bad(format!("cannot list `{}`: {error}", dir.display()));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| is_ours(name)) else { continue };
        if found.len() == LISTED_MAX {
            let dir = dir.display();
            return Err(bad(format!("`{dir}` holds more than {LISTED_MAX} certificates")));
        }
        let path = dir.join(name);
        let der = files::read_certificates(&path)?.swap_remove(0);
        found.push(CertInfo::of(&path, &der, now)?);
    }
    if found.is_empty() {
        let dir = dir.display();
        return Err(bad(format!("`{dir}` holds no certificates; `ppdb cert init` makes a CA")));
    }
    found.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    Ok(found)
}

fn is_ours(file: &str) -> bool {
    let stem = file.strip_suffix(".crt");
    file == CA_CERT_FILE || stem.is_some_and(|s| s.starts_with("node-") || s.starts_with("user-"))
}

fn as_rfc3339<S: Serializer>(at: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at))
}

/// A time as people and JSON read it: `2026-09-01T08:00:00Z`.
pub fn rfc3339(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_else(|_| at.unix_timestamp().to_string())
}
