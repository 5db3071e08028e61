//! Bundles whose parts have been read and fit together, before their networks are loaded.

use std::path::Path;

use narrows_codec::{Shape, Tables};
use narrows_models::{Bundle, Parts, Task, TaskKind};

use super::{
    error::Error,
    postprocess::{CLASSES, MAP_CLASSES},
};

/// A bundle with its probability tables.
pub(super) struct OpenedBundle {
    pub(super) bundle: Bundle,
    pub(super) tables: Tables,
    /// The latent's shape in each geometry.
    pub(super) shapes: Vec<Shape>,
}

impl OpenedBundle {
    /// Opens a bundle and checks that its tables and its tasks can be served, with `unsplit` also the unsplit networks.
    ///
    /// # Errors
    /// [`Error::Bundle`], [`Error::Tables`] or [`Error::Unfit`].
    pub(super) fn open(folder: &Path, unsplit: bool) -> Result<OpenedBundle, Error> {
        let fail = |source| Error::Bundle { folder: folder.to_owned(), source };
        let bundle = Bundle::open(folder, Parts::Tail { unsplit }).map_err(fail)?;
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

    /// The memory that the networks take in each worker, estimated: twice the size of their files, whose weights are of 16 bits and
    /// take 32 in memory.
    pub(super) fn bytes(&self, unsplit: bool) -> u64 {
        let reference = |task: &Task| task.reference.as_ref().filter(|_| unsplit).map(|one| one.file.clone());
        let parts = self.bundle.tasks().iter().flat_map(|task| [Some(task.tail.clone()), reference(task)]);
        let sizes = parts.flatten().filter_map(|part| self.bundle.size(&part));
        2 * sizes.sum::<u64>()
    }
}

/// Whether predictions can hold the classes of the task.
fn representable(task: &Task) -> bool {
    task.labels.len()
        <= match task.kind {
            TaskKind::Classify => CLASSES,
            TaskKind::Segment => MAP_CLASSES,
        }
}
