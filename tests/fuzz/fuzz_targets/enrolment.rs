//! Arbitrary bytes for `narrows_fuzz_targets::enrolment`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _accepted = narrows_fuzz_targets::enrolment::run(data);
});
