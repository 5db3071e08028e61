//! Sequential JPEG files to planes, as much of them and at the size that some networks' inputs need.

mod bits;
mod header;
mod huffman;
mod part;
mod scan;
mod transform;
mod untaken;

use narrows_models::Geometry;
use narrows_video::Colour;

pub use self::untaken::Untaken;
use self::{header::Header, part::Part, scan::Scanner};
use crate::planes::Planes;

/// Decodes JPEG files to [`Planes`], with buffers that are kept from file to file.
///
/// It takes what cameras write: baseline or extended sequential Huffman coding of 8 bits in one scan, grey or YCbCr, with
/// colour at full or half resolution. Anything else, and whatever is damaged, it leaves to a decoder of all files.
#[derive(Debug, Default)]
pub struct JpegDecoder {
    header: Header,
    scanner: Scanner,
}

impl JpegDecoder {
    /// Decodes what the inputs of `views` show of a file, in place of what `planes` hold.
    ///
    /// # Errors
    /// [`Untaken`]; then `planes` hold nothing.
    pub fn decode(&mut self, file: &[u8], views: &[Geometry], planes: &mut Planes) -> Result<(), Untaken> {
        planes.count = 0;
        let data = self.header.read(file)?;
        let frame = self.header.frame();
        let count = frame.components.len();
        (planes.width, planes.height) = (u32::from(frame.width), u32::from(frame.height));
        planes.colour = Colour { full_range: true, bt709: false };
        let mut parts: [Part; 3] = Default::default();
        for (index, part) in parts.iter_mut().enumerate().take(count) {
            *part = Part::new(frame, index, views);
            let component = &frame.components[index];
            let plane = &mut planes.planes[index];
            let (most_across, most_down) = frame.most();
            plane.step = part.size;
            plane.stride = part.size * part.blocks;
            (plane.left, plane.top) = (part.across.start * part.size, part.down.start * part.size);
            let side = |pixels: u16, own: usize, most: usize| {
                let samples = (usize::from(pixels) * own).div_ceil(most);
                (samples * part.size).div_ceil(8)
            };
            plane.columns = side(frame.width, component.across, most_across);
            plane.rows = side(frame.height, component.down, most_down);
            let scale = part.size as f64 / 8.0;
            plane.across = component.across as f64 / most_across as f64 * scale;
            plane.down = component.down as f64 / most_down as f64 * scale;
            // Every sample is written: a row of blocks at a time.
            plane.held = (part.across.len() * part.size, part.down.len() * part.size);
            plane.make_room(part.down.len() * part.size);
        }
        let parts = &parts[..count];
        self.scanner.scan(&self.header, &file[data..], parts, planes)?;
        planes.count = count;
        planes.views = views.to_vec();
        Ok(())
    }
}
