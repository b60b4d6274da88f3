//! A stream cut into arbitrary chunks gives the same frames, and the same end, as the stream in one
//! piece; and the splitter never holds more than one frame and one chunk.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ppdb::wire::frame::{Error, HEADER_BYTES, Splitter};

/// Input: the cap less one, how many chunk sizes follow, those, then the stream. Small caps make every
/// length around the cap common.
struct Input<'a> {
    cap: usize,
    /// Length of each chunk in turn; an exhausted list starts again.
    chunks: &'a [u8],
    stream: &'a [u8],
}

impl<'a> Input<'a> {
    fn of(data: &'a [u8]) -> Option<Self> {
        let (&[cap, chunks], rest) = data.split_first_chunk()?;
        let (chunks, stream) = rest.split_at_checked(chunks.into())?;
        Some(Self { cap: usize::from(cap) + 1, chunks, stream })
    }
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

fuzz_target!(|data: &[u8]| {
    let Some(Input { cap, chunks, stream }) = Input::of(data) else { return };
    let mut whole = Seen::default();
    let mut splitter = Splitter::new(cap);
    splitter.push(stream);
    whole.drain(&mut splitter);

    let mut cut = Seen::default();
    let mut splitter = Splitter::new(cap);
    let mut rest = stream;
    let mut sizes = chunks.iter().cycle();
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
