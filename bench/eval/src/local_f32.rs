//! The local network in f32 on ONNX Runtime, the reference for the int8 one on the head's own kernels.

use anyhow::Result;
use image::RgbImage;
use narrows_head::image::Fitter;
use narrows_models::{Bundle, Geometry, Reference};
use narrows_tail::engine::{Device, Input, Runtime, Session};
use ndarray::ArrayView4;

/// Threads of the network.
const THREADS: usize = 2;

/// The f32 network, ready to run.
pub(crate) struct LocalF32 {
    session: Session,
    reference: Reference,
    geometry: Geometry,
    fitter: Fitter,
    pixels: Vec<u8>,
}

impl LocalF32 {
    /// Opens the network; `None` where the bundle does not have it.
    pub(crate) fn open(bundle: &Bundle, runtime: &Runtime) -> Result<Option<Self>> {
        let Some(local) = bundle.local() else { return Ok(None) };
        let has = |reference: &Reference| bundle.has(&reference.file);
        let Some(reference) = local.reference.clone().filter(has) else { return Ok(None) };
        let (file, onnx) = (bundle.path(&reference.file), bundle.read(&reference.file)?);
        let session = Session::from_bytes(runtime, &file, &onnx, Device::Cpu, THREADS)?;
        let (geometry, fitter, pixels) = (local.geometry.clone(), Fitter::default(), Vec::new());
        Ok(Some(LocalF32 { session, reference, geometry, fitter, pixels }))
    }

    /// One score per class of a photo.
    pub(crate) fn scores(&mut self, photo: &RgbImage) -> Result<Vec<f32>> {
        self.fitter.fit(photo, &self.geometry, &mut self.pixels);
        let size = (1, self.geometry.height, self.geometry.width, 3);
        let pixels = Input::U8(ArrayView4::from_shape(size, &self.pixels)?.into_dyn());
        let input = [(self.reference.input.as_str(), pixels)];
        Ok(self.session.run(&input, &self.reference.output)?.into_raw_vec_and_offset().0)
    }
}
