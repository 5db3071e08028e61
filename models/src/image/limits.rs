//! What is decoded at most.

/// Longest side of an image in pixels: the most that a JPEG can have.
pub const SIDE_MAX: u32 = 65_535;
/// Most pixels of an image; with the buffers of the decoder, about half a gigabyte at worst.
pub const PIXELS_MAX: u64 = 64 << 20;
/// Largest image file in bytes.
pub const FILE_MAX: u64 = 256 << 20;
/// Most scans of a JPEG. A scan of a few bytes may cover every pixel; encoders write about ten.
pub const SCANS_MAX: usize = 64;
