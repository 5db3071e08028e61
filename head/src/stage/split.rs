//! The split's head: an image to a packet of coded features, timed stage by stage.
#![expect(clippy::disallowed_methods, reason = "every stage is timed here")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use image::RgbImage;
use narrows_codec::{Choice, Encoder, Feature, GeometryId, LevelId, Mode, Tables, prefixes};
use narrows_models::{Bundle, Geometry};

use crate::{
    Error,
    config::SMALLEST,
    frame::Timings,
    image::{Fitter, decode},
    net::{Latent, Net},
};

/// The head of a bundle, ready to run: resize, network up to the bottleneck, entropy coder.
///
/// ```no_run
/// use narrows_codec::{GeometryId, LevelId};
/// use narrows_head::Head;
/// use narrows_models::{Bundle, Parts};
///
/// let bundle = Bundle::open("models/bundles/lite2", Parts::Head)?;
/// let mut head = Head::open(bundle)?;
/// let encoded = head.encode_file(&std::fs::read("cat.jpg")?, GeometryId(0), LevelId(0))?;
/// println!("{} bytes, {:?} in the network", encoded.packet.len(), encoded.timings.head);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Head {
    bundle: Bundle,
    tables: Arc<Tables>,
    net: Arc<Net>,
    fitter: Fitter,
    encoder: Encoder,
    choice: Choice,
}

/// The last steps of a head alone: packets of a frame whose network has run, at any level.
pub(crate) struct LevelEncoder {
    tables: Arc<Tables>,
    net: Arc<Net>,
    encoder: Encoder,
    choice: Choice,
}

/// A packet that may end at several places.
#[derive(Debug)]
pub(crate) struct TruncatablePacket {
    pub(crate) packet: Vec<u8>,
    pub(crate) mode: Mode,
    /// Where it may end, the whole packet last.
    pub(crate) ends: Vec<u32>,
    /// Duration of quantising and coding.
    pub(crate) took: Duration,
}

/// An encoded image.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EncodedImage {
    /// The packet for the server (codec/FORMAT.md).
    pub packet: Vec<u8>,
    /// How the packet is coded.
    pub mode: Mode,
    /// The symbols in the packet.
    pub feature: Feature,
    /// The network's input: u8 RGB, row by row, of the geometry's size.
    pub pixels: Vec<u8>,
    /// Duration of each stage.
    pub timings: Timings,
}

/// Coded features.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: Mode,
    /// Duration of coding.
    pub(crate) encode: Duration,
}

impl Head {
    /// Plans the head's network for every geometry and parses the entropy coder's tables.
    ///
    /// # Errors
    /// An error of [`ErrorKind::Bundle`](crate::ErrorKind::Bundle) for tables or a network that cannot be used.
    pub fn open(mut bundle: Bundle) -> Result<Self, Error> {
        let part = bundle.tables().to_owned();
        let tables = Tables::parse(&bundle.read(&part)?).map_err(|source| Error::Tables { part, source })?;
        let part = bundle.head().file.clone();
        let net = Net::open(&bundle).map_err(|source| Error::Head { part, source })?;
        // What was loaded need not stay in memory twice.
        bundle.release();
        let (fitter, encoder) = (Fitter::default(), Encoder::new());
        let (tables, net) = (Arc::new(tables), Arc::new(net));
        Ok(Head { bundle, tables, net, fitter, encoder, choice: SMALLEST })
    }

    /// An encoder of what [`Head::latent`] gives, coded as this head codes.
    pub(crate) fn level_encoder(&self) -> LevelEncoder {
        let (tables, net) = (Arc::clone(&self.tables), Arc::clone(&self.net));
        LevelEncoder { tables, net, encoder: Encoder::new().truncatable(true), choice: self.choice }
    }

    /// The geometry of the network's input.
    ///
    /// # Errors
    /// [`Error::Usage`] for a geometry that the bundle does not have.
    pub(crate) fn input(&self, geometry: GeometryId) -> Result<&Geometry, Error> {
        self.bundle
            .geometries()
            .get(geometry.index())
            .ok_or_else(|| Error::usage("--geometry", format!("the bundle has no geometry {geometry}")))
    }

    /// Runs the network on an input, up to where the level matters.
    ///
    /// # Errors
    /// [`Error::Net`] if the network fails.
    pub(crate) fn latent(&self, input: &[u8], geometry: GeometryId) -> Result<Latent, Error> {
        Ok(self.net.latent(geometry, input)?)
    }

    /// Chooses how packets are coded; the default is the smallest of the modes that suit a device.
    #[must_use]
    pub fn coding(self, choice: Choice) -> Self {
        Head { choice, ..self }
    }

    /// The bundle that it was made from.
    #[must_use]
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Multiply-accumulate operations for one image of this geometry; 0 for a geometry that the bundle does not have.
    #[must_use]
    pub fn macs(&self, geometry: GeometryId) -> u64 {
        self.net.macs(geometry).unwrap_or(0)
    }

    /// Encodes the image in `file`, the bytes of a JPEG, PNG, WebP or BMP file.
    ///
    /// # Errors
    /// [`Error::Image`] if the bytes hold no usable image; otherwise as [`Head::encode_image`].
    pub fn encode_file(
        &mut self,
        file: &[u8],
        geometry: GeometryId,
        level: LevelId,
    ) -> Result<EncodedImage, Error> {
        let started = Instant::now();
        let image = decode(file).map_err(|source| Error::Image { file: "(bytes)".into(), source })?;
        let decoded = started.elapsed();
        let mut encoded = self.encode_image(&image, geometry, level)?;
        encoded.timings.decode = decoded;
        Ok(encoded)
    }

    /// Encodes a decoded image of any size.
    ///
    /// # Errors
    /// [`Error::Usage`] for a geometry or level that the bundle does not have, [`Error::Net`] and [`Error::Code`]
    /// if the network or the entropy coder fail.
    pub fn encode_image(
        &mut self,
        image: &RgbImage,
        geometry: GeometryId,
        level: LevelId,
    ) -> Result<EncodedImage, Error> {
        let started = Instant::now();
        let mut pixels = Vec::new();
        let target = self.input(geometry)?.clone();
        self.fitter.fit(image, &target, &mut pixels);
        let resize = started.elapsed();
        let (feature, packet, head) = self.encode_input(&pixels, geometry, level)?;
        let Packet { bytes, mode, encode } = packet;
        let timings = Timings { resize, head, encode, ..Timings::default() };
        Ok(EncodedImage { packet: bytes, mode, feature, pixels, timings })
    }

    /// Encodes an input: its features, their packet, and the duration of the network.
    ///
    /// # Errors
    /// As [`Head::encode_image`].
    pub(crate) fn encode_input(
        &mut self,
        input: &[u8],
        geometry: GeometryId,
        level: LevelId,
    ) -> Result<(Feature, Packet, Duration), Error> {
        let started = Instant::now();
        self.check_level(level)?;
        let feature = self.net.run(geometry, level, input)?;
        let head = started.elapsed();
        let packet = self.encode(&feature, geometry, level)?;
        Ok((feature, packet, head))
    }

    /// The features of a frame at a level.
    ///
    /// # Errors
    /// [`Error::Usage`] for a level that the bundle does not have, [`Error::Net`] for the latent of another head.
    pub(crate) fn feature(&self, latent: &Latent, level: LevelId) -> Result<Feature, Error> {
        self.check_level(level)?;
        Ok(self.net.symbols(latent, level)?)
    }

    /// Codes features of a geometry and a level.
    ///
    /// # Errors
    /// [`Error::Code`] if the entropy coder fails.
    pub(crate) fn encode(
        &mut self,
        feature: &Feature,
        geometry: GeometryId,
        level: LevelId,
    ) -> Result<Packet, Error> {
        let started = Instant::now();
        let mut bytes = Vec::new();
        let mode = self
            .encoder
            .encode(&self.tables, geometry, level, self.choice, feature, &mut bytes)
            .map_err(Error::Code)?;
        Ok(Packet { bytes, mode, encode: started.elapsed() })
    }

    fn check_level(&self, level: LevelId) -> Result<(), Error> {
        match level.index() < self.bundle.levels().len() {
            true => Ok(()),
            false => Err(Error::usage("--level", format!("the bundle has no level {level}"))),
        }
    }
}

impl LevelEncoder {
    /// The packet of a frame at a level.
    ///
    /// # Errors
    /// [`Error::Net`] for a level that the bundle does not have, and [`Error::Code`] if the entropy coder fails.
    pub(crate) fn encode(&mut self, latent: &Latent, level: LevelId) -> Result<TruncatablePacket, Error> {
        let started = Instant::now();
        let feature = self.net.symbols(latent, level)?;
        let mut packet = Vec::new();
        let geometry = latent.geometry();
        let mode = self
            .encoder
            .encode(&self.tables, geometry, level, self.choice, &feature, &mut packet)
            .map_err(Error::Code)?;
        let ends = prefixes(&packet).map_err(Error::Code)?;
        // A packet has at most a megabyte.
        let ends = ends.map(|end| u32::try_from(end).unwrap_or(u32::MAX)).collect();
        Ok(TruncatablePacket { packet, mode, ends, took: started.elapsed() })
    }
}

impl std::fmt::Debug for LevelEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LevelEncoder").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Head").field("bundle", &self.bundle.name()).finish_non_exhaustive()
    }
}
