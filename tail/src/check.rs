//! `narrows-tail check`: says what is wrong with the settings of a server and with the files that they name, without serving.

use std::{net::SocketAddr, path::Path};

use narrows_models::{Bundle, Parts};
use narrows_service::{Check, Checks, Settings};
use narrows_wire::quic::{self, Tuning};

use crate::{
    Error,
    config::Serve,
    engine::{BundleOptions, Engine, Load, Options, chain},
    serve::{Certificates, Enrolment, PortFile, RightsFile, bind_tcp, resolve, warnings_now},
    settings::{describe, placed},
};

/// Where bundles and certificates come from, where one cannot be used.
const BUNDLE: &str =
    "Give --bundle the folder that holds manifest.toml, as it was made, readable by this user";
const IDENTITY: &str =
    "Make it with narrows-tail certs init, or give --identity the folder certs/server (docs/certificates.md)";

/// Checks everything that a server with these settings would open: certificates, the address, files and the digests of bundles.
/// With `networks` every network is loaded and answers its test vectors, which takes as much memory as serving.
#[must_use]
pub fn check(config: &Serve, settings: Option<&Settings>, networks: bool) -> Checks {
    let mut checks = Checks::default();
    if let Some(settings) = settings {
        let (file, count) = (settings.file().display(), settings.count());
        checks
            .push(Check::ok("file", format!("{file}: {count} {}", if count == 1 { "key" } else { "keys" })));
    }
    match config.check() {
        Ok(()) => checks.push(Check::ok("settings", "every flag can be used with the others")),
        Err((flag, text)) => {
            let remedy = "`narrows-tail serve --help` says what each flag may be";
            checks.push(Check::failed("settings", placed(settings, flag, &text), remedy));
        }
    }
    identity(config, settings, &mut checks);
    if config.enrol.listen.is_some() {
        let identity = Certificates::new(&config.identity, config.crl.as_deref()).load().map_err(Error::from);
        match identity.and_then(|identity| Enrolment::open(config, &identity)) {
            Ok(_) => checks.push(Check::ok("enrol", "the CA can sign, and the address can be listened on")),
            Err(error) if is_in_use(&error) => checks.push(listens("enrol", Err(error), settings)),
            Err(error) => {
                let remedy = "docs/enrolment.md says what a server needs to enrol devices";
                checks.push(Check::failed("enrol", describe(settings, &error), remedy));
            }
        }
    }
    checks.push(listens("listen", resolve(&config.listen), settings));
    if let Some(listen) = &config.status.listen {
        checks.push(listens("status", bind_tcp(listen).map(|(address, _)| address), settings));
    }
    if let Some(listen) = &config.oip.http {
        checks.push(listens("oip-http", bind_tcp(listen).map(|(address, _)| address), settings));
    }
    match RightsFile::of(config, settings) {
        Ok(None) => {}
        Ok(Some((_, rights))) => checks.push(Check::ok("devices", rights.to_string())),
        Err(error) => {
            let remedy = "docs/scheduling.md has every key of rights";
            checks.push(Check::failed("devices", describe(settings, &error), remedy));
        }
    }
    if let Some(file) = &config.port_file
        && let Err(error) = PortFile::open(file)
    {
        let found = placed(settings, "port-file", &chain(&error));
        checks.push(Check::failed("port file", found, "Name a file in a folder that this user may write"));
    }
    if let Some(library) = config.runtime.as_deref().filter(|library| !library.is_file()) {
        let found = placed(settings, "runtime", &format!("{}: no such file", library.display()));
        checks.push(Check::failed("runtime", found, "`make runtime` unpacks ONNX Runtime into .runtime"));
    }
    let whole = config.bundles.folders.iter().filter(|folder| bundle(folder, settings, &mut checks)).count();
    if networks && whole == config.bundles.folders.len() {
        // All of them, whatever fits beside the others while it serves.
        let bundles = BundleOptions { memory: None, load: Load::Start, ..config.engine_options().bundles };
        let options = Options { bundles, ..config.engine_options() };
        checks.push(match Engine::open(&config.bundles.folders, &options) {
            Ok(engine) => {
                engine.close();
                Check::ok("networks", "loaded, and their test vectors hold")
            }
            Err(error) => {
                let error = Error::from(error);
                Check::failed(
                    "networks",
                    describe(settings, &error),
                    "docs/operating.md says what a server needs to start",
                )
            }
        });
    }
    checks
}

/// Checks the server's certificates, its key and the revocation list.
fn identity(config: &Serve, settings: Option<&Settings>, checks: &mut Checks) {
    let loaded = Certificates::new(&config.identity, config.crl.as_deref()).load().map_err(Error::from);
    let usable = loaded.and_then(|identity| {
        quic::server_config(&identity, &Tuning::default())?;
        Ok(identity)
    });
    match usable {
        Err(error) => checks.push(Check::failed("identity", describe(settings, &error), IDENTITY)),
        Ok(identity) => {
            let warnings = warnings_now(&identity);
            if warnings.is_empty() {
                let revoked = identity.revoked().map_or(0, |list| list.revoked().len());
                checks
                    .push(Check::ok("identity", format!("certificates can be used; {revoked} are revoked")));
            }
            for warning in warnings {
                let (found, remedy) = warning.split_once("; ").unwrap_or((&warning, IDENTITY));
                checks.push(Check::warning("identity", found, remedy));
            }
        }
    }
}

/// Checks the digests of a bundle; returns whether they hold.
fn bundle(folder: &Path, settings: Option<&Settings>, checks: &mut Checks) -> bool {
    match Bundle::open(folder, Parts::Tail { unsplit: false }) {
        Ok(bundle) => {
            let (name, digest) = (bundle.name(), bundle.digest().short());
            checks.push(Check::ok("bundle", format!("{name} {digest}: the digests hold")));
            true
        }
        Err(error) => {
            // Which of several bundles it is.
            let text = format!("{}: {}", folder.display(), chain(&error));
            checks.push(Check::failed("bundle", placed(settings, "bundle", &text), BUNDLE));
            false
        }
    }
}

/// Checks an address to listen on: what it was resolved to, or why it cannot be listened on.
fn listens(flag: &'static str, found: Result<SocketAddr, Error>, settings: Option<&Settings>) -> Check {
    match found {
        Ok(address) => Check::ok(flag, format!("{address} can be listened on")),
        Err(error) => {
            let found = placed(settings, flag, &chain(&error));
            if is_in_use(&error) {
                let remedy =
                    "Right where the server that is to be started again has it; else choose another port";
                return Check::warning(flag, found, remedy);
            }
            let remedy = format!("Give --{flag} an address of this machine and a port, such as 0.0.0.0:7461");
            Check::failed(flag, found, remedy)
        }
    }
}

fn is_in_use(error: &Error) -> bool {
    matches!(error, Error::Bind { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse)
}
