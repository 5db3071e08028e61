//! The message by which Home Assistant finds a device and its entities
//! (<https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload>).

use serde_json::{Map, Value, json};

use super::topics::{OFFLINE, ONLINE, Topics};

/// Topic and payload of a device's discovery, with the entities of `cameras`.
pub(super) fn message<'a>(
    prefix: &str,
    device: &str,
    topics: &Topics,
    cameras: impl Iterator<Item = &'a str>,
    with_pictures: bool,
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
    (format!("{prefix}/device/{id}/config"), payload)
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
        let make = || message("homeassistant", "pi", &topics, ["front", "back"].into_iter(), true);
        let (topic, payload) = make();
        assert_eq!(topic, "homeassistant/device/narrows_pi/config");
        assert_eq!(payload, make().1);
        let components = payload["components"].as_object().unwrap();
        assert_eq!(components.len(), 2 * 8 + 1);
        for (key, component) in components {
            assert_eq!(component["unique_id"], key.as_str());
        }
        assert_eq!(components["narrows_pi_front_picture"]["image_topic"], "narrows/pi/front/picture");
        assert_eq!(components["narrows_pi_front_latency"]["device_class"], "duration");
        assert_eq!(components["narrows_pi_front_bytes"]["device_class"], "data_size");
    }
}
