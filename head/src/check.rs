//! `narrows-head check`: says what is wrong with the settings of a run and with the files that they name, without starting it.

use std::path::Path;

use narrows_models::Bundle;
use narrows_service::Settings;
use rustix::fs::{Access, access};

use crate::{
    Chain, Error,
    config::{self, Config, Lines, Outputs},
    doctor::{self, Check, Checks},
    limits,
    name::Escaped,
    settings::describe,
    sink,
    source::Spec,
    stage::Stages,
};

/// The flags of `narrows-head check`.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// The flags of the run that is checked.
    #[command(flatten)]
    pub run: config::Flags,

    /// Print JSON instead of lines
    #[arg(long)]
    pub json: bool,
}

/// Checks everything that a run with these flags would open, prints what was found and returns the exit code: 1 if something
/// would keep it from beginning.
///
/// # Errors
/// [`Error::Output`] if standard output cannot be written.
pub fn check(flags: &Flags, settings: Option<&Settings>) -> Result<u8, Error> {
    let mut checks = Checks::default();
    if let Some(settings) = settings {
        let (file, count) = (settings.file().display(), settings.count());
        let keys = if count == 1 { "key" } else { "keys" };
        checks.push(Check::ok("file", format!("{file}: {count} {keys}")));
    }
    if let Err(error) = limits::check() {
        let remedy = "Raise the limit for this user or service; `ulimit -a` lists what this shell gives";
        checks.push(Check::failed("limits", Chain(&error).to_string(), remedy));
    }
    let (flags, json) = (&flags.run, flags.json);
    let is_live = sources(flags, settings, &mut checks);
    if let Some(folder) = flags.identity.as_deref().filter(|_| flags.path != config::Path::Local) {
        doctor::identity(folder, &mut checks);
    }
    match flags.signature.open(&flags.bundle) {
        Err(error) => {
            let found = describe(settings, &error);
            checks.push(Check::failed("bundle", found, doctor::bundle_remedy(&flags.bundle)));
        }
        Ok(bundle) => {
            checks.push(doctor::check::bundle(&bundle));
            with_bundle(flags, settings, bundle, is_live, &mut checks);
        }
    }
    doctor::print(&checks, json)
}

/// Checks the sources; returns whether one is live.
fn sources(flags: &config::Flags, settings: Option<&Settings>, checks: &mut Checks) -> bool {
    let mut is_live = false;
    for text in &flags.source {
        let spec = match Spec::parse(text) {
            Ok(spec) => spec,
            Err(error) => {
                let found = describe(settings, &Error::Source(error));
                checks.push(Check::failed(
                    "source",
                    found,
                    "docs/cameras.md has a line for each kind of source",
                ));
                continue;
            }
        };
        is_live |= spec.is_live();
        checks.push(match spec.look() {
            Ok(found) => Check::ok("source", format!("{}: {found}", spec.title())),
            Err(reason) => {
                let place = settings.and_then(|settings| settings.place("source", &text.to_string_lossy()));
                let place = place.map(|place| place + ": ").unwrap_or_default();
                let found = format!("{place}{}: {reason}", spec.title());
                // A camera that is plugged in later, or a program that is installed, is found then.
                match spec.is_live() {
                    true => Check::warning("source", found, "The run waits for it and tries again"),
                    false => Check::failed(
                        "source",
                        found,
                        "Name a file, a folder or a pattern of images that exists",
                    ),
                }
            }
        });
    }
    is_live
}

/// Checks what depends on the bundle: the flags together, the networks and where answers go.
fn with_bundle(
    flags: &config::Flags,
    settings: Option<&Settings>,
    bundle: Bundle,
    is_live: bool,
    checks: &mut Checks,
) {
    let config = match Config::new(flags, &bundle, is_live) {
        Ok(config) => config,
        Err(error) => {
            let remedy = "`narrows-head run --help` says what each flag may be";
            return checks.push(Check::failed("settings", describe(settings, &error), remedy));
        }
    };
    checks.push(Check::ok("settings", "every flag can be used with this bundle and with the others"));
    match Stages::open(&bundle, &config, None) {
        Ok(_) => checks.push(Check::ok("networks", "can be run on this device")),
        Err(error) => {
            let remedy = "Install a bundle that this version of narrows can run";
            checks.push(Check::failed("networks", describe(settings, &error), remedy));
        }
    }
    checks.extend(outputs(&config.outputs, settings));
    let written = [
        config.out.as_ref().map(|folder| ("--out", folder)),
        config.spool.as_ref().map(|spool| ("--spool", &spool.folder)),
        config.decisions.as_ref().map(|decisions| ("--decisions", &decisions.file)),
    ];
    for (flag, path) in written.into_iter().flatten() {
        checks.push(writable(flag, path, settings));
    }
}

/// Checks whether answers can go where they are to go; connects to nothing.
fn outputs(outputs: &Outputs, settings: Option<&Settings>) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Lines::File { path, .. } = &outputs.lines {
        checks.push(writable("--lines", path, settings));
    }
    if let Err(error) = sink::check_files(outputs) {
        let remedy =
            "Give the files that the broker's or the webhook's operator gave you, readable by this user";
        checks.push(Check::failed("outputs", describe(settings, &error), remedy));
    }
    checks
}

/// Checks whether a file or folder can be written, or made.
fn writable(flag: &'static str, path: &Path, settings: Option<&Settings>) -> Check {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let tried = if path.exists() { path } else { parent };
    match access(tried, Access::WRITE_OK) {
        Ok(()) => Check::ok("outputs", format!("{flag} {} can be written", Escaped(path))),
        Err(error) => {
            let place = settings.and_then(|settings| settings.place(flag, &path.to_string_lossy()));
            let place = place.unwrap_or_else(|| format!("{flag} {}", Escaped(path)));
            let found = format!("{place}: {} cannot be written: {error}", Escaped(tried));
            Check::failed("outputs", found, "Make the folder, and let this user write into it")
        }
    }
}
