//! Requests as they come in: lines of bounded length, each in time.

use std::io::{self, BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Bytes of a request.
const MAX_LINE: usize = 64 << 10;
/// The time that a client has for a request, including the wait for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The next line; `None` once the client has hung up.
pub(crate) fn read_line(
    reader: &mut BufReader<&UnixStream>,
    stream: &UnixStream,
) -> io::Result<Option<Vec<u8>>> {
    let deadline = Instant::now() + PATIENCE;
    let mut line = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // A timeout of 0 would mean none at all.
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let available = match reader.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            return Ok(None);
        }
        let end = available.iter().position(|&byte| byte == b'\n');
        let taken = end.map_or(available.len(), |end| end + 1);
        line.extend_from_slice(&available[..taken]);
        reader.consume(taken);
        if line.len() > MAX_LINE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a request is too long"));
        }
        if end.is_some() {
            return Ok(Some(line));
        }
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn lines_of(sent: &[u8]) -> (Vec<Vec<u8>>, io::Result<()>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let sent = sent.to_vec();
        let writer = std::thread::spawn(move || {
            // Fails once the reader has stopped.
            let _ = (&theirs).write_all(&sent);
        });
        let mut lines = Vec::new();
        let result = {
            let mut reader = BufReader::new(&ours);
            loop {
                match read_line(&mut reader, &ours) {
                    Ok(Some(line)) => lines.push(line),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            }
        };
        drop(ours);
        writer.join().unwrap();
        (lines, result)
    }

    #[test]
    fn requests_are_lines_of_bounded_length() {
        let (lines, result) = lines_of(b"one\ntwo\nrest without an end");
        assert_eq!(lines, [b"one\n", b"two\n"]);
        result.unwrap();
        let (lines, result) = lines_of(&vec![b'x'; 10 * MAX_LINE]);
        assert!(lines.is_empty());
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
