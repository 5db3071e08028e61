//! The help of every command of every program has an example of that command.

use std::process::Command;

use anyhow::{Context, Result};
use narrows_tests::said;

/// Checks the help of the command `path` and of every command below it; returns how many there are.
fn walk(program: &dyn Fn() -> Command, name: &str, path: &[String]) -> Result<usize> {
    let output = program().args(path).arg("--help").output()?;
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    let full = [&[name.to_owned()], path].concat().join(" ");
    assert!(output.status.success(), "{full} --help: {}", said(&output));
    let (options, examples) = help.split_once("\nExample").with_context(|| format!("{full}: no example"))?;
    assert!(examples.contains(&full), "{full}: its examples are of something else:\n{examples}");
    let listed = options.split_once("\nCommands:\n").map(|(_, rest)| rest).unwrap_or_default();
    let commands = listed.lines().take_while(|line| !line.is_empty());
    // Descriptions that are too long for a line continue with more indentation.
    let commands = commands.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let commands = commands.filter_map(|line| line.split_whitespace().next());
    let mut seen = 1;
    for command in commands.filter(|command| *command != "help") {
        seen += walk(program, name, &[path, &[command.to_owned()]].concat())?;
    }
    Ok(seen)
}

#[test]
fn every_command_shows_an_example_of_itself() -> Result<()> {
    assert_eq!(walk(&narrows_pair::head, "narrows-head", &[])?, 10);
    assert_eq!(walk(&narrows_pair::tail, "narrows-tail", &[])?, 20);
    assert_eq!(walk(&narrows_pair::bench, "narrows-bench", &[])?, 12);
    assert_eq!(walk(&narrows_pair::demo, "narrows-demo", &[])?, 1);
    Ok(())
}
