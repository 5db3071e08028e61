//! From an image file to a packet: the device's half of the work, timed stage by stage.
#![expect(clippy::disallowed_methods, reason = "every stage is timed here")]

use std::{
    fs::File,
    io::Read,
    path::Path,
    time::{Duration, Instant},
};

use image::RgbImage;
use narrows_codec::{Choice, Encoder, Feature, GeometryId, LevelId, Mode, Tables};
use narrows_models::Bundle;

use crate::{
    Error,
    image::{FILE_MAX, Fitter, ImageFault, decode},
    net::Net,
};

/// The device's half of a bundle, ready to run.
///
/// ```no_run
/// use narrows_codec::{GeometryId, LevelId};
/// use narrows_head::Head;
/// use narrows_models::{Bundle, Parts};
///
/// let bundle = Bundle::open("models/bundles/lite2", Parts::Head)?;
/// let level = LevelId(bundle.default_level() as u8);
/// let mut head = Head::open(bundle)?;
/// let frame = head.encode_file(&std::fs::read("cat.jpg")?, GeometryId(0), level)?;
/// println!("{} bytes, {:?} in the network", frame.packet.len(), frame.timings.head);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Head {
    bundle: Bundle,
    tables: Tables,
    net: Net,
    fitter: Fitter,
    encoder: Encoder,
    choice: Choice,
}

/// Context tables, along columns or rows for the few frames that change little along them, or static ones where those are
/// not smaller. Indexed tables and zstd cost a device more than they have saved on any feature that was measured.
pub(crate) const SMALLEST: Choice = Choice::Within(9);

/// A frame, coded.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Encoded {
    /// What goes over the wire (codec/FORMAT.md).
    pub packet: Vec<u8>,
    /// How the packet is coded.
    pub mode: Mode,
    /// What the packet holds.
    pub feature: Feature,
    /// What the head saw: u8, rows of RGB pixels of the geometry's size.
    pub pixels: Vec<u8>,
    /// What each stage cost.
    pub timings: Timings,
}

/// What each of the device's stages cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Reading and decoding the image; zero when it came decoded.
    pub decode: Duration,
    /// To the head's input.
    pub resize: Duration,
    /// The head's network.
    pub head: Duration,
    /// The entropy coder, or the image's encoder.
    pub encode: Duration,
}

impl Head {
    /// Plans the head's network for every geometry and reads the tables.
    ///
    /// # Errors
    /// [`ErrorKind::Bundle`](crate::ErrorKind::Bundle): a table or a network that cannot be used.
    pub fn open(bundle: Bundle) -> Result<Self, Error> {
        let part = bundle.tables().to_owned();
        let tables = Tables::parse(&bundle.read(&part)?).map_err(|source| Error::Tables { part, source })?;
        let part = bundle.head().file.clone();
        let net = Net::open(&bundle).map_err(|source| Error::Head { part, source })?;
        let (fitter, encoder) = (Fitter::default(), Encoder::new());
        Ok(Head { bundle, tables, net, fitter, encoder, choice: SMALLEST })
    }

    /// The same head with packets of this choice of mode.
    pub fn coding(self, choice: Choice) -> Self {
        Head { choice, ..self }
    }

    /// The bundle that it was made from.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Multiply-accumulates for one image of this geometry; 0 for one that the bundle does not have.
    pub fn macs(&self, geometry: GeometryId) -> u64 {
        self.net.macs(geometry).unwrap_or(0)
    }

    /// Codes the image in `file`, the bytes of a JPEG, PNG, WebP or BMP.
    ///
    /// # Errors
    /// [`Error::Image`] for what is no image; otherwise as [`Head::encode_image`].
    pub fn encode_file(
        &mut self,
        file: &[u8],
        geometry: GeometryId,
        level: LevelId,
    ) -> Result<Encoded, Error> {
        let started = Instant::now();
        let image = decode(file).map_err(|source| Error::Image { file: "(bytes)".into(), source })?;
        let decoded = started.elapsed();
        let mut encoded = self.encode_image(&image, geometry, level)?;
        encoded.timings.decode = decoded;
        Ok(encoded)
    }

    /// Codes an image that is already decoded.
    ///
    /// # Errors
    /// [`Error::Usage`] for a geometry or level that the bundle does not have, [`Error::Net`] and [`Error::Code`]
    /// when the network or the coder fail.
    pub fn encode_image(
        &mut self,
        image: &RgbImage,
        geometry: GeometryId,
        level: LevelId,
    ) -> Result<Encoded, Error> {
        let Some(target) = self.bundle.geometries().get(geometry.index()) else {
            return Err(Error::usage("--geometry", format!("the bundle has no geometry {geometry}")));
        };
        if level.index() >= self.bundle.levels().len() {
            return Err(Error::usage("--level", format!("the bundle has no level {level}")));
        }
        let started = Instant::now();
        let mut pixels = Vec::new();
        self.fitter.fit(image, target, &mut pixels);
        let fitted = Instant::now();
        let feature = self.net.run(geometry, level, &pixels)?;
        let ran = Instant::now();
        let mut packet = Vec::new();
        let mode = self
            .encoder
            .encode(&self.tables, geometry, level, self.choice, &feature, &mut packet)
            .map_err(Error::Code)?;
        let timings = Timings {
            decode: Duration::ZERO,
            resize: fitted - started,
            head: ran - fitted,
            encode: ran.elapsed(),
        };
        Ok(Encoded { packet, mode, feature, pixels, timings })
    }
}

/// Reads and decodes an image file.
///
/// # Errors
/// [`Error::File`] or [`Error::Image`], naming the file.
pub fn load(path: &Path) -> Result<RgbImage, Error> {
    let unreadable = |source| Error::File { file: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // One byte more than allowed shows that there is too much, whatever the size says.
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    decode(&bytes).map_err(|source| Error::Image {
        file: path.to_owned(),
        source: match source {
            ImageFault::File(_) => {
                ImageFault::File(std::fs::metadata(path).map_or(FILE_MAX + 1, |meta| meta.len()))
            }
            other => other,
        },
    })
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Head").field("bundle", &self.bundle.name()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = load(&dir.path().join("none.jpg")).unwrap_err();
        assert!(
            matches!(&missing, Error::File { .. }) && missing.to_string().contains("none.jpg"),
            "{missing}"
        );
        let empty = dir.path().join("empty.png");
        std::fs::write(&empty, b"").unwrap();
        let error = load(&empty).unwrap_err();
        assert!(error.to_string().ends_with("empty.png: the file is empty"), "{error}");
        assert!(load(dir.path()).is_err());
    }
}
