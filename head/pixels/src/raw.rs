//! Frames that are not compressed, as planes.

use fearless_simd::{Level, dispatch};
use narrows_models::Geometry;
use narrows_video::{Raw, Sampling};

use crate::planes::{FRACTION, GROUP, Plane, Planes, shown};

impl Planes {
    /// Takes what the inputs of `views` show of a frame that is not compressed, in place of what they hold.
    pub fn set_raw(&mut self, raw: &Raw, views: &[Geometry]) {
        let format = raw.format();
        let layout = format.layout;
        let (width, height) = (layout.width(), layout.height());
        (self.width, self.height, self.colour) = (width, height, format.colour);
        self.views = views.to_vec();
        self.count = if layout.sampling() == Sampling::Grey { 1 } else { 3 };
        let level = Level::new();
        let (brightness, colours) = raw.planes();
        let frame = (width as usize, height as usize);
        self.planes[0].show((width, height), (1.0, 1.0), frame, views);
        let stride = layout.stride() as usize;
        dispatch!(level, _simd => fill(&mut self.planes[0], brightness, stride));
        let (across, down) = match layout.sampling() {
            Sampling::Grey => return,
            Sampling::I420 | Sampling::Nv12 => (2, 2),
            Sampling::I422 => (2, 1),
            _ => (1, 1),
        };
        let size = (frame.0.div_ceil(across), frame.1.div_ceil(down));
        let scale = (1.0 / across as f64, 1.0 / down as f64);
        let [_, u, v] = &mut self.planes;
        u.show((width, height), scale, size, views);
        v.show((width, height), scale, size, views);
        let stride = layout.colour_stride() as usize;
        if layout.sampling() == Sampling::Nv12 {
            dispatch!(level, _simd => fill_pairs(u, v, colours, stride));
        } else {
            let (us, vs) = colours.split_at(stride * size.1);
            dispatch!(level, _simd => fill(u, us, stride));
            dispatch!(level, _simd => fill(v, vs, stride));
        }
    }
}

impl Plane {
    /// Makes room for what the inputs of `views` are made of, of a plane of this `size`.
    fn show(&mut self, frame: (u32, u32), scale: (f64, f64), size: (usize, usize), views: &[Geometry]) {
        let (columns, rows) = shown(views, frame, scale, size);
        (self.left, self.top) = (columns.start, rows.start);
        (self.stride, self.step) = (columns.len().next_multiple_of(GROUP), 1);
        ((self.columns, self.rows), (self.across, self.down)) = (size, scale);
        self.held = (columns.len(), rows.len());
        self.make_room(rows.len());
    }
}

/// Takes a plane's part of rows of bytes that are `stride` apart.
#[inline(always)]
fn fill(plane: &mut Plane, bytes: &[u8], stride: usize) {
    let (columns, rows) = plane.held;
    for row in 0..rows {
        let bytes = &bytes[(plane.top + row) * stride + plane.left..][..columns];
        let samples = &mut plane.samples[row * plane.stride..][..plane.stride];
        let (groups, rest) = bytes.as_chunks::<GROUP>();
        let (to, last) = samples.as_chunks_mut::<GROUP>().0.split_at_mut(groups.len());
        for (to, bytes) in to.iter_mut().zip(groups) {
            convert(to, *bytes);
        }
        if let [last, ..] = last {
            let mut group = [0; GROUP];
            group[..rest.len()].copy_from_slice(rest);
            convert(last, group);
        }
    }
}

/// Takes the parts of two planes whose bytes lie in pairs.
#[inline(always)]
fn fill_pairs(first: &mut Plane, second: &mut Plane, bytes: &[u8], stride: usize) {
    let (columns, rows) = first.held;
    for row in 0..rows {
        let bytes = &bytes[(first.top + row) * stride + 2 * first.left..][..2 * columns];
        let at = row * first.stride;
        let firsts = first.samples[at..][..first.stride].chunks_exact_mut(GROUP);
        let seconds = second.samples[at..][..first.stride].chunks_exact_mut(GROUP);
        let (groups, rest) = bytes.as_chunks::<{ 2 * GROUP }>();
        for ((firsts, seconds), bytes) in firsts.zip(seconds).zip(groups) {
            for lane in 0..GROUP {
                firsts[lane] = sample(bytes[2 * lane]);
                seconds[lane] = sample(bytes[2 * lane + 1]);
            }
        }
        for (lane, pair) in (at + groups.len() * GROUP..).zip(rest.chunks_exact(2)) {
            (first.samples[lane], second.samples[lane]) = (sample(pair[0]), sample(pair[1]));
        }
    }
}

#[inline(always)]
fn convert(samples: &mut [i16; GROUP], bytes: [u8; GROUP]) {
    // Of a copy, so that nothing that is written may be what is read.
    for (to, byte) in samples.iter_mut().zip(bytes) {
        *to = sample(byte);
    }
}

#[inline(always)]
fn sample(byte: u8) -> i16 {
    (i16::from(byte) - 128) << FRACTION
}
