//! The Python binding of narrows-codec: the extension module `narrows_codec._narrows_codec`.
//!
//! It converts numpy arrays to features and errors to exceptions; the crate `narrows-codec` writes and reads the packets.
//! `narrows_codec/__init__.pyi` documents arguments and results.

use std::error::Error as _;

use narrows_codec::{Choice, Decoder, Encoder, Error, Feature, GeometryId, LevelId, Mode, Shape, Tables};
use numpy::{IntoPyArray, PyArray3, PyArrayMethods, PyReadonlyArray3, PyUntypedArrayMethods};
use pyo3::{create_exception, exceptions::PyValueError, prelude::*, types::PyBytes};

/// The number of geometries that a packet can tell apart.
const GEOMETRIES: usize = 16;

create_exception!(
    _narrows_codec,
    CodecError,
    PyValueError,
    "A packet, a tables file or an argument was refused."
);

/// The exception for an error of the codec: its text, and that of its source if it has one.
fn codec_error(error: Error) -> PyErr {
    CodecError::new_err(match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}

/// The parsed tables of a bundle (codec/FORMAT.md, section 2).
#[pyclass(frozen, name = "Tables", module = "narrows_codec")]
struct PyTables(Tables);

#[pymethods]
impl PyTables {
    #[new]
    fn new(data: &[u8]) -> PyResult<Self> {
        Tables::parse(data).map(Self).map_err(codec_error)
    }

    #[getter]
    fn channels(&self) -> usize {
        self.0.channels()
    }

    #[getter]
    fn levels(&self) -> usize {
        self.0.levels()
    }

    #[getter]
    fn groups(&self) -> usize {
        self.0.groups()
    }

    fn __repr__(&self) -> String {
        format!("Tables(channels={}, levels={}, groups={})", self.channels(), self.levels(), self.groups())
    }
}

/// The mode with this name; `None` for "auto".
fn parse_mode(name: &str) -> PyResult<Option<Mode>> {
    Ok(Some(match name {
        "auto" => return Ok(None),
        "static" => Mode::Static,
        "indexed" => Mode::Indexed,
        "context" => Mode::Context,
        "columns" => Mode::Columns,
        "rows" => Mode::Rows,
        "raw" => Mode::Raw,
        "zstd" => Mode::Zstd,
        _ => {
            return Err(CodecError::new_err(format!(
                "mode {name:?}: expected one of auto, static, indexed, context, columns, rows, raw, zstd"
            )));
        }
    }))
}

/// The feature in an array of int8, uint8 or int16.
fn feature(symbols: &Bound<'_, PyAny>) -> PyResult<Feature> {
    let (shape, symbols) = if let Ok(array) = symbols.extract::<PyReadonlyArray3<'_, i8>>() {
        (shape_of(&array), array.as_array().iter().map(|&symbol| symbol.into()).collect())
    } else if let Ok(array) = symbols.extract::<PyReadonlyArray3<'_, u8>>() {
        (shape_of(&array), array.as_array().iter().map(|&symbol| symbol.into()).collect())
    } else if let Ok(array) = symbols.extract::<PyReadonlyArray3<'_, i16>>() {
        (shape_of(&array), array.as_array().iter().copied().collect())
    } else {
        let found = symbols
            .getattr("dtype")
            .map_or_else(|_| symbols.get_type().to_string(), |dtype| dtype.to_string());
        return Err(CodecError::new_err(format!(
            "symbols: {found}, expected an array [channels, height, width] of int8, uint8 or int16"
        )));
    };
    let [channels, height, width] = shape;
    Feature::new(Shape::new(channels, height, width).map_err(codec_error)?, symbols).map_err(codec_error)
}

/// Channels, height and width of an array.
fn shape_of<T: numpy::Element>(array: &PyReadonlyArray3<'_, T>) -> [usize; 3] {
    let shape = array.shape();
    [shape[0], shape[1], shape[2]]
}

#[expect(clippy::too_many_arguments, reason = "they are keyword arguments in Python")]
#[pyfunction]
#[pyo3(signature = (tables, symbols, *, level = 0, geometry = 0, mode = "auto", truncatable = false, lanes = 0))]
fn encode<'py>(
    py: Python<'py>,
    tables: &PyTables,
    symbols: &Bound<'py, PyAny>,
    level: u8,
    geometry: u8,
    mode: &str,
    truncatable: bool,
    lanes: u8,
) -> PyResult<Bound<'py, PyBytes>> {
    if ![0, 1, 2, 4, 8, 16, 32].contains(&lanes) {
        return Err(CodecError::new_err(format!(
            "lanes {lanes}: expected 1, 2, 4, 8, 16, 32, or 0 to let it follow from the size"
        )));
    }
    let feature = feature(symbols)?;
    let choice = parse_mode(mode)?.map_or(Choice::Auto, Choice::Only);
    let packet = py.detach(|| {
        let mut packet = Vec::new();
        let mut encoder = Encoder::new().truncatable(truncatable).lanes(lanes);
        encoder
            .encode(&tables.0, GeometryId(geometry), LevelId(level), choice, &feature, &mut packet)
            .map(|_| packet)
    });
    Ok(PyBytes::new(py, &packet.map_err(codec_error)?))
}

#[pyfunction]
fn decode<'py>(
    py: Python<'py>,
    tables: &PyTables,
    packet: &[u8],
    shape: (usize, usize, usize),
) -> PyResult<Bound<'py, PyArray3<i16>>> {
    let (channels, height, width) = shape;
    let shapes = [Shape::new(channels, height, width).map_err(codec_error)?; GEOMETRIES];
    let symbols = py.detach(|| {
        let mut symbols = Vec::new();
        Decoder::new().decode_into(&tables.0, &shapes, packet, &mut symbols).map(|_| symbols)
    });
    symbols.map_err(codec_error)?.into_pyarray(py).reshape([channels, height, width])
}

#[pyfunction]
#[pyo3(signature = (tables, symbols, *, level = 0, mode = "static"))]
fn bits(
    py: Python<'_>,
    tables: &PyTables,
    symbols: &Bound<'_, PyAny>,
    level: u8,
    mode: &str,
) -> PyResult<f64> {
    let feature = feature(symbols)?;
    let Some(mode) = parse_mode(mode)? else {
        return Err(CodecError::new_err(
            "mode \"auto\": expected one of static, indexed, context, columns, rows",
        ));
    };
    let cost = py.detach(|| Encoder::new().cost(&tables.0, LevelId(level), mode, &feature));
    // The cost is in 1/256 bit.
    Ok(cost.map_err(codec_error)? as f64 / 256.0)
}

#[pymodule]
fn _narrows_codec(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("CodecError", module.py().get_type::<CodecError>())?;
    module.add_class::<PyTables>()?;
    module.add_function(wrap_pyfunction!(encode, module)?)?;
    module.add_function(wrap_pyfunction!(decode, module)?)?;
    module.add_function(wrap_pyfunction!(bits, module)?)?;
    Ok(())
}
