//! The sending half of a stream: a bounded queue of frames and the one task that writes them.
//!
//! Writing to a stream must not be given up halfway, so no caller does it: callers queue whole frames,
//! and the task writes everything that waits in one go.

use super::{Error, Options, StreamClass};
use crate::wire::frame;
use bytes::{BufMut, Bytes, BytesMut};
use quinn::SendStream;
use std::{
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout,
};

/// Frames that leave in one write, at most.
const BATCH_FRAMES_MAX: usize = 512;
/// A payload up to this size is copied next to its neighbours; a longer one travels as it is. Below a few
/// kilobytes copying costs less than what quinn spends on a chunk.
const COPIED_BYTES_MAX: usize = 8 << 10;

/// Queues frames for one stream. Clones share the queue and the writer task behind it. When the last
/// clone is dropped, what is queued is still sent and the stream is finished.
#[derive(Clone)]
pub struct FrameSender {
    queue: mpsc::UnboundedSender<Bytes>,
    shared: Arc<Shared>,
}

struct Shared {
    /// What bounds the queue, in bytes. A frame takes its weight from here before it is queued, and the
    /// writer puts it back once it is written.
    room: Semaphore,
    room_max: u32,
    weight_min: u32,
    frame_bytes_max: usize,
    ended: OnceLock<Error>,
}

impl Shared {
    /// Small frames weigh more than their bytes, which bounds their number; a frame larger than the whole
    /// room goes alone.
    fn weight(&self, payload_bytes: usize) -> u32 {
        let bytes = u32::try_from(payload_bytes).unwrap_or(u32::MAX);
        bytes.max(self.weight_min).min(self.room_max)
    }

    fn ended(&self) -> Error {
        let unknown = || Error::Lost("the stream is closed".to_owned());
        self.ended.get().cloned().unwrap_or_else(unknown)
    }

    fn end(&self, why: Error) {
        let _ = self.ended.set(why);
        self.room.close();
    }
}

impl FrameSender {
    pub(super) fn start(class: StreamClass, send: SendStream, options: &Options) -> Self {
        let room_max = options.queue_bytes.max(1);
        let shared = Arc::new(Shared {
            room: Semaphore::new(room_max as usize),
            room_max,
            weight_min: (room_max / options.queue_frames.max(1)).max(1),
            frame_bytes_max: class.frame_bytes_max(),
            ended: OnceLock::new(),
        });
        // Bounded by `room`, in frames as in bytes.
        let (queue, waiting) = mpsc::unbounded_channel();
        tokio::spawn(write(send, waiting, shared.clone(), options.idle_timeout));
        Self { queue, shared }
    }

    /// Queues a frame, waiting while the queue is full (bounded by count and bytes). Frames that wait
    /// together leave in one write. An empty payload, or one over the class's bound, is `Protocol` and
    /// does no harm to the stream. Dropped before it returns, it has queued nothing.
    pub async fn send(&self, payload: Bytes) -> Result<(), Error> {
        let (len, max) = (payload.len(), self.shared.frame_bytes_max);
        if len == 0 || len > max {
            let error = frame::Error::Length { declared: len, max };
            return Err(Error::Protocol(error.to_string()));
        }
        let room = self.shared.room.acquire_many(self.shared.weight(len)).await;
        room.map_err(|_| self.shared.ended())?.forget();
        self.queue.send(payload).map_err(|_| self.shared.ended())
    }

    /// Queues a frame, or gives it back if the queue is full, the stream is over, or its size is not
    /// allowed.
    pub fn try_send(&self, payload: Bytes) -> Result<(), Bytes> {
        let len = payload.len();
        if len == 0 || len > self.shared.frame_bytes_max {
            return Err(payload);
        }
        match self.shared.room.try_acquire_many(self.shared.weight(len)) {
            Ok(room) => room.forget(),
            Err(_) => return Err(payload),
        }
        self.queue.send(payload).map_err(|refused| refused.0)
    }
}

/// The writer of one stream: takes all that waits, writes it, makes room. Ends when every sender is gone,
/// the other side stops reading, or the connection is lost.
async fn write(
    mut send: SendStream,
    mut waiting: mpsc::UnboundedReceiver<Bytes>,
    shared: Arc<Shared>,
    linger: Duration,
) {
    let mut stopped = pin!(send.stopped());
    let mut frames = Vec::with_capacity(16);
    let mut chunks = Vec::with_capacity(16);
    let mut joined = BytesMut::new();
    let why = loop {
        // Both branches only wait; the writing below is never given up.
        let first = tokio::select! {
            biased;
            first = waiting.recv() => first,
            why = &mut stopped => break Error::from(why),
        };
        let Some(first) = first else {
            let _ = send.finish();
            // This task may hold the connection's last handle: let the rest arrive before it goes.
            let _ = timeout(linger, stopped).await;
            return;
        };
        frames.push(first);
        // The runtime lets a task that was just woken run first: one turn for those whose frames can leave
        // in the same packet.
        tokio::task::yield_now().await;
        while frames.len() < BATCH_FRAMES_MAX
            && let Ok(frame) = waiting.try_recv()
        {
            frames.push(frame);
        }
        let weight: usize = frames.iter().map(|f| shared.weight(f.len()) as usize).sum();
        join(&mut frames, &mut joined, &mut chunks);
        if let Err(error) = send.write_all_chunks(&mut chunks).await {
            break error.into();
        }
        chunks.clear();
        shared.room.add_permits(weight);
    };
    shared.end(why);
}

/// Puts headers before the payloads, and everything short together.
fn join(frames: &mut Vec<Bytes>, joined: &mut BytesMut, chunks: &mut Vec<Bytes>) {
    let copied = |frame: &Bytes| if frame.len() <= COPIED_BYTES_MAX { frame.len() } else { 0 };
    joined.reserve(frames.iter().map(|frame| frame::HEADER_BYTES + copied(frame)).sum());
    for frame in frames.drain(..) {
        joined.put_slice(&frame::header(frame.len()));
        if frame.len() <= COPIED_BYTES_MAX {
            joined.put_slice(&frame);
        } else {
            chunks.push(joined.split().freeze());
            chunks.push(frame);
        }
    }
    if !joined.is_empty() {
        chunks.push(joined.split().freeze());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_frames_split_into_the_same_frames() {
        let sizes = [1, 100, COPIED_BYTES_MAX, COPIED_BYTES_MAX + 1, 7, 100_000, 100_000, 3];
        let sent: Vec<Bytes> = sizes.iter().map(|n| vec![*n as u8; *n].into()).collect();
        let (mut joined, mut chunks) = (BytesMut::new(), vec![]);
        for frames in [&sent[..], &sent[..1], &sent[3..4]] {
            join(&mut frames.to_vec(), &mut joined, &mut chunks);
            let mut splitter = frame::Splitter::new(100_000);
            let mut got = vec![];
            for chunk in chunks.drain(..) {
                assert!(!chunk.is_empty());
                splitter.push(&chunk);
                while let Some(frame) = splitter.next_frame().unwrap() {
                    got.push(frame);
                }
            }
            assert_eq!(got, frames);
            assert_eq!(splitter.buffered_bytes(), 0);
        }
    }

    #[test]
    fn short_frames_share_a_chunk_and_long_ones_are_not_copied() {
        let long = Bytes::from(vec![9; COPIED_BYTES_MAX + 1]);
        let mut frames = vec![Bytes::from_static(b"a"), long.clone(), Bytes::from_static(b"b")];
        frames.push(Bytes::from_static(b"c"));
        let mut chunks = vec![];
        join(&mut frames, &mut BytesMut::new(), &mut chunks);
        assert_eq!(chunks.len(), 3);
        assert_eq!(chunks[1].as_ptr(), long.as_ptr());
    }

    #[test]
    fn the_room_bounds_frames_and_bytes() {
        let shared = Shared {
            room: Semaphore::new(1_000),
            room_max: 1_000,
            weight_min: 100,
            frame_bytes_max: 5_000,
            ended: OnceLock::new(),
        };
        assert_eq!(shared.weight(1), 100);
        assert_eq!(shared.weight(500), 500);
        assert_eq!(shared.weight(5_000), 1_000);
    }
}
