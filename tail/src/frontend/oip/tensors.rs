//! Requests and answers of inference as they stand in HTTP bodies: a JSON object, and behind it the tensors that are not in it
//! (the extension `binary_tensor_data`). Pure.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor},
};
use serde_json::Value;

/// Most tensors of a request, and most outputs that it may ask for.
const TENSORS: usize = 16;
/// Most bytes of a request's JSON: an image of 480×360 pixels takes half of it. Each value takes eight bytes until its type is
/// known, and two in the text at least.
pub(super) const LONGEST_JSON: usize = 4 << 20;
/// Most elements of a tensor of type BYTES. A batch has at most 256 files, and an element takes several times the four bytes of
/// an empty one.
const ELEMENTS: usize = 1024;
/// Most dimensions of a tensor.
const DIMENSIONS: usize = 8;

/// What a client asks for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct InferRequest {
    /// Comes back in the answer.
    pub(super) id: Option<String>,
    pub(super) parameters: Parameters,
    pub(super) inputs: Vec<Tensor>,
    /// The outputs that are wanted; empty for all.
    pub(super) outputs: Vec<Wanted>,
}

/// Parameters of a request that mean something here.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub(super) struct Parameters {
    /// Microseconds until the answer is of no use.
    #[serde(default, deserialize_with = "scalar")]
    timeout: Option<Value>,
    /// The name of the geometry that files are fitted to.
    pub(super) geometry: Option<String>,
    /// Whether outputs that say nothing of their own are wanted in binary form.
    #[serde(default)]
    binary_data_output: bool,
}

/// Reads a number or a text. What else JSON has would take up to a hundred times the memory of its text.
fn scalar<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    deserializer.deserialize_any(Scalar)
}

struct Scalar;

impl Visitor<'_> for Scalar {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a text")
    }

    fn visit_unit<E>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Option<Value>, E> {
        Ok(Some(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Option<Value>, E> {
        Ok(Some(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Option<Value>, E> {
        Ok(Some(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Option<Value>, E> {
        Ok(Some(value.into()))
    }
}

/// An input tensor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) values: Values,
}

/// The values of a tensor, row by row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Values {
    F32(Vec<f32>),
    U8(Vec<u8>),
    Bytes(Vec<Vec<u8>>),
}

/// An output that is wanted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    pub(super) name: String,
    /// Whether it is wanted in binary form.
    pub(super) binary: bool,
    /// The number of classes, if it is wanted as classes (the extension `classification`).
    pub(super) classes: Option<usize>,
}

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) String);

#[derive(Deserialize)]
struct RawRequest {
    id: Option<String>,
    #[serde(default)]
    parameters: Parameters,
    inputs: Vec<RawTensor>,
    #[serde(default)]
    outputs: Vec<RawWanted>,
}

#[derive(Deserialize)]
struct RawTensor {
    name: String,
    datatype: String,
    shape: Vec<u64>,
    #[serde(default)]
    parameters: TensorParameters,
    data: Option<Flat>,
}

#[derive(Default, Deserialize)]
struct TensorParameters {
    binary_data_size: Option<u64>,
}

#[derive(Deserialize)]
struct RawWanted {
    name: String,
    #[serde(default)]
    parameters: WantedParameters,
}

#[derive(Default, Deserialize)]
struct WantedParameters {
    binary_data: Option<bool>,
    classification: Option<usize>,
}

/// The values in arrays that may lie in one another.
#[derive(Debug, Default)]
struct Flat {
    numbers: Vec<f64>,
    texts: Vec<String>,
}

impl<'de> Deserialize<'de> for Flat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut flat = Flat::default();
        deserializer.deserialize_seq(Collect(&mut flat))?;
        Ok(flat)
    }
}

/// Adds what it visits to the values.
struct Collect<'a>(&'a mut Flat);

impl<'de> Visitor<'de> for Collect<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of numbers or texts")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element_seed(Element(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.numbers.push(value);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.0.numbers.push(value as f64);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.numbers.push(value as f64);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.numbers.push(f64::from(u8::from(value)));
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.0.texts.push(value.to_owned());
        Ok(())
    }
}

/// One element of an array.
struct Element<'a>(&'a mut Flat);

impl<'de> serde::de::DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(Collect(self.0))
    }
}

impl Parameters {
    /// Microseconds until the answer is of no use.
    ///
    /// # Errors
    /// [`Malformed`] for something else than a number or its digits.
    pub(super) fn timeout_us(&self) -> Result<Option<u64>, Malformed> {
        let number = match &self.timeout {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(digits)) => digits.parse().ok(),
            Some(_) => None,
        };
        number
            .map(Some)
            .ok_or_else(|| Malformed("parameters: timeout: give microseconds, a whole number".into()))
    }
}

impl InferRequest {
    /// Reads a body. `json` is the length of its JSON part where the client tells it.
    ///
    /// # Errors
    /// [`Malformed`], which names the tensor.
    pub(super) fn parse(body: &[u8], json: Option<usize>) -> Result<InferRequest, Malformed> {
        let length = json.unwrap_or(body.len());
        let Some((json, mut binary)) = body.split_at_checked(length) else {
            return Err(Malformed(format!(
                "Inference-Header-Content-Length is {length}, the body has {} bytes",
                body.len()
            )));
        };
        if json.len() > LONGEST_JSON {
            return Err(Malformed(format!(
                "{} bytes of JSON, at most {LONGEST_JSON}; send tensors in binary form",
                json.len()
            )));
        }
        let raw: RawRequest = serde_json::from_slice(json)
            .map_err(|error| Malformed(format!("the request's JSON: {error}")))?;
        if raw.inputs.len() > TENSORS || raw.outputs.len() > TENSORS {
            return Err(Malformed(format!("over {TENSORS} inputs or outputs")));
        }
        let mut inputs = Vec::with_capacity(raw.inputs.len());
        for tensor in raw.inputs {
            inputs.push(read(tensor, &mut binary)?);
        }
        if !binary.is_empty() {
            return Err(Malformed(format!("{} bytes behind the last tensor", binary.len())));
        }
        let default = raw.parameters.binary_data_output;
        let outputs = raw.outputs.into_iter().map(|wanted| Wanted {
            name: wanted.name,
            binary: wanted.parameters.binary_data.unwrap_or(default),
            classes: wanted.parameters.classification.filter(|classes| *classes > 0),
        });
        Ok(InferRequest { id: raw.id, outputs: outputs.collect(), parameters: raw.parameters, inputs })
    }

    /// Whether an output that says nothing of its own is wanted in binary form.
    pub(super) fn wants_binary(&self) -> bool {
        self.parameters.binary_data_output
    }
}

/// Reads one tensor, whose values stand in its JSON or at the beginning of `binary`.
fn read(raw: RawTensor, binary: &mut &[u8]) -> Result<Tensor, Malformed> {
    let RawTensor { name, datatype, shape, parameters, data } = raw;
    let wrong = |reason: String| Malformed(format!("input {name}: {reason}"));
    if shape.len() > DIMENSIONS {
        return Err(wrong(format!("{} dimensions, at most {DIMENSIONS}", shape.len())));
    }
    let shape: Option<Vec<usize>> = shape.iter().map(|size| usize::try_from(*size).ok()).collect();
    let count =
        shape.as_ref().and_then(|shape| shape.iter().try_fold(1usize, |sum, size| sum.checked_mul(*size)));
    let (Some(shape), Some(count)) = (shape, count) else {
        return Err(wrong("its shape is too large".into()));
    };
    let values = match (parameters.binary_data_size, data) {
        (Some(size), None) => {
            let taken = usize::try_from(size).ok().and_then(|size| binary.split_at_checked(size));
            let Some((bytes, rest)) = taken else {
                return Err(wrong(format!("binary_data_size is {size}, {} bytes are left", binary.len())));
            };
            *binary = rest;
            from_binary(&datatype, bytes)
        }
        (None, Some(data)) => from_json(&datatype, data),
        (Some(_), Some(_)) => Err("it has data and binary_data_size; give one".to_owned()),
        (None, None) => Err("it has no data".to_owned()),
    };
    let values = values.map_err(wrong)?;
    if values.len() != count {
        return Err(wrong(format!("{} values, its shape {shape:?} has {count}", values.len())));
    }
    Ok(Tensor { name, shape, values })
}

fn from_binary(datatype: &str, bytes: &[u8]) -> Result<Values, String> {
    match datatype {
        "FP32" => {
            let (values, rest) = bytes.as_chunks::<4>();
            if !rest.is_empty() {
                return Err(format!("{} bytes are no whole number of FP32 values", bytes.len()));
            }
            Ok(Values::F32(values.iter().map(|value| f32::from_le_bytes(*value)).collect()))
        }
        "UINT8" => Ok(Values::U8(bytes.to_vec())),
        "BYTES" => {
            let (mut rest, mut values) = (bytes, Vec::new());
            while !rest.is_empty() {
                let element = rest
                    .split_first_chunk::<4>()
                    .and_then(|(length, rest)| rest.split_at_checked(u32::from_le_bytes(*length) as usize));
                let Some((element, after)) = element else {
                    return Err(
                        "its last element is cut; each is a length of four bytes and as many bytes".into()
                    );
                };
                if values.len() == ELEMENTS {
                    return Err(format!("over {ELEMENTS} elements"));
                }
                values.push(element.to_vec());
                rest = after;
            }
            Ok(Values::Bytes(values))
        }
        other => Err(unknown(other)),
    }
}

fn from_json(datatype: &str, data: Flat) -> Result<Values, String> {
    let Flat { numbers, texts } = data;
    let only = |unwanted: bool, wanted: &str| {
        if unwanted { Err(format!("its data are not {wanted} alone")) } else { Ok(()) }
    };
    match datatype {
        "FP32" => {
            only(!texts.is_empty(), "numbers")?;
            Ok(Values::F32(numbers.into_iter().map(|value| value as f32).collect()))
        }
        "UINT8" => {
            only(!texts.is_empty(), "numbers")?;
            let byte = |value: f64| {
                let whole = value.fract() == 0.0 && (0.0..=255.0).contains(&value);
                whole.then_some(value as u8).ok_or_else(|| format!("{value} is no UINT8"))
            };
            Ok(Values::U8(numbers.into_iter().map(byte).collect::<Result<_, _>>()?))
        }
        "BYTES" => {
            only(!numbers.is_empty(), "texts")?;
            Ok(Values::Bytes(texts.into_iter().map(String::into_bytes).collect()))
        }
        other => Err(unknown(other)),
    }
}

fn unknown(datatype: &str) -> String {
    format!("datatype {datatype:?}; the models here take FP32, UINT8 and BYTES")
}

impl Values {
    /// The number of values.
    pub(super) fn len(&self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::U8(values) => values.len(),
            Values::Bytes(values) => values.len(),
        }
    }

    fn datatype(&self) -> &'static str {
        match self {
            Values::F32(_) => "FP32",
            Values::U8(_) => "UINT8",
            Values::Bytes(_) => "BYTES",
        }
    }

    fn binary(&self, to: &mut Vec<u8>) {
        match self {
            Values::F32(values) => values.iter().for_each(|value| to.extend(value.to_le_bytes())),
            Values::U8(values) => to.extend(values),
            Values::Bytes(values) => values.iter().for_each(|value| {
                to.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
                to.extend(value);
            }),
        }
    }
}

/// An output tensor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Output {
    pub(super) tensor: Tensor,
    pub(super) binary: bool,
}

/// An answer as it stands in JSON.
#[derive(Serialize)]
struct RawAnswer<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Vec<RawOutput<'a>>,
}

#[derive(Serialize)]
struct RawOutput<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<RawParameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Json<'a>>,
}

#[derive(Serialize)]
struct RawParameters {
    binary_data_size: usize,
}

/// Values as they stand in JSON. Elements of type BYTES are texts; numbers that JSON has not, which a network does not give, are
/// null.
struct Json<'a>(&'a Values);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Values::F32(values) => serializer.collect_seq(values),
            Values::U8(values) => serializer.collect_seq(values),
            Values::Bytes(values) => {
                serializer.collect_seq(values.iter().map(|value| String::from_utf8_lossy(value)))
            }
        }
    }
}

/// The body of an answer, and the length of its JSON part where something stands behind it.
pub(super) fn answer(
    (model_name, model_version): (&str, &str),
    id: Option<&str>,
    outputs: &[Output],
) -> (Vec<u8>, Option<usize>) {
    let mut binary = Vec::new();
    let raw = outputs.iter().map(|Output { tensor, binary: is_binary }| {
        let before = binary.len();
        if *is_binary {
            tensor.values.binary(&mut binary);
        }
        RawOutput {
            name: &tensor.name,
            datatype: tensor.values.datatype(),
            shape: &tensor.shape,
            parameters: is_binary.then(|| RawParameters { binary_data_size: binary.len() - before }),
            data: (!is_binary).then_some(Json(&tensor.values)),
        }
    });
    let outputs_raw = raw.collect();
    let answer = RawAnswer { model_name, model_version, id, outputs: outputs_raw };
    let mut bytes = serde_json::to_vec(&answer).unwrap_or_default();
    let json = outputs.iter().any(|output| output.binary).then_some(bytes.len());
    bytes.extend(binary);
    (bytes, json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str, binary: &[u8]) -> Result<InferRequest, Malformed> {
        InferRequest::parse(&[json.as_bytes(), binary].concat(), Some(json.len()))
    }

    #[test]
    fn values_stand_in_the_json_in_any_nesting_or_behind_it() {
        let flat = r#"{"id":"7","inputs":[{"name":"step","datatype":"FP32","shape":[2],"data":[1,2.5]}]}"#;
        let request = InferRequest::parse(flat.as_bytes(), None).unwrap();
        let step = Tensor { name: "step".into(), shape: vec![2], values: Values::F32(vec![1.0, 2.5]) };
        assert_eq!((request.id.as_deref(), &request.inputs), (Some("7"), &vec![step]));
        let nested =
            r#"{"inputs":[{"name":"image","datatype":"UINT8","shape":[1,1,2,2],"data":[[[[1,2],[3,4]]]]}]}"#;
        let request = InferRequest::parse(nested.as_bytes(), None).unwrap();
        assert_eq!(request.inputs[0].values, Values::U8(vec![1, 2, 3, 4]));
        let json = r#"{"parameters":{"timeout":"1500","binary_data_output":true},"inputs":[
            {"name":"a","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}},
            {"name":"b","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":11}}],
            "outputs":[{"name":"x"},{"name":"y","parameters":{"binary_data":false,"classification":3}}]}"#;
        let binary = [&1.5f32.to_le_bytes()[..], &[1, 0, 0, 0, 7], &[2, 0, 0, 0, 8, 9]].concat();
        let request = parse(json, &binary).unwrap();
        // What is cut anywhere is refused.
        let whole = [json.as_bytes(), &binary].concat();
        for length in 0..whole.len() {
            let cut = InferRequest::parse(&whole[..length], Some(json.len().min(length)));
            assert!(cut.is_err(), "{length} bytes");
        }
        let long = vec![b' '; LONGEST_JSON + 1];
        assert!(InferRequest::parse(&long, None).unwrap_err().to_string().contains("binary form"));
        assert_eq!(request.inputs[0].values, Values::F32(vec![1.5]));
        assert_eq!(request.inputs[1].values, Values::Bytes(vec![vec![7], vec![8, 9]]));
        assert_eq!(request.parameters.timeout_us(), Ok(Some(1500)));
        let wanted = |name: &str, binary, classes| Wanted { name: name.into(), binary, classes };
        assert_eq!(request.outputs, [wanted("x", true, None), wanted("y", false, Some(3))]);
    }

    #[test]
    fn what_is_wrong_names_the_tensor() {
        let tensor = |datatype: &str, shape: &str, rest: &str| {
            format!(r#"{{"inputs":[{{"name":"a","datatype":"{datatype}","shape":{shape}{rest}}}]}}"#)
        };
        for (json, binary, words) in [
            (tensor("FP32", "[2]", r#","data":[1]"#), &[][..], "input a: 1 values, its shape [2] has 2"),
            (tensor("FP32", "[1]", r#","data":["x"]"#), &[], "numbers alone"),
            (tensor("UINT8", "[1]", r#","data":[256]"#), &[], "256 is no UINT8"),
            (tensor("UINT8", "[1]", r#","data":[0.5]"#), &[], "0.5 is no UINT8"),
            (tensor("BYTES", "[1]", r#","data":[1]"#), &[], "texts alone"),
            (tensor("FP16", "[1]", r#","data":[1]"#), &[], "datatype \"FP16\""),
            (tensor("FP32", "[1]", ""), &[], "no data"),
            (tensor("FP32", "[4294967296,4294967296]", r#","data":[]"#), &[], "too large"),
            (tensor("FP32", "[1,1,1,1,1,1,1,1,1]", r#","data":[1]"#), &[], "9 dimensions"),
            (tensor("FP32", "[-1]", r#","data":[1]"#), &[], "JSON"),
            (
                tensor("FP32", "[1]", r#","parameters":{"binary_data_size":4}"#),
                &[1, 2, 3],
                "3 bytes are left",
            ),
            (tensor("FP32", "[1]", r#","parameters":{"binary_data_size":3}"#), &[1, 2, 3], "whole number"),
            (tensor("BYTES", "[1]", r#","parameters":{"binary_data_size":5}"#), &[9, 0, 0, 0, 1], "cut"),
            (tensor("UINT8", "[1]", r#","parameters":{"binary_data_size":1}"#), &[1, 2], "1 bytes behind"),
            (tensor("UINT8", "[1]", r#","parameters":{"binary_data_size":1},"data":[1]"#), &[1], "give one"),
            (
                tensor("BYTES", "[1025]", r#","parameters":{"binary_data_size":4100}"#),
                &[0; 4100],
                "over 1024 elements",
            ),
            (r#"{"parameters":{"timeout":[{}]},"inputs":[]}"#.to_owned(), &[], "a number or a text"),
            ("[]".to_owned(), &[], "JSON"),
            ("{}".to_owned(), &[], "inputs"),
        ] {
            let error = parse(&json, binary).unwrap_err().to_string();
            assert!(error.contains(words), "{json}: {error}");
        }
        assert!(
            InferRequest::parse(b"{}", Some(3)).unwrap_err().to_string().contains("the body has 2 bytes")
        );
        let deep =
            format!(r#"{{"inputs":[{{"name":"a","datatype":"FP32","shape":[1],"data":{}"#, "[".repeat(1000));
        assert!(InferRequest::parse(deep.as_bytes(), None).is_err());
        let parameters = Parameters { timeout: Some(Value::from(1.5)), ..Parameters::default() };
        assert!(parameters.timeout_us().is_err());
    }

    #[test]
    fn an_answer_has_its_tensors_in_the_json_or_behind_it() {
        let output = |name: &str, values, binary| Output {
            tensor: Tensor { name: name.into(), shape: vec![1, 2], values },
            binary,
        };
        let (body, length) =
            answer(("m", "1"), Some("7"), &[output("a", Values::F32(vec![0.5, 1.0]), false)]);
        assert_eq!(length, None);
        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"model_name":"m","model_version":"1","id":"7","outputs":[{"name":"a","datatype":"FP32","shape":[1,2],"data":[0.5,1.0]}]}"#
        );
        let texts = Values::Bytes(vec![b"0.5:3:cat".to_vec(), b"x".to_vec()]);
        let (body, length) =
            answer(("m", "1"), None, &[output("a", Values::U8(vec![1, 2]), true), output("b", texts, true)]);
        let (json, binary) = body.split_at(length.unwrap());
        assert!(String::from_utf8_lossy(json).contains(r#""binary_data_size":2"#));
        assert_eq!(binary, [&[1, 2][..], &[9, 0, 0, 0], b"0.5:3:cat", &[1, 0, 0, 0], b"x"].concat());
    }
}
