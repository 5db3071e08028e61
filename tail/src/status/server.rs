//! The HTTP listener: what it answers.
#![expect(clippy::disallowed_methods, reason = "rates and ages are those of now")]

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::{Duration, Instant},
};

use narrows_http::{Reader, Request, Response, Site, begin, respond, write};
use tokio::{
    net::{TcpListener, tcp::OwnedWriteHalf},
    time::{MissedTickBehavior, interval},
};

use super::{
    Phase, Status,
    dashboard::{Shown, overview},
    metrics,
};

/// The dashboard.
const HTML: &str = include_str!("dashboard.html");
/// Clients at a time. A browser that shows the dashboard holds one or two.
const CONNECTIONS: usize = 32;
/// Time between two events of the dashboard.
const EVERY: Duration = Duration::from_secs(1);

/// Serves the status at `listener` until the future is dropped.
///
/// # Errors
/// The operating system's, where the listener cannot be used.
pub(crate) async fn serve(listener: StdListener, status: Arc<Status>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    narrows_http::serve(TcpListener::from_std(listener)?, CONNECTIONS, Arc::new(Server(status))).await;
    Ok(())
}

/// Logs where the status is, and warns where others can reach it.
pub(crate) fn announce(address: SocketAddr) {
    tracing::info!(%address, "status listening");
    if !address.ip().to_canonical().is_loopback() {
        tracing::warn!(%address, "whoever reaches the status sees devices and figures; there is no password (--status)");
    }
}

struct Server(Arc<Status>);

impl Site for Server {
    async fn answer(
        &self,
        request: &Request,
        reader: &mut Reader,
        output: &mut OwnedWriteHalf,
    ) -> io::Result<bool> {
        let response = match request.path.as_str() {
            "/" => Response::page(HTML),
            "/events" if !request.is_head => {
                self.stream(reader, output).await?;
                return Ok(false);
            }
            "/metrics" => Response {
                status: "200 OK",
                kind: metrics::CONTENT_TYPE,
                headers: String::new(),
                body: metrics::text(&self.0).into_bytes(),
            },
            "/status" => json("200 OK", &overview(&self.0, &mut Shown::default(), Instant::now())),
            "/v2/health/live" => json("200 OK", &serde_json::json!({ "live": true })),
            "/v2/health/ready" => {
                let phase = self.0.phase();
                let status = if phase == Phase::Ready { "200 OK" } else { "503 Service Unavailable" };
                json(status, &serde_json::json!({ "ready": phase == Phase::Ready, "state": phase.name() }))
            }
            _ => Response::plain("404 Not Found"),
        };
        respond(output, &response, request.is_head, request.keeps_open).await?;
        Ok(true)
    }
}

impl Server {
    /// Sends what is to be shown, and then what has changed, until the browser goes away.
    async fn stream(&self, reader: &mut Reader, output: &mut OwnedWriteHalf) -> io::Result<()> {
        begin(output, "text/event-stream").await?;
        let mut shown = Shown::default();
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = reader.closed() => return Ok(()),
                _ = tick.tick() => {}
            }
            let overview = overview(&self.0, &mut shown, Instant::now());
            let data = serde_json::to_string(&overview).unwrap_or_default();
            write(output, format!("event: status\ndata: {data}\n\n").as_bytes()).await?;
        }
    }
}

fn json(status: &'static str, body: &impl serde::Serialize) -> Response {
    let body = serde_json::to_vec(body).unwrap_or_default();
    Response { status, kind: "application/json", headers: String::new(), body }
}
