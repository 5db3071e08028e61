//! The message by which Home Assistant finds a device and its entities
//! (<https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload>).

use serde_json::{Map, Value, json};

use super::topics::{OFFLINE, ONLINE, Topics};

/// Topic and payload of a device's discovery, with the entities of `cameras`, and those of its board where it tells its
/// temperature.
pub(super) fn message<'a>(
    prefix: &str,
    device: &str,
    topics: &Topics,
    cameras: impl Iterator<Item = &'a str>,
    with_pictures: bool,
    with_board: bool,
) -> (String, Value) {
    let id = format!("narrows_{}", identifier(device));
    let mut components = Map::new();
    for camera in cameras {
        for (key, mut component) in entities(topics, camera, with_pictures) {
            let unique = format!("{id}_{}_{key}", identifier(camera));
            component["unique_id"] = json!(unique);
            components.insert(unique, component);
        }
    }
    let unique = format!("{id}_lost");
    components.insert(
        unique.clone(),
        json!({
            "platform": "sensor",
            "unique_id": unique,
            "name": "Lost messages",
            "state_topic": topics.status(),
            "value_template": "{{ value_json.sinks | sum(attribute='lost') }}",
            "state_class": "total_increasing",
            "entity_category": "diagnostic",
            "icon": "mdi:message-off-outline",
        }),
    );
    if with_board {
        for (key, mut component) in board_entities(topics) {
            let unique = format!("{id}_{key}");
            component["unique_id"] = json!(unique);
            components.insert(unique, component);
        }
    }
    let payload = json!({
        "device": {
            "identifiers": [id],
            "name": device,
            "manufacturer": "narrows",
            "model": "narrows-head",
            "sw_version": env!("CARGO_PKG_VERSION"),
        },
        "origin": {
            "name": "narrows",
            "sw_version": env!("CARGO_PKG_VERSION"),
            "support_url": env!("CARGO_PKG_REPOSITORY"),
        },
        "availability_topic": topics.available(),
        "payload_available": ONLINE,
        "payload_not_available": OFFLINE,
        "components": components,
    });
    (topic(prefix, device), payload)
}

/// The topic of a device's discovery.
pub(super) fn topic(prefix: &str, device: &str) -> String {
    format!("{prefix}/device/narrows_{}/config", identifier(device))
}

/// What was announced before and is no longer: entities of cameras that this device has no more.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Stale {
    /// The entities, as they are announced to be removed: with their platforms alone.
    pub(super) components: Map<String, Value>,
    /// Their topics below the prefix of the device.
    pub(super) topics: Vec<String>,
}

/// Compares what the broker holds as this device's discovery with what it is to be.
pub(super) fn stale(held: &[u8], payload: &Value, topics: &Topics) -> Stale {
    let mut stale = Stale::default();
    let held: Value = serde_json::from_slice(held).unwrap_or_default();
    let (Some(held), Some(present)) = (held["components"].as_object(), payload["components"].as_object())
    else {
        return stale;
    };
    let of = |component: &Value| -> Vec<String> {
        let named = ["state_topic", "image_topic"].iter().filter_map(|key| component[*key].as_str());
        named.filter(|topic| topics.is_own(topic)).map(str::to_owned).collect()
    };
    let used: Vec<String> = present.values().flat_map(of).collect();
    for (key, component) in held.iter().filter(|(key, _)| !present.contains_key(*key)) {
        // One with its platform alone has been removed.
        if let (Some(platform), true) = (component["platform"].as_str(), component.get("unique_id").is_some())
        {
            stale.components.insert(key.clone(), json!({ "platform": platform }));
            stale.topics.extend(of(component).into_iter().filter(|topic| !used.contains(topic)));
        }
    }
    stale.topics.sort();
    stale.topics.dedup();
    stale
}

/// The entities of the board, without their unique names.
fn board_entities(topics: &Topics) -> [(&'static str, Value); 2] {
    [
        (
            "temperature",
            json!({
                "platform": "sensor",
                "name": "Temperature",
                "state_topic": topics.status(),
                "value_template": "{{ value_json.board.celsius if value_json.board is defined else none }}",
                "device_class": "temperature",
                "unit_of_measurement": "°C",
                "state_class": "measurement",
                "entity_category": "diagnostic",
            }),
        ),
        (
            "throttled",
            json!({
                "platform": "binary_sensor",
                "name": "Throttled",
                "state_topic": topics.status(),
                "value_template":
                    "{{ 'ON' if value_json.board is defined and value_json.board.throttled else 'OFF' }}",
                "device_class": "problem",
                "entity_category": "diagnostic",
            }),
        ),
    ]
}

/// The entities of a camera, without their unique names.
fn entities(topics: &Topics, camera: &str, with_pictures: bool) -> Vec<(&'static str, Value)> {
    let state = topics.of(camera, "state");
    let measured = |name: &str, template: &str, unit: &str, icon: &str| {
        json!({
            "platform": "sensor",
            "name": format!("{camera} {name}"),
            "state_topic": state,
            "value_template": template,
            "unit_of_measurement": unit,
            "state_class": "measurement",
            "icon": icon,
        })
    };
    let of_class = |class: &str, mut entity: Value| {
        entity["device_class"] = json!(class);
        entity
    };
    let mut entities = vec![
        (
            "class",
            json!({
                "platform": "sensor",
                "name": format!("{camera} class"),
                "state_topic": topics.of(camera, "class"),
                "icon": "mdi:shape-outline",
            }),
        ),
        (
            "probability",
            measured(
                "probability",
                "{{ (value_json.class.probability * 100) | round(1) if value_json.class is defined else none }}",
                "%",
                "mdi:percent",
            ),
        ),
        (
            "latency",
            of_class(
                "duration",
                measured(
                    "latency",
                    "{{ value_json.latency_ms.p50 if value_json.latency_ms is defined else none }}",
                    "ms",
                    "mdi:timer-outline",
                ),
            ),
        ),
        ("fps", measured("frame rate", "{{ value_json.fps }}", "fps", "mdi:speedometer")),
        (
            "bytes",
            of_class(
                "data_size",
                measured(
                    "sent per frame",
                    "{{ value_json.bytes.sent if value_json.bytes is defined else 0 }}",
                    "B",
                    "mdi:upload-network",
                ),
            ),
        ),
        (
            "path",
            json!({
                "platform": "sensor",
                "name": format!("{camera} path"),
                "state_topic": state,
                "value_template": "{{ value_json.path | default(none) }}",
                "device_class": "enum",
                "options": ["split", "image", "local", "kept"],
                "entity_category": "diagnostic",
            }),
        ),
        (
            "problem",
            json!({
                "platform": "binary_sensor",
                "name": format!("{camera} unanswered"),
                "state_topic": state,
                "value_template": "{{ 'ON' if value_json.status in ['refused', 'failed'] else 'OFF' }}",
                "device_class": "problem",
                "entity_category": "diagnostic",
            }),
        ),
    ];
    if with_pictures {
        entities.push((
            "picture",
            json!({
                "platform": "image",
                "name": format!("{camera} picture"),
                "image_topic": topics.of(camera, "picture"),
                "content_type": "image/jpeg",
            }),
        ));
    }
    entities
}

/// A name of the letters, digits, `_` and `-` that identifiers of Home Assistant may have. Where others had to be replaced,
/// digits of a digest keep two names apart.
fn identifier(name: &str) -> String {
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    let plain: String =
        name.chars().map(|character| if allowed(character) { character } else { '_' }).collect();
    match plain == name {
        true => plain,
        false => format!("{plain}_{}", &narrows_models::Digest::of(name.as_bytes()).to_string()[..8]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_and_kept_apart() {
        assert_eq!(identifier("front_door-1"), "front_door-1");
        assert!(identifier("front door").starts_with("front_door_"));
        assert_ne!(identifier("front door"), identifier("front/door"));
        let topics = Topics::new("narrows/pi", Some("homeassistant"));
        let make = || message("homeassistant", "pi", &topics, ["front", "back"].into_iter(), true, true);
        let (topic, payload) = make();
        assert_eq!(topic, "homeassistant/device/narrows_pi/config");
        assert_eq!(payload, make().1);
        let components = payload["components"].as_object().unwrap();
        assert_eq!(components.len(), 2 * 8 + 3);
        assert_eq!(components["narrows_pi_temperature"]["unit_of_measurement"], "°C");
        for (key, component) in components {
            assert_eq!(component["unique_id"], key.as_str());
        }
        assert_eq!(components["narrows_pi_front_picture"]["image_topic"], "narrows/pi/front/picture");
        assert_eq!(components["narrows_pi_front_latency"]["device_class"], "duration");
        assert_eq!(components["narrows_pi_front_bytes"]["device_class"], "data_size");
    }

    #[test]
    fn cameras_that_are_gone_are_removed_once() {
        let topics = Topics::new("narrows/pi", Some("ha"));
        let make = |cameras: &[&str]| message("ha", "pi", &topics, cameras.iter().copied(), true, false).1;
        let (both, one) = (make(&["front", "back"]), make(&["front"]));
        let found = stale(both.to_string().as_bytes(), &one, &topics);
        assert_eq!(found.components.len(), 8);
        assert_eq!(found.components["narrows_pi_back_class"], json!({"platform": "sensor"}));
        let of_back = ["class", "picture", "state"].map(|kind| format!("narrows/pi/back/{kind}"));
        assert_eq!(found.topics, of_back);
        let mut removing = one.clone();
        removing["components"].as_object_mut().unwrap().extend(found.components);
        assert_eq!(stale(removing.to_string().as_bytes(), &one, &topics), Stale::default());
        assert_eq!(stale(one.to_string().as_bytes(), &both, &topics), Stale::default());
        for held in ["", "no JSON", "[]", "{\"components\":{\"x\":3}}"] {
            assert_eq!(stale(held.as_bytes(), &one, &topics), Stale::default(), "{held}");
        }
        // Topics of others are left alone.
        let foreign =
            json!({"components": {"x": {"platform": "sensor", "unique_id": "x", "state_topic": "other/x"}}});
        let found = stale(foreign.to_string().as_bytes(), &one, &topics);
        assert_eq!((found.components.len(), found.topics.len()), (1, 0));
    }
}
