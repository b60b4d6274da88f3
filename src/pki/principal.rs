//! Who a certificate speaks for, as text and as found in a certificate, and the rules for names.
//!
//! Reads only the identity. Whether the certificate deserves trust is the handshake's question.

use crate::types::{Code, Error, NodeName, Result};
use std::{fmt, str::FromStr};
use x509_parser::{extensions::GeneralName, prelude::X509Certificate};

/// Characters in the name of a cluster or user, at most; a DNS label and a file name have room for it.
pub const NAME_CHARS_MAX: usize = 63;

/// Who a certificate speaks for: `spiffe://CLUSTER/node/NAME` or `spiffe://CLUSTER/user/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// Cluster name.
    pub cluster: String,
    /// Node or user.
    pub subject: Subject,
}

/// The part of a principal after the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A node.
    Node(NodeName),
    /// A person or program.
    User(String),
}

impl Subject {
    /// A node; refuses what is not a node name.
    pub fn node(name: &str) -> Result<Self> {
        NodeName::new(name).map(Self::Node).map_err(|why| Error::new(Code::BadRequest, why))
    }

    /// A user: 1 to 63 of `a-z`, `0-9`, `.`, `_` and `-`. `.` and `..` are refused, because a URI path
    /// gives them another meaning.
    pub fn user(name: &str) -> Result<Self> {
        let fits = fits(name, |b| matches!(b, b'.' | b'_' | b'-')) && name != "." && name != "..";
        if !fits {
            let why = format!("`{name}` is not a user name: 1 to 63 of a-z, 0-9, `.`, `_` and `-`");
            return Err(Error::new(Code::BadRequest, why));
        }
        Ok(Self::User(name.to_owned()))
    }

    /// The name alone.
    pub fn name(&self) -> &str {
        match self {
            Self::Node(name) => name.as_str(),
            Self::User(name) => name,
        }
    }

    /// Name of the certificate and key files without `.crt` and `.key`: `node-n1`, `user-alice`. The
    /// prefix keeps a node, a user and the CA of one name apart.
    pub fn file_stem(&self) -> String {
        match self {
            Self::Node(name) => format!("node-{name}"),
            Self::User(name) => format!("user-{name}"),
        }
    }

    /// As logs and records show it: `user ann`, `node n2`.
    pub fn label(&self) -> String {
        let kind = if self.is_node() { "node" } else { "user" };
        format!("{kind} {}", self.name())
    }

    /// True for a node.
    pub fn is_node(&self) -> bool {
        matches!(self, Self::Node(_))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node `{name}`"),
            Self::User(name) => write!(f, "user `{name}`"),
        }
    }
}

impl Principal {
    /// Joins a checked cluster name and a subject.
    pub fn new(cluster: &str, subject: Subject) -> Result<Self> {
        check_cluster_name(cluster)?;
        Ok(Self { cluster: cluster.to_owned(), subject })
    }

    /// The identity in a DER certificate: its one and only URI name. The certificate is not verified.
    /// The error is one sentence about the certificate, without a subject ("it names ...").
    pub fn of_certificate(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der)
            .map_err(|error| format!("it is not an X.509 certificate ({error})"))?;
        Self::of_parsed(&certificate)
    }

    pub(super) fn of_parsed(certificate: &X509Certificate<'_>) -> Result<Self, String> {
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| format!("its alternative names cannot be read ({error})"))?;
        let uris: Vec<&str> = names
            .iter()
            .flat_map(|names| &names.value.general_names)
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        // Two identities in one certificate would let each reader pick another.
        match uris.as_slice() {
            [uri] => uri.parse(),
            _ => Err(format!("it must carry exactly one URI name, and carries {}", uris.len())),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.subject.is_node() { "node" } else { "user" };
        write!(f, "spiffe://{}/{kind}/{}", self.cluster, self.subject.name())
    }
}

impl FromStr for Principal {
    type Err = String;

    fn from_str(uri: &str) -> Result<Self, String> {
        let parse = || {
            let (cluster, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
            let (kind, name) = path.split_once('/')?;
            let subject = match kind {
                "node" => Subject::node(name).ok()?,
                "user" => Subject::user(name).ok()?,
                _ => return None,
            };
            Self::new(cluster, subject).ok()
        };
        // What a stranger wrote is quoted with escapes and cut, for it goes into logs.
        parse().ok_or_else(|| {
            let shown: String = uri.chars().take(128).collect();
            format!("its URI name {shown:?} is not spiffe://CLUSTER/node/NAME or .../user/NAME")
        })
    }
}

/// A cluster: 1 to 63 of `a-z`, `0-9` and `-`.
pub fn check_cluster_name(name: &str) -> Result<()> {
    if fits(name, |b| b == b'-') {
        return Ok(());
    }
    let why = format!("`{name}` is not a cluster name: 1 to 63 of a-z, 0-9 and `-`");
    Err(Error::new(Code::BadRequest, why))
}

fn fits(name: &str, is_extra: impl Fn(u8) -> bool) -> bool {
    (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || is_extra(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_survive_text() {
        for uri in
            ["spiffe://shop/node/n1", "spiffe://shop/user/alice.b_c-d", "spiffe://a-1/user/..."]
        {
            assert_eq!(uri.parse::<Principal>().unwrap().to_string(), uri);
        }
    }

    #[test]
    fn only_the_exact_form_is_an_identity() {
        let long = format!("spiffe://shop/user/{}", "x".repeat(64));
        for bad in [
            "",
            "spiffe://shop",
            "spiffe://shop/node",
            "spiffe://shop/node/",
            "spiffe:///node/n1",
            "spiffe://shop/node/n1/",
            "spiffe://shop/node/n1?role=primary",
            "spiffe://shop/node/N1",
            "spiffe://shop/admin/n1",
            "spiffe://shop:1/node/n1",
            "spiffe://u@shop/node/n1",
            "spiffe://Shop/node/n1",
            "https://shop/node/n1",
            "SPIFFE://shop/node/n1",
            "spiffe://shop/user/..",
            "spiffe://shop/user/a%2f",
            &long,
        ] {
            assert!(bad.parse::<Principal>().is_err(), "{bad}");
        }
    }

    #[test]
    fn files_of_a_node_and_a_user_of_one_name_differ() {
        let (node, user) = (Subject::node("n1").unwrap(), Subject::user("n1").unwrap());
        assert_ne!(node.file_stem(), user.file_stem());
        assert_ne!(Subject::user("ca").unwrap().file_stem(), "ca");
    }
}
