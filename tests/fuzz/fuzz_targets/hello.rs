//! Arbitrary bytes for `narrows_fuzz_targets::hello`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    narrows_fuzz_targets::hello::run(data);
});
