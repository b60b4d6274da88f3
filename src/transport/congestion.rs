//! quinn's congestion control, with a way to say good-bye while the line is full.
//!
//! quinn holds a connection's last packet back while the congestion window is used up, and a closed
//! connection hears no acknowledgement that would free it: the other side would never learn the reason. So
//! the window opens when a connection is about to be closed. Nothing else differs from Cubic.

use quinn::congestion::{Controller, ControllerFactory, Cubic, CubicConfig};
use quinn_proto::RttEstimator;
use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// Packets in flight before the first acknowledgement, as RFC 9002 (7.2) recommends.
const INITIAL_PACKETS: u64 = 10;

/// Makes the controllers of an endpoint's connections.
pub(super) struct Factory {
    cubic: Arc<CubicConfig>,
    all_leaving: Arc<AtomicBool>,
}

impl Factory {
    /// `all_leaving` opens the windows of all connections at once.
    pub(super) fn new(datagram_bytes_max: u16, all_leaving: Arc<AtomicBool>) -> Self {
        let mut cubic = CubicConfig::default();
        cubic.initial_window(INITIAL_PACKETS * u64::from(datagram_bytes_max));
        Self { cubic: Arc::new(cubic), all_leaving }
    }
}

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let cubic = Cubic::new(self.cubic.clone(), now, current_mtu);
        let all_leaving = self.all_leaving.clone();
        Box::new(Leaving { cubic, leaving: Arc::default(), all_leaving })
    }
}

/// To be called right before `connection` is closed.
pub(super) fn prepare_close(connection: &quinn::Connection) {
    if let Ok(leaving) = connection.congestion_state().into_any().downcast::<Leaving>() {
        leaving.leaving.store(true, Ordering::Release);
    }
}

/// Cubic whose window opens for the good-bye. Copies share the sign for that.
#[derive(Clone)]
struct Leaving {
    cubic: Cubic,
    leaving: Arc<AtomicBool>,
    all_leaving: Arc<AtomicBool>,
}

impl Controller for Leaving {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.cubic.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.cubic.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        // Past `u32::MAX` quinn does not pace either.
        match self.leaving.load(Ordering::Acquire) || self.all_leaving.load(Ordering::Acquire) {
            true => u64::MAX,
            false => self.cubic.window(),
        }
    }

    fn metrics(&self) -> quinn_proto::congestion::ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
