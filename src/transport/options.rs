//! The bounds of endpoints, connections and streams, and how quinn is told about them.

use super::{Error, congestion::Factory};
use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

/// Bounds and times of an endpoint. The defaults suit a cluster in one data center; tests use less.
#[derive(Clone, Debug)]
pub struct Options {
    /// A connection on which nothing was heard for this long is lost. The smaller value of the two sides
    /// holds. It is also how a dead machine is noticed, so it stays short.
    pub idle_timeout: Duration,
    /// The connecting side says something this often, so that an idle connection stays. A third of the
    /// idle timeout leaves room for two lost packets.
    pub keep_alive: Duration,
    /// Resolving, handshake and welcome together; past it `Unreachable`.
    pub connect_timeout: Duration,
    /// How long a handshake that someone began with us may take; past it the connection is closed.
    pub handshake_timeout: Duration,
    /// How long `open` waits while the other side grants no further stream, and how long a stream that
    /// was opened to us may leave its class unsaid.
    pub open_timeout: Duration,
    /// How long `Endpoint::close` waits for the last packets to leave.
    pub close_timeout: Duration,
    /// Streams that the other side may have open at a time; its `open` waits.
    pub streams_max: u32,
    /// Handshakes under way at a time. From half of it on, newcomers first prove their address; past it
    /// they are refused.
    pub handshakes_max: usize,
    /// Connections at a time; newcomers are refused.
    pub connections_max: usize,
    /// Bytes received on one stream that nobody has read yet; the other side's writes wait.
    pub stream_window_bytes: u32,
    /// The same over all streams of a connection. Four streams that nobody reads use it up, and then hold
    /// back the others.
    pub connection_window_bytes: u32,
    /// Bytes sent on a connection that the other side has not acknowledged; writes wait.
    pub send_window_bytes: u32,
    /// Bytes of frames that wait in one stream's queue; `send` waits, `try_send` gives back.
    pub queue_bytes: u32,
    /// Frames that wait there, at most; the same.
    pub queue_frames: u32,
    /// Asked of the kernel for the socket's buffers, in each direction. What it grants is logged: an
    /// overflow looks like loss on the way and slows every connection down.
    pub socket_buffer_bytes: usize,
    /// Largest UDP payload tried. Discovery starts at 1200 and goes up only as far as the path carries:
    /// 1452 on Ethernet, this on jumbo frames and loopback. At most 6550.
    pub datagram_bytes_max: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(3),
            handshake_timeout: Duration::from_secs(5),
            open_timeout: Duration::from_secs(3),
            close_timeout: Duration::from_secs(1),
            streams_max: 256,
            handshakes_max: 256,
            connections_max: 4_096,
            stream_window_bytes: 4 << 20,
            connection_window_bytes: 16 << 20,
            send_window_bytes: 16 << 20,
            queue_bytes: 4 << 20,
            queue_frames: 8_192,
            socket_buffer_bytes: 4 << 20,
            datagram_bytes_max: 6_000,
        }
    }
}

/// Round trip assumed before one was measured. quinn's 333 ms would make a lost first packet cost a second.
const INITIAL_RTT: Duration = Duration::from_millis(30);
/// Packets after which the other side acknowledges without delay. quinn's every second packet is one packet more
/// for each request, because an answer, which carries the acknowledgement, is rarely that quick.
pub(super) const PACKETS_PER_ACK: u32 = 10;
/// Time after which it acknowledges fewer. quinn's 25 ms would be waited for by whoever sent a window of fewer packets;
/// most answers come before this and carry the acknowledgement.
const ACK_DELAY: Duration = Duration::from_millis(5);
/// Packets of a handshake that wait for `accept`, for one newcomer and for all.
const INCOMING_BYTES: u64 = 64 << 10;
const INCOMING_BYTES_TOTAL: u64 = 4 << 20;

/// quinn hands up to ten datagrams to the kernel in one piece, without regard to the kernel's limit of
/// 65,507 bytes for it. Over that, the kernel drops every full batch.
const DATAGRAM_BYTES_MAX: u16 = 6_550;

/// Which side of connections a setting is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Accepting,
    Connecting,
}

impl Options {
    /// Refuses what quinn or the kernel would choke on.
    pub(super) fn check(&self) -> Result<(), Error> {
        if (1_200..=DATAGRAM_BYTES_MAX).contains(&self.datagram_bytes_max) {
            return Ok(());
        }
        let got = self.datagram_bytes_max;
        Err(Error::Setup(format!(
            "datagrams of {got} bytes; allowed are 1200 to {DATAGRAM_BYTES_MAX}"
        )))
    }

    /// Settings of the connections of one side. `all_leaving` is set right before all are closed.
    pub(super) fn transport(
        &self,
        side: Side,
        all_leaving: &Arc<AtomicBool>,
    ) -> Result<TransportConfig, Error> {
        let idle = IdleTimeout::try_from(self.idle_timeout)
            .map_err(|_| Error::Setup("the idle timeout is too long".to_owned()))?;
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(self.datagram_bytes_max);
        // The only stream of one direction is the welcome, from the accepting side.
        let (one_way, keep_alive) = match side {
            Side::Accepting => (0, None),
            Side::Connecting => (1, Some(self.keep_alive)),
        };
        let mut acks = AckFrequencyConfig::default();
        acks.ack_eliciting_threshold(VarInt::from_u32(PACKETS_PER_ACK));
        acks.max_ack_delay(Some(ACK_DELAY));
        let mut config = TransportConfig::default();
        config
            .ack_frequency_config(Some(acks))
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(keep_alive)
            .max_concurrent_bidi_streams(VarInt::from_u32(self.streams_max))
            .max_concurrent_uni_streams(VarInt::from_u32(one_way))
            .stream_receive_window(VarInt::from_u32(self.stream_window_bytes))
            .receive_window(VarInt::from_u32(self.connection_window_bytes))
            .send_window(self.send_window_bytes.into())
            .initial_rtt(INITIAL_RTT)
            .mtu_discovery_config(Some(discovery))
            .congestion_controller_factory(Arc::new(Factory::new(
                self.datagram_bytes_max,
                all_leaving.clone(),
            )))
            .datagram_receive_buffer_size(None);
        Ok(config)
    }

    /// Bounds that quinn has for the accepting side. Addresses do not migrate: who a connection belongs
    /// to is logged with its address, and nodes keep theirs.
    pub(super) fn bound_server(&self, config: &mut quinn::ServerConfig) {
        config
            .max_incoming(self.handshakes_max)
            .incoming_buffer_size(INCOMING_BYTES)
            .incoming_buffer_size_total(INCOMING_BYTES_TOTAL)
            .migration(false);
    }
}
