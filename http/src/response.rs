//! Answers, written to clients that may not read them.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::timeout,
};

/// How long a client may take to read what it has asked for.
const WRITE: Duration = Duration::from_secs(10);

/// An answer whose length is known.
#[derive(Debug)]
pub struct Response {
    /// The status line after the version, for example `200 OK`.
    pub status: &'static str,
    /// The content type.
    pub kind: &'static str,
    /// Further header lines, each with its line end.
    pub headers: String,
    /// The content.
    pub body: Vec<u8>,
}

impl Response {
    /// An answer with a status alone and a line of text.
    #[must_use]
    pub fn plain(status: &'static str) -> Self {
        Response {
            status,
            kind: "text/plain",
            headers: String::new(),
            body: format!("{status}\n").into_bytes(),
        }
    }

    /// A page whose script and style run by the nonce of this answer alone, which takes the place of `{nonce}` in `html`. The
    /// page may show pictures of its own and talk to its own server, and nothing else.
    #[must_use]
    pub fn page(html: &str) -> Self {
        let mut random = [0; 16];
        if getrandom::fill(&mut random).is_err() {
            return Response::plain("503 Service Unavailable");
        }
        let nonce: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let headers = format!(
            "content-security-policy: default-src 'none'; img-src 'self' blob: data:; connect-src 'self'; \
             style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'\r\n"
        );
        let body = html.replace("{nonce}", &nonce).into_bytes();
        Response { status: "200 OK", kind: "text/html; charset=utf-8", headers, body }
    }

    /// The refusal of another method than GET and HEAD, and POST where bodies are taken.
    pub(crate) fn wrong_method(takes_bodies: bool) -> Self {
        let allowed = if takes_bodies { "GET, HEAD, POST" } else { "GET, HEAD" };
        Response { headers: format!("allow: {allowed}\r\n"), ..Response::plain("405 Method Not Allowed") }
    }
}

/// What every answer says about how it may be used: by this page alone, and kept by nobody.
const RULES: &str = "cache-control: no-store\r\nx-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\n\
    cross-origin-resource-policy: same-origin\r\nx-frame-options: DENY\r\n";

/// Most bytes of a body that are copied behind its head, so that both go in one packet.
const COPIED: usize = 64 << 10;

/// Writes an answer; a HEAD request gets it without its body.
///
/// # Errors
/// The client has gone, or reads too slowly.
pub async fn respond(
    output: &mut (impl AsyncWrite + Unpin),
    response: &Response,
    is_head: bool,
    keeps_open: bool,
) -> io::Result<()> {
    let Response { status, kind, headers, body } = response;
    let connection = if keeps_open { "keep-alive" } else { "close" };
    // An answer without content has no length, not even 0 (RFC 9110, section 8.6).
    let length = match status.starts_with("204 ") {
        true => String::new(),
        false => format!("content-length: {}\r\n", body.len()),
    };
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{length}connection: {connection}\r\n{RULES}{headers}\r\n"
    )
    .into_bytes();
    if is_head {
        return write(output, &bytes).await;
    }
    if body.len() > COPIED {
        write(output, &bytes).await?;
        return write(output, body).await;
    }
    bytes.extend_from_slice(body);
    write(output, &bytes).await
}

/// Writes the head of an answer that ends with its connection.
///
/// # Errors
/// Those of [`write()`].
pub async fn begin(output: &mut (impl AsyncWrite + Unpin), kind: &str) -> io::Result<()> {
    write(
        output,
        format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n{RULES}\r\n").as_bytes(),
    )
    .await
}

/// Bytes a second that a client of a long answer reads at least.
const SLOWEST: u64 = 64 << 10;

/// Writes bytes to a client that may not read.
///
/// # Errors
/// The client has gone, or does not read in time.
pub async fn write(output: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    let written = async {
        output.write_all(bytes).await?;
        output.flush().await
    };
    let time = WRITE + Duration::from_secs(bytes.len() as u64 / SLOWEST);
    timeout(time, written).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
