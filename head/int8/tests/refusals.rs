//! Layers and buffers that must be refused, each by its own error.

use narrows_int8::{Add, Conv, ConvKind, ConvSpec, Error, Isa, Pads, Requant, Scratch, Term};

fn spec() -> ConvSpec {
    ConvSpec {
        kind: ConvKind::Dense,
        in_channels: 2,
        out_channels: 3,
        kernel: [3, 3],
        stride: [1, 1],
        pads: Pads::default(),
        input_zero: 128,
        weights: vec![1; 54],
        bias: vec![0; 3],
    }
}

#[test]
fn accumulator_that_could_overflow_is_refused() {
    // 18 weights of 1 reach 18 * 255 = 4590.
    let bias = i32::MAX - 4590;
    assert!(Conv::new(&ConvSpec { bias: vec![0, bias, -bias], ..spec() }, Isa::Portable).is_ok());
    let error = Conv::new(&ConvSpec { bias: vec![0, bias + 1, 0], ..spec() }, Isa::Portable).unwrap_err();
    assert_eq!(error, Error::Overflow { channel: 1, bound: 1 << 31 });
    let lowest = ConvSpec { bias: vec![i32::MIN; 3], weights: vec![0; 54], ..spec() };
    assert!(matches!(Conv::new(&lowest, Isa::Portable), Err(Error::Overflow { channel: 0, .. })));
}

#[test]
fn extreme_accumulator_is_reached_without_wrapping() {
    let bias = i32::MAX - 18 * 128 * 255 - 18 * 127 * 255;
    let low = ConvSpec { weights: vec![-128; 54], input_zero: 0, bias: vec![-bias; 3], ..spec() };
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
        let conv = Conv::new(&low, isa).unwrap();
        let mut acc = [0; 3];
        conv.accumulate(&[255; 18], 3, 3, &mut acc, &mut Scratch::default()).unwrap();
        assert_eq!(acc, [-bias - 18 * 128 * 255; 3]);
    }
}

#[test]
fn lengths_and_dimensions_are_checked() {
    let refused = |spec: ConvSpec| Conv::new(&spec, Isa::Portable).unwrap_err();
    assert!(matches!(
        refused(ConvSpec { weights: vec![1; 53], ..spec() }),
        Error::Length { what: "weights", .. }
    ));
    assert!(matches!(refused(ConvSpec { bias: vec![1; 4], ..spec() }), Error::Length { what: "bias", .. }));
    assert!(matches!(refused(ConvSpec { stride: [0, 1], ..spec() }), Error::Dimension { value: 0, .. }));
    assert!(matches!(refused(ConvSpec { kernel: [3, 65], ..spec() }), Error::Dimension { value: 65, .. }));
    assert!(matches!(refused(ConvSpec { in_channels: 0, ..spec() }), Error::Dimension { value: 0, .. }));
    let pads = Pads { left: 3, ..Pads::default() };
    assert!(matches!(refused(ConvSpec { pads, ..spec() }), Error::Dimension { what: "left padding", .. }));
    assert_eq!(
        refused(ConvSpec { kind: ConvKind::Depthwise, ..spec() }),
        Error::Depthwise { inputs: 2, outputs: 3 }
    );
}

#[test]
fn buffers_are_checked() {
    let conv = Conv::new(&spec(), Isa::detect()).unwrap();
    let mut scratch = Scratch::default();
    let mut run = |input: usize, (height, width), output: usize| {
        conv.accumulate(&vec![0; input], height, width, &mut vec![0; output], &mut scratch)
    };
    assert_eq!(run(32, (4, 4), 12), Ok(()));
    assert!(matches!(run(31, (4, 4), 12), Err(Error::Length { what: "input", expected: 32, .. })));
    assert!(matches!(run(32, (4, 4), 13), Err(Error::Length { what: "output", expected: 12, .. })));
    assert_eq!(run(4, (2, 1), 1), Err(Error::Small { height: 2, width: 1 }));
    assert!(matches!(run(0, (0, 4), 0), Err(Error::Dimension { what: "input height", .. })));
    assert!(matches!(run(0, (usize::MAX, 4), 0), Err(Error::Dimension { .. })));
    let requant = Requant::<u8>::new(&[1.0; 2], 0).unwrap();
    let mut output = [0; 12];
    let result = conv.run(&[0; 32], 4, 4, &requant, &mut output, &mut scratch);
    assert!(matches!(result, Err(Error::Length { what: "multipliers", found: 2, expected: 3 })));
}

#[test]
fn terms_and_lengths_of_a_sum_are_checked() {
    let good = Term { zero: 0, mult: 1.0 };
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE / 2.0, 65536.1] {
        let bad = Term { mult: bad, ..good };
        assert!(matches!(Add::new(bad, good, 0, Isa::Portable), Err(Error::Term { term: "a", .. })));
        assert!(matches!(Add::new(good, bad, 0, Isa::Portable), Err(Error::Term { term: "b", .. })));
    }
    let add = Add::new(good, good, 0, Isa::detect()).unwrap();
    assert!(matches!(add.run(&[1; 3], &[1; 2], &mut [0; 3]), Err(Error::Length { what: "b", .. })));
    assert!(matches!(add.run(&[1; 3], &[1; 3], &mut [0; 4]), Err(Error::Length { what: "output", .. })));
}

#[test]
fn unsupported_instructions_are_an_error() {
    for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_supported()) {
        assert_eq!(Conv::new(&spec(), isa).unwrap_err(), Error::Isa(isa));
        let requant = Requant::<u8>::new(&[1.0], 0).unwrap();
        assert_eq!(requant.run(isa, &[1], &mut [0]), Err(Error::Isa(isa)));
        let term = Term { zero: 0, mult: 1.0 };
        assert_eq!(Add::new(term, term, 0, isa), Err(Error::Isa(isa)));
    }
}
