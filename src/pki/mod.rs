//! Certificates: the cluster's own CA, identities in a URI SAN, key files that only their owner reads.
//!
//! Issues and reads certificates. The handshake itself is `transport`'s; what an identity may do is
//! decided elsewhere.

mod ca;
mod files;
mod identity;
mod info;
mod issue;
mod principal;
#[cfg(test)]
mod tests;

pub use ca::{CA_CERT_FILE, CA_KEY_FILE, CaInfo, init};
pub use identity::Identity;
pub(crate) use identity::provider;
pub use info::{CertInfo, CertKind, list, rfc3339};
pub use issue::{DAYS_MAX, HOSTS_MAX, IssueOptions, Issued, NODE_DAYS, USER_DAYS, issue};
pub use principal::{NAME_CHARS_MAX, Principal, Subject, check_cluster_name};
