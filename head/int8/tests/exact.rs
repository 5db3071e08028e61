//! Every implementation against the formula in 64-bit integers, over shapes, strides, pads, channel tails and
//! extreme values.

#![allow(clippy::unwrap_used, reason = "a test helper fails by panicking")]

use narrows_int8::{Add, Conv, ConvKind, ConvSpec, Isa, Output, Pads, Requant, Scratch, Term};
use proptest::prelude::*;

#[derive(Debug, Clone)]
struct Case {
    spec: ConvSpec,
    size: (usize, usize),
    input: Vec<u8>,
    mults: Vec<f32>,
    zero: u8,
}

/// Accumulators as section 4 of BUNDLE.md writes them, padding included.
fn reference(case: &Case) -> Vec<i64> {
    let ConvSpec { kind, in_channels, out_channels, kernel, stride, pads, .. } = case.spec;
    let (height, width) = case.size;
    let tall = (height + pads.top + pads.bottom - kernel[0]) / stride[0] + 1;
    let wide = (width + pads.left + pads.right - kernel[1]) / stride[1] + 1;
    let zero = i64::from(case.spec.input_zero);
    let pixel = |y: usize, x: usize, c: usize| {
        let (y, x) = (y.wrapping_sub(pads.top), x.wrapping_sub(pads.left));
        if y < height && x < width { i64::from(case.input[(y * width + x) * in_channels + c]) } else { zero }
    };
    let per_output = if kind == ConvKind::Dense { in_channels } else { 1 };
    let mut accumulators = Vec::new();
    for y in 0..tall {
        for x in 0..wide {
            for o in 0..out_channels {
                let mut sum = i64::from(case.spec.bias[o]);
                for i in 0..per_output {
                    for ky in 0..kernel[0] {
                        for kx in 0..kernel[1] {
                            let c = if kind == ConvKind::Dense { i } else { o };
                            let w =
                                case.spec.weights[((o * per_output + i) * kernel[0] + ky) * kernel[1] + kx];
                            let x = pixel(y * stride[0] + ky, x * stride[1] + kx, c);
                            sum += (x - zero) * i64::from(w);
                        }
                    }
                }
                accumulators.push(sum);
            }
        }
    }
    accumulators
}

/// Narrowing as section 4 writes it, in the type's own range.
fn narrow<T: Output>(accumulators: &[i64], mults: &[f32], zero: T) -> Vec<i64> {
    let each = |(i, &acc): (usize, &i64)| {
        let value = (acc as f32 * mults[i % mults.len()]).round_ties_even();
        let (zero, low, high): (i32, i32, i32) = (zero.into(), T::MIN.into(), T::MAX.into());
        (f64::from(value) + f64::from(zero)).clamp(f64::from(low), f64::from(high)) as i64
    };
    accumulators.iter().enumerate().map(each).collect()
}

fn check(case: &Case, scratch: &mut Scratch) {
    let (height, width) = case.size;
    let expected = reference(case);
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
        let conv = Conv::new(&case.spec, isa).unwrap();
        let (tall, wide) = conv.output_size(height, width).unwrap();
        assert_eq!(tall * wide * case.spec.out_channels, expected.len());

        let mut acc = vec![0; expected.len()];
        conv.accumulate(&case.input, height, width, &mut acc, scratch).unwrap();
        assert!(acc.iter().map(|&a| i64::from(a)).eq(expected.iter().copied()), "{isa} accumulators");

        check_output(case, &conv, &expected, &acc, case.zero, scratch);
        check_output(case, &conv, &expected, &acc, case.zero as i8, scratch);
        check_output(case, &conv, &expected, &acc, i16::from(case.zero) * 100, scratch);
    }
}

fn check_output<T: Output + std::fmt::Debug + PartialEq>(
    case: &Case,
    conv: &Conv,
    expected: &[i64],
    acc: &[i32],
    zero: T,
    scratch: &mut Scratch,
) {
    let requant = Requant::new(&case.mults, zero).unwrap();
    let expected = narrow(expected, &case.mults, zero);
    let mut output = vec![zero; expected.len()];
    conv.run(&case.input, case.size.0, case.size.1, &requant, &mut output, scratch).unwrap();
    assert!(output.iter().map(|&y| i64::from(y.into())).eq(expected), "{} outputs", conv.isa());
    let mut again = vec![zero; output.len()];
    requant.run(conv.isa(), acc, &mut again).unwrap();
    assert_eq!(output, again, "{} narrowing alone", conv.isa());
}

fn values<T: std::fmt::Debug + Clone + 'static>(
    length: usize,
    any: impl Strategy<Value = T> + 'static,
    ends: [T; 2],
) -> BoxedStrategy<Vec<T>> {
    let [low, high] = ends;
    prop_oneof![
        4 => prop::collection::vec(any, length),
        1 => Just(vec![low.clone(); length]),
        1 => Just(vec![high.clone(); length]),
        1 => prop::collection::vec(prop_oneof![Just(low), Just(high)], length),
    ]
    .boxed()
}

fn case(kind: ConvKind) -> impl Strategy<Value = Case> {
    let shape = (1..40_usize, 1..70_usize, 1..6_usize, 1..6_usize, 1..4_usize, 1..4_usize);
    let pads = (0..6_usize, 0..6_usize, 0..6_usize, 0..6_usize);
    (shape, pads, 1..9_usize, 1..20_usize, any::<u8>(), any::<u8>()).prop_flat_map(move |drawn| {
        let ((inputs, outputs, tall, wide, down, right), pads, height, width, input_zero, zero) = drawn;
        let outputs = if kind == ConvKind::Dense { outputs } else { inputs };
        let per_output = if kind == ConvKind::Dense { inputs } else { 1 };
        let pads =
            Pads { top: pads.0 % tall, left: pads.1 % wide, bottom: pads.2 % tall, right: pads.3 % wide };
        let size = (height + tall, width + wide);
        let input = values(size.0 * size.1 * inputs, any::<u8>(), [0, 255]);
        let weights = values(outputs * per_output * tall * wide, any::<i8>(), [-128, 127]);
        let bias = values(outputs, -100_000..100_000_i32, [-(1 << 30), 1 << 30]);
        let mults = prop::collection::vec(prop_oneof![1e-6..1e-2_f32, 1e-3..2.0_f32], outputs);
        (input, weights, bias, mults).prop_map(move |(input, weights, bias, mults)| Case {
            spec: ConvSpec {
                kind,
                in_channels: inputs,
                out_channels: outputs,
                kernel: [tall, wide],
                stride: [down, right],
                pads,
                input_zero,
                weights,
                bias,
            },
            size,
            input,
            mults,
            zero,
        })
    })
}

fn cases() -> ProptestConfig {
    ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    #[cfg_attr(miri, ignore = "takes hours")]
    fn dense_layers_are_exact(case in case(ConvKind::Dense)) {
        check(&case, &mut Scratch::default());
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes hours")]
    fn depthwise_layers_are_exact(case in case(ConvKind::Depthwise)) {
        check(&case, &mut Scratch::default());
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes hours")]
    fn narrowing_is_exact(
        acc in prop::collection::vec(prop_oneof![any::<i32>(), -1000..1000], 1..60),
        mult in prop_oneof![Just(0.5_f32), Just(0.25), Just(f32::MIN_POSITIVE), Just(f32::MAX), 1e-9..1.0_f32],
        zero in any::<i16>(),
    ) {
        let wide: Vec<i64> = acc.iter().map(|&a| i64::from(a)).collect();
        let requant = Requant::new(&[mult], zero).unwrap();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
            let mut output = vec![0; acc.len()];
            requant.run(isa, &acc, &mut output).unwrap();
            prop_assert!(output.iter().map(|&y| i64::from(y)).eq(narrow(&wide, &[mult], zero)), "{}", isa);
        }
    }
}

fn term() -> impl Strategy<Value = Term> {
    let mult = prop_oneof![Just(0.5_f32), Just(1.0), Just(f32::MIN_POSITIVE), Just(65536.0), 1e-3..4.0_f32];
    (any::<u8>(), mult).prop_map(|(zero, mult)| Term { zero, mult })
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    #[cfg_attr(miri, ignore = "takes hours")]
    fn sums_are_exact(
        pairs in prop::collection::vec((any::<u8>(), any::<u8>()), 0..60),
        a in term(),
        b in term(),
        zero in any::<u8>(),
    ) {
        let (left, right): (Vec<u8>, Vec<u8>) = pairs.iter().copied().unzip();
        // Differences are whole and products in f64 exact, so each `as f32` is the one rounding of section 9.
        let scaled = |x: u8, term: Term| {
            ((f64::from(x) - f64::from(term.zero)) * f64::from(term.mult)) as f32
        };
        let expected = pairs.iter().map(|&(x, y)| {
            let sum = (f64::from(scaled(x, a)) + f64::from(scaled(y, b))) as f32;
            (f64::from(sum.round_ties_even()) + f64::from(zero)).clamp(0.0, 255.0) as u8
        });
        let expected: Vec<u8> = expected.collect();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
            let mut output = vec![0; pairs.len()];
            Add::new(a, b, zero, isa).unwrap().run(&left, &right, &mut output).unwrap();
            prop_assert_eq!(&output, &expected, "{}", isa);
        }
    }
}

/// A convolution of EfficientNet-Lite0 at 224x224: channels, kernel, stride, and the side of its input.
type Lite0 = (ConvKind, usize, usize, usize, usize, usize);

/// Every shape that whole-network layers have and heads have not: SAME padding is lopsided where the stride is 2.
const LITE0: [Lite0; 12] = [
    (ConvKind::Dense, 3, 32, 3, 2, 224),
    (ConvKind::Depthwise, 96, 96, 3, 2, 112),
    (ConvKind::Depthwise, 144, 144, 5, 2, 56),
    (ConvKind::Depthwise, 240, 240, 5, 1, 28),
    (ConvKind::Depthwise, 240, 240, 3, 2, 28),
    (ConvKind::Depthwise, 672, 672, 5, 1, 14),
    (ConvKind::Depthwise, 672, 672, 5, 2, 14),
    (ConvKind::Dense, 144, 24, 1, 1, 56),
    (ConvKind::Dense, 1152, 320, 1, 1, 7),
    (ConvKind::Dense, 320, 1280, 1, 1, 7),
    (ConvKind::Depthwise, 1280, 1280, 7, 7, 7),
    (ConvKind::Dense, 1280, 1000, 1, 1, 1),
];

#[test]
#[cfg_attr(miri, ignore = "takes hours")]
fn whole_network_shapes_equal_the_portable_kernels() {
    let mut scratch = Scratch::default();
    for (kind, inputs, outputs, kernel, stride, side) in LITE0 {
        let per_output = if kind == ConvKind::Dense { inputs } else { 1 };
        let noise = |i: usize| (i.wrapping_mul(2_654_435_761) >> 9) as u8;
        let total = ((side.div_ceil(stride) - 1) * stride + kernel).saturating_sub(side);
        let (before, after) = (total / 2, total - total / 2);
        let spec = ConvSpec {
            kind,
            in_channels: inputs,
            out_channels: outputs,
            kernel: [kernel; 2],
            stride: [stride; 2],
            pads: Pads { top: before, left: before, bottom: after, right: after },
            input_zero: 128,
            weights: (0..outputs * per_output * kernel * kernel).map(|i| noise(i) as i8).collect(),
            bias: (0..outputs).map(|o| o as i32 * 37 - 5000).collect(),
        };
        let input: Vec<u8> = (0..side * side * inputs).map(|i| noise(i + 5)).collect();
        let mut run = |isa: Isa| {
            let conv = Conv::new(&spec, isa).unwrap();
            let (tall, wide) = conv.output_size(side, side).unwrap();
            assert_eq!((tall, wide), (side.div_ceil(stride), side.div_ceil(stride)));
            let mut output = vec![0; tall * wide * outputs];
            conv.accumulate(&input, side, side, &mut output, &mut scratch).unwrap();
            output
        };
        let expected = run(Isa::Portable);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
            assert!(run(isa) == expected, "{isa}: {kind:?} {inputs}->{outputs}, {kernel} by {stride}");
        }
    }
}

/// The shapes of a head: patchify, depthwise, pointwise, and a 3x3 with stride.
#[test]
fn head_shapes_share_one_scratch() {
    let shapes = [
        (ConvKind::Dense, 3, 96, 8, 8, 0),
        (ConvKind::Depthwise, 96, 96, 3, 1, 1),
        (ConvKind::Dense, 96, 24, 1, 1, 0),
        (ConvKind::Dense, 12, 20, 3, 2, 1),
        (ConvKind::Depthwise, 24, 24, 5, 2, 2),
        (ConvKind::Dense, 7, 8, 1, 2, 0),
    ];
    let side = if cfg!(miri) { 8 } else { 48 };
    let mut scratch = Scratch::default();
    for (kind, inputs, outputs, kernel, stride, pad) in shapes {
        let few = |channels: usize| if cfg!(miri) { channels.min(9) } else { channels };
        let (inputs, outputs) = (few(inputs), few(outputs));
        let per_output = if kind == ConvKind::Dense { inputs } else { 1 };
        let noise = |i: usize| (i.wrapping_mul(2_654_435_761) >> 7) as u8;
        let case = Case {
            spec: ConvSpec {
                kind,
                in_channels: inputs,
                out_channels: outputs,
                kernel: [kernel; 2],
                stride: [stride; 2],
                pads: Pads { top: pad, left: pad, bottom: pad, right: pad },
                input_zero: 3,
                weights: (0..outputs * per_output * kernel * kernel).map(|i| noise(i) as i8).collect(),
                bias: (0..outputs).map(|o| o as i32 * 1000 - 5000).collect(),
            },
            size: (side, side + 8),
            input: (0..side * (side + 8) * inputs).map(|i| noise(i + 5)).collect(),
            mults: (0..outputs).map(|o| 1e-4 * (o + 1) as f32).collect(),
            zero: 11,
        };
        check(&case, &mut scratch);
    }
}
