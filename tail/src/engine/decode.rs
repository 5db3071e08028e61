//! Packets and image files, decoded to the inputs of the networks.
#![expect(clippy::disallowed_methods, reason = "decoding is a stage of a job whose time is measured")]

use std::{
    cell::RefCell,
    error::Error as _,
    sync::Arc,
    time::{Duration, Instant},
};

use narrows_codec::{Decoder, Error as CodecError, GeometryId, Packet, Shape, Tables, prefixes};
use narrows_models::{
    Geometry,
    image::{self, ImageFault, ImageFormat},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout_at,
};

use super::{
    error::chain,
    input::RgbImage,
    refusal::{Refusal, RefusalReason},
};

thread_local! {
    /// A decoder whose memory serves every packet that this thread decodes.
    static DECODER: RefCell<Decoder> = RefCell::new(Decoder::new());
}

/// The time of decoding one image, for the hint when to try again: a photo of 2 megapixels takes about as long.
const DECODE_TIME: Duration = Duration::from_millis(20);

/// An image file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedImage {
    /// The geometry in whose size the network sees the image.
    pub geometry: GeometryId,
    /// The format of the file.
    pub format: ImageFormat,
    /// Whether the image still has to be fitted to the geometry.
    pub framing: Framing,
    /// The file's bytes.
    pub file: Vec<u8>,
}

/// The state of an [`EncodedImage`] with respect to its geometry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The image has the geometry's size and is the network's input as it is.
    Fitted,
    /// The image has any size and is fitted to the geometry (models/BUNDLE.md section 3).
    Original,
}

/// Decodes a codec packet. This takes less than a millisecond for the largest geometry, which is not worth another thread.
///
/// # Errors
/// [`RefusalReason::BadLatent`] with the codec's error, and for a packet that was cut after some of its channel groups: the
/// codec would fill the others with medians, and the answer would be one to another image.
pub(super) fn decode_packet(tables: &Tables, shapes: &[Shape], packet: &[u8]) -> Result<Packet, Refusal> {
    let packet = decode(tables, shapes, packet).map_err(|error| bad_latent(&error))?;
    let Packet { groups, groups_decoded, .. } = packet;
    match groups_decoded < groups {
        true => {
            let text =
                format!("the packet was cut: it holds {groups_decoded} of its {groups} channel groups");
            Err(Refusal::new(RefusalReason::BadLatent, text))
        }
        false => Ok(packet),
    }
}

/// Decodes the whole channel groups at the beginning of a codec packet that may have been cut anywhere. The channels of the
/// others are filled with medians.
///
/// # Errors
/// [`RefusalReason::Expired`] where there is no whole group, else [`RefusalReason::BadLatent`] with the codec's error.
pub(super) fn decode_groups(tables: &Tables, shapes: &[Shape], packet: &[u8]) -> Result<Packet, Refusal> {
    let fault = |error: CodecError| match error {
        CodecError::PacketTruncated { .. } => {
            let text = format!("no channel group of the packet arrived in time, only {} bytes", packet.len());
            Refusal::new(RefusalReason::Expired, text)
        }
        error => bad_latent(&error),
    };
    let ends: Vec<usize> = prefixes(packet).map_err(fault)?.collect();
    // Where the packet ends within a group, the group before is its last whole one.
    let mut failure = CodecError::PacketTruncated { field: "words" };
    for &end in ends.iter().rev().take(2) {
        match decode(tables, shapes, &packet[..end]) {
            Ok(packet) => return Ok(packet),
            // Of a packet of several groups that ends within the first one, nothing can be used.
            Err(CodecError::PacketTrailing { .. }) if ends.len() == 1 => {}
            Err(error) => failure = error,
        }
    }
    Err(fault(failure))
}

fn decode(tables: &Tables, shapes: &[Shape], packet: &[u8]) -> Result<Packet, CodecError> {
    DECODER.with_borrow_mut(|decoder| decoder.decode(tables, shapes, packet))
}

fn bad_latent(error: &CodecError) -> Refusal {
    Refusal::new(RefusalReason::BadLatent, chain(error))
}

/// A decoder of image files that limits how many are decoded at once, since each takes hundreds of megabytes at worst.
///
/// The number of images that wait is limited as well: each keeps its file in memory.
pub(super) struct ImageDecoder {
    slots: Arc<Semaphore>,
    waiting: Semaphore,
    parallel: usize,
    queue: usize,
    max_pixels: u64,
}

impl ImageDecoder {
    /// A decoder that decodes up to `parallel` images of up to `max_pixels` pixels at once, while `queue` others wait.
    pub(super) fn new(parallel: usize, queue: usize, max_pixels: u64) -> ImageDecoder {
        let parallel = parallel.max(1);
        let slots = Arc::new(Semaphore::new(parallel));
        ImageDecoder { slots, waiting: Semaphore::new(queue), parallel, queue, max_pixels }
    }

    /// Decodes an image on a thread for blocking work, fits it to the geometry, and returns it with the time that this
    /// took. It first waits until fewer images than the limit are being decoded. `held` is dropped with the image's file.
    ///
    /// # Errors
    /// [`RefusalReason::Busy`] if too many images wait, [`RefusalReason::Expired`] if the deadline passes while it waits, [`RefusalReason::BadImage`] for a file that is not
    /// the image it claims to be, and [`RefusalReason::Internal`] if the decoder panics.
    pub(super) async fn decode(
        &self,
        image: EncodedImage,
        held: impl Send + 'static,
        geometry: &Geometry,
        deadline: Option<Instant>,
    ) -> Result<(RgbImage, Duration), Refusal> {
        let slot = match Arc::clone(&self.slots).try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => self.wait(deadline).await?,
        };
        let (geometry, max_pixels) = (geometry.clone(), self.max_pixels);
        let decoded = tokio::task::spawn_blocking(move || {
            // The slot stands for the decoder's memory, so it is held to the end even if the job has been given up.
            let _slot = slot;
            let began = Instant::now();
            let pixels = decode_pixels(&image, &geometry, max_pixels)
                .map_err(|reason| Refusal::new(RefusalReason::BadImage, reason));
            drop((image, held));
            let pixels = pixels?;
            let (height, width) = (geometry.height, geometry.width);
            Ok((RgbImage { pixels: Arc::new(pixels), height, width }, began.elapsed()))
        });
        decoded.await.unwrap_or_else(|_| Err(Refusal::new(RefusalReason::Internal, "the decoder failed")))
    }

    /// Waits for a slot.
    async fn wait(&self, deadline: Option<Instant>) -> Result<OwnedSemaphorePermit, Refusal> {
        let Ok(_waiting) = self.waiting.try_acquire() else {
            let runs = u32::try_from(self.queue.div_ceil(self.parallel)).unwrap_or(u32::MAX);
            let text = format!("{} images wait for a decoder", self.queue);
            return Err(Refusal::new(RefusalReason::Busy, text).retry_after(DECODE_TIME.saturating_mul(runs)));
        };
        let slot = Arc::clone(&self.slots).acquire_owned();
        let slot = match deadline {
            Some(deadline) => timeout_at(deadline.into(), slot).await.map_err(|_| {
                let text = "the image waited for a decoder until its budget was spent";
                Refusal::new(RefusalReason::Expired, text)
            })?,
            None => slot.await,
        };
        slot.map_err(|_| Refusal::new(RefusalReason::ShuttingDown, "the decoder is closed"))
    }
}

/// The network's input that `image` is for `geometry`: u8 RGB, row by row.
fn decode_pixels(image: &EncodedImage, geometry: &Geometry, max_pixels: u64) -> Result<Vec<u8>, String> {
    let decoded = image::decode_as(&image.file, image.format, max_pixels).map_err(describe)?;
    let (width, height) = decoded.dimensions();
    match image.framing {
        Framing::Original => Ok(image::fit(&decoded, geometry)),
        Framing::Fitted if (width as usize, height as usize) == (geometry.width, geometry.height) => {
            Ok(decoded.into_raw())
        }
        Framing::Fitted => Err(format!(
            "a fitted image of {width}×{height} pixels, geometry {} has {}×{}",
            geometry.name, geometry.width, geometry.height
        )),
    }
}

/// The fault and the message of the decoder, if there is one.
fn describe(fault: ImageFault) -> String {
    match fault.source() {
        Some(source) => format!("{fault}: {}", source.to_string().trim_end()),
        None => fault.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use narrows_models::{Bundle, Parts};

    use super::*;

    /// 4 × 2 pixels as a JPEG.
    fn grey() -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        let grey = image::RgbImage::from_vec(4, 2, vec![99; 24]).unwrap();
        grey.write_to(&mut file, image::ImageFormat::Jpeg).unwrap();
        file.into_inner()
    }

    fn geometry() -> Geometry {
        let bundle = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/bundles/lite2");
        Bundle::open(bundle, Parts::Head).unwrap().geometries()[0].clone()
    }

    fn image(format: ImageFormat, framing: Framing) -> EncodedImage {
        EncodedImage { geometry: GeometryId(0), format, framing, file: grey() }
    }

    #[test]
    fn an_original_image_is_fitted_and_a_fitted_one_must_have_the_size() {
        let geometry = geometry();
        let rows = decode_pixels(&image(ImageFormat::Jpeg, Framing::Original), &geometry, 1 << 24).unwrap();
        assert_eq!(rows.len(), 3 * geometry.width * geometry.height);
        assert!(rows.iter().all(|value| rows[0].abs_diff(*value) <= 1));
        let error =
            decode_pixels(&image(ImageFormat::Jpeg, Framing::Fitted), &geometry, 1 << 24).unwrap_err();
        assert!(error.contains("4×2") && error.contains("224×224"), "{error}");
    }

    #[test]
    fn a_file_of_another_format_is_refused() {
        let error =
            decode_pixels(&image(ImageFormat::WebP, Framing::Original), &geometry(), 1 << 24).unwrap_err();
        assert!(error.contains("cannot be decoded"), "{error}");
    }

    #[tokio::test]
    async fn an_image_without_room_waits_until_its_deadline_and_no_longer() {
        let decoder = ImageDecoder::new(1, 1, 1 << 24);
        let held = decoder.slots.clone().acquire_owned().await.unwrap();
        let soon = Some(Instant::now() + Duration::from_millis(20));
        let image = || image(ImageFormat::Jpeg, Framing::Original);
        let late = decoder.decode(image(), (), &geometry(), soon).await.err().unwrap();
        assert_eq!(late.reason, RefusalReason::Expired);
        drop(held);
        assert!(decoder.decode(image(), (), &geometry(), None).await.is_ok());
    }

    #[tokio::test]
    async fn images_beyond_the_queue_are_refused_at_once_with_a_hint() {
        let decoder = Arc::new(ImageDecoder::new(1, 2, 1 << 24));
        let held = decoder.slots.clone().acquire_owned().await.unwrap();
        let decode = |decoder: Arc<ImageDecoder>| async move {
            decoder.decode(image(ImageFormat::Jpeg, Framing::Original), (), &geometry(), None).await
        };
        let waiting = [(); 2].map(|()| tokio::spawn(decode(Arc::clone(&decoder))));
        while decoder.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let busy = decode(Arc::clone(&decoder)).await.err().unwrap();
        assert_eq!(busy.reason, RefusalReason::Busy);
        assert!(busy.retry.is_some() && busy.text.contains("2 images"), "{busy:?}");
        drop(held);
        for image in waiting {
            assert!(image.await.unwrap().is_ok());
        }
    }

    #[tokio::test]
    async fn what_stands_for_the_files_memory_is_given_back_with_the_file() {
        let decoder = ImageDecoder::new(1, 1, 1 << 24);
        let (held, mut given_back) = tokio::sync::oneshot::channel::<()>();
        let image = image(ImageFormat::WebP, Framing::Original);
        assert!(decoder.decode(image, held, &geometry(), None).await.is_err());
        assert!(
            given_back
                .try_recv()
                .is_err_and(|error| error == tokio::sync::oneshot::error::TryRecvError::Closed)
        );
    }
}
