//! The bundle's test vectors on this processor: symbols, packets and the scores of the local network must be equal bit for
//! bit (BUNDLE.md, sections 8 and 9).

use narrows_codec::{Choice, Feature, GeometryId, LevelId, Mode, Shape, Tables, encode};
use narrows_models::{Bundle, LocalVector, Vector};
use narrows_service::Check;

use crate::{
    Chain, image,
    net::{LocalNet, Net},
};

const WRONG: &str = "Do not use this device: its answers would be wrong. Report the processor and the bundle";

/// Checks every vector whose parts are on this device.
pub(super) fn conform(bundle: &Bundle) -> Check {
    let here = |vector: &&Vector| {
        [&vector.image, &vector.symbols, &vector.packet].iter().all(|part| bundle.has(part))
    };
    let vectors: Vec<&Vector> = bundle.vectors().iter().filter(here).collect();
    if vectors.is_empty() {
        return Check::warning(
            "vectors",
            "the bundle's vectors are not on this device: its integers were not compared",
            "Copy the bundle's folder vectors/ as well",
        );
    }
    let run = || -> Result<(), String> {
        let net = Net::open(bundle).map_err(|error| Chain(&error).to_string())?;
        let tables = bundle.read(bundle.tables()).map_err(|error| Chain(&error).to_string())?;
        let tables = Tables::parse(&tables).map_err(|error| Chain(&error).to_string())?;
        vectors.iter().try_for_each(|vector| {
            compare(bundle, &net, &tables, vector).map_err(|reason| format!("{}: {reason}", vector.name))
        })
    };
    match run() {
        Ok(()) => {
            let found = format!(
                "{} of {} give the same symbols and packets, bit for bit",
                vectors.len(),
                bundle.vectors().len()
            );
            Check::ok("vectors", found)
        }
        Err(reason) => Check::failed("vectors", reason, WRONG),
    }
}

/// Checks every vector of the local network, if the network is on this device.
pub(super) fn conform_local(bundle: &Bundle) -> Option<Check> {
    let local = bundle.local().filter(|local| bundle.has(&local.file))?;
    let here = |vector: &&LocalVector| bundle.has(&vector.image) && bundle.has(&vector.logits);
    let vectors: Vec<&LocalVector> = local.vectors.iter().filter(here).collect();
    let run = || -> Result<usize, String> {
        let net = LocalNet::open(bundle, local).map_err(|error| Chain(&error).to_string())?;
        for vector in &vectors {
            let read = |part: &str| bundle.read(part).map_err(|error| Chain(&error).to_string());
            let pixels = image::decode(&read(&vector.image)?).map_err(|error| Chain(&error).to_string())?;
            let logits = net.run(pixels.as_raw()).map_err(|error| Chain(&error).to_string())?;
            if !logits.iter().flat_map(|logit| logit.to_le_bytes()).eq(read(&vector.logits)?) {
                return Err(format!("{}: wrong scores on {}", vector.name, net.isa()));
            }
        }
        Ok(vectors.len())
    };
    Some(match run() {
        Ok(count) => {
            let all = local.vectors.len();
            Check::ok("local network", format!("{count} of {all} vectors give the same scores, bit for bit"))
        }
        Err(reason) => Check::failed("local network", reason, WRONG),
    })
}

fn compare(bundle: &Bundle, net: &Net, tables: &Tables, vector: &Vector) -> Result<(), String> {
    let read = |part: &str| bundle.read(part).map_err(|error| Chain(&error).to_string());
    let pixels = image::decode(&read(&vector.image)?).map_err(|error| Chain(&error).to_string())?.into_raw();
    // A bundle has at most 16 geometries and levels.
    let (geometry, level) = (GeometryId(vector.geometry as u8), LevelId(vector.level as u8));
    let feature = net.run(geometry, level, &pixels).map_err(|error| Chain(&error).to_string())?;
    let (height, width) = bundle.geometries()[vector.geometry].latent(bundle.head().stride);
    let symbols = read(&vector.symbols)?.into_iter().map(|byte| i16::from(byte as i8)).collect();
    let shape =
        Shape::new(bundle.head().channels, height, width).map_err(|error| Chain(&error).to_string())?;
    let wanted = Feature::new(shape, symbols).map_err(|error| Chain(&error).to_string())?;
    let wrong = feature.symbols().iter().zip(wanted.symbols()).filter(|(one, other)| one != other).count();
    if wrong > 0 || feature.shape() != wanted.shape() {
        return Err(format!("{wrong} of {} symbols are wrong on {}", wanted.symbols().len(), net.isa()));
    }
    let mut packet = Vec::new();
    encode(tables, geometry, level, Choice::Only(Mode::Static), &feature, &mut packet)
        .map_err(|error| Chain(&error).to_string())?;
    match packet == read(&vector.packet)? {
        true => Ok(()),
        false => Err("the packet differs from the golden bytes".to_owned()),
    }
}
