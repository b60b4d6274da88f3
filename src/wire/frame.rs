//! Framing: a little-endian u32 length, then that many bytes. Splits a byte stream that arrives in
//! arbitrary chunks into frames.
//!
//! A length over the cap, or zero, ends the stream before anything is allocated for it.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of the length in front of each frame.
pub const HEADER_BYTES: usize = 4;

/// Why a stream cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The declared length is zero or over the cap of this stream.
    #[error("a frame of {declared} bytes, allowed are 1 to {max}")]
    Length { declared: usize, max: usize },
}

/// Puts the length in front of a payload. Payloads over `u32::MAX` bytes do not exist: every class of
/// stream has a cap far below.
pub fn header(payload_bytes: usize) -> [u8; HEADER_BYTES] {
    (payload_bytes as u32).to_le_bytes()
}

/// Collects chunks and hands out whole frames. Buffers at most one frame plus one chunk.
#[derive(Debug)]
pub struct Splitter {
    buffer: BytesMut,
    frame_bytes_max: usize,
}

impl Splitter {
    /// A splitter that refuses frames over `frame_bytes_max`.
    pub fn new(frame_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), frame_bytes_max }
    }

    /// Adds what arrived.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole frame, or none until more arrives. After an error the stream is over.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(head) = self.buffer.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let declared = u32::from_le_bytes(*head) as usize;
        if declared == 0 || declared > self.frame_bytes_max {
            return Err(Error::Length { declared, max: self.frame_bytes_max });
        }
        if self.buffer.len() < HEADER_BYTES + declared {
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        Ok(Some(self.buffer.split_to(declared).freeze()))
    }

    /// Bytes that wait for the rest of their frame.
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_of_the_stream_gives_the_same_frames() {
        let frames: [&[u8]; 3] = [b"a", b"bcd", &[9; 300]];
        let stream: Vec<u8> =
            frames.iter().flat_map(|f| [&header(f.len())[..], f].concat()).collect();
        for step in 1..stream.len() {
            let mut splitter = Splitter::new(300);
            let mut got = vec![];
            for chunk in stream.chunks(step) {
                splitter.push(chunk);
                while let Some(frame) = splitter.next_frame().unwrap() {
                    got.push(frame);
                }
            }
            assert_eq!(got, frames, "chunks of {step}");
            assert_eq!(splitter.buffered_bytes(), 0);
        }
    }

    #[test]
    fn lengths_outside_the_cap_end_the_stream() {
        for declared in [0usize, 301, u32::MAX as usize] {
            let mut splitter = Splitter::new(300);
            splitter.push(&header(declared));
            assert_eq!(splitter.next_frame(), Err(Error::Length { declared, max: 300 }));
        }
    }
}
