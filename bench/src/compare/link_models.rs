//! Links as the report shows them, and the published model of their radios.

use anyhow::Result;
use narrows_netsim::Link;
use narrows_power::radio;

use super::report::{Energy, LinkSummary, Radio, Report};

/// A link in the units of the report.
pub(super) fn summary(link: &Link) -> LinkSummary {
    LinkSummary {
        name: link.name.clone(),
        about: link.about.clone(),
        up: link.up_kbit.map(|rate| 1e3 * rate),
        down: link.down_kbit.map(|rate| 1e3 * rate),
        rtt_ms: link.rtt_ms + link.jitter_ms,
        loss: link.loss,
    }
}

/// Adds the modelled energy of the radio to cells on links that have a published model.
pub(super) fn add_radio_energy(report: &mut Report) -> Result<()> {
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
