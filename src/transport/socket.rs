//! The UDP socket under an endpoint, and the keys that let a restarted endpoint disown old connections.

use super::{Error, Options};
use crate::pki::Identity;
use quinn::EndpointConfig;
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
};

/// Binds `addr` and asks for large buffers.
pub(super) fn bind(addr: SocketAddr, options: &Options) -> Result<UdpSocket, Error> {
    open(addr, options)
        .map_err(|error| Error::Setup(format!("cannot listen on UDP {addr}: {error}")))
}

/// Binds any free port for both IP versions, or for IPv4 where there is no IPv6.
pub(super) fn bind_any(options: &Options) -> Result<UdpSocket, Error> {
    open((Ipv6Addr::UNSPECIFIED, 0).into(), options)
        .or_else(|_| open((Ipv4Addr::UNSPECIFIED, 0).into(), options))
        .map_err(|error| Error::Setup(format!("cannot open a UDP socket: {error}")))
}

fn open(addr: SocketAddr, options: &Options) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        // `[::]` serves IPv4 too, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    // Best effort: the kernel cuts the wish down to `net.core.rmem_max` and `wmem_max`.
    let _ = socket.set_recv_buffer_size(options.socket_buffer_bytes);
    let _ = socket.set_send_buffer_size(options.socket_buffer_bytes);
    socket.bind(&addr.into())?;
    tracing::debug!(
        %addr,
        wanted_bytes = options.socket_buffer_bytes,
        receive_bytes = socket.recv_buffer_size().unwrap_or(0),
        send_bytes = socket.send_buffer_size().unwrap_or(0),
        "UDP socket bound"
    );
    Ok(socket.into())
}

/// Settings of an endpoint without a past: random keys.
pub(super) fn fresh_config(options: &Options) -> Result<EndpointConfig, Error> {
    bounded(EndpointConfig::default(), options)
}

/// Settings of an endpoint that serves `addr`. The keys derive from identity and address: after a restart
/// it recognizes packets of connections it had, and resets these at once, where the other sides would
/// otherwise wait out the idle timeout. No two endpoints share an address, so none can be tricked into
/// resetting another's connections.
pub(super) fn lasting_config(
    identity: &Identity,
    addr: SocketAddr,
    options: &Options,
) -> Result<EndpointConfig, Error> {
    let seed = hmac::Key::new(hmac::HMAC_SHA256, identity.seed());
    let derive = |what: &str| hmac::sign(&seed, format!("{what} of {addr}").as_bytes());
    let reset = hmac::Key::new(hmac::HMAC_SHA256, derive("reset key").as_ref());
    let id_key = derive("connection ids")
        .as_ref()
        .iter()
        .take(8)
        .fold(0, |key, byte| key << 8 | u64::from(*byte));
    let mut config = EndpointConfig::new(Arc::new(reset));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
    bounded(config, options)
}

fn bounded(mut config: EndpointConfig, options: &Options) -> Result<EndpointConfig, Error> {
    config
        .max_udp_payload_size(options.datagram_bytes_max)
        .map_err(|_| Error::Setup("datagrams must have 1200 to 65527 bytes".to_owned()))?;
    Ok(config)
}
