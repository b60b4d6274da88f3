//! Why connections and streams end, from quinn's words into ours.

use super::refusal::{self, By};
use quinn::{ConnectionError, ReadError, StoppedError, TransportErrorCode, VarInt, WriteError};

/// Why a connection or stream does not work. `Refused` carries the sentence that says which check failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A certificate was refused, here or by the other side.
    #[error("{0}")]
    Refused(String),
    /// Nobody answered.
    #[error("cannot reach {0}")]
    Unreachable(String),
    /// The connection or stream ended.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The other side broke the framing.
    #[error("protocol violation: {0}")]
    Protocol(String),
    /// Binding the socket or building the TLS settings failed.
    #[error("{0}")]
    Setup(String),
}

/// Codes of a close that a PPDB process sends; the reason goes with them as a sentence.
pub(super) mod code {
    use super::VarInt;

    pub const CLOSED: VarInt = VarInt::from_u32(0);
    pub const REFUSED: VarInt = VarInt::from_u32(1);
    pub const PROTOCOL: VarInt = VarInt::from_u32(2);
}

/// Characters of another side's reason that are kept; it goes into logs and messages.
const REASON_CHARS_MAX: usize = 400;

impl Error {
    /// The code and the sentence that tell the other side.
    pub(super) fn to_close(&self) -> (VarInt, String) {
        match self {
            Self::Refused(why) => (code::REFUSED, why.clone()),
            Self::Protocol(why) => (code::PROTOCOL, why.clone()),
            Self::Unreachable(why) | Self::Lost(why) | Self::Setup(why) => {
                (code::CLOSED, why.clone())
            }
        }
    }

    /// The same error, saying whom it is about.
    pub(super) fn about(self, whom: &str) -> Self {
        match self {
            Self::Refused(why) => Self::Refused(format!("{whom}: {why}")),
            Self::Unreachable(why) => Self::Unreachable(format!("{whom}: {why}")),
            Self::Lost(why) => Self::Lost(format!("{whom}: {why}")),
            Self::Protocol(why) => Self::Protocol(format!("{whom}: {why}")),
            Self::Setup(why) => Self::Setup(why),
        }
    }
}

impl From<ConnectionError> for Error {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::TransportError(error) => match tls_alert(error.code) {
                Some(alert) => Self::Refused(refusal::explain(alert, &error.reason, By::Us)),
                None => Self::Protocol(error.to_string()),
            },
            ConnectionError::ConnectionClosed(close) => {
                let reason = printable(&close.reason);
                match tls_alert(close.error_code) {
                    Some(alert) => Self::Refused(refusal::explain(alert, &reason, By::Them)),
                    None if close.error_code == TransportErrorCode::CONNECTION_REFUSED => {
                        Self::Unreachable("it takes no further connections".to_owned())
                    }
                    None => Self::Protocol(format!("the other side says: {}", close.error_code)),
                }
            }
            ConnectionError::ApplicationClosed(close) => {
                let reason = match printable(&close.reason) {
                    empty if empty.is_empty() => "closed by the other side".to_owned(),
                    reason => reason,
                };
                match close.error_code {
                    code::REFUSED => Self::Refused(reason),
                    code::PROTOCOL => Self::Protocol(format!("the other side says: {reason}")),
                    _ => Self::Lost(reason),
                }
            }
            ConnectionError::Reset => Self::Lost("the other side was restarted".to_owned()),
            ConnectionError::TimedOut => {
                Self::Lost("nothing was heard within the idle timeout".to_owned())
            }
            ConnectionError::LocallyClosed => Self::Lost("closed by this side".to_owned()),
            ConnectionError::VersionMismatch => {
                Self::Protocol("the QUIC versions have nothing in common".to_owned())
            }
            ConnectionError::CidsExhausted => Self::Lost("connection ids ran out".to_owned()),
        }
    }
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => error.into(),
            WriteError::Stopped(_) => stopped_reading(),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => {
                Self::Lost("the stream is closed".to_owned())
            }
        }
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(error) => error.into(),
            ReadError::Reset(_) => Self::Lost("the other side gave the stream up".to_owned()),
            ReadError::ClosedStream
            | ReadError::IllegalOrderedRead
            | ReadError::ZeroRttRejected => Self::Lost("the stream is closed".to_owned()),
        }
    }
}

impl From<Result<Option<VarInt>, StoppedError>> for Error {
    fn from(stopped: Result<Option<VarInt>, StoppedError>) -> Self {
        match stopped {
            Err(StoppedError::ConnectionLost(error)) => error.into(),
            _ => stopped_reading(),
        }
    }
}

fn stopped_reading() -> Error {
    Error::Lost("the other side stopped reading the stream".to_owned())
}

/// The TLS alert in a transport error code, if it is one (RFC 9001, 4.8).
fn tls_alert(code: TransportErrorCode) -> Option<u8> {
    match u64::from(code) {
        code @ 0x100..0x200 => Some(code as u8),
        _ => None,
    }
}

/// A stranger's text, safe for a log line: bounded, and without control characters.
fn printable(reason: &[u8]) -> String {
    String::from_utf8_lossy(reason)
        .chars()
        .take(REASON_CHARS_MAX)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_says_cannot_forge_log_lines() {
        let close = quinn::ApplicationClose {
            error_code: code::CLOSED,
            reason: format!("bye\n2026 WARN\u{1b}[0m{}", "x".repeat(10_000)).into(),
        };
        let Error::Lost(why) = ConnectionError::ApplicationClosed(close).into() else {
            panic!("not lost")
        };
        assert!(why.starts_with("bye?2026 WARN?[0m"), "{why}");
        assert_eq!(why.chars().count(), REASON_CHARS_MAX);
    }

    #[test]
    fn codes_tell_the_other_side_the_kind() {
        for error in [
            Error::Refused("r".into()),
            Error::Protocol("the other side says: p".into()),
            Error::Lost("l".into()),
        ] {
            let (error_code, reason) = error.to_close();
            let reason = reason.replace("the other side says: ", "");
            let close = quinn::ApplicationClose { error_code, reason: reason.into() };
            assert_eq!(Error::from(ConnectionError::ApplicationClosed(close)), error);
        }
    }

    #[test]
    fn only_crypto_codes_are_alerts() {
        assert_eq!(tls_alert(TransportErrorCode::crypto(48)), Some(48));
        assert_eq!(tls_alert(TransportErrorCode::CONNECTION_REFUSED), None);
        assert_eq!(tls_alert(TransportErrorCode::PROTOCOL_VIOLATION), None);
    }
}
