//! Finding the map: from the nodes we know, then from the endpoints the user gave.

use super::exec::Inner;
use super::net::{Failure, Net};
use super::retry::back_off;
use super::route::View;
use crate::types::{Class, Code, Error, Result};
use crate::wire::client::{Map, ReplyBody, RequestBody};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one node is given to answer with the map before the next one is asked.
const NODE_WAIT: Duration = Duration::from_millis(300);
/// How long a request waits for a newer map before it goes on with the one there is.
const TRY_WAIT: Duration = Duration::from_secs(1);
/// A map is not asked for again within this time.
const REFRESH_PAUSE: Duration = Duration::from_millis(20);

impl<N: Net> Inner<N> {
    /// The first contact: any endpoint that answers. A node without a map is fine.
    pub(crate) async fn start(&self, deadline: Instant) -> Result<()> {
        match self.net.discover(deadline).await?.map {
            Some(map) => self.adopt(map),
            None => Ok(()),
        }
    }

    /// A map to route by; asks until there is one or it is certain that there is none.
    pub(crate) async fn ensure_map(&self, retry: bool, deadline: Instant) -> Result<Arc<View>> {
        let mut count = 0;
        loop {
            let view = self.view();
            if !view.map.shards.is_empty() {
                return Ok(view);
            }
            let Err(error) = self.refresh(deadline).await else { continue };
            let wait = back_off(count, rand::random());
            let late = self.net.now() + wait >= deadline;
            if error.class() != Class::Retry || !retry || late {
                return Err(error);
            }
            count += 1;
            self.net.sleep_until(self.net.now() + wait).await;
        }
    }

    /// Asks for the map, once for all tasks that want it at the same time.
    pub(crate) async fn refresh(&self, deadline: Instant) -> Result<Arc<View>> {
        let asked = self.net.now();
        let Some(mut last) = self.within(deadline, self.refreshing.lock()).await else {
            return Err(Error::new(Code::DeadlineExceeded, "no map before the deadline"));
        };
        let fresh = last.is_some_and(|at| at + REFRESH_PAUSE > asked);
        if !fresh || self.view().map.shards.is_empty() {
            let map = self.fetch(deadline).await?;
            self.adopt(map)?;
            *last = Some(self.net.now());
        }
        Ok(self.view())
    }

    /// Asks for the map on behalf of a request under way, which goes on with or without.
    pub(crate) async fn try_refresh(&self, deadline: Instant) {
        let until = deadline.min(self.net.now() + TRY_WAIT);
        let _ = self.refresh(until).await;
    }

    async fn fetch(&self, deadline: Instant) -> Result<Map> {
        let view = self.view();
        let now = self.net.now();
        let start = rand::random::<u32>() as usize % view.nodes.len().max(1);
        let (after, before) = view.nodes.split_at(start);
        let mut nodes: Vec<_> = before.iter().chain(after).collect();
        nodes.sort_by_key(|node| node.health.suspect(now));
        for node in nodes {
            let until = (self.net.now() + NODE_WAIT).min(deadline);
            match self.net.exchange(&node.target, RequestBody::Map, until).await {
                Ok(ReplyBody::Map(map)) => return Ok(map),
                Ok(_) | Err(Failure::Refused(_)) => {}
                Err(_) => node.health.failed(self.net.now()),
            }
        }
        let found = self.net.discover(deadline).await?;
        match self.net.exchange(&found.target, RequestBody::Map, deadline).await {
            Ok(ReplyBody::Map(map)) => Ok(map),
            Ok(_) => Err(Error::new(Code::Internal, "asked for a map, got something else")),
            Err(Failure::Refused(error) | Failure::NotSent(error)) => Err(error),
            Err(Failure::Lost(why)) => Err(Error::new(Code::Unreachable, why)),
            Err(Failure::TimedOut) => {
                Err(Error::new(Code::DeadlineExceeded, "no map before the deadline"))
            }
        }
    }
}
