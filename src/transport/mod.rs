//! QUIC with mutual TLS 1.3: endpoints, connections whose peer is known, and streams of frames.
//!
//! One UDP port serves clients and peers; the first byte of a stream says its class. Nothing here knows
//! what a frame means.
//!
//! Both sides verify the certificate and the identity in it during the handshake, so that a refused peer
//! never gets as far as a stream. The accepting side ends each handshake with a welcome; only with that
//! does the connecting side know that its own certificate was taken.

mod class;
mod congestion;
mod connection;
mod endpoint;
mod errors;
mod newcomer;
mod options;
mod receiver;
mod refusal;
mod sender;
mod socket;
#[cfg(test)]
mod tests;
mod tls;

pub use class::StreamClass;
pub use connection::Connection;
pub use endpoint::Endpoint;
pub use errors::Error;
pub use options::Options;
pub use receiver::FrameReceiver;
pub use sender::FrameSender;
pub use tls::https_accepting;
