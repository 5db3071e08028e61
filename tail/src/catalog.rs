//! What this server serves: opened bundles, their tables and shapes, and one tail per task.

use std::{path::Path, sync::Arc};

use narrows_codec::{Shape, Tables};
use narrows_models::{Bundle, Parts, Task, TaskKind};
use narrows_wire::{
    BundleId, QueryKind,
    session::{Catalog, CatalogBundle, CatalogTask},
};

use crate::{
    Error,
    answer::MAP_CLASSES,
    input::{QuantizedLatent, RgbImage},
    worker::Tail,
};

/// One bundle, ready to decode its packets and to be asked.
pub(crate) struct Model {
    pub(crate) bundle: Bundle,
    pub(crate) tables: Tables,
    /// The latent's shape per geometry.
    pub(crate) shapes: Vec<Shape>,
    /// One per task, in the manifest's order.
    pub(crate) tails: Vec<Arc<Tail<QuantizedLatent>>>,
    /// The whole network of each task, where it is served.
    pub(crate) unsplit: Vec<Option<Arc<Tail<RgbImage>>>>,
}

/// A bundle whose parts fit together, before its networks are loaded.
pub(crate) struct OpenedBundle {
    pub(crate) bundle: Bundle,
    pub(crate) tables: Tables,
    pub(crate) shapes: Vec<Shape>,
}

impl OpenedBundle {
    /// Opens a bundle and checks what the server relies on.
    pub(crate) fn open(folder: &Path) -> Result<OpenedBundle, Error> {
        let fail = |source| Error::Bundle { folder: folder.to_owned(), source };
        let bundle = Bundle::open(folder, Parts::All).map_err(fail)?;
        let codec =
            |source| Error::Tables { folder: folder.to_owned(), file: bundle.tables().to_owned(), source };
        let tables = Tables::parse(&bundle.read(bundle.tables()).map_err(fail)?).map_err(codec)?;
        let channels = bundle.head().channels;
        let unfit = |reason: String| Error::Unfit { folder: folder.to_owned(), reason };
        if (tables.channels(), tables.levels()) != (channels, bundle.levels().len()) {
            return Err(unfit(format!(
                "{} is for {} channels and {} levels, the manifest has {channels} and {}",
                bundle.tables(),
                tables.channels(),
                tables.levels(),
                bundle.levels().len()
            )));
        }
        if let Some(task) = bundle.tasks().iter().find(|task| !representable(task)) {
            let classes = task.labels.len();
            return Err(unfit(format!("task {} has {classes} classes, too many for an answer", task.name)));
        }
        let shapes = bundle.geometries().iter().map(|geometry| {
            let (height, width) = geometry.latent(bundle.head().stride);
            Shape::new(channels, height, width)
        });
        let shapes = shapes.collect::<Result<_, _>>().map_err(codec)?;
        Ok(OpenedBundle { bundle, tables, shapes })
    }
}

/// What the wire can answer: a byte per pixel, two bytes per class.
fn representable(task: &Task) -> bool {
    task.labels.len()
        <= match task.kind {
            TaskKind::Classify => 1 << 16,
            TaskKind::Segment => MAP_CLASSES,
        }
}

/// What the hello offers of these bundles.
pub(crate) fn session_catalog(catalog: &[Model], max_in_flight: u16) -> Catalog {
    let task = |(task, unsplit): (&Task, &Option<_>)| CatalogTask {
        name: task.name.clone(),
        kind: match task.kind {
            TaskKind::Classify => QueryKind::Classify,
            TaskKind::Segment => QueryKind::Segment,
        },
        unsplit: unsplit.is_some(),
    };
    let bundles = catalog.iter().map(|served| CatalogBundle {
        id: BundleId(*served.bundle.digest().bytes()),
        tasks: served.bundle.tasks().iter().zip(&served.unsplit).map(task).collect(),
    });
    Catalog { bundles: bundles.collect(), max_in_flight }
}
