//! Requests, read within limits.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    net::tcp::OwnedReadHalf,
    time::timeout,
};

use crate::response::write;

/// Most bytes of a request's head.
const LONGEST_HEAD: usize = 8 << 10;
/// Most headers of a request.
const MOST_HEADERS: usize = 64;
/// How long a client may take to send a request, and to begin the next one.
const READ: Duration = Duration::from_secs(10);

/// Bytes a second that a client of a long body sends at least.
const SLOWEST: u64 = 64 << 10;
/// Most bytes of a body that nobody wants which are read so that the client gets its answer.
const UNWANTED: u64 = 1 << 20;
/// How long that may take.
const DISCARD: Duration = Duration::from_secs(2);

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// Asks for something; HEAD as well.
    Get,
    /// Sends a body.
    Post,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// What it does.
    pub method: Method,
    /// The bytes of its body.
    pub length: u64,
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
    /// Whether the client waits to be asked for the body.
    expects_continue: bool,
    /// The headers of sites that take bodies, their names in lower case.
    headers: Vec<(String, String)>,
}

impl Request {
    /// The value of a header, named in lower case, of a site that takes bodies. Of several it is the first.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BodyFault {
    /// The client has gone.
    Gone,
    /// It did not arrive in time.
    Slow,
    /// There is no memory for it.
    NoMemory,
}

/// Why a connection ends.
#[derive(Debug)]
pub(crate) enum End {
    /// The client has gone, or has nothing more to ask.
    Closed,
    /// The request cannot be answered otherwise than by this status.
    Refused(&'static str),
    /// The request has a method that the site does not take.
    WrongMethod,
}

/// Reads requests from one side of a connection. Bytes of the next request stay for it.
pub struct Reader {
    input: OwnedReadHalf,
    buffer: Vec<u8>,
    takes_bodies: bool,
    /// Bytes of the body of the last request that nobody has read.
    unread: u64,
    /// Whether a part of a body was read and is lost, so that it is not known where the next request begins.
    is_broken: bool,
}

impl Reader {
    pub(crate) fn new(input: OwnedReadHalf, takes_bodies: bool) -> Self {
        Reader { input, buffer: Vec::new(), takes_bodies, unread: 0, is_broken: false }
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
            if let Some((request, length)) = parse(&self.buffer, self.takes_bodies)? {
                self.buffer.drain(..length);
                self.unread = request.length;
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

    /// Reads the body of a request, and asks for it where the client waits for that. Its length is to be checked before.
    ///
    /// # Errors
    /// The [`BodyFault`]; the connection cannot be used again then.
    pub async fn body(
        &mut self,
        request: &Request,
        output: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Vec<u8>, BodyFault> {
        let length = usize::try_from(self.unread).map_err(|_| BodyFault::NoMemory)?;
        let mut body = Vec::new();
        body.try_reserve_exact(length).map_err(|_| BodyFault::NoMemory)?;
        self.is_broken = true;
        let arrived = self.buffer.len().min(length);
        body.extend(self.buffer.drain(..arrived));
        if request.expects_continue && body.len() < length {
            write(output, b"HTTP/1.1 100 Continue\r\n\r\n").await.map_err(|_| BodyFault::Gone)?;
        }
        let rest = (length - body.len()) as u64;
        let time = READ + Duration::from_secs(rest / SLOWEST);
        let read = timeout(time, (&mut self.input).take(rest).read_to_end(&mut body)).await;
        match read {
            Err(_) => Err(BodyFault::Slow),
            Ok(Ok(_)) if body.len() == length => {
                (self.unread, self.is_broken) = (0, false);
                Ok(body)
            }
            Ok(_) => Err(BodyFault::Gone),
        }
    }

    /// Whether the connection can be used again after the answer to its last request, which is to say so.
    #[must_use]
    pub fn keeps_open(&self, request: &Request) -> bool {
        // A client that waits to be asked for its body may send it or not, so what comes next would be a guess.
        let is_clear = self.unread == 0 || self.unread <= UNWANTED && !request.expects_continue;
        request.keeps_open && is_clear && !self.is_broken
    }

    /// Reads what is left of the last request's body, so that the client reads its answer instead of a broken connection; returns
    /// whether nothing is left and the next request begins there.
    pub(crate) async fn discard(&mut self) -> bool {
        let arrived = self.buffer.len().min(usize::try_from(self.unread).unwrap_or(usize::MAX));
        self.buffer.drain(..arrived);
        self.unread -= arrived as u64;
        let most = self.unread.min(UNWANTED);
        let read = async {
            let mut rest = (&mut self.input).take(most);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await.unwrap_or_default()
        };
        self.unread -= if most > 0 { timeout(DISCARD, read).await.unwrap_or_default() } else { 0 };
        self.unread == 0 && !self.is_broken
    }

    /// Waits until the client closes the connection. Where it has sent its next request already, it has not.
    pub async fn closed(&mut self) {
        if let Ok(1..) = self.input.peek(&mut [0]).await {
            std::future::pending::<()>().await;
        }
    }
}

/// Reads a request and its length, or nothing where the bytes are only its beginning.
fn parse(bytes: &[u8], takes_bodies: bool) -> Result<Option<(Request, usize)>, End> {
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
    let body = body_length(request.headers, takes_bodies)?;
    let value = |name: &str| {
        let header = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        header.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let (method, is_head) = match request.method {
        Some("GET") => (Method::Get, false),
        Some("HEAD") => (Method::Get, true),
        Some("POST") if takes_bodies => (Method::Post, false),
        _ => return Err(End::WrongMethod),
    };
    let text = |header: &httparse::Header<'_>| {
        let value = String::from_utf8_lossy(header.value).into_owned();
        (header.name.to_ascii_lowercase(), value)
    };
    let headers = if takes_bodies { request.headers.iter().map(text).collect() } else { Vec::new() };
    let asks =
        |word: &str| value("connection").is_some_and(|value| value.to_ascii_lowercase().contains(word));
    let target = request.path.unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Some((
        Request {
            method,
            length: body,
            is_head,
            path: path.to_owned(),
            query: query.to_owned(),
            host: value("host").map(host_of),
            keeps_open: if request.version == Some(1) { !asks("close") } else { asks("keep-alive") },
            // Clients of HTTP/1.0 know no such answer (RFC 9110, section 10.1.1).
            expects_continue: request.version == Some(1)
                && value("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")),
            headers,
        },
        length,
    )))
}

/// The length of a request's body. A body whose length is not clear would be taken for the next request, so every header that may
/// tell of one counts, whatever is in it.
fn body_length(headers: &[httparse::Header<'_>], takes_bodies: bool) -> Result<u64, End> {
    let mut length = None;
    for header in headers {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("transfer-encoding") {
            let refusal = if takes_bodies { "411 Length Required" } else { "413 Content Too Large" };
            return Err(End::Refused(refusal));
        }
        if is("content-length") {
            let value = header.value.trim_ascii();
            let digits =
                std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            match digits.and_then(|digits| digits.parse::<u64>().ok()) {
                Some(0) if length.unwrap_or(0) == 0 => length = Some(0),
                Some(bytes) if takes_bodies && length.is_none() => length = Some(bytes),
                _ if takes_bodies => return Err(End::Refused("400 Bad Request")),
                _ => return Err(End::Refused("413 Content Too Large")),
            }
        }
    }
    Ok(length.unwrap_or(0))
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
        parse(text.as_bytes(), false).ok().flatten().map(|(request, _)| request)
    }

    fn refused(text: &str, takes_bodies: bool, status: &str) -> bool {
        matches!(parse(text.as_bytes(), takes_bodies), Err(End::Refused(reason)) if reason.starts_with(status))
    }

    #[test]
    fn bodies_of_a_clear_length_are_taken_where_a_site_takes_them() {
        let text = "POST /a HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\nX-Own: b\r\n\r\nhello";
        let (found, length) = parse(text.as_bytes(), true).ok().flatten().unwrap();
        assert_eq!((found.method, found.length, &text[length..]), (Method::Post, 5, "hello"));
        assert!(found.expects_continue && found.header("x-own") == Some("b") && found.header("y").is_none());
        for (headers, status) in [
            ("transfer-encoding: chunked", "411"),
            ("content-length: 5\r\ntransfer-encoding: chunked", "411"),
            ("content-length: 5\r\ncontent-length: 5", "400"),
            ("content-length: 5\r\ncontent-length: 0", "400"),
            ("content-length: 0\r\ncontent-length: 5", "400"),
            ("content-length: 5, 5", "400"),
            ("content-length: +5", "400"),
            ("content-length: -1", "400"),
            ("content-length: 99999999999999999999", "400"),
        ] {
            assert!(refused(&format!("POST / HTTP/1.1\r\n{headers}\r\n\r\n"), true, status), "{headers}");
        }
        assert!(matches!(parse(b"POST / HTTP/1.1\r\n\r\n", false), Err(End::WrongMethod)));
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
            assert!(refused(text, false, status), "{text:?}");
        }
        assert!(matches!(parse(b"PUT / HTTP/1.1\r\n\r\n", true), Err(End::WrongMethod)));
    }

    #[test]
    fn percent_encoding_is_undone() {
        assert_eq!(decoded("front%20door%C3%A9").as_deref(), Some("front dooré"));
        assert_eq!((decoded("%2"), decoded("%zz"), decoded("%ff")), (None, None, None));
        assert_eq!(decoded("%+f"), None);
    }
}
