//! A configuration file with every key, as documentation and as a beginning.

use clap::{Arg, ArgAction, Command};

use crate::{
    Layout, Section,
    layout::{flags, possible_values, value_name},
};

/// Characters in a line of a comment.
const WIDTH: usize = 110;

/// A file for the subcommand `name` of `command` with every key in a comment: its meaning, its values and its default. `intro`
/// stands above it.
#[must_use]
pub fn sample(command: &Command, name: &str, layout: &Layout, intro: &str) -> String {
    let mut built = command.clone();
    built.build();
    let Some(sub) = built.find_subcommand(name) else { return String::new() };
    let mut text = comment(intro);
    let is_in = |section: &Section, arg: &Arg| section.key_of(arg.get_long().unwrap_or_default()).is_some();
    let is_in_any = |arg: &Arg| layout.sections.iter().any(|section| is_in(section, arg));
    for arg in flags(sub).filter(|arg| !is_in_any(arg)) {
        text += &entry(arg, arg.get_long().unwrap_or_default());
        if let Some(tables) = layout.tables(arg.get_long().unwrap_or_default()) {
            let (flag, name, value) = (tables.flag, tables.name, tables.value);
            text += &format!(
                "# or, below every other key that stands above the sections:\n# [[{flag}]]\n# {name} = \"NAME\"\n# {value} = \"{}\"\n",
                value_name(arg)
            );
        }
    }
    for section in layout.sections {
        let inner: Vec<&Arg> = flags(sub).filter(|arg| is_in(section, arg)).collect();
        if inner.is_empty() {
            continue;
        }
        text += &format!("\n[{}]\n", section.name);
        for arg in inner {
            text += &entry(arg, section.key_of(arg.get_long().unwrap_or_default()).unwrap_or_default());
        }
    }
    text
}

/// The comment of a key, and the key with its default.
fn entry(arg: &Arg, key: &str) -> String {
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut text = format!("\n{}", comment(&help));
    let values: Vec<_> = arg.get_possible_values().into_iter().filter(|_| !is_switch(arg)).collect();
    for value in values.iter().filter(|value| !value.is_hide_set()) {
        let help = value.get_help().map(|help| format!(": {help}")).unwrap_or_default();
        text += &comment(&format!("  {}{help}", value.get_name()));
    }
    let required = if arg.is_required_set() { "  # required" } else { "" };
    text + &format!("#{key} = {}{required}\n", example(arg))
}

/// A value as TOML writes it: the default, or what a value looks like.
fn example(arg: &Arg) -> String {
    if is_switch(arg) {
        return "false".to_owned();
    }
    if matches!(arg.get_action(), ArgAction::Count) {
        return "0".to_owned();
    }
    let default = arg.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
    let default = default.or_else(|| told_default(arg));
    let has_default = default.is_some();
    let value = default.unwrap_or_else(|| match possible_values(arg).first() {
        Some(first) => first.clone(),
        None => value_name(arg),
    });
    let quoted = match value.parse::<f64>() {
        Ok(_) if has_default => value,
        _ => format!("{value:?}"),
    };
    if matches!(arg.get_action(), ArgAction::Append) { format!("[{quoted}]") } else { quoted }
}

/// The default that a help tells in its last words, where it is one word.
fn told_default(arg: &Arg) -> Option<String> {
    let help = arg.get_help()?.to_string();
    let (_, told) = help.rsplit_once("[default: ")?;
    let word = told.strip_suffix(']')?;
    let is_value = !word.contains(char::is_whitespace)
        && (word.starts_with(|c: char| c.is_ascii_digit()) || !word.contains(char::is_uppercase));
    is_value.then(|| word.to_owned())
}

fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

/// A text in lines that begin with `# `.
fn comment(text: &str) -> String {
    let mut lines = String::new();
    for paragraph in text.lines() {
        let indent: String = paragraph.chars().take_while(|c| *c == ' ').collect();
        let mut line = format!("# {indent}");
        let begin = line.len();
        for word in paragraph.split_whitespace() {
            if line.len() > begin && line.chars().count() + 1 + word.chars().count() > WIDTH {
                lines += line.trim_end();
                lines.push('\n');
                line = format!("# {indent}");
                if !indent.is_empty() {
                    line += "  ";
                }
            }
            if line.len() > begin && !line.ends_with(' ') {
                line.push(' ');
            }
            line += word;
        }
        lines += line.trim_end();
        lines.push('\n');
    }
    lines
}
