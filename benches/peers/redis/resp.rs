//! RESP2, as far as the bench speaks it: requests are arrays of bulk strings; replies are no arrays.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Longest reply: nothing that the bench asks for comes near.
const BULK_BYTES_MAX: usize = 1 << 20;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`
    Simple(Bytes),
    /// `-ERR …`
    Error(Bytes),
    /// `:1`
    Int(i64),
    /// `$3 …`
    Bulk(Bytes),
    /// `$-1`
    Nil,
}

/// Appends a request.
pub fn encode(words: &[&[u8]], out: &mut BytesMut) {
    header(b'*', words.len(), out);
    for word in words {
        header(b'$', word.len(), out);
        out.put_slice(word);
        out.put_slice(b"\r\n");
    }
}

fn header(kind: u8, length: usize, out: &mut BytesMut) {
    out.put_u8(kind);
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = length;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
    out.put_slice(b"\r\n");
}

/// Takes one reply off the front; none if it is not complete. An error is a violation of the protocol.
pub fn decode(input: &mut BytesMut) -> Result<Option<Reply>, String> {
    let Some(end) = input.windows(2).position(|pair| pair == b"\r\n") else {
        return match input.len() > BULK_BYTES_MAX {
            true => Err("a line without an end".into()),
            false => Ok(None),
        };
    };
    let kind = input[0];
    if kind != b'$' {
        let mut line = input.split_to(end + 2).freeze();
        line.truncate(end);
        line.advance(end.min(1));
        return match kind {
            b'+' => Ok(Some(Reply::Simple(line))),
            b'-' => Ok(Some(Reply::Error(line))),
            b':' => Ok(Some(Reply::Int(int(&line)?))),
            b'\r' => Err("an empty line".into()),
            other => Err(format!("a reply of kind {:?}", other as char)),
        };
    }
    let length = int(input.get(1..end).unwrap_or_default())?;
    if length == -1 {
        input.advance(end + 2);
        return Ok(Some(Reply::Nil));
    }
    let length = usize::try_from(length).ok().filter(|length| *length <= BULK_BYTES_MAX);
    let length = length.ok_or("a bulk string of an impossible length")?;
    if input.len() < end + 2 + length + 2 {
        return Ok(None);
    }
    input.advance(end + 2);
    let value = input.split_to(length).freeze();
    input.advance(2);
    Ok(Some(Reply::Bulk(value)))
}

fn int(digits: &[u8]) -> Result<i64, String> {
    let text = std::str::from_utf8(digits).unwrap_or_default();
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}
