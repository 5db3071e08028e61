//! Finds tensors of an ONNX file whose values lie in other files. Nothing else of the file is looked at.
//!
//! ONNX files are Protocol Buffers. The walk follows the messages in which a tensor can stand (onnx.proto: graphs, nodes,
//! attributes, functions, training steps), steps over all other fields without copying them, and refuses what no
//! Protocol Buffers parser accepts.

/// Most messages inside one another; parsers of Protocol Buffers stop there too.
const DEPTH_MAX: usize = 100;
/// `TensorProto.data_location` of a tensor whose values lie in another file.
const EXTERNAL: i32 = 1;

/// A tensor whose values lie in another file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExternalTensor {
    /// Name of the tensor; empty if it has none.
    pub(crate) tensor: String,
    /// The other file, as the tensor names it; empty if it names none.
    pub(crate) file: String,
}

/// The bytes are not Protocol Buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotOnnx;

/// Returns the first tensor of an ONNX file whose values lie in another file.
pub(crate) fn external_tensor(onnx: &[u8]) -> Result<Option<ExternalTensor>, NotOnnx> {
    walk(Message::Model, onnx, DEPTH_MAX)
}

/// The messages of onnx.proto that lead to tensors.
#[derive(Clone, Copy)]
enum Message {
    Model,
    TrainingInfo,
    Function,
    Graph,
    Node,
    Attribute,
    SparseTensor,
    Tensor,
}

impl Message {
    /// The message that a field of this one holds, if it leads to tensors.
    fn field(self, number: u32) -> Option<Message> {
        Some(match (self, number) {
            (Message::Model, 7) | (Message::TrainingInfo, 1 | 2) | (Message::Attribute, 6 | 11) => {
                Message::Graph
            }
            (Message::Model, 20) => Message::TrainingInfo,
            (Message::Model, 25) => Message::Function,
            (Message::Function, 7) | (Message::Graph, 1) => Message::Node,
            (Message::Function, 11) | (Message::Node, 5) => Message::Attribute,
            (Message::Graph, 15) | (Message::Attribute, 22 | 23) => Message::SparseTensor,
            (Message::Graph, 5) | (Message::Attribute, 5 | 10) | (Message::SparseTensor, 1 | 2) => {
                Message::Tensor
            }
            _ => return None,
        })
    }
}

fn walk(message: Message, bytes: &[u8], depth: usize) -> Result<Option<ExternalTensor>, NotOnnx> {
    let depth = depth.checked_sub(1).ok_or(NotOnnx)?;
    if matches!(message, Message::Tensor) {
        return tensor(bytes, depth);
    }
    let mut fields = Fields { rest: bytes, depth };
    while let Some((number, value)) = fields.next()? {
        if let (Some(inner), Value::Bytes(bytes)) = (message.field(number), value)
            && let Some(found) = walk(inner, bytes, depth)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Looks at one TensorProto.
fn tensor(bytes: &[u8], depth: usize) -> Result<Option<ExternalTensor>, NotOnnx> {
    let (mut name, mut file, mut external) = (String::new(), String::new(), false);
    let mut fields = Fields { rest: bytes, depth };
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (8, Value::Bytes(text)) => name = quote(text),
            (13, Value::Bytes(entry)) => {
                external = true;
                if let (b"location", value) = entry_of(entry, depth)? {
                    file = quote(value);
                }
            }
            // An enumeration is the low 32 bits of its number.
            (14, Value::Number(location)) => external |= location as i32 == EXTERNAL,
            _ => {}
        }
    }
    Ok(external.then_some(ExternalTensor { tensor: name, file }))
}

/// Key and value of a StringStringEntryProto.
fn entry_of(bytes: &[u8], depth: usize) -> Result<(&[u8], &[u8]), NotOnnx> {
    let (mut key, mut text) = (&bytes[..0], &bytes[..0]);
    let mut fields = Fields { rest: bytes, depth };
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(bytes)) => key = bytes,
            (2, Value::Bytes(bytes)) => text = bytes,
            _ => {}
        }
    }
    Ok((key, text))
}

/// A name of the file for a message: escaped, and at most 200 characters of it.
fn quote(text: &[u8]) -> String {
    String::from_utf8_lossy(text).escape_debug().take(200).collect()
}

/// The fields of a message, one after another.
struct Fields<'a> {
    rest: &'a [u8],
    depth: usize,
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Fixed 32 or 64 bits, or a group.
    Other,
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, NotOnnx> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, kind) = self.tag()?;
        // The end of a group that never began.
        if kind == 4 {
            return Err(NotOnnx);
        }
        Ok(Some((number, self.value(number, kind, self.depth)?)))
    }

    fn tag(&mut self) -> Result<(u32, u8), NotOnnx> {
        let tag = u32::try_from(self.varint()?).map_err(|_| NotOnnx)?;
        if tag >> 3 == 0 { Err(NotOnnx) } else { Ok((tag >> 3, (tag & 7) as u8)) }
    }

    fn value(&mut self, number: u32, kind: u8, depth: usize) -> Result<Value<'a>, NotOnnx> {
        match kind {
            0 => Ok(Value::Number(self.varint()?)),
            1 => self.take(8).map(|_| Value::Other),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| NotOnnx)?;
                self.take(length).map(Value::Bytes)
            }
            3 => {
                let depth = depth.checked_sub(1).ok_or(NotOnnx)?;
                loop {
                    match self.tag()? {
                        (end, 4) if end == number => return Ok(Value::Other),
                        (_, 4) => return Err(NotOnnx),
                        (inner, kind) => self.value(inner, kind, depth).map(drop)?,
                    }
                }
            }
            5 => self.take(4).map(|_| Value::Other),
            _ => Err(NotOnnx),
        }
    }

    fn varint(&mut self) -> Result<u64, NotOnnx> {
        let mut value = 0;
        for place in 0..10 {
            let byte = self.take(1)?[0];
            // Bits over the 64th are dropped, as parsers do.
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(NotOnnx)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], NotOnnx> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(NotOnnx)?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field that holds bytes.
    fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
        let mut field = varint(u64::from(number << 3 | 2));
        field.extend(varint(bytes.len() as u64));
        field.extend(bytes);
        field
    }

    fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    /// A tensor `w` in `weights.bin`.
    fn outside() -> Vec<u8> {
        let location = [field(1, b"location"), field(2, b"weights.bin")].concat();
        [field(8, b"w"), field(13, &location), vec![14 << 3, 1]].concat()
    }

    fn within(fields: &[u32], tensor: Vec<u8>) -> Vec<u8> {
        fields.iter().rev().fold(tensor, |inner, &number| field(number, &inner))
    }

    #[test]
    fn a_tensor_outside_is_found_wherever_one_can_stand() {
        let found = Some(ExternalTensor { tensor: "w".into(), file: "weights.bin".into() });
        for path in [
            &[7, 5][..],
            &[7, 15, 1],
            &[7, 15, 2],
            &[7, 1, 5, 5],
            &[7, 1, 5, 10],
            &[7, 1, 5, 22, 1],
            &[7, 1, 5, 23, 2],
            &[7, 1, 5, 6, 5],
            &[7, 1, 5, 11, 1, 5, 6, 5],
            &[20, 1, 5],
            &[20, 2, 1, 5, 5],
            &[25, 7, 5, 5],
            &[25, 11, 5],
        ] {
            assert_eq!(external_tensor(&within(path, outside())), Ok(found.clone()), "{path:?}");
        }
        let inside = [field(8, b"w"), field(9, &[0; 64]), vec![14 << 3, 0]].concat();
        let mut model = within(&[7, 5], inside);
        assert_eq!(external_tensor(&model), Ok(None));
        model.extend(within(&[7, 5], outside()));
        assert_eq!(external_tensor(&model), Ok(found));
    }

    #[test]
    fn the_location_alone_and_the_entries_alone_count() {
        // Five bytes for the number 1, and a number whose low 32 bits are 1.
        let wide = [&[14 << 3][..], &varint(1 << 33 | 1)].concat();
        for tensor in [vec![14 << 3, 1], vec![14 << 3, 0x81, 0x80, 0x80, 0x80, 0], wide, field(13, b"")] {
            assert!(external_tensor(&within(&[7, 5], tensor)).is_ok_and(|found| found.is_some()));
        }
        assert_eq!(external_tensor(&within(&[7, 5], vec![14 << 3, 2])), Ok(None));
    }

    /// Every prefix and every changed byte of a model, and bytes that follow no plan: no panic, no endless walk.
    #[test]
    fn hostile_bytes_are_walked_or_refused() {
        let model = [within(&[7, 1, 5, 6, 5], outside()), within(&[25, 11, 22, 1], outside())].concat();
        for length in 0..model.len() {
            let _ = external_tensor(&model[..length]);
            for value in 0..=u8::MAX {
                let mut changed = model.clone();
                changed[length] = value;
                let _ = external_tensor(&changed);
            }
        }
        let mut state = 1u64;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..64)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            let _ = external_tensor(&within(&[7, 1], bytes));
        }
    }

    #[test]
    fn what_is_no_protocol_buffer_is_refused_in_bounded_depth() {
        let deep = (0..60_000).fold(Vec::new(), |inner, _| match inner.len() < 60_000 {
            true => field(6, &field(1, &field(5, &inner))),
            false => inner,
        });
        let groups = vec![1 << 3 | 3; 1 << 16];
        for bytes in [&b"not a network"[..], &[0xff; 4096], &[7 << 3 | 2, 5, 0], &[0, 0], &[12], &groups] {
            assert_eq!(external_tensor(bytes), Err(NotOnnx), "{:?}", &bytes[..2]);
        }
        assert_eq!(external_tensor(&field(7, &field(1, &field(5, &deep)))), Err(NotOnnx));
        assert_eq!(external_tensor(b""), Ok(None));
        // An unknown group is stepped over.
        assert_eq!(external_tensor(&[9 << 3 | 3, 1 << 3, 7, 9 << 3 | 4]), Ok(None));
    }
}
