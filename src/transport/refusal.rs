//! Which check a certificate failed, as a sentence that both sides get to see.
//!
//! A verifier's refusal travels in the reason of the QUIC close, next to the TLS alert. Where another
//! program sends an alert alone, `explain` makes a sentence of that.

use crate::pki::{Principal, Subject, rfc3339};
use crate::types::NodeName;
use rustls::{
    CertificateError,
    pki_types::{CertificateDer, UnixTime},
};
use std::{fmt, sync::Arc};
use time::OffsetDateTime;

/// What is wrong with a certificate. Reads on from "the certificate was refused: ".
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No CA of ours signed it. `claims` is what it says about itself, which proves nothing.
    NotSigned { ours: String, claims: Option<Principal> },
    /// Its validity is over.
    Expired { not_after: UnixTime },
    /// Its validity has not begun.
    NotYetValid { not_before: UnixTime },
    /// A certificate for connecting was used for serving.
    Purpose { claims: Option<Principal> },
    /// There is not exactly one identity in it.
    NoIdentity(String),
    /// Our CA signed it, for another cluster.
    OtherCluster { theirs: Principal, ours: String },
    /// A user answers where a node should.
    NotANode(Principal),
    /// Another node answers than the one that was called.
    OtherNode { theirs: NodeName, expected: NodeName },
    /// It cannot be read or breaks the rules for certificates.
    Malformed(String),
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSigned { ours, claims: None } => {
                write!(f, "it is not signed by the CA of cluster `{ours}`")
            }
            Self::NotSigned { ours, claims: Some(claims) } => {
                write!(
                    f,
                    "it is not signed by the CA of cluster `{ours}` (it calls itself {claims})"
                )
            }
            Self::Expired { not_after } => {
                write!(f, "it expired on {}", time(*not_after))
            }
            Self::NotYetValid { not_before } => {
                write!(f, "it is not valid before {} (is a clock wrong?)", time(*not_before))
            }
            Self::Purpose {
                claims: Some(Principal { subject: subject @ Subject::User(_), .. }),
            } => {
                write!(f, "it is the certificate of {subject}, and only a node may serve")
            }
            Self::Purpose { .. } => write!(f, "its extended key usage does not allow this"),
            Self::NoIdentity(why) | Self::Malformed(why) => f.write_str(why),
            Self::OtherCluster { theirs, ours } => write!(
                f,
                "it belongs to cluster `{}` ({theirs}), not to cluster `{ours}`",
                theirs.cluster
            ),
            Self::NotANode(theirs) => {
                write!(f, "it is the certificate of {}, and only a node may serve", theirs.subject)
            }
            Self::OtherNode { theirs, expected } => {
                write!(f, "it is the certificate of node `{theirs}`, not of node `{expected}`")
            }
        }
    }
}

/// The same sentence: rustls prints what is inside `CertificateError::Other` with `Debug` only.
impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn time(at: UnixTime) -> String {
    let seconds = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).map_or_else(|_| seconds.to_string(), rfc3339)
}

impl Refusal {
    /// What webpki found in `certificate`.
    pub(super) fn of(error: webpki::Error, certificate: &CertificateDer<'_>, ours: &str) -> Self {
        use webpki::Error as E;
        let claims = || Principal::of_certificate(certificate).ok();
        match error {
            E::CertExpired { not_after, .. } => Self::Expired { not_after },
            E::CertNotValidYet { not_before, .. } => Self::NotYetValid { not_before },
            // A CA of the same name with another key is met as a signature that does not fit.
            E::UnknownIssuer
            | E::InvalidSignatureForPublicKey
            | E::SignatureAlgorithmMismatch
            | E::UnsupportedSignatureAlgorithmContext(_)
            | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
                Self::NotSigned { ours: ours.to_owned(), claims: claims() }
            }
            E::RequiredEkuNotFoundContext(_) => Self::Purpose { claims: claims() },
            E::CaUsedAsEndEntity => {
                Self::Malformed("it is the certificate of a CA, which nobody may use".to_owned())
            }
            other => Self::Malformed(format!("it breaks the rules for certificates ({other})")),
        }
    }
}

impl From<Refusal> for rustls::Error {
    fn from(refusal: Refusal) -> Self {
        // `Other` is the one variant that carries our sentence to the other side.
        CertificateError::Other(rustls::OtherError(Arc::new(refusal))).into()
    }
}

/// Who refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Us,
    Them,
}

/// What rustls puts around the sentence of a verifier that refused.
const REFUSAL_PREFIX: &str = "invalid peer certificate: Other(OtherError(";
const REFUSAL_SUFFIX: &str = "))";

/// The sentence for a TLS alert that ended a handshake; `reason` is the text that came with it.
pub(super) fn explain(alert: u8, reason: &str, by: By) -> String {
    let certificate = match by {
        By::Us => "the certificate of the other side was refused",
        By::Them => "the other side refused our certificate",
    };
    if let Some(refusal) = reason.strip_prefix(REFUSAL_PREFIX) {
        let refusal = refusal.strip_suffix(REFUSAL_SUFFIX).unwrap_or(refusal);
        return format!("{certificate}: {refusal}");
    }
    let what = match alert {
        42 => "it is malformed",
        43 => "it does not allow this use",
        44 => "it was revoked",
        45 => "it has expired or is not valid yet",
        46 => "it was found unacceptable",
        48 => "it is not signed by a CA that is trusted there",
        49 => "its owner is not allowed here",
        51 => "a signature does not verify",
        116 => match by {
            By::Us => {
                return "the other side showed no certificate, and one is required".to_owned();
            }
            By::Them => {
                return "the other side requires a certificate, and we showed none".to_owned();
            }
        },
        70 => return "the TLS versions have nothing in common: TLS 1.3 is required".to_owned(),
        120 => {
            let us = String::from_utf8_lossy(super::tls::ALPN);
            return format!("the application protocols have nothing in common: `{us}` is required");
        }
        _ => return format!("the TLS handshake failed (alert {alert}: {reason})"),
    };
    format!("{certificate}: {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_own_sentence() {
        let user: Principal = "spiffe://other/user/al".parse().unwrap();
        let node = |name| NodeName::new(name).unwrap();
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_788_249_600));
        let ours = "shop".to_owned();
        for (refusal, sentence) in [
            (
                Refusal::NotSigned { ours: ours.clone(), claims: Some(user.clone()) },
                "it is not signed by the CA of cluster `shop` (it calls itself spiffe://other/user/al)",
            ),
            (Refusal::Expired { not_after: at }, "it expired on 2026-09-01T08:00:00Z"),
            (
                Refusal::NotYetValid { not_before: at },
                "it is not valid before 2026-09-01T08:00:00Z (is a clock wrong?)",
            ),
            (
                Refusal::Purpose { claims: Some(user.clone()) },
                "it is the certificate of user `al`, and only a node may serve",
            ),
            (Refusal::Purpose { claims: None }, "its extended key usage does not allow this"),
            (
                Refusal::OtherCluster { theirs: user, ours },
                "it belongs to cluster `other` (spiffe://other/user/al), not to cluster `shop`",
            ),
            (
                Refusal::OtherNode { theirs: node("n2"), expected: node("n1") },
                "it is the certificate of node `n2`, not of node `n1`",
            ),
        ] {
            assert_eq!(refusal.to_string(), sentence);
            let reason = rustls::Error::from(refusal).to_string();
            let told = explain(46, &reason, By::Them);
            assert_eq!(told, format!("the other side refused our certificate: {sentence}"));
        }
    }

    #[test]
    fn bare_alerts_of_other_programs_are_explained() {
        for (alert, part) in [
            (42, "malformed"),
            (45, "expired"),
            (48, "not signed by a CA"),
            (70, "TLS 1.3"),
            (116, "we showed none"),
            (120, "`ppdb/1` is required"),
            (80, "alert 80: why"),
        ] {
            let told = explain(alert, "why", By::Them);
            assert!(told.contains(part), "{alert}: {told}");
            assert_eq!(told.contains("our certificate"), matches!(alert, 42..=51), "{told}");
        }
    }
}
