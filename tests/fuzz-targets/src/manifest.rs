//! Arbitrary manifests. Accepted ones keep every index in range.

use narrows_models::Manifest;

/// Reads the bytes as `manifest.toml`.
///
/// Returns whether they are accepted.
///
/// # Panics
/// When accepted bytes break a promise.
#[must_use]
pub fn run(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(manifest) = Manifest::parse(text) else { return false };
    assert!(manifest.default_level() < manifest.levels().len());
    for geometry in manifest.geometries() {
        let (rows, columns) = geometry.latent(manifest.head().stride);
        assert!(rows > 0 && columns > 0 && geometry.input_len() > 0);
    }
    for task in manifest.tasks() {
        assert!(task.geometry < manifest.geometries().len());
        assert!(manifest.digests().iter().any(|(part, _)| *part == task.tail));
    }
    if let Some(local) = manifest.local() {
        assert!(local.task < manifest.tasks().len() && local.geometry.input_len() > 0);
        assert!(manifest.digests().iter().any(|(part, _)| *part == local.file));
    }
    for vector in manifest.vectors() {
        assert!(vector.geometry < manifest.geometries().len() && vector.level < manifest.levels().len());
        assert!(vector.outputs.iter().all(|output| output.task < manifest.tasks().len()));
    }
    true
}
