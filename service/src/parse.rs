//! Puts a command line and a configuration file together.

use std::{collections::HashSet, ffi::OsString, path::PathBuf};

use clap::{
    ArgMatches, Command, CommandFactory, FromArgMatches,
    error::{ContextKind, ContextValue},
    parser::ValueSource,
};

use crate::{
    Layout, Settings, SettingsError,
    layout::{find, flags, form},
    settings::relaxed,
};

/// A command line with what its configuration file adds.
#[derive(Debug)]
pub struct Parsed<C> {
    /// The flags of the file and those of the command line, which count where both give one.
    pub cli: C,
    /// The file, if `--config` named one.
    pub settings: Option<Settings>,
}

/// Why a command line cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// The command line, or what it and the file make together; also a request for help.
    #[error("{0}")]
    Usage(Box<clap::Error>),
    /// The file.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// Parses the command line `argv`, whose first word is the program. Where one of the subcommands `configured` has a
/// `--config FILE`, the keys of the file are the flags of the subcommand `keys`.
///
/// # Errors
/// [`ParseError`] for a command line or a file that cannot be used.
pub fn parse<C: CommandFactory + FromArgMatches>(
    argv: &[OsString],
    layout: &Layout,
    keys: &str,
    configured: &[&str],
) -> Result<Parsed<C>, ParseError> {
    let usage = |error| ParseError::Usage(Box::new(error));
    let strict = C::command();
    let Some((name, matches, file)) = configuration(&strict, argv, configured) else {
        let matches = strict.try_get_matches_from(argv).map_err(usage)?;
        let cli = C::from_arg_matches(&matches).map_err(usage)?;
        return Ok(Parsed { cli, settings: None });
    };
    // Building it adds the flags that every subcommand has.
    let mut built = strict.clone();
    built.build();
    let command = built.find_subcommand(keys).unwrap_or(&built).clone();
    let mut settings = Settings::read(&file, &command, layout)?;
    for flag in given(&command, &matches) {
        settings.remove(&flag);
    }
    // Before the subcommand stand no values of flags, so its name is the first word that is the same.
    let place = argv.iter().skip(1).position(|word| *word == *name).map_or(argv.len(), |place| place + 2);
    let (front, back) = argv.split_at(place.min(argv.len()));
    let with = |settings: &Settings| [front, settings.args(), back].concat();
    let matches = match strict.clone().try_get_matches_from(with(&settings)) {
        Ok(matches) => matches,
        Err(error) => {
            let lenient = lenient(&strict, configured);
            let lacks = |settings: &Settings| match lenient.clone().try_get_matches_from(with(settings)) {
                Ok(_) => Vec::new(),
                Err(error) => named(&error),
            };
            let found = located(&command, layout, &settings, lacks, &named(&error));
            return Err(found.map_or_else(|| usage(error), ParseError::Settings));
        }
    };
    let cli = C::from_arg_matches(&matches).map_err(usage)?;
    Ok(Parsed { cli, settings: Some(settings) })
}

/// The subcommand, its flags and its configuration file, if the command line names one.
fn configuration(
    strict: &Command,
    argv: &[OsString],
    configured: &[&str],
) -> Option<(String, ArgMatches, PathBuf)> {
    let mut matches = lenient(strict, configured).try_get_matches_from(argv).ok()?;
    let (name, matches) = matches.remove_subcommand()?;
    if !configured.contains(&name.as_str()) {
        return None;
    }
    let file = matches.get_one::<PathBuf>("config")?.clone();
    Some((name, matches, file))
}

/// The same command, whose subcommands `configured` have no flags that must be given.
fn lenient(strict: &Command, configured: &[&str]) -> Command {
    configured.iter().fold(strict.clone(), |command, name| command.mut_subcommand(*name, |sub| relaxed(&sub)))
}

/// The flags that an error of clap is about, without their dashes.
fn named(error: &clap::Error) -> Vec<String> {
    let texts = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    };
    // `--mqtt-key <FILE>`
    let flag = |text: &String| Some(text.strip_prefix("--")?.split([' ', '=']).next()?.to_owned());
    texts.iter().filter_map(flag).collect()
}

/// What the file lacks or gives in vain, where clap named the flags `missing`. `lacks` returns the flags that settings need
/// because of others that they have.
fn located(
    command: &Command,
    layout: &Layout,
    settings: &Settings,
    lacks: impl Fn(&Settings) -> Vec<String>,
    missing: &[String],
) -> Option<SettingsError> {
    let file = settings.file().to_owned();
    let wanted = |flag: &String| {
        let arg = find(command, flag)?;
        Some(format!("{}, or --{flag}: {}", layout.key(flag), form(arg)))
    };
    let needed = lacks(settings);
    if needed.is_empty() {
        let wanted: Vec<String> = missing.iter().filter_map(wanted).collect();
        let keys: Vec<String> = wanted.iter().map(|wanted| format!("give {wanted}")).collect();
        return (!keys.is_empty()).then_some(SettingsError::Missing { file, keys });
    }
    // The flag without which nothing would be missing is the one that needs it.
    let is_cause = |flag: &&str| {
        let mut others = settings.clone();
        others.remove(flag);
        lacks(&others) != needed
    };
    let reason: Vec<String> = needed.iter().filter_map(wanted).collect();
    let reason = format!("needs another key; give {}", reason.join("; "));
    let faults: Vec<_> =
        settings.flags().filter(is_cause).filter_map(|flag| settings.fault(flag, &reason)).collect();
    (!faults.is_empty()).then_some(SettingsError::Content { file, faults })
}

/// The names of the flags that the command line gives.
fn given(command: &Command, matches: &ArgMatches) -> HashSet<String> {
    let is_given = |arg: &&clap::Arg| {
        let id = arg.get_id().as_str();
        // The subcommand may lack some flags of the one that the file is for.
        matches.try_contains_id(id).is_ok() && matches.value_source(id) == Some(ValueSource::CommandLine)
    };
    flags(command).filter(is_given).filter_map(|arg| arg.get_long().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::{Args, Parser, Subcommand};

    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "program")]
    struct Cli {
        #[command(subcommand)]
        command: Sub,
        #[arg(long, short, global = true, action = clap::ArgAction::Count)]
        verbose: u8,
    }

    #[derive(Debug, Subcommand)]
    enum Sub {
        Run(Run),
        Check(Run),
        Other,
    }

    #[derive(Debug, Args)]
    struct Run {
        #[arg(long)]
        config: Option<PathBuf>,
        /// Where frames come from
        #[arg(long, required = true, value_name = "SOURCE")]
        source: Vec<String>,
        #[arg(long, default_value_t = 4)]
        in_flight: usize,
        /// A page
        #[arg(long, value_name = "ADDRESS")]
        page: Option<String>,
        #[arg(long, requires = "page")]
        remote: bool,
    }

    const LAYOUT: Layout =
        Layout { sections: &[], tables: &[], own: &[], secret: &[], rebase: |_, _, _| None };

    fn parsed(text: &str, words: &[&str]) -> Result<(Run, u8, Option<Settings>), ParseError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        fs::write(&file, text).unwrap();
        let word = |word: &&str| match *word {
            "FILE" => file.clone().into_os_string(),
            word => word.into(),
        };
        let argv: Vec<OsString> = [&"program"].into_iter().chain(words).map(word).collect();
        let Parsed { cli, settings } = parse::<Cli>(&argv, &LAYOUT, "run", &["run", "check"])?;
        match cli.command {
            Sub::Run(run) | Sub::Check(run) => Ok((run, cli.verbose, settings)),
            Sub::Other => panic!("another command"),
        }
    }

    #[test]
    fn flags_count_more_than_keys_and_replace_lists() {
        let text = "source = ['a', 'b']\nin-flight = 2\nverbose = 2\n";
        let (run, verbose, settings) = parsed(text, &["run", "--config", "FILE"]).unwrap();
        assert_eq!((run.source, run.in_flight, verbose), (vec!["a".into(), "b".into()], 2, 2));
        assert!(settings.unwrap().place("--in-flight", "").is_some());
        let words = ["-v", "check", "--source", "c", "--config=FILE", "--in-flight=7"];
        let words: Vec<&str> = words.iter().map(|word| word.trim_end_matches("=FILE")).collect();
        let words = [&words[..5], &["FILE"], &words[5..]].concat();
        let (run, verbose, settings) = parsed(text, &words).unwrap();
        assert_eq!((run.source, run.in_flight, verbose), (vec!["c".into()], 7, 1));
        assert!(settings.unwrap().place("--in-flight", "").is_none());
    }

    #[test]
    fn what_both_lack_is_an_error_of_usage() {
        for (text, words) in [("in-flight = 2\n", &["run", "--config", "FILE"][..]), ("", &["run"])] {
            let error = parsed(text, words).unwrap_err();
            assert!(error.to_string().contains("--source"), "{error}");
        }
        let error = parsed("in-flight = 3\n", &["run", "--config", "FILE"]).unwrap_err().to_string();
        assert!(
            error.ends_with("c.toml: give source, or --source: SOURCE: Where frames come from"),
            "{error}"
        );
        let error = parsed("in-flight = 3\nremote = true\n", &["run", "--config", "FILE"]).unwrap_err();
        let text = "c.toml:2: remote = true needs another key; give page, or --page: ADDRESS: A page";
        assert!(error.to_string().ends_with(text), "{error}");
        // What the command line lacks itself is worded by it.
        let error = parsed("source = 'a'\n", &["run", "--config", "FILE", "--remote"]).unwrap_err();
        assert!(matches!(error, ParseError::Usage(_)), "{error}");
        let error = parsed("source = 1\nsuorce = 1\n", &["run", "--config", "FILE"]).unwrap_err();
        assert!(matches!(error, ParseError::Settings(_)), "{error}");
        assert!(matches!(parsed("", &["run", "--config", "none.toml"]), Err(ParseError::Settings(_))));
    }
}
