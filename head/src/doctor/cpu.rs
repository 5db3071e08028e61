//! The processor, its kernels and the time of a frame on it.

use std::{fs, num::NonZero, path::Path, thread, time::Duration};

use image::RgbImage;
use narrows_codec::{GeometryId, LevelId};
use narrows_int8::Isa;
use narrows_service::Check;

use crate::{Chain, Head};

/// Fewest frames without a warning.
const FEW: usize = 20;
/// Largest ratio of p95 to median without a warning.
const UNSTEADY: f64 = 2.0;

/// Name, cores and the instruction sets that kernels or encryption use.
pub(super) fn processor(sys: &Path, board: Option<&str>) -> Check {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim()));
    let clock = fs::read_to_string(sys.join("devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"));
    let clock = clock.ok().and_then(|text| text.trim().parse::<f64>().ok());
    let clock = clock.map_or_else(String::new, |kilohertz| format!(" of up to {:.2} GHz", kilohertz * 1e-6));
    let name = board.or(model).unwrap_or(std::env::consts::ARCH);
    Check::ok("processor", format!("{name}, {cores} cores{clock}: {}", narrows_int8::features().join(" ")))
}

/// The kernels that the head uses.
pub(super) fn kernels(isa: Isa) -> Check {
    match isa {
        Isa::Portable => Check::warning(
            "kernels",
            "portable: this processor has neither AVX2 nor NEON, or the build is for another one",
            "Use a 64-bit system on a processor with AVX2 or NEON; the portable kernels are several times slower",
        ),
        isa => Check::ok("kernels", isa.name()),
    }
}

/// Runs the head at the bundle's default level and for its first task, at least once and until `more` returns false. Returns
/// the last packet as well.
pub(super) fn speed(head: &mut Head, more: impl Fn() -> bool) -> (Check, Option<Vec<u8>>) {
    // A bundle has at most 16 geometries and 16 levels.
    let geometry = head.bundle().tasks().first().map_or(0, |task| task.geometry);
    let (geometry, level) = (GeometryId(geometry as u8), LevelId(head.bundle().default_level() as u8));
    let size = &head.bundle().geometries()[geometry.index()];
    let size = (size.width as u32, size.height as u32);
    // Structure in every place, so that neither network nor coder has it easy.
    let image = RgbImage::from_fn(size.0, size.1, |x, y| {
        image::Rgb([x as u8 ^ y as u8, (x * y) as u8, (x + 3 * y) as u8])
    });
    let mut stages: [Vec<Duration>; 4] = Default::default();
    let mut packet;
    loop {
        match head.encode_image(&image, geometry, level) {
            Ok(frame) => {
                let timings = frame.timings;
                let whole = timings.resize + timings.head + timings.encode;
                for (stage, time) in
                    stages.iter_mut().zip([timings.resize, timings.head, timings.encode, whole])
                {
                    stage.push(time);
                }
                packet = Some(frame.packet);
            }
            Err(error) => {
                let remedy = "Install a bundle that this version of narrows can run";
                return (Check::failed("head", Chain(&error).to_string(), remedy), None);
            }
        }
        if !more() {
            break;
        }
    }
    let frames = stages[0].len();
    let [resize, network, encode, whole] = stages.map(|mut times| {
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        (at(0.5), at(0.95))
    });
    let found = format!(
        "a frame of {}×{} takes {:.2} ms (p95 {:.2} ms): resize {:.2}, network {:.2}, coder {:.2}; {frames} frames",
        size.0, size.1, whole.0, whole.1, resize.0, network.0, encode.0
    );
    let check = match frames {
        frames if frames < FEW => Check::warning(
            "head",
            found,
            "Too slow to say more: use a bundle with a smaller head, or a faster device",
        ),
        _ if whole.1 > UNSTEADY * whole.0 => Check::warning(
            "head",
            found,
            "The times are unsteady: end other work, set the governor to performance, look at heat below",
        ),
        _ => Check::ok("head", found),
    };
    (check, packet)
}
