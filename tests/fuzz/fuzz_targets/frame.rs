//! Arbitrary bytes for `narrows_fuzz_targets::frame`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    narrows_fuzz_targets::frame::run(data);
});
