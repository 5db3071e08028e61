//! The pixels of fixed frames, so that every processor is held to the same ones: `make test-arm` runs this on ARM as well.

use narrows_models::{Filter, Fit, Geometry};
use narrows_pixels::{Converter, JpegDecoder, Planes};
use narrows_video::Raw;

/// FNV-1a of 64 bits.
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn views() -> [Geometry; 3] {
    [
        Geometry::new("photo", (224, 224), Fit::Crop { short_side: 256 }, Filter::Bicubic),
        Geometry::new("frame", (480, 360), Fit::Stretch, Filter::Bilinear),
        Geometry::new("odd", (37, 91), Fit::Stretch, Filter::Box),
    ]
}

fn hashes(planes: &Planes) -> [u64; 3] {
    let (mut converter, mut pixels) = (Converter::default(), Vec::new());
    views().map(|view| {
        converter.fit(planes, &view, &mut pixels);
        hash(&pixels)
    })
}

#[test]
fn pixels_of_photos_are_the_same_everywhere() {
    let files: [(&[u8], [u64; 3]); 3] = [
        (
            include_bytes!("../../../bench/photos/road/traffic.jpg"),
            [0x9641_1249_dd9f_ffbd, 0x5335_9f77_0f90_1f37, 0xcf2e_56bf_a2e1_199a],
        ),
        (
            include_bytes!("../../../bench/photos/rocket.jpg"),
            [0x6687_efbc_4bf7_e90f, 0xc566_9ce4_3da6_b00f, 0xd8c7_5a8b_9ec3_dbc0],
        ),
        (
            include_bytes!("../../../bench/photos/orange.jpg"),
            [0x1dbd_4558_c0f9_6c9f, 0x7ff2_48c7_2a0f_f44b, 0x5844_8de5_ee9e_95da],
        ),
    ];
    let found = files.map(|(file, _)| {
        let mut planes = Planes::default();
        JpegDecoder::default().decode(file, &views(), &mut planes).expect("a JPEG as cameras write it");
        hashes(&planes)
    });
    assert_eq!(found, files.map(|(_, wanted)| wanted), "{found:x?}");
}

#[test]
fn pixels_of_raw_frames_are_the_same_everywhere() {
    let formats = [
        ("i420:64x48", [0x32f1_12b5_130c_2eb4, 0x8c43_f307_1056_1693, 0x865d_733e_bac8_2a9a]),
        ("i420:99x77,full", [0x707b_629f_9537_ade8, 0x6cba_3819_48e5_74a8, 0x889a_ccc9_2c8c_f6e7]),
        ("nv12:322x243,bt709", [0xf9fd_c5a8_b60f_6e2d, 0x0260_bd3f_1f94_ad69, 0x2d3d_6ed0_b0f6_03a0]),
        ("i420:641x35+704", [0x91a9_5c71_81c7_ccdf, 0x1131_8856_ab2c_e3f4, 0x474a_0368_0da7_f226]),
    ];
    let found = formats.map(|(format, _)| {
        let format: narrows_video::RawFormat = format.parse().expect("a format");
        let mut state = 1u32;
        let bytes = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        let bytes = bytes.take(format.layout.size()).collect();
        let mut planes = Planes::default();
        planes.set_raw(&Raw::new(format, bytes).expect("as many bytes as its format has"), &views());
        hashes(&planes)
    });
    assert_eq!(found, formats.map(|(_, wanted)| wanted), "{found:x?}");
}
