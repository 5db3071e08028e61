//! Constants of a graph (ONNX initializers): of four element types, with fixed shapes, inside the file.

use tract_onnx::pb::TensorProto;

/// ONNX's numbers for the element types of the constants.
pub(super) const FLOAT: i32 = 1;
pub(super) const UINT8: i32 = 2;
pub(super) const INT8: i32 = 3;
pub(super) const INT32: i32 = 6;

/// Elements in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Data {
    F32(Vec<f32>),
    U8(Vec<u8>),
    I8(Vec<i8>),
    I32(Vec<i32>),
}

/// A constant tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Constant {
    pub(super) dims: Vec<usize>,
    pub(super) data: Data,
}

impl Constant {
    /// Reads an initializer, or returns what is wrong with it.
    pub(super) fn read(proto: &TensorProto) -> Result<Constant, String> {
        if proto.data_location.is_some_and(|place| place != 0) || !proto.external_data.is_empty() {
            return Err("data outside the file".to_owned());
        }
        let mut dims = Vec::new();
        let mut count = 1_usize;
        for &dim in &proto.dims {
            let dim = usize::try_from(dim).map_err(|_| format!("dimension {dim}"))?;
            count = count.checked_mul(dim).ok_or("too many elements")?;
            dims.push(dim);
        }
        let raw = &proto.raw_data;
        let small = || -> Result<Vec<u8>, String> {
            if !raw.is_empty() {
                return Ok(raw.clone());
            }
            let low = if proto.data_type == INT8 { i32::from(i8::MIN) } else { 0 };
            let each = |&value: &i32| match value - low {
                0..=255 => Ok(value as u8),
                _ => Err(format!("element {value} outside its type")),
            };
            proto.int32_data.iter().map(each).collect()
        };
        let data = match proto.data_type {
            FLOAT if raw.is_empty() => Data::F32(proto.float_data.clone()),
            FLOAT => Data::F32(words(raw)?.map(f32::from_le_bytes).collect()),
            INT32 if raw.is_empty() => Data::I32(proto.int32_data.clone()),
            INT32 => Data::I32(words(raw)?.map(i32::from_le_bytes).collect()),
            UINT8 => Data::U8(small()?),
            INT8 => Data::I8(small()?.into_iter().map(|value| value as i8).collect()),
            other => return Err(format!("element type {other}, neither f32, u8, i8 nor i32")),
        };
        let found = data.len();
        if found != count {
            return Err(format!("{found} elements where its dimensions {dims:?} ask for {count}"));
        }
        Ok(Constant { dims, data })
    }
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Data::F32(values) => values.len(),
            Data::U8(values) => values.len(),
            Data::I8(values) => values.len(),
            Data::I32(values) => values.len(),
        }
    }
}

/// Splits bytes into words of four.
fn words(raw: &[u8]) -> Result<impl Iterator<Item = [u8; 4]>, String> {
    let (words, rest) = raw.as_chunks::<4>();
    if rest.is_empty() { Ok(words.iter().copied()) } else { Err("an incomplete last element".to_owned()) }
}
