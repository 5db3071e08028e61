//! The flags of the Open Inference Protocol.

use clap::Args;

use super::{Listen, number};

/// The Open Inference Protocol, for clients without a head.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Open Inference Protocol")]
pub struct Oip {
    /// TCP address of the Open Inference Protocol over HTTP, for clients without a head (docs/oip.md), for example
    /// 127.0.0.1:8000. They need a token, whose digest stands in the rights of a device (token_sha256). It is not encrypted:
    /// beyond this machine put a proxy with TLS in front
    #[arg(id = "oip_http", long = "oip-http", value_name = "HOST:PORT")]
    pub http: Option<Listen>,
    /// Answer clients without a token as well, with the rights of the name anonymous
    #[arg(id = "oip_anonymous", long = "oip-anonymous")]
    pub anonymous: bool,
    /// Connections that may be open at once; each may take a request of 16 MiB, which counts against --request-memory
    #[arg(id = "oip_connections", long = "oip-connections", value_name = "N", default_value_t = 64, value_parser = number(1, 4096))]
    pub connections: usize,
}
