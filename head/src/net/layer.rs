//! A QLinearConv as integers and multipliers (BUNDLE.md, section 4).

use narrows_int8::{ConvKind, ConvSpec, Pads};

use super::constant::{Constant, Data};

/// A quantised convolution.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Layer {
    /// Name of the node.
    pub name: String,
    /// Shapes, weights and biases. s8 activations are stored as the u8 that is 128 above.
    pub spec: ConvSpec,
    /// Scale of the input.
    pub x_scale: f32,
    /// Scale of the weights, one per output channel.
    pub w_scales: Vec<f32>,
    /// Scale of the output.
    pub y_scale: f32,
    /// Zero point of the output, as stored.
    pub zero: u8,
    /// Whether the output is s8; it is then stored as the u8 that is 128 above.
    pub signed: bool,
}

impl Layer {
    /// The multipliers of the accumulators, one per output channel: `f32(f32(x_scale * w_scale[c]) / y_scale)`.
    #[must_use]
    pub fn mults(&self) -> Vec<f32> {
        self.w_scales.iter().map(|w_scale| self.x_scale * w_scale / self.y_scale).collect()
    }
}

/// The constant inputs of a QLinearConv.
pub(super) struct Parts<'a> {
    pub(super) x_scale: &'a Constant,
    pub(super) x_zero: &'a Constant,
    pub(super) w: &'a Constant,
    pub(super) w_scale: &'a Constant,
    pub(super) w_zero: &'a Constant,
    pub(super) y_scale: &'a Constant,
    pub(super) y_zero: &'a Constant,
    pub(super) bias: Option<&'a Constant>,
}

/// The attributes of a QLinearConv; `None` where one is absent.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    pub(super) kernel: Option<Vec<usize>>,
    pub(super) strides: Option<Vec<usize>>,
    pub(super) pads: Option<Vec<usize>>,
    pub(super) dilations: Option<Vec<usize>>,
    pub(super) group: Option<usize>,
}

/// Builds a layer, or returns the reason why it cannot be run exactly.
pub(super) fn build(
    name: String,
    in_channels: usize,
    in_signed: bool,
    parts: &Parts<'_>,
    attributes: &Attributes,
) -> Result<Layer, String> {
    let (Data::I8(weights), &[out_channels, per_output, height, width]) =
        (&parts.w.data, parts.w.dims.as_slice())
    else {
        return Err("the weight must be i8 of four dimensions".to_owned());
    };
    let kind = match attributes.group.unwrap_or(1) {
        1 if per_output == in_channels => ConvKind::Dense,
        group if group == in_channels && per_output == 1 && out_channels == in_channels => {
            ConvKind::Depthwise
        }
        group => {
            return Err(format!(
                "group {group} with a weight of {out_channels}x{per_output} on {in_channels} channels is neither \
                 dense nor depthwise"
            ));
        }
    };
    if attributes.kernel.as_ref().is_some_and(|kernel| *kernel != [height, width]) {
        return Err("kernel_shape is not the weight's".to_owned());
    }
    if attributes.dilations.as_ref().is_some_and(|dilations| *dilations != [1, 1]) {
        return Err("dilations must be 1".to_owned());
    }
    let stride = match attributes.strides.as_deref() {
        None => [1, 1],
        Some(&[down, right]) => [down, right],
        Some(_) => return Err("strides must be two".to_owned()),
    };
    let pads = match attributes.pads.as_deref() {
        None => Pads::default(),
        Some(&[top, left, bottom, right]) => Pads { top, left, bottom, right },
        Some(_) => return Err("pads must be four".to_owned()),
    };
    check_weight_zero(parts.w_zero)?;
    let bias = bias(parts.bias, out_channels)?;
    let (input_zero, signed) = zero_point(parts.x_zero).ok_or("the input zero point must be one u8 or i8")?;
    if signed != in_signed {
        return Err("the input zero point is not of the input's type".to_owned());
    }
    let (zero, signed) = zero_point(parts.y_zero).ok_or("the output zero point must be one u8 or i8")?;
    let w_scales = scales(parts.w_scale, out_channels)?;
    Ok(Layer {
        name,
        spec: ConvSpec {
            kind,
            in_channels,
            out_channels,
            kernel: [height, width],
            stride,
            pads,
            input_zero,
            weights: weights.clone(),
            bias,
        },
        x_scale: scale(parts.x_scale).ok_or("the input scale must be one f32")?,
        w_scales,
        y_scale: scale(parts.y_scale).ok_or("the output scale must be one f32")?,
        zero,
        signed,
    })
}

/// Checks that the zero point of the weights is 0.
pub(super) fn check_weight_zero(zero: &Constant) -> Result<(), String> {
    match &zero.data {
        Data::I8(zeros) if zeros.iter().all(|&zero| zero == 0) => Ok(()),
        _ => Err("the weight zero point must be i8 and 0".to_owned()),
    }
}

/// Reads one bias per output channel; 0 where there is none.
pub(super) fn bias(bias: Option<&Constant>, out_channels: usize) -> Result<Vec<i32>, String> {
    match bias.map(|bias| &bias.data) {
        None => Ok(vec![0; out_channels]),
        Some(Data::I32(bias)) if bias.len() == out_channels => Ok(bias.clone()),
        Some(_) => Err(format!("the bias must be {out_channels} i32")),
    }
}

/// Reads one scale per output channel, or one for all of them.
pub(super) fn scales(constant: &Constant, out_channels: usize) -> Result<Vec<f32>, String> {
    match (&constant.data, constant.dims.len()) {
        (Data::F32(scales), 1) if scales.len() == out_channels => Ok(scales.clone()),
        (Data::F32(scales), 0 | 1) if scales.len() == 1 => Ok(vec![scales[0]; out_channels]),
        _ => Err(format!("the weight scale must be {out_channels} f32, one per output channel")),
    }
}

/// Reads a zero point: its stored value, and whether it is s8.
pub(super) fn zero_point(constant: &Constant) -> Option<(u8, bool)> {
    match &constant.data {
        Data::U8(values) if values.len() == 1 => Some((values[0], false)),
        Data::I8(values) if values.len() == 1 => Some((values[0] as u8 ^ 0x80, true)),
        _ => None,
    }
}

/// Reads a single scale.
pub(super) fn scale(constant: &Constant) -> Option<f32> {
    match &constant.data {
        Data::F32(values) if values.len() == 1 => Some(values[0]),
        _ => None,
    }
}
