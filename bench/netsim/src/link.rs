//! Named links, read from a TOML file.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;

use crate::shape::{Loss, Rate, Shape};

/// The file `bench/links.toml`.
const SHIPPED: &str = include_str!("../../links.toml");

/// Queue in bytes for a link that does not set one: this, or more for high rates.
const QUEUE_BYTES: f64 = 64_000.0;
/// Queue in seconds of the rate for a link that does not set one.
const QUEUE_SECONDS: f64 = 0.2;

/// A list of links in the order of their file.
#[derive(Clone, Debug, PartialEq)]
pub struct Ladder {
    /// The links; no two have the same name.
    pub links: Vec<Link>,
}

/// What lies between a head and a tail. The fields are those of `bench/links.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Letters, digits and dashes.
    pub name: String,
    /// One line for people.
    pub about: String,
    /// The source of the numbers.
    pub source: String,
    /// Rate towards the head in 1000 bit/s; `None` for no limit.
    #[serde(default)]
    pub down_kbit: Option<f64>,
    /// Rate towards the tail in 1000 bit/s; `None` for no limit.
    #[serde(default)]
    pub up_kbit: Option<f64>,
    /// Round trip of an empty datagram in milliseconds; each direction delays by half of it.
    #[serde(default)]
    pub rtt_ms: f64,
    /// Largest additional delay in each direction in milliseconds, uniformly distributed from 0.
    #[serde(default)]
    pub jitter_ms: f64,
    /// Share of datagrams lost in each direction.
    #[serde(default)]
    pub loss: f64,
    /// Mean number of consecutive lost datagrams; `None` for independent losses.
    #[serde(default)]
    pub burst: Option<f64>,
    /// Share of datagrams that later ones may overtake.
    #[serde(default)]
    pub reorder: f64,
    /// Additional delay of those, in milliseconds.
    #[serde(default)]
    pub reorder_ms: f64,
    /// Queue before the line in 1000 bytes; `None` for 64, or 200 ms of the rate if that is more.
    #[serde(default)]
    pub queue_kb: Option<f64>,
}

/// A direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the head to the tail.
    Up,
    /// From the tail to the head.
    Down,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    link: Vec<toml::Table>,
}

impl Ladder {
    /// The links of `bench/links.toml`.
    ///
    /// # Panics
    /// Never: a test parses the file.
    #[must_use]
    pub fn shipped() -> Self {
        Ladder::parse(SHIPPED).expect("the shipped ladder is tested")
    }

    /// Reads a file of links.
    ///
    /// # Errors
    /// When the text is no list of links or a field is invalid; the error names link and field.
    pub fn parse(text: &str) -> Result<Self> {
        let file: File =
            toml::from_str(text).context("not a file of links, see bench/links.toml for the form")?;
        let mut links: Vec<Link> = Vec::new();
        for (place, table) in file.link.into_iter().enumerate() {
            let name = table.get("name").and_then(toml::Value::as_str);
            let name = name.map_or_else(|| format!("{} of the file", place + 1), str::to_owned);
            let known = links.iter().any(|other| other.name == name);
            let link = if known { Err(anyhow!("name stands twice")) } else { Link::read(table) };
            links.push(link.with_context(|| format!("link {name}"))?);
        }
        ensure!(!links.is_empty(), "a file of links that lists no link, see bench/links.toml for the form");
        Ok(Ladder { links })
    }

    /// The link of this name.
    ///
    /// # Errors
    /// When there is none; the error lists the known names.
    pub fn find(&self, name: &str) -> Result<&Link> {
        self.links.iter().find(|link| link.name == name).with_context(|| {
            let known: Vec<&str> = self.links.iter().map(|link| link.name.as_str()).collect();
            format!("no link {name:?}; there are {}", known.join(", "))
        })
    }
}

impl Link {
    fn read(table: toml::Table) -> Result<Self> {
        let link: Link = table
            .try_into()
            .map_err(|error: toml::de::Error| anyhow!(error.to_string().trim().replace('\n', " ")))?;
        link.check()?;
        Ok(link)
    }

    fn check(&self) -> Result<()> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let named = (1..=32).contains(&self.name.len()) && self.name.chars().all(plain);
        ensure!(named, "name must be 1 to 32 characters of a-z, 0-9 and -");
        let ranges = [
            ("down_kbit", self.down_kbit, 1.0, 1e8),
            ("up_kbit", self.up_kbit, 1.0, 1e8),
            ("rtt_ms", Some(self.rtt_ms), 0.0, 1e5),
            ("jitter_ms", Some(self.jitter_ms), 0.0, 1e5),
            ("loss", Some(self.loss), 0.0, 0.9),
            ("burst", self.burst, 1.0, 1e4),
            ("reorder", Some(self.reorder), 0.0, 1.0),
            ("reorder_ms", Some(self.reorder_ms), 0.0, 1e5),
            ("queue_kb", self.queue_kb, 1.0, 60_000.0),
        ];
        for (field, value, low, high) in ranges {
            let within = value.is_none_or(|value| (low..=high).contains(&value));
            ensure!(within, "{field} is {}, must be {low} to {high}", value.unwrap_or_default());
        }
        let late = self.reorder == 0.0 || self.reorder_ms > 0.0;
        ensure!(late, "reorder_ms is missing: by how much reordered datagrams are late");
        if let Loss::Runs { enter, .. } = self.loss_model() {
            ensure!(enter <= 1.0, "burst is too short for this loss");
        }
        Ok(())
    }

    /// The effect of one direction on datagrams.
    #[must_use]
    pub fn shape(&self, direction: Direction) -> Shape {
        let rate = match direction {
            Direction::Up => self.up_kbit,
            Direction::Down => self.down_kbit,
        };
        let bits = rate.map(|kbit| kbit * 1000.0);
        let enough = QUEUE_BYTES.max(bits.unwrap_or(0.0) / 8.0 * QUEUE_SECONDS);
        Shape {
            rate: bits.map(|bits| Rate::Fixed(bits as u64)),
            delay: ms(self.rtt_ms / 2.0),
            jitter: ms(self.jitter_ms),
            loss: self.loss_model(),
            reorder: self.reorder,
            late: ms(self.reorder_ms),
            queue: self.queue_kb.map_or(enough, |kb| kb * 1000.0) as usize,
        }
    }

    fn loss_model(&self) -> Loss {
        match (self.loss, self.burst) {
            (0.0, _) => Loss::None,
            (share, None) => Loss::Single(share),
            // In the bad state for `mean` datagrams on average, and for this share of all.
            (share, Some(mean)) => Loss::Runs { enter: share / (mean * (1.0 - share)), leave: 1.0 / mean },
        }
    }
}

fn ms(value: f64) -> Duration {
    Duration::from_secs_f64(value / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(fields: &str) -> Result<Link> {
        let text = format!("[[link]]\nname = \"a\"\nabout = \"\"\nsource = \"\"\n{fields}");
        Ladder::parse(&text).map(|mut ladder| ladder.links.remove(0))
    }

    #[test]
    fn the_shipped_file_has_every_link_of_the_report() {
        let ladder = Ladder::shipped();
        let names: Vec<&str> = ladder.links.iter().map(|link| link.name.as_str()).collect();
        let rungs = ["loopback", "gigabit", "wifi-good", "wifi-poor", "lte", "bluetooth", "narrowband"];
        assert_eq!(names, [&rungs[..], &["lora", "satellite"]].concat());
        let lte = ladder.find("lte").unwrap();
        assert_eq!(lte.shape(Direction::Up).rate, Some(Rate::Fixed(6_000_000)));
        assert_eq!(lte.shape(Direction::Down).rate, Some(Rate::Fixed(13_000_000)));
        assert_eq!(lte.shape(Direction::Up).delay, Duration::from_millis(25));
        assert!(ladder.links.iter().all(|link| !link.source.is_empty() && !link.about.is_empty()));
    }

    #[test]
    fn an_invalid_field_is_named_with_its_link() {
        for (fields, words) in [
            ("up_kbit = 0", "link a: up_kbit is 0, must be 1"),
            ("loss = 1.0", "link a: loss is 1, must be 0 to 0.9"),
            ("loss = nan", "link a: loss is NaN"),
            ("rtt_ms = -1", "link a: rtt_ms"),
            ("rtt_ms = \"4\"", "rtt_ms"),
            ("speed = 3", "speed"),
            ("reorder = 0.1", "link a: reorder_ms is missing"),
            ("loss = 0.9\nburst = 1.0", "link a: burst is too short"),
        ] {
            let error = format!("{:#}", one(fields).unwrap_err());
            assert!(error.contains("link a: ") && error.contains(words), "{fields}: {error}");
        }
        let twice = "[[link]]\nname = \"a\"\nabout = \"\"\nsource = \"\"\n".repeat(2);
        let refused = |text: &str| format!("{:#}", Ladder::parse(text).unwrap_err());
        assert!(refused(&twice).contains("link a: name stands twice"));
        let nameless = refused("[[link]]\nabout = \"\"");
        assert!(nameless.contains("link 1 of the file: ") && nameless.contains("name"), "{nameless}");
        assert!(
            refused("link = []").contains("lists no link") && refused("links = 3").contains("links.toml")
        );
        let unknown = Ladder::shipped().find("carrier-pigeon").unwrap_err().to_string();
        assert!(unknown.contains("carrier-pigeon") && unknown.contains("wifi-poor, lte"), "{unknown}");
    }

    #[test]
    fn bursts_have_the_configured_share_and_mean_length() {
        let Loss::Runs { enter, leave } = one("loss = 0.2\nburst = 4").unwrap().loss_model() else {
            panic!("a burst makes losses come in runs");
        };
        assert!((enter / (enter + leave) - 0.2).abs() < 1e-12);
        assert_eq!(leave, 0.25);
        assert_eq!(one("loss = 0.2").unwrap().loss_model(), Loss::Single(0.2));
    }

    #[test]
    fn the_default_queue_is_64_kb_or_200_ms() {
        assert_eq!(one("up_kbit = 37.5").unwrap().shape(Direction::Up).queue, 64_000);
        assert_eq!(one("up_kbit = 50_000").unwrap().shape(Direction::Up).queue, 1_250_000);
        assert_eq!(one("queue_kb = 3").unwrap().shape(Direction::Down).queue, 3_000);
    }
}
