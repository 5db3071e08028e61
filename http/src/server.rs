//! Connections, and the loop that answers the requests of each.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream, tcp::OwnedWriteHalf},
    sync::Semaphore,
    time::sleep,
};

use crate::{
    request::{End, Reader, Request},
    response::{Response, respond},
};

/// What a server answers.
pub trait Site: Send + Sync + 'static {
    /// Whether it takes POST requests with bodies.
    const TAKES_BODIES: bool = false;

    /// Answers a request by writing to `output`, and returns whether the connection can be used again. `reader` tells when the
    /// client goes away.
    ///
    /// # Errors
    /// The client has gone, or does not read in time.
    fn answer(
        &self,
        request: &Request,
        reader: &mut Reader,
        output: &mut OwnedWriteHalf,
    ) -> impl Future<Output = io::Result<bool>> + Send;
}

/// Serves `site` to at most `connections` clients at a time, until the future is dropped. Others are told so and closed.
pub async fn serve(listener: TcpListener, connections: usize, site: Arc<impl Site>) {
    let places = Arc::new(Semaphore::new(connections));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors; some may be freed.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            // As much as its socket takes; who floods the server gets no more of this thread.
            let _ = stream.try_write(
                b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            );
            continue;
        };
        let site = Arc::clone(&site);
        tokio::spawn(async move {
            converse(&*site, stream).await;
            drop(place);
        });
    }
}

/// Answers the requests of a connection.
async fn converse<S: Site>(site: &S, stream: TcpStream) {
    // Without it, parts of an answer may wait for each other; everything works all the same.
    let _ = stream.set_nodelay(true);
    let (input, mut output) = stream.into_split();
    let mut reader = Reader::new(input, S::TAKES_BODIES);
    loop {
        let request = match reader.next().await {
            Ok(request) => request,
            Err(end) => {
                let refusal = match end {
                    End::Closed => return,
                    End::Refused(status) => Response::plain(status),
                    End::WrongMethod => Response::wrong_method(S::TAKES_BODIES),
                };
                let _ = respond(&mut output, &refusal, false, false).await;
                return;
            }
        };
        let answered = site.answer(&request, &mut reader, &mut output).await;
        let keeps_open = reader.keeps_open(&request);
        match answered {
            // What is left of a body stands before the next request, and where there is none, before the end.
            Ok(true) if reader.discard().await && keeps_open => {}
            _ => return,
        }
    }
}
