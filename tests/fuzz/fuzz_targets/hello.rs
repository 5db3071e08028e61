//! Arbitrary bytes for `narrows_fuzz_targets::hello`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _accepted = narrows_fuzz_targets::hello::run(data);
});
