//! Addresses that nothing else on the machine uses.
//!
//! A node that is killed has to get its own port again, so the port must not be one that the system
//! hands to some client meanwhile: it lies below the ephemeral range. Each cluster also has a loopback
//! address of its own, made of this process's id, so that test runs side by side do not meet.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

const PORT_FIRST: u16 = 20_000;
const PORTS: u16 = 10_000;
/// Port of the first node of a demo without an offset.
const DEMO_PORT: u16 = 7_101;

/// A free address for one node.
pub fn free_addr() -> SocketAddr {
    let pid = std::process::id();
    let [_, b, c, d] = pid.to_be_bytes();
    let host = IpAddr::V4(Ipv4Addr::new(127, b | 1, c, d.clamp(1, 254)));
    for _ in 0..PORTS {
        let port = PORT_FIRST + NEXT_PORT.fetch_add(1, Ordering::Relaxed) % PORTS;
        let addr = SocketAddr::new(host, port);
        if UdpSocket::bind(addr).is_ok() {
            return addr;
        }
    }
    panic!("no free port on {host}");
}

/// A `--port-offset` for a demo whose four ports are free at this moment.
pub fn free_demo_offset() -> u16 {
    let first = PORT_FIRST + (std::process::id() % u32::from(PORTS)) as u16;
    let free = |port: u16| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let found = (first..first + 1_000).step_by(4).find(|port| (*port..port + 4).all(free));
    found.expect("four free ports in a row") - DEMO_PORT
}
