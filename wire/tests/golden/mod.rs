//! Golden messages: `<name>.hex` holds hexadecimal bytes, one field a line, with `#` comments.

use std::path::PathBuf;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.hex"))
}

/// The bytes of a golden message.
pub(crate) fn read(name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(file(name)).expect(name);
    let digits = text.lines().map(|line| line.split('#').next().unwrap_or(""));
    let digits: String = digits.flat_map(str::chars).filter(|digit| !digit.is_whitespace()).collect();
    assert!(digits.len().is_multiple_of(2), "{name}: odd number of digits");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect(name)).collect()
}

/// Compares a message with its golden bytes.
pub(crate) fn check(name: &str, bytes: &[u8]) {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    assert_eq!(hex(bytes), hex(&read(name)), "{name}");
}
