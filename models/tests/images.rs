//! Files as cameras, boards and phones deliver them (tests/inputs), whole, cut and filled up.

use std::{fs, path::Path};

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use narrows_models::image::{ImageFault, RgbImage, decode};

const END_OF_IMAGE: &[u8] = b"\xff\xd9";

fn input(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/inputs");
    fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A file of the plain picture without its end marker, and its pixels.
fn plain() -> (Vec<u8>, RgbImage) {
    let file = input("a-plain.jpg");
    let pixels = decode(&file).expect("the plain picture is read");
    (file.strip_suffix(END_OF_IMAGE).expect("it has an end marker").to_vec(), pixels)
}

/// Mean absolute difference of two images.
fn difference(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let sum: u64 = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / a.as_raw().len() as f64
}

/// Where the data of the first scan begins.
fn scan(file: &[u8]) -> usize {
    let header = file.windows(2).position(|pair| pair == [0xff, 0xda]).expect("it has a scan");
    header + 2 + usize::from(file[header + 3])
}

#[test]
fn what_surrounds_a_picture_does_not_change_it() {
    let (_, plain) = plain();
    for name in ["d-leading-crlf.jpg", "d-zero-padded.jpg", "f-photo.JPE", "f-photo.jfif"] {
        assert_eq!(decode(&input(name)).unwrap(), plain, "{name}");
    }
    let trailer =
        [input("a-plain.jpg"), b"SEFH\x01\0\0\0 vendor data \xff\xd8\xff\xe1 preview".to_vec()].concat();
    assert_eq!(decode(&trailer).unwrap(), plain);
}

#[test]
fn frames_of_webcams_without_tables_are_read_with_the_standard_ones() {
    let (_, plain) = plain();
    let avi = decode(&input("c-mjpeg-nodht-avi1.jpg")).unwrap();
    for name in ["c-mjpeg-nodht-jfif.jpg", "c-mjpeg-nodht-none.jpg"] {
        assert_eq!(decode(&input(name)).unwrap(), avi, "{name}");
    }
    assert!(difference(&avi, &plain) < 4.0, "{}", difference(&avi, &plain));
}

#[test]
fn a_complete_scan_without_an_end_marker_is_read() {
    let (open, plain) = plain();
    let ends = [&b""[..], b"\xff", b"\0", &[0; 700], &[0xff; 9]];
    for end in ends {
        assert_eq!(decode(&[&open[..], end].concat()).unwrap(), plain, "{end:x?}");
    }
    for name in ["c-mjpeg-nodht-none.jpg", "m-411.jpg", "e-exif6.jpg", "b-cmyk-adobe-k.jpg"] {
        let file = input(name);
        let open = file.strip_suffix(END_OF_IMAGE).unwrap();
        assert_eq!(decode(open).unwrap(), decode(&file).unwrap(), "{name}");
    }
}

#[test]
fn a_truncated_picture_is_refused_wherever_it_is_cut() {
    assert!(matches!(decode(&input("d-truncated-60pct.jpg")), Err(ImageFault::Truncated)));
    let (open, _) = plain();
    let scan = scan(&open);
    let last = open.len() - 1;
    for keep in (scan..last).step_by(97).chain(last - 8..=last) {
        let cut = &open[..keep];
        let zeros = [cut, &vec![0; open.len() - keep + 100]].concat();
        for (file, what) in [
            (cut.to_vec(), "cut"),
            ([cut, END_OF_IMAGE].concat(), "cut and given an end marker"),
            (zeros, "cut and filled with zeros"),
        ] {
            let decoded = decode(&file);
            // A single missing code may be one of zeros, so the last bytes are only cut.
            if keep + 64 > last && what == "cut and filled with zeros" {
                continue;
            }
            assert!(matches!(decoded, Err(ImageFault::Truncated)), "{what} at {keep} of {last}: {decoded:?}");
        }
    }
    for keep in 0..scan {
        assert!(decode(&open[..keep]).is_err(), "{keep}");
    }
}

/// The plain picture as other encoders and settings write it, with the settings' name.
fn encoded() -> Vec<(String, Vec<u8>)> {
    let (_, pixels) = plain();
    let (width, height) = (pixels.width() as u16, pixels.height() as u16);
    let grey: Vec<u8> = pixels.pixels().map(|pixel| pixel[1]).collect();
    let mut files = Vec::new();
    for sampling in
        [SamplingFactor::F_1_1, SamplingFactor::F_2_1, SamplingFactor::F_2_2, SamplingFactor::F_4_1]
    {
        for (progressive, restart, optimized) in
            [(false, 0, false), (false, 7, false), (false, 0, true), (false, 1, false), (true, 0, true)]
        {
            for (pixels, colour) in [(pixels.as_raw(), ColorType::Rgb), (&grey, ColorType::Luma)] {
                let mut file = Vec::new();
                let mut encoder = Encoder::new(&mut file, 80);
                encoder.set_sampling_factor(sampling);
                encoder.set_progressive(progressive);
                encoder.set_restart_interval(restart);
                encoder.set_optimized_huffman_tables(optimized);
                encoder.encode(pixels, width, height, colour).expect("the picture is encoded");
                let progressive = if progressive { "progressive" } else { "sequential" };
                files.push((format!("{sampling:?} {colour:?} {progressive} {restart} {optimized}"), file));
            }
        }
    }
    files
}

#[test]
fn pictures_of_every_setting_are_read_whole_and_refused_where_they_are_cut() {
    for (name, file) in encoded() {
        let whole = decode(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        let open = file.strip_suffix(END_OF_IMAGE).unwrap();
        match name.contains("progressive") {
            // What is missing may be finer detail; only the end marker tells.
            true => assert!(matches!(decode(open), Err(ImageFault::Truncated)), "{name}"),
            false => assert_eq!(decode(open).ok().as_ref(), Some(&whole), "{name}"),
        }
        let scan = scan(open);
        for keep in (scan..open.len()).step_by(open.len() / 23).chain([open.len() - 40]) {
            assert!(matches!(decode(&open[..keep]), Err(ImageFault::Truncated)), "{name}: {keep}");
            let ended = [&open[..keep], END_OF_IMAGE].concat();
            let decoded = decode(&ended);
            assert!(name.contains("progressive") || decoded.is_err(), "{name}: {keep} of {}", open.len());
        }
    }
}

#[test]
fn no_damaged_byte_makes_the_decoder_panic() {
    let (open, _) = plain();
    let file = [&open[..], END_OF_IMAGE].concat();
    for place in (0..scan(&file)).chain((scan(&file)..file.len()).step_by(211)) {
        for value in [0, 0xff, file[place] ^ 0x10] {
            let mut damaged = file.clone();
            damaged[place] = value;
            assert!(!matches!(decode(&damaged), Err(ImageFault::Panic(_))), "{value:#x} at {place}");
        }
    }
}

#[test]
fn what_is_not_read_is_named() {
    for (name, word) in [
        ("g-heic-named.jpg", "a HEIC image"),
        ("g-photo.heic", "a HEIC image"),
        ("g-html-named.jpg", "an HTML page"),
    ] {
        let fault = decode(&input(name)).unwrap_err();
        assert!(
            matches!(fault, ImageFault::Format(_)) && fault.to_string().contains(word),
            "{name}: {fault}"
        );
    }
    let fault = decode(&input("m-arithmetic.jpg")).unwrap_err().to_string();
    assert!(fault.contains("arithmetic codes"), "{fault}");
    let fault = decode(&[7; 3000]).unwrap_err().to_string();
    assert!(fault.contains("07 07 07"), "{fault}");
}

#[test]
fn pictures_of_other_samplings_depths_and_orientations_are_read() {
    for (name, size) in [
        ("b-cmyk-adobe-k.jpg", (400, 400)),
        ("e-exif6.jpg", (400, 266)),
        ("i-rgb16.png", (120, 90)),
        ("j-alpha-hidden-magenta.png", (200, 200)),
        ("m-411.jpg", (397, 263)),
    ] {
        assert_eq!(decode(&input(name)).unwrap().dimensions(), size, "{name}");
    }
}
