//! What a client is told of its own accord: that another version of its bundle is served.

use std::{sync::Arc, time::Duration};

use narrows_models::Digest;
use narrows_wire::{BundleId, BundleNotice, NOTICES_SINCE, Reset, stream::write_message};
use quinn::VarInt;
use tokio::{task::JoinSet, time::timeout};

use super::connection::Peer;

/// The time that a client has to take a notice.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(10);

/// A version of a bundle of which a client was told: its own, the other one, and whether its own leaves.
pub(super) type Told = (Digest, Digest, bool);

impl Peer {
    /// Tells the client which other versions of its bundles it should have, where that is not `told` yet.
    pub(super) fn tell_successors(self: &Arc<Self>, told: &mut Vec<Told>, tasks: &mut JoinSet<()>) {
        let (Some(offer), Some(scope)) = (self.offer.get(), &self.scope) else { return };
        if self.session().version() < NOTICES_SINCE {
            return;
        }
        let mut now = Vec::new();
        for (index, model) in offer.models().enumerate() {
            let own = model.bundle().digest();
            let Some(successor) = self.shared.engine().successor(own) else { continue };
            let (bundle, is_leaving) = (&successor.bundle, successor.is_leaving);
            let Some(place) = self.session().place(index) else { continue };
            // Of what it may not use it is not told.
            if !scope.has_bundle(bundle.name(), &bundle.digest().to_string()) {
                continue;
            }
            let news = (own, bundle.digest(), is_leaving);
            if !told.contains(&news) {
                let served = BundleId(*bundle.digest().bytes());
                let version = bundle.manifest().version().to_owned();
                let notice = BundleNotice { bundle: place, served, is_leaving, version };
                tasks.spawn(Arc::clone(self).notify(notice));
            }
            now.push(news);
        }
        *told = now;
    }

    /// Sends a notice. A client that does not take it has no use for it.
    async fn notify(self: Arc<Self>, notice: BundleNotice) {
        let Ok(bytes) = notice.encode() else { return };
        let Ok(Ok(mut stream)) = timeout(NOTICE_TIMEOUT, self.connection.open_uni()).await else { return };
        match timeout(NOTICE_TIMEOUT, write_message(&mut stream, &bytes)).await {
            Ok(Ok(())) => {
                tracing::debug!(peer = %self, served = %notice.served, "told of another version of its bundle");
            }
            // The client has stopped it, or is gone.
            Ok(Err(_)) => {}
            // A stream that is dropped ends, and the client would take the part for the whole. One that is gone needs no reset.
            Err(_) => {
                let _ = stream.reset(VarInt::from_u32(Reset::Unread.into()));
            }
        }
    }
}
