//! Certificates: the cluster's own CA, identities in a URI SAN, key files that only their owner reads.
//!
//! Issues and reads certificates. The handshake itself is `transport`'s; what an identity may do is
//! decided elsewhere.

use crate::types::{NodeName, Result};
use std::path::Path;

/// Who a certificate speaks for: `spiffe://CLUSTER/node/NAME` or `spiffe://CLUSTER/user/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Cluster name.
    pub cluster: String,
    /// Node or user.
    pub subject: Subject,
}

/// The part of a principal after the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A node.
    Node(NodeName),
    /// A person or program.
    User(String),
}

/// A certificate chain, its key, and the CA to trust: everything one side of a handshake needs.
#[derive(Clone)]
pub struct Identity {}

impl Identity {
    /// Reads `ca.crt`, `NAME.crt` and `NAME.key`. A key that others may read is refused.
    pub fn load(_ca: &Path, _cert: &Path, _key: &Path) -> Result<Self> {
        unimplemented!()
    }

    /// Who this is.
    pub fn principal(&self) -> &Principal {
        unimplemented!()
    }
}
