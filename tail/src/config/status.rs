//! The flags of the status listener.

use clap::Args;

use super::{Listen, number};

/// Most devices with metrics of their own.
const DEVICES_MAX: usize = 10_000;

/// Health, metrics and the dashboard.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Status")]
pub struct Status {
    /// TCP address of health (/v2/health/live, /v2/health/ready), metrics (/metrics) and a dashboard (/), for example
    /// 127.0.0.1:7462. There is no password: whoever reaches it sees the devices' names and figures, so beyond this machine
    /// let only a trusted network reach it
    #[arg(id = "status", long = "status", value_name = "HOST:PORT")]
    pub listen: Option<Listen>,
    /// Devices that have metrics of their own, the first that connect; the others are summed up under "other". Each takes
    /// about 10 kB of every answer of /metrics per bundle, task and path that it uses
    #[arg(
        id = "status_devices", long = "status-devices", value_name = "N", default_value_t = 100, value_parser = number(0, DEVICES_MAX)
    )]
    pub devices: usize,
}
