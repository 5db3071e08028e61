//! The local network in f32 on ONNX Runtime: what the int8 one on the head's own kernels is held against.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use image::RgbImage;
use narrows_head::image::Fitter;
use narrows_models::{Bundle, Geometry};
use narrows_tail::net::{Device, Input, Runtime, Session};
use ndarray::ArrayView4;

use crate::micro::lite0;

/// Where its weights come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// From the bundle: the weights that the int8 network was made of.
    Own,
    /// Noise in the layers of the same network: it takes the same time, and its answers mean nothing.
    Noise,
}

/// The network, ready to run.
pub struct Float {
    session: Session,
    input: String,
    output: String,
    geometry: Geometry,
    fitter: Fitter,
    pixels: Vec<u8>,
}

impl Weights {
    /// Those that there are for the local network of `bundle`; `None` without one, or where its layers are not known.
    pub fn of(bundle: &Bundle) -> Option<Self> {
        let local = bundle.local()?;
        let known = local.backbone == lite0::NAME
            && (local.geometry.height, local.geometry.width) == (lite0::SIDE, lite0::SIDE);
        match &local.reference {
            Some(reference) if bundle.path(&reference.file).exists() => Some(Weights::Own),
            _ => known.then_some(Weights::Noise),
        }
    }
}

impl Float {
    /// Opens it on `threads` of the processor; `None` where [`Weights::of`] has none.
    pub fn open(bundle: &Bundle, runtime: &Runtime, threads: usize) -> Result<Option<Self>> {
        let Some((weights, local)) = Weights::of(bundle).zip(bundle.local()) else { return Ok(None) };
        let open = |path: &Path| Session::open(runtime, path, Device::Cpu, threads);
        let (session, input, output) = match (weights, &local.reference) {
            (Weights::Own, Some(reference)) => {
                let session = open(&bundle.path(&reference.file))?;
                (session, reference.input.clone(), reference.output.clone())
            }
            _ => {
                // Read whole when it is opened.
                let folder = tempfile::tempdir().context("no temporary folder")?;
                let file = folder.path().join("lite0.onnx");
                fs::write(&file, lite0::onnx().0).with_context(|| file.display().to_string())?;
                (open(&file)?, lite0::INPUT.to_owned(), lite0::OUTPUT.to_owned())
            }
        };
        let (geometry, fitter, pixels) = (local.geometry.clone(), Fitter::default(), Vec::new());
        Ok(Some(Float { session, input, output, geometry, fitter, pixels }))
    }

    /// Fits a photo to the network's input.
    pub fn fit(&mut self, photo: &RgbImage) {
        self.fitter.fit(photo, &self.geometry, &mut self.pixels);
    }

    /// The scores of the photo that was fitted last.
    pub fn scores(&mut self) -> Result<Vec<f32>> {
        let size = (1, self.geometry.height, self.geometry.width, 3);
        let pixels = Input::U8(ArrayView4::from_shape(size, &self.pixels)?.into_dyn());
        Ok(self.session.run(&[(self.input.as_str(), pixels)], &self.output)?.into_raw_vec_and_offset().0)
    }
}
