//! The command `narrows-tail bundle`.

use std::path::PathBuf;

use clap::Subcommand;

/// Examples for `--help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  narrows-tail bundle key signing.pem
  narrows-tail bundle sign lite2 --key signing.pem
  narrows-tail bundle verify lite2 --key signing.pem.pub

On devices: narrows-head run --bundle lite2 --bundle-keys signing.pem.pub …
Signatures follow the OpenSSF Model Signing specification: `model_signing verify key` of PyPI verifies them too.";

/// `narrows-tail bundle`.
#[derive(Debug, Subcommand)]
pub enum BundleCommand {
    /// Make a key for signing: FILE, which is a secret, and FILE.pub, which devices are given
    #[command(after_help = "Example:\n  narrows-tail bundle key signing.pem")]
    Key {
        /// File of the private key; it must not exist
        file: PathBuf,
    },
    /// Sign every file in the folder of a bundle: writes model.sig into it
    #[command(after_help = "Example:\n  narrows-tail bundle sign lite2 --key signing.pem")]
    Sign {
        /// Folder of the bundle
        dir: PathBuf,
        /// Private key of P-256 or P-384 in PEM (PKCS #8), which this user alone can read
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Verify that every file in the folder of a bundle is as it was signed
    #[command(after_help = "Example:\n  narrows-tail bundle verify lite2 --key signing.pem.pub")]
    Verify {
        /// Folder of the bundle
        dir: PathBuf,
        /// File of public keys in PEM, one of which must have signed; may be given several times
        #[arg(long, value_name = "FILE", required = true)]
        key: Vec<PathBuf>,
    },
}
