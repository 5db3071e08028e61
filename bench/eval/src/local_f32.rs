//! The local network in f32 on ONNX Runtime, the reference for the int8 one on the head's own kernels.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use image::RgbImage;
use narrows_head::image::Fitter;
use narrows_models::{Bundle, Geometry};
use narrows_tail::engine::{Device, Input, Runtime, Session};
use ndarray::ArrayView4;

use crate::lite0;

/// Where the weights of the f32 network come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// The bundle: the weights that the int8 network was quantised from.
    Bundle,
    /// A random generator, in the layers of the same network: its time is the real one, its answers mean nothing.
    Random,
}

/// The f32 network, ready to run.
pub struct LocalF32 {
    session: Session,
    input: String,
    output: String,
    geometry: Geometry,
    fitter: Fitter,
    pixels: Vec<u8>,
}

impl Weights {
    /// The weights available for the local network of `bundle`; `None` for a bundle without a local network, or with one
    /// whose f32 form is neither in the bundle nor EfficientNet-Lite0.
    #[must_use]
    pub fn of(bundle: &Bundle) -> Option<Self> {
        let local = bundle.local()?;
        let known = local.backbone == lite0::NAME
            && (local.geometry.height, local.geometry.width) == (lite0::SIDE, lite0::SIDE);
        match &local.reference {
            Some(reference) if bundle.path(&reference.file).exists() => Some(Weights::Bundle),
            _ => known.then_some(Weights::Random),
        }
    }
}

impl LocalF32 {
    /// Opens the network on `threads` threads of the processor; `None` where [`Weights::of`] is.
    ///
    /// # Errors
    /// When its file cannot be read or written, or ONNX Runtime refuses it.
    pub fn open(bundle: &Bundle, runtime: &Runtime, threads: usize) -> Result<Option<Self>> {
        let Some((weights, local)) = Weights::of(bundle).zip(bundle.local()) else { return Ok(None) };
        let open = |path: &Path| Session::open(runtime, path, Device::Cpu, threads);
        let (session, input, output) = match (weights, &local.reference) {
            (Weights::Bundle, Some(reference)) => {
                let session = open(&bundle.path(&reference.file))?;
                (session, reference.input.clone(), reference.output.clone())
            }
            _ => {
                // ONNX Runtime reads the whole file when it opens the session.
                let folder = tempfile::tempdir().context("no temporary folder")?;
                let file = folder.path().join("lite0.onnx");
                fs::write(&file, lite0::onnx().0).with_context(|| file.display().to_string())?;
                (open(&file)?, lite0::INPUT.to_owned(), lite0::OUTPUT.to_owned())
            }
        };
        let (geometry, fitter, pixels) = (local.geometry.clone(), Fitter::default(), Vec::new());
        Ok(Some(LocalF32 { session, input, output, geometry, fitter, pixels }))
    }

    /// Resizes and crops a photo to the network's input.
    pub fn fit(&mut self, photo: &RgbImage) {
        self.fitter.fit(photo, &self.geometry, &mut self.pixels);
    }

    /// Runs the network on the photo that was fitted last; returns one score per class.
    ///
    /// # Errors
    /// When no photo was fitted, or the network fails.
    pub fn scores(&mut self) -> Result<Vec<f32>> {
        let size = (1, self.geometry.height, self.geometry.width, 3);
        let pixels = Input::U8(ArrayView4::from_shape(size, &self.pixels)?.into_dyn());
        Ok(self.session.run(&[(self.input.as_str(), pixels)], &self.output)?.into_raw_vec_and_offset().0)
    }
}
