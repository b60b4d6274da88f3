//! Those who begin a connection with us: whether they may, and their handshake up to the welcome.

use super::connection::{Connection, canonical};
use super::{Error, Options};
use crate::pki::{Identity, Principal};
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use tokio::time;

/// What the accepting side says at the end of a handshake: the version of what follows.
pub(super) const WELCOME: [u8; 1] = [1];

/// What happens to a newcomer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// The handshake goes on.
    Take,
    /// It comes again with a token that only its true address receives.
    ProveAddress,
    /// It is told that there is no room.
    Refuse,
}

impl Admission {
    /// `open` connections exist, `under_way` handshakes have begun, `proven` is what is known of the
    /// newcomer's address.
    pub(super) fn decide(options: &Options, open: usize, under_way: usize, proven: bool) -> Self {
        if open >= options.connections_max || under_way >= options.handshakes_max {
            Self::Refuse
        } else if under_way >= options.handshakes_max / 2 && !proven {
            Self::ProveAddress
        } else {
            Self::Take
        }
    }
}

/// The accepting side's handshake, to its end. Logs a refusal, because nobody else hears of it.
pub(super) async fn take(
    incoming: quinn::Incoming,
    identity: Identity,
    options: Arc<Options>,
) -> Option<Connection> {
    let remote = canonical(incoming.remote_address());
    let welcomed = async {
        let quinn = incoming.await?;
        let principal = principal_of(&quinn)?;
        let mut stream = quinn.open_uni().await?;
        stream.write_all(&WELCOME).await?;
        let _ = stream.finish();
        Ok(Connection::new(quinn, principal, options.clone()))
    };
    match time::timeout(options.handshake_timeout, welcomed).await {
        Ok(Ok(connection)) => return Some(connection),
        Ok(Err(reason @ (Error::Refused(_) | Error::Protocol(_)))) => {
            let node = identity.principal().subject.name();
            tracing::warn!(%remote, %reason, node, "connection refused");
        }
        Ok(Err(reason)) => tracing::debug!(%remote, %reason, "handshake given up"),
        Err(_) => tracing::debug!(%remote, "handshake took too long"),
    }
    None
}

/// Who the other side is. The handshake verified it; this reads it once more for keeping.
pub(super) fn principal_of(quinn: &quinn::Connection) -> Result<Principal, Error> {
    let identity = quinn.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer>>().ok());
    let certificate = identity.as_ref().and_then(|chain| chain.first());
    let certificate = certificate
        .ok_or_else(|| Error::Refused("the other side showed no certificate".to_owned()))?;
    Principal::of_certificate(certificate)
        .map_err(|why| Error::Refused(format!("the certificate of the other side: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newcomers_prove_themselves_under_pressure_and_are_refused_past_the_bound() {
        let options = Options { handshakes_max: 10, connections_max: 100, ..Default::default() };
        for (open, under_way, proven, expected) in [
            (0, 0, false, Admission::Take),
            (99, 4, false, Admission::Take),
            (99, 5, false, Admission::ProveAddress),
            (99, 5, true, Admission::Take),
            (99, 9, true, Admission::Take),
            (99, 10, true, Admission::Refuse),
            (100, 0, true, Admission::Refuse),
        ] {
            let got = Admission::decide(&options, open, under_way, proven);
            assert_eq!(got, expected, "{open} {under_way} {proven}");
        }
    }
}
