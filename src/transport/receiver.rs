//! The receiving half of a stream: reads what has arrived and hands out whole frames.

use super::{Connection, Error, StreamClass};
use crate::wire::frame::Splitter;
use bytes::Bytes;
use quinn::RecvStream;

/// Pieces, each of one packet, that are taken from the stream in one go.
const PIECES_MAX: usize = 64;

/// Frames that arrive on one stream. Dropping it tells the other side to stop sending.
pub struct FrameReceiver {
    recv: RecvStream,
    connection: Connection,
    splitter: Splitter,
    pieces: Vec<Bytes>,
    ended: Option<Result<(), Error>>,
}

impl FrameReceiver {
    pub(super) fn new(class: StreamClass, recv: RecvStream, connection: Connection) -> Self {
        let splitter = Splitter::new(class.frame_bytes_max());
        let pieces = vec![Bytes::new(); PIECES_MAX];
        Self { recv, connection, splitter, pieces, ended: None }
    }

    /// The next frame; none when the other side finished the stream. A frame over the class's bound, or
    /// a stream that ends within a frame, is `Protocol` and closes the connection. After an error or the
    /// end, every call says the same again. May be dropped and called again without losing a frame.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(ended) = &self.ended {
                return ended.clone().map(|()| None);
            }
            match self.splitter.next_frame() {
                Ok(Some(frame)) => return Ok(Some(frame)),
                Ok(None) => self.fill().await,
                Err(error) => self.violated(error.to_string()),
            }
        }
    }

    async fn fill(&mut self) {
        match self.recv.read_chunks(&mut self.pieces).await {
            Ok(Some(count)) => {
                for piece in &mut self.pieces[..count] {
                    // Taken, not kept: a piece holds the memory of its packet.
                    self.splitter.push(&std::mem::take(piece));
                }
            }
            Ok(None) if self.splitter.buffered_bytes() == 0 => self.ended = Some(Ok(())),
            Ok(None) => self.violated("the stream ends within a frame".to_owned()),
            Err(error) => self.ended = Some(Err(self.connection.explain(error.into()))),
        }
    }

    fn violated(&mut self, why: String) {
        self.ended = Some(Err(self.connection.fail(Error::Protocol(why))));
    }
}
