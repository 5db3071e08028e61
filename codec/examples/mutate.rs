//! Damages packets of every mode and counts what the decoder accepts.
//!
//! ```text
//! cargo run --release -p narrows-codec --example mutate -- 10000000
//! ```
//!
//! Fails when more than one packet in ten thousand decodes to other symbols than were encoded.

#[path = "../tests/generate/mod.rs"]
mod generate;
#[path = "../tests/mutate/mod.rs"]
mod mutate;

fn main() -> std::process::ExitCode {
    let packets = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse());
    let Ok(packets) = packets else {
        eprintln!("mutate [PACKETS]: how many packets to damage, by default 1000000");
        return std::process::ExitCode::from(2);
    };
    let report = mutate::run(packets, 1);
    let same: u64 = report.same.iter().sum();
    let rejected = packets - report.cut - same - report.wrong;
    println!(
        "{packets} damaged packets, no panic; by mode (raw, static, zstd, indexed, context, columns, rows): {:?}",
        report.per_mode
    );
    println!(
        "rejected {rejected}; accepted: cut where a group ends {}, whole {:?}, with other symbols {} ({} with one lane)",
        report.cut, report.same, report.wrong, report.wrong_of_one_lane
    );
    if report.wrong * 10_000 > packets {
        std::process::ExitCode::FAILURE
    } else {
        std::process::ExitCode::SUCCESS
    }
}
