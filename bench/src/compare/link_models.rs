//! What links and radios ask for, whatever the runtime does.

use anyhow::Result;
use narrows_netsim::{Fidelity, Ideal, Link};
use narrows_power::radio;

use super::{
    provenance,
    report::{Energy, LinkSummary, Radio, Report},
};

/// A link for the report, with what was found of it.
pub(super) fn rung(link: &Link, found: &[Fidelity]) -> LinkSummary {
    let found = found.iter().find(|found| found.link.name == link.name);
    LinkSummary {
        name: link.name.clone(),
        about: link.about.clone(),
        up: link.up_kbit.map(|rate| 1e3 * rate),
        down: link.down_kbit.map(|rate| 1e3 * rate),
        rtt_ms: link.rtt_ms + link.jitter_ms,
        loss: link.loss,
        fidelity: found.map(provenance::fidelity).unwrap_or_default(),
    }
}

/// Milliseconds that a request and a reply of these bytes take on a link, beside the round trip.
pub(super) fn serialisation(links: &[Link], rung: &LinkSummary, up: f64, down: f64) -> f64 {
    let link = links.iter().find(|link| link.name == rung.name);
    link.map_or(0.0, |link| {
        let ideal = Ideal::of(link, up.ceil() as usize, down.ceil() as usize);
        1e3 * (ideal.up + ideal.down).as_secs_f64()
    })
}

/// Adds what a published model says of the radio, on links that it has coefficients for.
pub(super) fn model_radios(report: &mut Report) -> Result<()> {
    let radios = radio::parse(radio::SHIPPED)?;
    for cell in &mut report.cells {
        let radio = radios
            .iter()
            .find(|radio| cell.link == radio.name || cell.link.starts_with(&format!("{}-", radio.name)));
        let (Some(radio), Some((up, down)), Some(network)) = (radio, cell.wire, cell.stages.get("network"))
        else {
            continue;
        };
        let joules = radio.joules(up as u64, down as u64, network.p50 / 1e3);
        let modelled = Some(Radio { joules, source: radio.source.clone() });
        match &mut cell.energy {
            Energy::Measured { radio, .. } | Energy::Unknown { radio, .. } => *radio = modelled,
        }
    }
    Ok(())
}
