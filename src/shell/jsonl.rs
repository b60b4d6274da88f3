//! `ppdb shell -o jsonl` with standard input not a terminal: how any language drives PPDB.
//!
//! One line in, exactly one JSON line out, flushed, in order; `cli::value` has the shape of an answer and
//! `request` that of a line. Nothing but the end of input, `exit`, a signal, or a reader that went away ends it: a
//! lost connection, a malformed line and a line that is too long are answers. `-o` on a line is ignored.

use super::request::{self, Asked};
use super::signals::Signals;
use crate::cli::session::Session;
use crate::cli::value::{Done, envelope};
use crate::cli::{exit, millis};
use crate::types::{Code, Error, limits};
use std::io;
use std::time::Instant;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader};

/// Bytes in one line: the largest batch in base64, and room for the rest of the request.
pub const LINE_BYTES_MAX: usize = limits::REQUEST_BYTES_MAX / 5 * 7 + (64 << 10);

/// Drives a session from standard input to standard output; answers the exit code.
pub async fn run(session: &mut Session) -> u8 {
    session.driven();
    let input = BufReader::with_capacity(64 << 10, tokio::io::stdin());
    let output = tokio::io::stdout();
    let Some(mut signals) = Signals::hear() else { return exit::OPERATOR };
    let run = async |cli, stand| session.run(cli, &stand).await;
    let ended = tokio::select! {
        ended = drive(input, output, run) => ended,
        code = signals.come() => return code,
    };
    match ended {
        Ok(()) => exit::YES,
        // Nobody reads the answers any more; whoever closed the pipe knows.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit::YES,
        Err(error) => {
            eprintln!("error[{}]: {error}", Code::Internal);
            exit::OPERATOR
        }
    }
}

/// Answers every line of `input` on `output`, one after the other, until the end or `exit`.
pub async fn drive<R, W, F>(mut input: R, mut output: W, mut run: F) -> io::Result<()>
where
    R: AsyncBufRead + Unpin,
    W: AsyncWrite + Unpin,
    F: AsyncFnMut(crate::cli::args::Cli, crate::cli::data::Stand) -> Done,
{
    while let Some(line) = next_line(&mut input).await? {
        let started = Instant::now();
        let asked = match line {
            Ok(line) => request::parse(&line),
            Err(error) => Asked::Answer(Box::new(Err(error.into()))),
        };
        let (done, leave) = match asked {
            Asked::Run(cli, stand) => (run(*cli, stand).await, false),
            Asked::Answer(done) => (*done, false),
            Asked::Leave => (request::goodbye(), true),
        };
        let mut answer = envelope(&done, millis(started)).to_string();
        answer.push('\n');
        output.write_all(answer.as_bytes()).await?;
        output.flush().await?;
        if leave {
            break;
        }
    }
    Ok(())
}

/// The next line without its line feed, none at the end. Of a line that is too long nothing but its
/// length is kept, and the next call starts behind it.
pub async fn next_line<R: AsyncBufRead + Unpin>(
    input: &mut R,
) -> io::Result<Option<Result<Vec<u8>, Error>>> {
    let mut line = Vec::new();
    let mut length = 0usize;
    loop {
        let available = input.fill_buf().await?;
        if available.is_empty() {
            return Ok((length > 0).then(|| finished(line, length)));
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        length += part.len();
        if length <= LINE_BYTES_MAX {
            line.extend_from_slice(part);
        } else {
            line = Vec::new();
        }
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() {
            return Ok(Some(finished(line, length)));
        }
    }
}

fn finished(line: Vec<u8>, length: usize) -> Result<Vec<u8>, Error> {
    if length > LINE_BYTES_MAX {
        let message = format!("a line has at most {LINE_BYTES_MAX} bytes, this one has {length}");
        return Err(Error::new(Code::BadRequest, message));
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Data, Verb};
    use crate::cli::value::{Answered, Value};
    use serde_json::Value as Json;

    /// Answers `get K` with K, and everything else with a lost connection.
    async fn answers(input: &[u8]) -> Vec<Json> {
        let mut output = Vec::new();
        let run = async |cli: crate::cli::args::Cli, _| match cli.verb {
            Verb::Data(Data::Get { key }) => {
                Ok(Answered::of(Value::Text(key.to_string_lossy().into_owned())))
            }
            _ => Err(Error::new(Code::Unknown, "the connection was lost").into()),
        };
        drive(BufReader::with_capacity(7, input), &mut output, run).await.unwrap();
        let text = String::from_utf8(output).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn every_line_has_exactly_one_answer_in_order() {
        let input = b"get a\n\n[\"get\",\"b\"]\nset a 1\nnonsense\n{\r\nhelp get\nget c\r\nget d";
        let answers = answers(input).await;
        let told: Vec<String> = answers
            .iter()
            .map(|answer| {
                assert_eq!(answer["v"], 1);
                assert!(answer["ms"].is_number());
                match answer["ok"].as_bool().unwrap() {
                    true => answer["value"].as_str().unwrap().chars().take(1).collect(),
                    false => format!(
                        "{} {}",
                        answer["code"].as_str().unwrap(),
                        answer["outcome"].as_str().unwrap()
                    ),
                }
            })
            .collect();
        let expected = [
            "a",
            "BadRequest fail",
            "b",
            "Unknown unknown",
            "UnknownCommand fail",
            "BadRequest fail",
            "V",
            "c",
            "d",
        ];
        assert_eq!(told, expected);
    }

    #[tokio::test]
    async fn exit_answers_and_ends() {
        let answers = answers(b"get a\nexit\nget b\n").await;
        assert_eq!(answers.len(), 2);
        assert_eq!((&answers[1]["ok"], &answers[1]["value"]), (&Json::Bool(true), &Json::Null));
        assert!(super::tests::answers(b"").await.is_empty());
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_one_answer_and_the_next_line_is_read() {
        let mut input = vec![b'x'; LINE_BYTES_MAX + 1];
        input.extend_from_slice(b"\nget a\n");
        let answers = answers(&input).await;
        assert_eq!(answers.len(), 2);
        assert_eq!(answers[0]["code"], "BadRequest");
        assert!(answers[0]["message"].as_str().unwrap().contains("at most"));
        assert_eq!(answers[1]["value"], "a");
    }

    #[test]
    fn the_largest_value_fits_into_a_line() {
        assert!(LINE_BYTES_MAX > limits::REQUEST_BYTES_MAX.div_ceil(3) * 4 + 1024);
    }
}
