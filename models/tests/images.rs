//! Files as cameras, boards and phones deliver them (tests/inputs), whole, cut and filled up.

use std::{fs, path::Path};

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
