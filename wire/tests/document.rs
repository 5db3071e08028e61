//! PROTOCOL.md and the code name the same codes and limits.

use narrows_wire::{Close, RefusalCode, Reset, limits};

const DOCUMENT: &str = include_str!("../PROTOCOL.md");

/// The numbers in the first column of the table that begins with this header cell.
fn numbers(header: &str) -> Vec<u32> {
    let rows = DOCUMENT.lines().skip_while(|line| !line.starts_with(&format!("| {header} |"))).skip(2);
    let cells = rows.take_while(|line| line.starts_with('|')).filter_map(|row| row.split('|').nth(1));
    cells.filter_map(|cell| cell.trim().parse().ok()).collect()
}

#[test]
fn the_document_lists_exactly_the_known_codes() {
    let refusals: Vec<u32> = RefusalCode::KNOWN.iter().map(|&code| u16::from(code).into()).collect();
    assert_eq!(numbers("refusal"), refusals);
    assert_eq!(
        numbers("close of the connection"),
        Close::KNOWN.iter().map(|&code| code.into()).collect::<Vec<u32>>()
    );
    let resets: Vec<u32> = Reset::KNOWN.iter().map(|&code| code.into()).collect();
    assert_eq!(numbers("reset or stop of a stream"), resets);
}

#[test]
fn the_document_lists_every_limit_with_its_value() {
    let bytes = |value: usize| match value {
        value if value.is_multiple_of(1 << 20) => format!("{} MiB", value >> 20),
        value if value.is_multiple_of(1 << 10) => format!("{} KiB", value >> 10),
        value => format!("{value} bytes"),
    };
    let rows = [
        ("MAX_BUNDLES", limits::MAX_BUNDLES.to_string()),
        ("MAX_TASKS", limits::MAX_TASKS.to_string()),
        ("MAX_NAME", bytes(limits::MAX_NAME)),
        ("MAX_TEXT", bytes(limits::MAX_TEXT)),
        ("MAX_HELLO", bytes(limits::MAX_HELLO)),
        ("MAX_PACKET", bytes(limits::MAX_PACKET)),
        ("MAX_IMAGE", bytes(limits::MAX_IMAGE)),
        ("MAX_IMAGE_PIXELS", "16 777 216".to_owned()),
        ("MAX_REQUEST", format!("4 MiB + {}", bytes(limits::MAX_REQUEST - limits::MAX_IMAGE))),
        ("MAX_REPLY", bytes(limits::MAX_REPLY)),
        ("MAX_QUERY", bytes(limits::MAX_QUERY)),
        ("MAX_TOP_K", limits::MAX_TOP_K.to_string()),
        ("MAX_MAP_SIDE", limits::MAX_MAP_SIDE.to_string()),
        ("MAX_MAP_PIXELS", "2 097 152".to_owned()),
        ("MAX_IN_FLIGHT", limits::MAX_IN_FLIGHT.to_string()),
        ("MAX_NOTICE", bytes(limits::MAX_NOTICE)),
        ("MAX_NOTICES", limits::MAX_NOTICES.to_string()),
        ("HANDSHAKE_TIMEOUT", format!("{} s", limits::HANDSHAKE_TIMEOUT.as_secs())),
        ("HELLO_TIMEOUT", format!("{} s", limits::HELLO_TIMEOUT.as_secs())),
        ("MESSAGE_TIMEOUT", format!("{} s", limits::MESSAGE_TIMEOUT.as_secs())),
    ];
    for (name, value) in rows {
        assert!(DOCUMENT.contains(&format!("| {name} | {value} |")), "{name} is {value}");
    }
    assert_eq!(limits::MAX_MAP_PIXELS, 2_097_152);
    assert_eq!(limits::MAX_IMAGE_PIXELS, 16_777_216);
}
