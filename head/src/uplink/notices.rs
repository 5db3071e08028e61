//! What a server tells a head of its own accord: that it serves another version of the head's bundle.

use narrows_wire::{
    BundleNotice, Close, limits::MAX_NOTICE, quic::close, stream::read_message, text::Quoted,
};
use quinn::Connection;

use crate::{config::Server, error::Chain};

/// Notices of one connection that are logged.
const LOGGED: usize = 16;

/// Logs the notices of a connection until it ends.
pub(super) async fn listen(connection: Connection, server: Server) {
    let mut logged = 0;
    while let Ok(mut stream) = connection.accept_uni().await {
        let Ok(bytes) = read_message(&mut stream, MAX_NOTICE).await else { continue };
        match BundleNotice::parse(&bytes) {
            Ok(Some(notice)) if logged < LOGGED => {
                logged += 1;
                tracing::warn!("{}", words(&notice, &server));
            }
            // One of a later version of the protocol, or one too many.
            Ok(_) => {}
            Err(error) => return close(&connection, Close::Violation, &Chain(&error).to_string()),
        }
    }
}

/// What a notice says.
fn words(notice: &BundleNotice, server: &Server) -> String {
    let BundleNotice { served, version, is_leaving, .. } = notice;
    let own = match is_leaving {
        true => "which the server keeps as long as heads use it",
        false => "which is served as well",
    };
    format!(
        "the server at {server} serves version {} ({served}) of this head's bundle; this head goes on with its own, {own}",
        Quoted(version)
    )
}
