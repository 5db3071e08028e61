//! Limits of the buffers of a UDP socket.

use std::{fs, path::Path};

use narrows_service::Check;
use narrows_wire::quic::Tuning;

/// Compares the kernel's limits in `core` (`/proc/sys/net/core`) with the sizes that the connection requests.
pub(super) fn buffers(core: &Path) -> Vec<Check> {
    let wanted = Tuning::default().socket_buffer;
    let check = |name: &str| {
        let limit = fs::read_to_string(core.join(name)).ok()?.trim().parse::<usize>().ok()?;
        let found = format!("net.core.{name} is {limit} bytes");
        Some(match limit < wanted {
            true => Check::warning(
                "udp buffer",
                format!("{found}; {wanted} are asked for, bursts may be lost"),
                format!(
                    "echo net.core.{name}={wanted} | sudo tee -a /etc/sysctl.d/70-narrows.conf && sudo sysctl --system"
                ),
            ),
            false => Check::ok("udp buffer", found),
        })
    };
    ["rmem_max", "wmem_max"].into_iter().filter_map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn a_small_limit_comes_with_the_line_that_raises_it() {
        let core = tempfile::tempdir().unwrap();
        fs::write(core.path().join("rmem_max"), "212992\n").unwrap();
        fs::write(core.path().join("wmem_max"), "7500000\n").unwrap();
        let checks = buffers(core.path());
        assert_eq!(checks.iter().map(|check| check.state).collect::<Vec<_>>(), [State::Warning, State::Ok]);
        assert!(checks[0].remedy.as_deref().unwrap().contains("net.core.rmem_max=2097152"));
        fs::remove_file(core.path().join("rmem_max")).unwrap();
        assert_eq!(buffers(core.path()).len(), 1);
    }
}
