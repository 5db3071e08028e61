//! Passes the outcome of each frame on to every sink beside standard output, none of which can hold up the run.
#![expect(clippy::disallowed_methods, reason = "figures are taken over time")]

use std::{
    net::TcpListener,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use narrows_models::Bundle;
use tokio::{
    runtime::{self, Runtime},
    sync::oneshot,
    time::sleep,
};

use super::{
    event::{CAMERA, Event},
    file::FileSink,
    gallery::Gallery,
    line::FinishedLine,
    monitor::{Device, Monitor},
    mqtt::MqttSink,
    page::{self, Audience, PageServer},
    pictures::draft,
    queue::Queue,
    webhook::WebhookSink,
};
use crate::{
    Error,
    config::{Lines, Only, Outputs},
    demand::Demand,
    frame::{Finished, Frame},
    line_file::LineFile,
    report::{RunState, Status, Tally},
    shutdown::Shutdown,
};

/// Answers that may wait for each kind of sink.
const FILE_QUEUE: usize = 4096;
const NETWORK_QUEUE: usize = 64;
/// How long sinks may go without delivering anything at the end of a run.
const DELIVERY: Duration = Duration::from_secs(2);
/// The same where the run was told to stop.
const HASTE: Duration = Duration::from_millis(300);

/// The sinks beside standard output, each on a thread of its own behind a queue of its own.
#[derive(Debug)]
pub(crate) struct Hub {
    outlets: Vec<Outlet>,
    monitor: Arc<Monitor>,
    gallery: Arc<Gallery>,
    /// Whether a sink shows pictures.
    shows_pictures: bool,
    /// Those who view the page, if there is one.
    audience: Option<Audience>,
    /// Ends the page when the first is dropped; the second ends when it has.
    page: Option<(oneshot::Sender<()>, oneshot::Receiver<()>)>,
}

/// The figures of the cameras of a run, for the sinks that take the place of those that have ended.
#[derive(Debug)]
pub(crate) struct Figures(Arc<Monitor>);

/// The way to one sink.
#[derive(Debug)]
struct Outlet {
    queue: Arc<Queue<Arc<Event>>>,
    only: Option<Only>,
    /// Ends when the sink has ended.
    ended: oneshot::Receiver<()>,
}

impl Hub {
    /// Opens every sink that is asked for and starts it. `cameras` are the names in the lines of the run, without one for a
    /// source of files that was given none. The figures of sinks that have ended, `before`, go on.
    ///
    /// # Errors
    /// [`Error::Usage`] or [`Error::Output`] for a sink that cannot be used, [`Error::Device`] where no thread can be started.
    pub(crate) fn open(
        outputs: &Outputs,
        device: &str,
        bundle: &Bundle,
        cameras: &[Option<Arc<str>>],
        demand: Demand,
        state: &Arc<RunState>,
        before: Option<&Figures>,
    ) -> Result<Self, Error> {
        let totals = state.totals();
        let device = Device { name: device.to_owned(), bundle: bundle.digest().short() };
        let monitor = Arc::new(match before {
            Some(Figures(before)) => before.renamed(device),
            None => Monitor::new(device, Arc::clone(state), totals.spool(), Instant::now()),
        });
        let gallery = Arc::new(Gallery::new(demand));
        let mut hub =
            Hub { outlets: Vec::new(), monitor, gallery, shows_pictures: false, audience: None, page: None };

        // Everything is checked before the first sink starts.
        let file = match &outputs.lines {
            Lines::File { path, rotate_size, keep } => {
                Some((FileSink(LineFile::open("--lines", path, *rotate_size, *keep)?), path))
            }
            Lines::Standard | Lines::Nowhere => None,
        };
        let broker = outputs.mqtt.as_ref().map(|mqtt| {
            let cameras = cameras.iter().map(|name| name.as_deref().unwrap_or(CAMERA).to_owned());
            let (monitor, gallery) = (Arc::clone(&hub.monitor), Arc::clone(&hub.gallery));
            let sink = MqttSink::open(mqtt, monitor, gallery, cameras.collect())?;
            let scheme = if mqtt.tls { "mqtts" } else { "mqtt" };
            let host = if mqtt.host.contains(':') { format!("[{}]", mqtt.host) } else { mqtt.host.clone() };
            Ok::<_, Error>((sink, format!("{scheme}://{host}:{}", mqtt.port), mqtt.picture.is_some()))
        });
        let broker = broker.transpose()?;
        let webhook = outputs.webhook.as_ref().map(|webhook| {
            // The path may be a secret.
            let authority = webhook.url.authority().map(|authority| authority.as_str().to_owned());
            let name = format!("webhook at {}", authority.unwrap_or_default());
            Ok::<_, Error>((WebhookSink::open(webhook.clone())?, name, webhook.only))
        });
        let webhook = webhook.transpose()?;
        let page =
            outputs.page.as_ref().map(|page| Ok::<_, Error>((page::listen(page)?, page.names.clone())));
        let page = page.transpose()?;

        let tally = |name: String| {
            let tally = Arc::new(Tally::new(name));
            totals.add_sink(Arc::clone(&tally));
            tally
        };
        let file = file.map(|(file, path)| {
            let name = format!("--lines {}", crate::name::Escaped(path));
            (file, Arc::new(Queue::new(FILE_QUEUE, tally(name))))
        });
        let broker = broker
            .map(|(sink, name, pictures)| (sink, Arc::new(Queue::new(NETWORK_QUEUE, tally(name))), pictures));
        let webhook =
            webhook.map(|(sink, name, only)| (sink, Arc::new(Queue::new(NETWORK_QUEUE, tally(name))), only));
        let queues = [
            file.as_ref().map(|(_, queue)| queue),
            broker.as_ref().map(|(_, queue, _)| queue),
            webhook.as_ref().map(|(_, queue, _)| queue),
        ];
        let tallies: Vec<Arc<Tally>> =
            queues.into_iter().flatten().map(|queue| Arc::clone(queue.tally())).collect();

        {
            let (monitor, tallies) = (Arc::clone(&hub.monitor), tallies.clone());
            state.tell_by(move || monitor.status(&tallies, Instant::now()));
        }
        if let Some((file, queue)) = file {
            let totals = Arc::clone(totals);
            hub.start("lines", queue, None, move |queue| file.run(queue, &totals))?;
        }
        if let Some((sink, queue, pictures)) = broker {
            hub.shows_pictures |= pictures;
            let (runtime, tallies) = (event_loop()?, tallies.clone());
            hub.start("mqtt", queue, None, move |queue| {
                runtime.block_on(sink.run(queue, tallies));
                runtime.shutdown_background();
            })?;
        }
        if let Some((sink, queue, only)) = webhook {
            hub.start("webhook", queue, only, move |queue| sink.run(queue))?;
        }
        if let Some((listener, names)) = page {
            hub.serve(listener, names, tallies)?;
        }
        if hub.shows_pictures {
            let gallery = Arc::clone(&hub.gallery);
            spawn("pictures", move || gallery.run())?;
        }
        Ok(hub)
    }

    /// Passes the outcome of a frame on, and has it drawn where somebody views its camera.
    pub(super) fn offer(
        &self,
        frame: &mut Frame<Finished>,
        finished: FinishedLine,
        json: Vec<u8>,
        bundle: &Bundle,
    ) {
        let camera = finished.line.camera.as_deref().unwrap_or(CAMERA);
        let now = Instant::now();
        // A late answer is a record of what was, and no picture of what is.
        let late = finished.line.is_late();
        if !late {
            self.monitor.add(camera, &finished.line, now);
        }
        // The picture of a dropped frame would take the place of one with an answer.
        if self.shows_pictures
            && !late
            && finished.line.status != Status::Dropped
            && self.gallery.wants(camera, now)
            && let Some(draft) = draft(frame, &finished, camera, bundle)
        {
            self.gallery.submit(camera, draft);
        }
        if self.outlets.is_empty() && self.audience.is_none() {
            return;
        }
        let event = Arc::new(Event { camera: camera.to_owned(), line: finished.line, json });
        for outlet in self.outlets.iter().filter(|outlet| WebhookSink::wants(outlet.only, &event.line)) {
            outlet.queue.push(Arc::clone(&event));
        }
        if let Some(audience) = self.audience.as_ref().filter(|_| !late) {
            audience.send(&event);
        }
    }

    /// Ends every sink. What waits is still delivered, as long as something is within every [`DELIVERY`]; where the run is told
    /// to stop, within [`HASTE`]. Returns the figures, for the sinks that take their place.
    pub(crate) async fn close(self, shutdown: &Shutdown) -> Figures {
        if let Some((end, ended)) = self.page {
            drop(end);
            // Its address is free again then.
            let _ = ended.await;
        }
        self.outlets.iter().for_each(|outlet| outlet.queue.close());
        self.gallery.close();
        let tallies: Vec<_> = self.outlets.iter().map(|outlet| Arc::clone(outlet.queue.tally())).collect();
        let all = async {
            for outlet in self.outlets {
                // An error means that its thread has ended by a panic.
                let _ = outlet.ended.await;
            }
        };
        let stalled = async {
            let settled = || tallies.iter().map(|tally| tally.settled()).sum::<u64>();
            let mut before = settled();
            loop {
                sleep(DELIVERY).await;
                let now = settled();
                if std::mem::replace(&mut before, now) == now {
                    return;
                }
            }
        };
        let hurry = async {
            shutdown.stopped().await;
            sleep(HASTE).await;
        };
        tokio::select! {
            () = all => {}
            () = stalled => {}
            () = hurry => {}
        }
        Figures(self.monitor)
    }

    /// Starts the thread that serves the page.
    fn serve(
        &mut self,
        listener: TcpListener,
        names: Vec<String>,
        tallies: Vec<Arc<Tally>>,
    ) -> Result<(), Error> {
        let failed = |source| Error::Device { problem: "the page cannot be served", source };
        let (runtime, audience) = (event_loop()?, Audience::new());
        let address = listener.local_addr().map_err(failed)?;
        let server = {
            let _context = runtime.enter();
            let (monitor, gallery) = (Arc::clone(&self.monitor), Arc::clone(&self.gallery));
            PageServer::new(listener, names, monitor, gallery, tallies, audience.clone()).map_err(failed)?
        };
        let ((end, asked), (done, ended)) = (oneshot::channel::<()>(), oneshot::channel());
        spawn("page", move || {
            runtime.block_on(async {
                tokio::select! {
                    () = server.run() => {}
                    _ = asked => {}
                }
            });
            drop(runtime);
            let _ = done.send(());
        })?;
        self.page = Some((end, ended));
        page::announce(address);
        (self.audience, self.shows_pictures) = (Some(audience), true);
        Ok(())
    }

    /// No sinks.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        let device = Device { name: "x".into(), bundle: String::new() };
        Hub {
            outlets: Vec::new(),
            monitor: Arc::new(Monitor::new(device, Arc::default(), None, Instant::now())),
            gallery: Arc::new(Gallery::new(Demand::default())),
            shows_pictures: false,
            audience: None,
            page: None,
        }
    }

    /// Starts the thread of a sink, which ends with its queue.
    fn start(
        &mut self,
        name: &str,
        queue: Arc<Queue<Arc<Event>>>,
        only: Option<Only>,
        work: impl FnOnce(&Queue<Arc<Event>>) + Send + 'static,
    ) -> Result<(), Error> {
        let (sender, ended) = oneshot::channel::<()>();
        let own = Arc::clone(&queue);
        spawn(name, move || {
            work(&own);
            // Nobody waits for a sink that has taken too long.
            let _ = sender.send(());
        })?;
        self.outlets.push(Outlet { queue, only, ended });
        Ok(())
    }
}

fn event_loop() -> Result<Runtime, Error> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|source| Error::Device { problem: "no event loop", source })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let problem = "no thread can be started; raise the limits of processes (ulimit -u) and of memory";
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map(drop).map_err(|source| Error::Device { problem, source })
}
