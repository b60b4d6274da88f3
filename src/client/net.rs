//! The seam below routing and retries: one request to one node, and time.
//!
//! The real thing is `pool::Pool`. Tests put a scripted network in its place, so that every outcome in
//! every state is tried without a socket or a sleep.

use crate::types::{Error, NodeName};
use crate::wire::client::{Map, ReplyBody, RequestBody};
use std::future::Future;
use std::time::{Duration, Instant};

/// A node and where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Name its certificate has to carry.
    pub name: NodeName,
    /// `host:port`.
    pub addr: String,
}

/// Why an exchange brought no answer that says yes. The variants keep apart what decides about a retry:
/// whether the request can have reached the node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Failure {
    /// Nothing left this process.
    NotSent(Error),
    /// It was handed to a connection that ended before the answer came.
    Lost(String),
    /// It was handed to a connection, and no answer came in time.
    TimedOut,
    /// The node answered with an error.
    Refused(Error),
}

/// A node that answered during discovery.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Who and where.
    pub target: Target,
    /// Its map; none if it belongs to no cluster yet or cannot tell.
    pub map: Option<Map>,
}

/// What the client needs from the outside world.
pub(crate) trait Net: Send + Sync + 'static {
    /// The clock of all deadlines.
    fn now(&self) -> Instant;

    /// Waits.
    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send;

    /// Sends a request to a node, connecting if needed, and waits for its answer until `until`.
    /// Never sends the same request twice.
    fn exchange(
        &self,
        to: &Target,
        body: RequestBody,
        until: Instant,
    ) -> impl Future<Output = Result<ReplyBody, Failure>> + Send;

    /// Asks the endpoints the user gave, all at once; a node with a map is preferred.
    fn discover(&self, until: Instant) -> impl Future<Output = Result<Found, Error>> + Send;
}

/// The milliseconds a frame carries: a little less than the client waits, so that a node that waits the
/// whole time (`NotYet`, for example) still gets its answer through. At least 1, because 0 means default.
pub(crate) fn frame_deadline_ms(remaining: Duration) -> u32 {
    const MARGIN_MS_MAX: u128 = 50;
    let ms = remaining.as_millis();
    (ms - (ms / 10).min(MARGIN_MS_MAX)).clamp(1, u32::MAX as u128) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_carries_less_than_the_client_waits_and_never_zero() {
        for (remaining_ms, expected) in [(0, 1), (1, 1), (10, 9), (500, 450), (5_000, 4_950)] {
            assert_eq!(frame_deadline_ms(Duration::from_millis(remaining_ms)), expected);
        }
        assert_eq!(frame_deadline_ms(Duration::MAX), u32::MAX);
    }
}
