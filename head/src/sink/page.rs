//! A page on the device: live pictures, answers and figures, for browsers that may have no internet.
//!
//! What a browser does with the answers is bound by their headers: nothing is loaded from elsewhere, and no other site can
//! embed or read them.
#![expect(clippy::disallowed_methods, reason = "pictures and figures have their time")]

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::{Duration, Instant},
};

use narrows_http::{Reader, Request, Response, Site, begin, decoded, respond, serve, write};
use tokio::{
    net::{TcpListener, tcp::OwnedWriteHalf},
    sync::broadcast,
    time::{MissedTickBehavior, interval, sleep, sleep_until},
};

use super::{
    event::Event,
    gallery::{Gallery, Picture, Viewer},
    monitor::Monitor,
};
use crate::{Error, config::Page, report::Tally};

/// The page, with `{nonce}` where the name of this answer's script and style stands.
const HTML: &str = include_str!("page/page.html");
/// Connections at a time; a browser that shows the page holds two, and one more for each camera.
const CONNECTIONS: usize = 32;
/// Answers that a viewer may be behind; it misses those before.
const BEHIND: usize = 32;
/// Time between two messages about the state of the device.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// How long a request for a picture waits for a new one.
const PATIENCE: Duration = Duration::from_secs(10);
/// How old a picture may be that answers a request at once.
const FRESH: Duration = Duration::from_secs(2);
/// How long pictures are still drawn after a request, since the next one follows.
const LINGER: Duration = Duration::from_secs(1);

/// Serves the page.
pub(super) struct PageServer {
    listener: TcpListener,
    shared: Arc<Shared>,
}

/// Passes answers on to whoever views the page.
#[derive(Debug, Clone)]
pub(super) struct Audience(broadcast::Sender<Arc<str>>);

/// What every connection uses.
struct Shared {
    /// The names that browsers may use, beside addresses and `localhost`.
    names: Vec<String>,
    monitor: Arc<Monitor>,
    gallery: Arc<Gallery>,
    tallies: Vec<Arc<Tally>>,
    audience: Audience,
}

impl Audience {
    pub(super) fn new() -> Self {
        Audience(broadcast::Sender::new(BEHIND))
    }

    /// Sends an answer to those who view the page, if there are any.
    pub(super) fn send(&self, event: &Event) {
        if self.0.receiver_count() == 0 {
            return;
        }
        let Ok(line) = std::str::from_utf8(event.json.trim_ascii_end()) else { return };
        let camera = serde_json::Value::from(event.camera.as_str());
        // An error means that the last viewer has just gone.
        let _ = self.0.send(format!(r#"{{"camera":{camera},"line":{line}}}"#).into());
    }
}

/// Begins to listen.
///
/// # Errors
/// [`Error::Usage`] where the address cannot be used.
pub(super) fn listen(page: &Page) -> Result<StdListener, Error> {
    let wrong = |error: io::Error| {
        let reason = match error.kind() {
            io::ErrorKind::AddrInUse => "is in use by another program; choose another port".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "needs rights that this program has not; choose a port from 1024".to_owned()
            }
            _ => format!("cannot be listened at: {error}"),
        };
        Error::usage("--page", format!("{} {reason}", page.listen))
    };
    let listener = StdListener::bind(page.listen).map_err(wrong)?;
    listener.set_nonblocking(true).map_err(wrong)?;
    Ok(listener)
}

impl PageServer {
    /// A server at `listener`; needs the context of a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Device`] if the operating system refuses.
    pub(super) fn new(
        listener: StdListener,
        names: Vec<String>,
        monitor: Arc<Monitor>,
        gallery: Arc<Gallery>,
        tallies: Vec<Arc<Tally>>,
        audience: Audience,
    ) -> io::Result<Self> {
        let shared = Shared { names, monitor, gallery, tallies, audience };
        Ok(PageServer { listener: TcpListener::from_std(listener)?, shared: Arc::new(shared) })
    }

    /// Serves until it is dropped.
    pub(super) async fn run(self) {
        serve(self.listener, CONNECTIONS, self.shared).await;
    }
}

impl Site for Shared {
    async fn answer(
        &self,
        request: &Request,
        reader: &mut Reader,
        output: &mut OwnedWriteHalf,
    ) -> io::Result<bool> {
        let parts: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        let response = match parts[..] {
            _ if !self.is_known(request.host.as_deref()) => {
                let mut response = Response::plain("421 Misdirected Request");
                response.body =
                    b"This device is not known by that name: use its address, or add --page-name NAME.\n"
                        .to_vec();
                response
            }
            [""] => Response::page(HTML),
            ["status"] => {
                let status = self.monitor.status(&self.tallies, Instant::now());
                let body = serde_json::to_vec(&status).unwrap_or_default();
                Response { status: "200 OK", kind: "application/json", headers: String::new(), body }
            }
            ["events"] if !request.is_head => {
                self.stream_events(reader, output).await?;
                return Ok(false);
            }
            ["cameras", name, what @ ("picture.jpg" | "stream.mjpeg")] => {
                // Only cameras that exist are viewed, so that no name takes memory.
                let camera = decoded(name).filter(|name| self.monitor.camera(name, Instant::now()).is_some());
                match camera {
                    None => Response::plain("404 Not Found"),
                    Some(camera) if what == "picture.jpg" => {
                        let after = request.query.split('&').find_map(|pair| pair.strip_prefix("after="));
                        let after = after.and_then(|number| number.parse().ok());
                        tokio::select! {
                            response = self.picture(&camera, after) => response,
                            () = reader.closed() => return Ok(false),
                        }
                    }
                    Some(_) if request.is_head => Response::plain("405 Method Not Allowed"),
                    Some(camera) => {
                        self.stream_pictures(&camera, reader, output).await?;
                        return Ok(false);
                    }
                }
            }
            _ => Response::plain("404 Not Found"),
        };
        respond(output, &response, request.is_head, request.keeps_open).await?;
        Ok(true)
    }
}

impl Shared {
    /// Whether a browser may know this device by `host`. Any other name may be one that its owner has pointed here to read the
    /// page in a visitor's browser (DNS rebinding).
    fn is_known(&self, host: Option<&str>) -> bool {
        let Some(host) = host else { return false };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let host = host.trim_end_matches('.');
        bare.parse::<IpAddr>().is_ok() || host == "localhost" || self.names.iter().any(|name| name == host)
    }

    /// The newest picture of a camera, once it is another one than `after`.
    async fn picture(&self, camera: &str, after: Option<u64>) -> Response {
        let mut viewer = self.gallery.view(camera);
        let until = tokio::time::Instant::now() + PATIENCE;
        let newest =
            |viewer: &Viewer| viewer.newest.borrow().clone().filter(|picture| Some(picture.number) != after);
        let picture = loop {
            let found = newest(&viewer);
            if let Some(picture) = found.filter(|picture| picture.drawn_at.elapsed() < FRESH) {
                break Some(picture);
            }
            tokio::select! {
                changed = viewer.newest.changed() => if changed.is_err() { break None },
                // A picture that is old is better than none.
                () = sleep_until(until) => break newest(&viewer),
            }
        };
        tokio::spawn(async move {
            sleep(LINGER).await;
            drop(viewer);
        });
        match picture {
            Some(picture) => Response {
                status: "200 OK",
                kind: "image/jpeg",
                headers: format!("x-picture: {}\r\n", picture.number),
                body: picture.jpeg.clone(),
            },
            None => Response { body: Vec::new(), ..Response::plain("204 No Content") },
        }
    }

    /// Sends answers and figures until the browser goes away.
    async fn stream_events(&self, reader: &mut Reader, output: &mut OwnedWriteHalf) -> io::Result<()> {
        let mut answers = self.audience.0.subscribe();
        begin(output, "text/event-stream").await?;
        let mut tick = interval(STATUS_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (name, json) = tokio::select! {
                () = reader.closed() => return Ok(()),
                _ = tick.tick() => {
                    let status = self.monitor.status(&self.tallies, Instant::now());
                    ("status", serde_json::to_string(&status).unwrap_or_default().into())
                }
                answer = answers.recv() => match answer {
                    Ok(json) => ("answer", json),
                    Err(broadcast::error::RecvError::Lagged(_)) => continue,
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                },
            };
            write(output, format!("event: {name}\ndata: {json}\n\n").as_bytes()).await?;
        }
    }

    /// Sends the pictures of a camera as MJPEG until the viewer goes away.
    async fn stream_pictures(
        &self,
        camera: &str,
        reader: &mut Reader,
        output: &mut OwnedWriteHalf,
    ) -> io::Result<()> {
        let mut viewer = self.gallery.view(camera);
        begin(output, "multipart/x-mixed-replace; boundary=narrows").await?;
        loop {
            tokio::select! {
                () = reader.closed() => return Ok(()),
                changed = viewer.newest.changed() => if changed.is_err() { return Ok(()) },
            }
            let Some(picture): Option<Arc<Picture>> = viewer.newest.borrow_and_update().clone() else {
                continue;
            };
            let length = picture.jpeg.len();
            let head = format!("--narrows\r\ncontent-type: image/jpeg\r\ncontent-length: {length}\r\n\r\n");
            write(output, &[head.as_bytes(), &picture.jpeg, b"\r\n"].concat()).await?;
        }
    }
}

/// Tells where the page is, on standard error.
pub(super) fn announce(address: SocketAddr) {
    use std::io::Write;
    // Without a reader of standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "narrows-head: the page is at http://{address}/");
    if !address.ip().to_canonical().is_loopback() {
        tracing::warn!(
            "--page-allow-remote: whoever reaches {address} sees what the cameras see; there is no password"
        );
    }
}
