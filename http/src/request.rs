//! Requests, read within limits.

use std::time::Duration;

use tokio::{io::AsyncReadExt, net::tcp::OwnedReadHalf, time::timeout};

/// Most bytes of a request's head.
const LONGEST_HEAD: usize = 8 << 10;
/// Most headers of a request.
const MOST_HEADERS: usize = 64;
/// How long a client may take to send a request, and to begin the next one.
const READ: Duration = Duration::from_secs(10);

/// A GET or HEAD request without a body.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// Whether the answer is wanted without its body.
    pub is_head: bool,
    /// The path of the target, still percent-encoded.
    pub path: String,
    /// What follows the `?`.
    pub query: String,
    /// The host that the client believes to speak to, without a port and in lower case.
    pub host: Option<String>,
    /// Whether the client takes another answer on this connection.
    pub keeps_open: bool,
}

/// Why a connection ends.
#[derive(Debug)]
pub(crate) enum End {
    /// The client has gone, or has nothing more to ask.
    Closed,
    /// The request cannot be answered otherwise than by this status.
    Refused(&'static str),
    /// The request has another method than GET and HEAD.
    WrongMethod,
}

/// Reads requests from one side of a connection. Bytes of the next request stay for it.
pub struct Reader {
    input: OwnedReadHalf,
    buffer: Vec<u8>,
}

impl Reader {
    pub(crate) fn new(input: OwnedReadHalf) -> Self {
        Reader { input, buffer: Vec::new() }
    }

    /// Reads the next request.
    ///
    /// # Errors
    /// [`End`] where there is none that can be answered.
    pub(crate) async fn next(&mut self) -> Result<Request, End> {
        match timeout(READ, self.read()).await {
            Ok(request) => request,
            Err(_) if self.buffer.is_empty() => Err(End::Closed),
            Err(_) => Err(End::Refused("408 Request Timeout")),
        }
    }

    async fn read(&mut self) -> Result<Request, End> {
        loop {
            if let Some((request, length)) = parse(&self.buffer)? {
                self.buffer.drain(..length);
                return Ok(request);
            }
            if self.buffer.len() >= LONGEST_HEAD {
                return Err(End::Refused("431 Request Header Fields Too Large"));
            }
            let mut bytes = [0; 1024];
            match self.input.read(&mut bytes).await {
                Ok(0) | Err(_) => return Err(End::Closed),
                Ok(count) => self.buffer.extend_from_slice(&bytes[..count]),
            }
        }
    }

    /// Waits until the client closes the connection. Where it has sent its next request already, it has not.
    pub async fn closed(&mut self) {
        if let Ok(1..) = self.input.peek(&mut [0]).await {
            std::future::pending::<()>().await;
        }
    }
}

/// Reads a request and its length, or nothing where the bytes are only its beginning.
fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, End> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(End::Refused("431 Request Header Fields Too Large"));
        }
        Err(_) => return Err(End::Refused("400 Bad Request")),
    };
    // A body would be taken for the next request, so every header that may tell of one counts, whatever is in it.
    let has_body = request.headers.iter().any(|header| {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        is("transfer-encoding") || (is("content-length") && header.value.trim_ascii() != b"0")
    });
    if has_body {
        return Err(End::Refused("413 Content Too Large"));
    }
    let value = |name: &str| {
        let header = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        header.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let is_head = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(End::WrongMethod),
    };
    let asks =
        |word: &str| value("connection").is_some_and(|value| value.to_ascii_lowercase().contains(word));
    let target = request.path.unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Some((
        Request {
            is_head,
            path: path.to_owned(),
            query: query.to_owned(),
            host: value("host").map(host_of),
            keeps_open: if request.version == Some(1) { !asks("close") } else { asks("keep-alive") },
        },
        length,
    )))
}

/// The host of a Host header, without its port.
fn host_of(header: &str) -> String {
    let header = header.trim();
    let end = match header.starts_with('[') {
        true => header.find(']').map(|end| end + 1),
        false => header.rfind(':'),
    };
    header[..end.unwrap_or(header.len())].to_ascii_lowercase()
}

/// A path segment without its percent-encoding; `None` where that is malformed.
#[must_use]
pub fn decoded(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        // The parser of numbers would take a sign as well.
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Option<Request> {
        parse(text.as_bytes()).ok().flatten().map(|(request, _)| request)
    }

    #[test]
    fn requests_are_read_with_their_host_and_their_wish_for_more() {
        let found = request("GET /a?b=1 HTTP/1.1\r\nHost: Pi.local:8080\r\n\r\n").unwrap();
        assert_eq!((found.path.as_str(), found.query.as_str()), ("/a", "b=1"));
        assert_eq!((found.host.as_deref(), found.keeps_open), (Some("pi.local"), true));
        assert!(!found.is_head && request("HEAD / HTTP/1.1\r\n\r\n").unwrap().is_head);
        let closing = request("GET / HTTP/1.1\r\nhost: [::1]:80\r\nConnection: close\r\n\r\n").unwrap();
        assert_eq!((closing.host.as_deref(), closing.keeps_open), (Some("[::1]"), false));
        assert!(!request("GET / HTTP/1.0\r\n\r\n").unwrap().keeps_open);
        assert_eq!(request("GET / HTTP/1.1\r\nhost: x"), None);
    }

    #[test]
    fn requests_with_bodies_and_malformed_ones_are_refused() {
        for (text, status) in [
            ("POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n", "413"),
            ("GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", "413"),
            ("GET / HTTP/1.1\r\ncontent-length: 0\r\ncontent-length: 5\r\n\r\n", "413"),
            ("GET / HTTP/1.1\r\ncontent-length: 0, 5\r\n\r\n", "413"),
            ("no request\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\nb\0d: x\r\n\r\n", "400"),
        ] {
            let refused =
                matches!(parse(text.as_bytes()), Err(End::Refused(reason)) if reason.starts_with(status));
            assert!(refused, "{text:?}");
        }
        assert!(matches!(parse(b"PUT / HTTP/1.1\r\n\r\n"), Err(End::WrongMethod)));
    }

    #[test]
    fn percent_encoding_is_undone() {
        assert_eq!(decoded("front%20door%C3%A9").as_deref(), Some("front dooré"));
        assert_eq!((decoded("%2"), decoded("%zz"), decoded("%ff")), (None, None, None));
        assert_eq!(decoded("%+f"), None);
    }
}
