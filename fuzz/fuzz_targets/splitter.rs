//! A stream cut into arbitrary chunks gives the same frames, and the same end, as the stream in one
//! piece; and the splitter never holds more than one frame and one chunk.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use ppdb::wire::frame::{Error, HEADER_BYTES, Splitter};

#[derive(Arbitrary, Debug)]
struct Input {
    /// The cap is this plus one, so that every length around it is met often.
    cap: u8,
    /// Length of each chunk in turn; an exhausted list starts again.
    chunks: Vec<u8>,
    stream: Vec<u8>,
}

/// What a reader of the stream sees: whole frames, and the error that ended it.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    frames: Vec<Bytes>,
    error: Option<Error>,
}

impl Seen {
    /// Takes every whole frame; false once the stream is over.
    fn drain(&mut self, splitter: &mut Splitter) -> bool {
        loop {
            match splitter.next_frame() {
                Ok(Some(frame)) => self.frames.push(frame),
                Ok(None) => return true,
                Err(error) => {
                    self.error = Some(error);
                    return false;
                }
            }
        }
    }
}

fuzz_target!(|input: Input| {
    let cap = usize::from(input.cap) + 1;
    let mut whole = Seen::default();
    let mut splitter = Splitter::new(cap);
    splitter.push(&input.stream);
    whole.drain(&mut splitter);

    let mut cut = Seen::default();
    let mut splitter = Splitter::new(cap);
    let mut rest = &input.stream[..];
    let mut sizes = input.chunks.iter().cycle();
    while !rest.is_empty() {
        // Every tenth chunk size stands for "everything that is left", as after a long pause.
        let size = match sizes.next() {
            Some(size) if size % 10 == 9 => rest.len(),
            Some(size) => usize::from(*size).clamp(1, rest.len()),
            None => 1,
        };
        let (chunk, left) = rest.split_at(size);
        rest = left;
        splitter.push(chunk);
        assert!(splitter.buffered_bytes() < HEADER_BYTES + cap + chunk.len());
        if !cut.drain(&mut splitter) {
            break;
        }
        assert!(splitter.buffered_bytes() < HEADER_BYTES + cap, "a whole frame was left behind");
    }
    assert_eq!(whole, cut);
    assert!(cut.frames.iter().all(|frame| (1..=cap).contains(&frame.len())));
});
