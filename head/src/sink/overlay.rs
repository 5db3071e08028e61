//! Drawing of answers: the photo tinted by its class map with a legend, or with bars for its classes; and the mask.

use std::io;

use image::RgbImage;
use narrows_models::{Filter, Geometry};

use crate::{
    artifact::MARK,
    canvas::{Canvas, Colour, Face},
    image::{Fitter, Window},
    report::{ClassScore, Share},
};

/// Largest width and height of the photo in a picture.
const PHOTO_SIZE: (u32, u32) = (960, 720);
/// Share of the map above which a class is listed in the legend.
const LEGEND_SHARE: f64 = 0.01;
/// Part of a pixel that is the colour of its class, in 1/256.
const TINT: u32 = 108;
/// Margin around text and photo in pixels.
const PAD: u32 = 14;
/// Side of a colour swatch in the legend in pixels.
const SWATCH: u32 = 16;

const BACKGROUND: Colour = [22, 24, 29];
const BRIGHT: Colour = [242, 243, 245];
const DIM: Colour = [150, 156, 166];
const BAR: Colour = [86, 156, 214];
/// Background of a bar.
const GROOVE: Colour = [44, 48, 56];

/// A class map with the colours of its classes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Map<'a> {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Class indices, row by row.
    pub(crate) pixels: &'a [u8],
    /// Colour by class index; all 256 of them.
    pub(crate) colours: &'a [Colour; 256],
    /// Classes in the map, largest share first.
    pub(crate) shares: &'a [Share],
}

/// Draws the part of `photo` that `geometry` crops, titled with the best class: with a map, tinted by it and with a legend;
/// without one, with bars for the classes.
pub(crate) fn draw(
    photo: &RgbImage,
    geometry: &Geometry,
    name: &str,
    scores: &[ClassScore],
    map: Option<Map<'_>>,
) -> RgbImage {
    let window = Window::of(photo.width(), photo.height(), geometry);
    let (width, height) = scaled(window.width, window.height);
    let mut pixels = Vec::new();
    Fitter::default().cut(photo, window, (width, height), Filter::Bicubic, &mut pixels);
    if let Some(map) = map {
        tint(&mut pixels, (width, height), map);
    }
    let title = Face::Title.height() + PAD;
    let entries = map.map_or(Vec::new(), |map| legend(map.shares, width));
    let rows = match map {
        Some(_) => entries.last().map_or(0, |entry| entry.row + 1),
        None => scores.len() as u32,
    };
    let foot = if rows > 0 { rows * ROW + PAD } else { 0 };
    let mut canvas = Canvas::new(width, title + height + foot, BACKGROUND);
    caption(&mut canvas, name, scores.first());
    canvas.paste(0, title, width, &pixels);
    let top = title + height + PAD / 2;
    match map {
        Some(map) => {
            for entry in &entries {
                entry.draw(&mut canvas, top, map.colours);
            }
        }
        None => bars(&mut canvas, top, scores),
    }
    canvas.into_image()
}

/// Height of a row of the legend or of a bar in pixels.
const ROW: u32 = 26;

/// Encodes the map as an indexed PNG: class indices as pixels, class colours as palette.
pub(crate) fn mask(map: Map<'_>) -> io::Result<Vec<u8>> {
    let palette = map.colours.as_flattened();
    Ok(marked_png((map.width, map.height), map.pixels, |encoder| {
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_palette(palette);
    })?)
}

/// Encodes a picture as an RGB PNG.
pub(crate) fn png(picture: &RgbImage) -> io::Result<Vec<u8>> {
    Ok(marked_png(picture.dimensions(), picture.as_raw(), |encoder| {
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_compression(png::Compression::Fast);
        encoder.set_filter(png::Filter::Adaptive);
    })?)
}

/// Encodes a PNG of 8 bits a channel with [`MARK`].
fn marked_png<'a>(
    (width, height): (u32, u32),
    pixels: &[u8],
    set_up: impl FnOnce(&mut png::Encoder<'a, &mut Vec<u8>>),
) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_depth(png::BitDepth::Eight);
    set_up(&mut encoder);
    encoder.add_text_chunk(MARK.0.to_owned(), MARK.1.to_owned())?;
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}

/// Colours for 256 classes: the given ones, and for the others hues at steps of the golden angle.
pub(crate) fn palette(given: impl Iterator<Item = Option<Colour>>) -> [Colour; 256] {
    let mut colours = [[0; 3]; 256];
    for (index, colour) in colours.iter_mut().enumerate() {
        *colour = hue((index as f32 * 137.508) % 360.0, if index % 2 == 0 { 0.95 } else { 0.7 });
    }
    for (colour, given) in colours.iter_mut().zip(given) {
        *colour = given.unwrap_or(*colour);
    }
    colours
}

/// Converts HSV with a saturation of 0.65 to RGB.
fn hue(degrees: f32, value: f32) -> Colour {
    [5.0, 3.0, 1.0].map(|offset| {
        let k = (offset + degrees / 60.0) % 6.0;
        let level = value - value * 0.65 * k.min(4.0 - k).clamp(0.0, 1.0);
        (level * 255.0) as u8
    })
}

/// The largest size within [`PHOTO_SIZE`] of the same aspect ratio.
fn scaled(width: f64, height: f64) -> (u32, u32) {
    let scale = (f64::from(PHOTO_SIZE.0) / width).min(f64::from(PHOTO_SIZE.1) / height);
    let side = |side: f64, most: u32| ((side * scale).round() as u32).clamp(1, most);
    // A very narrow photo is widened so that there is room for text.
    (side(width, PHOTO_SIZE.0).max(320), side(height, PHOTO_SIZE.1).max(40))
}

/// Tints each pixel with the colour of its class, and brightens the border between two classes.
fn tint(pixels: &mut [u8], (width, height): (u32, u32), map: Map<'_>) {
    let classes = resize_map(map, width, height);
    let at = |x: u32, y: u32| classes[(y * width + x) as usize];
    for y in 0..height {
        for x in 0..width {
            let class = at(x, y);
            let edge = x + 1 < width && at(x + 1, y) != class || y + 1 < height && at(x, y + 1) != class;
            let place = (y * width + x) as usize * 3;
            for (value, colour) in pixels[place..place + 3].iter_mut().zip(map.colours[class as usize]) {
                let tinted = (u32::from(*value) * (256 - TINT) + u32::from(colour) * TINT) >> 8;
                *value = if edge { (tinted + 2 * 255) / 3 } else { tinted } as u8;
            }
        }
    }
}

/// Resizes the map. Where the four neighbours of a pixel differ, the class with the largest bilinear weight is taken, which
/// makes borders smooth instead of stepped.
fn resize_map(map: Map<'_>, width: u32, height: u32) -> Vec<u8> {
    let columns: Vec<_> = (0..width).map(|x| neighbors(x, width, map.width)).collect();
    let mut classes = Vec::with_capacity(width as usize * height as usize);
    for y in 0..height {
        let (top, bottom, down) = neighbors(y, height, map.height);
        for &(left, right, across) in &columns {
            let at = |x: u32, y: u32| map.pixels[(y * map.width + x) as usize];
            let corners = [at(left, top), at(right, top), at(left, bottom), at(right, bottom)];
            let weights =
                [(1.0 - across) * (1.0 - down), across * (1.0 - down), (1.0 - across) * down, across * down];
            let weight = |class: u8| -> f32 {
                corners
                    .iter()
                    .zip(weights)
                    .filter(|(corner, _)| **corner == class)
                    .map(|(_, weight)| weight)
                    .sum()
            };
            let same = corners.iter().all(|corner| *corner == corners[0]);
            let best = match same {
                true => corners[0],
                false => {
                    corners.into_iter().max_by(|a, b| weight(*a).total_cmp(&weight(*b))).unwrap_or(corners[0])
                }
            };
            classes.push(best);
        }
    }
    classes
}

/// The two samples of a row of `from` around sample `at` of a row of `to`, and its fractional distance from the first.
fn neighbors(at: u32, to: u32, from: u32) -> (u32, u32, f32) {
    let place = ((at as f32 + 0.5) * from as f32 / to as f32 - 0.5).clamp(0.0, (from - 1) as f32);
    let low = place as u32;
    (low, (low + 1).min(from - 1), place - low as f32)
}

/// A class in the legend, with its position.
#[derive(Debug, Clone, PartialEq)]
struct LegendEntry {
    class: u16,
    text: String,
    percent: String,
    x: u32,
    row: u32,
}

/// Arranges the classes above [`LEGEND_SHARE`] in rows of `width`, in columns of equal width.
fn legend(shares: &[Share], width: u32) -> Vec<LegendEntry> {
    let named: Vec<&Share> = shares.iter().filter(|share| share.share > LEGEND_SHARE).collect();
    let percent = |share: &Share| percent(share.share);
    let need = |share: &&Share| {
        SWATCH + 8 + Face::Plain.width(&share.label) + 9 + Face::Strong.width(&percent(share)) + 22
    };
    let inner = width - 2 * PAD;
    let column = named.iter().map(need).max().unwrap_or(inner).min(inner);
    let columns = (inner / column).max(1);
    let entries = named.into_iter().zip(0u32..).map(|(share, place)| {
        let percent = percent(share);
        let room = column.saturating_sub(SWATCH + 8 + 9 + Face::Strong.width(&percent));
        LegendEntry {
            class: share.index,
            text: Face::Plain.fit(&share.label, room),
            percent,
            x: PAD + place % columns * column,
            row: place / columns,
        }
    });
    entries.collect()
}

impl LegendEntry {
    fn draw(&self, canvas: &mut Canvas, top: u32, colours: &[Colour; 256]) {
        let y = top + self.row * ROW;
        let line = y + (ROW - Face::Plain.height()) / 2;
        canvas.block(self.x, y + (ROW - SWATCH) / 2, SWATCH, SWATCH, colours[usize::from(self.class) % 256]);
        let x = self.x + SWATCH + 8;
        canvas.text(x, line, Face::Plain, BRIGHT, &self.text);
        canvas.text(x + Face::Plain.width(&self.text) + 9, line, Face::Plain, DIM, &self.percent);
    }
}

/// Draws the title line: the best class on the left, the file's name on the right.
fn caption(canvas: &mut Canvas, name: &str, score: Option<&ClassScore>) {
    let (line, inner) = (PAD / 2, canvas.width() - 2 * PAD);
    let mut used = 0;
    if let Some(score) = score {
        let percent = format!(" {}", percent(score.probability));
        let label = Face::Title.fit(&score.label, inner.saturating_sub(Face::Title.width(&percent)));
        canvas.text(PAD, line, Face::Title, BRIGHT, &label);
        canvas.text(PAD + Face::Title.width(&label), line, Face::Title, DIM, &percent);
        used = Face::Title.width(&label) + Face::Title.width(&percent) + 2 * PAD;
    }
    let name = Face::Plain.fit(name, inner.saturating_sub(used));
    if name.chars().count() > 4 || used == 0 {
        canvas.text(PAD + inner - Face::Plain.width(&name), line + 1, Face::Plain, DIM, &name);
    }
}

/// Draws a bar for each class.
fn bars(canvas: &mut Canvas, top: u32, scores: &[ClassScore]) {
    let inner = canvas.width() - 2 * PAD;
    let longest = scores.iter().map(|score| Face::Plain.width(&score.label)).max().unwrap_or(0);
    let (label, number) = (longest.min(inner / 2), Face::Strong.width("100 %"));
    let room = inner.saturating_sub(label + number + 2 * PAD);
    for (score, row) in scores.iter().zip(0u32..) {
        let y = top + row * ROW;
        let line = y + (ROW - Face::Plain.height()) / 2;
        let face = if row == 0 { Face::Strong } else { Face::Plain };
        canvas.text(PAD, line, face, if row == 0 { BRIGHT } else { DIM }, &face.fit(&score.label, label));
        let x = PAD + label + PAD;
        canvas.block(x, y + 7, room, ROW - 14, GROOVE);
        let filled = (f64::from(room) * score.probability.clamp(0.0, 1.0)).round() as u32;
        canvas.block(x, y + 7, filled.max(2), ROW - 14, BAR);
        let text = percent(score.probability);
        canvas.text(PAD + inner - face.width(&text), line, face, BRIGHT, &text);
    }
}

fn percent(share: f64) -> String {
    match share * 100.0 {
        small if small < 0.5 => "<1 %".to_owned(),
        whole => format!("{whole:.0} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(index: u16, label: &str, share: f64) -> Share {
        Share { index, label: label.into(), share }
    }

    #[test]
    fn the_legend_lists_large_classes_in_columns_that_fit() {
        let shares =
            [share(3, "road", 0.5), share(1, "building", 0.3), share(0, "sky", 0.19), share(2, "pole", 0.01)];
        let entries = legend(&shares, 480);
        let names: Vec<_> =
            entries.iter().map(|entry| (entry.text.as_str(), entry.percent.as_str(), entry.row)).collect();
        assert_eq!(names, [("road", "50 %", 0), ("building", "30 %", 0), ("sky", "19 %", 1)]);
        assert_eq!(entries[0].x, entries[2].x);
        for entry in legend(&[share(0, &"long ".repeat(40), 1.0)], 320) {
            assert!(
                entry.x
                    + SWATCH
                    + 8
                    + Face::Plain.width(&entry.text)
                    + 9
                    + Face::Strong.width(&entry.percent)
                    <= 320
            );
        }
    }

    #[test]
    fn an_empty_map_has_an_empty_legend() {
        assert!(legend(&[], 320).is_empty());
    }

    #[test]
    fn pictures_keep_the_aspect_ratio() {
        assert_eq!(scaled(4000.0, 3000.0), (960, 720));
        assert_eq!(scaled(100.0, 100.0), (720, 720));
        assert_eq!(scaled(1920.0, 1080.0), (960, 540));
        assert_eq!(scaled(10.0, 10_000.0), (320, 720));
    }

    #[test]
    fn resizing_keeps_classes_and_smooths_a_diagonal() {
        let colours = palette(std::iter::empty());
        let pixels = [1, 1, 2, 1, 2, 2, 2, 2, 2];
        let map = Map { width: 3, height: 3, pixels: &pixels, colours: &colours, shares: &[] };
        assert_eq!(resize_map(map, 3, 3), pixels);
        let large = resize_map(map, 30, 30);
        assert!(large.iter().all(|class| [1, 2].contains(class)));
        assert_eq!((large[0], large[899]), (1, 2));
        let rows: Vec<usize> =
            large.chunks(30).map(|row| row.iter().filter(|class| **class == 1).count()).collect();
        assert!(rows.windows(2).filter(|pair| pair[0] != pair[1]).count() > 4, "steps: {rows:?}");
    }

    #[test]
    fn the_mask_is_indexed_and_holds_the_classes() {
        let colours = palette([Some([70, 130, 180]), None].into_iter());
        let map = Map { width: 3, height: 2, pixels: &[0, 1, 2, 2, 1, 0], colours: &colours, shares: &[] };
        let bytes = mask(map).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
        assert_eq!(reader.info().color_type, png::ColorType::Indexed);
        assert_eq!(reader.info().palette.as_deref().unwrap()[..3], [70, 130, 180]);
        let mut pixels = vec![0; 6];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, map.pixels);
    }

    #[test]
    fn colours_that_are_not_given_differ() {
        let mut colours = palette(std::iter::empty())[..24].to_vec();
        colours.sort_unstable();
        colours.dedup();
        assert_eq!(colours.len(), 24);
    }
}
