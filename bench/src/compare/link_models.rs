//! Links as the report shows them, and the published model of their radios.

use anyhow::Result;
use narrows_netsim::{DirectionFidelity, Fidelity, Link};
use narrows_power::radio;

use super::report::{Energy, LinkCheck, LinkSummary, Radio, Report};

/// A link with what was measured of its relay.
pub(super) fn summary(link: &Link, measured: &[Fidelity]) -> LinkSummary {
    let measured = measured.iter().find(|measured| measured.link.name == link.name);
    let checks =
        |of: &Fidelity| [("up", &of.up), ("down", &of.down)].map(|(name, way)| checks(name, way)).concat();
    LinkSummary {
        name: link.name.clone(),
        about: link.about.clone(),
        up: link.up_kbit.map(|rate| 1e3 * rate),
        down: link.down_kbit.map(|rate| 1e3 * rate),
        rtt_ms: link.rtt_ms + link.jitter_ms,
        loss: link.loss,
        checks: measured.map(checks).unwrap_or_default(),
    }
}

/// The measured properties of one direction.
fn checks(name: &str, way: &DirectionFidelity) -> Vec<LinkCheck> {
    let check = |property: String, configured, measured| LinkCheck { property, configured, measured };
    let rate = way.asked_kbit.zip(way.kbit);
    let tbf = way.asked_kbit.zip(way.tbf_kbit);
    let lost = (way.asked_loss > 0.0).then_some((way.asked_loss * way.sent as f64, way.missing as f64));
    [
        rate.map(|(asked, found)| check(format!("rate {name}, kbit/s"), asked, found)),
        tbf.map(|(asked, found)| check(format!("rate {name} of the kernel's tbf, kbit/s"), asked, found)),
        Some(check(format!("one way {name}, median ms"), way.asked_ms, way.ms_p50)),
        lost.map(|(asked, found)| check(format!("lost {name}, of {}", way.sent), asked, found)),
    ]
    .into_iter()
    .flatten()
    .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_delay_and_loss_of_a_link_are_shown_as_configured_and_as_measured() {
        let way = DirectionFidelity {
            asked_kbit: Some(5000.0),
            kbit: Some(4900.0),
            tbf_kbit: Some(5300.0),
            asked_ms: 7.5,
            ms_p50: 8.6,
            ms_p95: 9.0,
            asked_loss: 0.01,
            sent: 2000,
            missing: 18,
            missing_bounds: (7, 33),
            overtaken: 0,
        };
        let checks = checks("up", &way);
        let seen: Vec<_> =
            checks.iter().map(|of| (of.property.as_str(), of.configured, of.measured)).collect();
        assert_eq!(
            seen,
            [
                ("rate up, kbit/s", 5000.0, 4900.0),
                ("rate up of the kernel's tbf, kbit/s", 5000.0, 5300.0),
                ("one way up, median ms", 7.5, 8.6),
                ("lost up, of 2000", 20.0, 18.0),
            ]
        );
    }
}
