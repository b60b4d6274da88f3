//! quinn's congestion control, with a way to say good-bye while the line is full, and a window that never gets so
//! small that it stands still.
//!
//! The other side acknowledges at once only after `PACKETS_PER_ACK` packets, and else after a time. A window of fewer
//! packets is used up before that: each time its sender would wait for that time. So it has room for several
//! acknowledgements, whatever was lost. Cubic's own smallest window, two packets, is for lines across the world; a
//! process that does not get its turn on a processor for some milliseconds looks like loss, too.
//!
//! quinn holds a connection's last packet back while the congestion window is used up, and a closed
//! connection hears no acknowledgement that would free it: the other side would never learn the reason. So
//! the window opens when a connection is about to be closed. Nothing else differs from Cubic.

use super::options::PACKETS_PER_ACK;
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
/// Packets of the smallest window.
const FLOOR_PACKETS: u64 = 32;
const _: () = assert!(FLOOR_PACKETS > 2 * PACKETS_PER_ACK as u64);

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
        let floor = FLOOR_PACKETS * u64::from(current_mtu);
        Box::new(Leaving { cubic, floor, leaving: Arc::default(), all_leaving })
    }
}

/// To be called right before `connection` is closed.
pub(super) fn prepare_close(connection: &quinn::Connection) {
    if let Ok(leaving) = connection.congestion_state().into_any().downcast::<Leaving>() {
        leaving.leaving.store(true, Ordering::Release);
    }
}

/// Cubic whose window has a floor, and opens for the good-bye. Copies share the sign for that.
#[derive(Clone)]
struct Leaving {
    cubic: Cubic,
    /// Bytes of the smallest window.
    floor: u64,
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
        self.floor = FLOOR_PACKETS * u64::from(new_mtu);
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        // Past `u32::MAX` quinn does not pace either.
        match self.leaving.load(Ordering::Acquire) || self.all_leaving.load(Ordering::Acquire) {
            true => u64::MAX,
            false => self.cubic.window().max(self.floor),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn whatever_is_lost_the_window_has_room_for_several_acknowledgements() {
        let all_leaving = Arc::new(AtomicBool::new(false));
        let now = Instant::now();
        let factory = Arc::new(Factory::new(1_452, all_leaving.clone()));
        let mut control = factory.build(now, 1_200);
        let packets_fit = |control: &dyn Controller, bytes: u64| control.window() / bytes;
        assert!(packets_fit(&*control, 1_200) > u64::from(PACKETS_PER_ACK));
        control.on_mtu_update(1_452);
        for second in 1..10 {
            let at = now + Duration::from_secs(second);
            control.on_congestion_event(at, at, true, 1_452);
        }
        assert_eq!(packets_fit(&*control, 1_452), FLOOR_PACKETS);
        all_leaving.store(true, Ordering::Release);
        assert_eq!(control.window(), u64::MAX);
    }
}
