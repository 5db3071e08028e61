//! Man pages and shell completions, for packages.

use std::{fs, io, path::PathBuf};

use clap::{Args, Command};
use clap_complete::{Shell, generate_to};

/// Where [`manual()`] writes.
#[derive(Debug, Clone, Args)]
pub struct ManualFlags {
    /// Folder for the man pages
    #[arg(long, value_name = "DIR")]
    pub man: PathBuf,
    /// Folder for the completions of bash, zsh and fish
    #[arg(long, value_name = "DIR")]
    pub completions: PathBuf,
}

/// Writes a man page for `command` and each of its subcommands into one folder, and completions for bash, zsh and fish into the
/// other. Folders that are missing are made. What is hidden from help is in neither.
///
/// # Errors
/// A folder or a file cannot be written.
pub fn manual(command: &Command, folders: &ManualFlags) -> io::Result<()> {
    let ManualFlags { man, completions } = folders;
    fs::create_dir_all(man)?;
    fs::create_dir_all(completions)?;
    clap_mangen::generate_to(command.clone(), man)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let name = command.get_name().to_owned();
        generate_to(shell, &mut command.clone(), name, completions)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Arg;
    use tempfile::tempdir;

    use super::*;

    #[test]
    fn every_subcommand_has_a_page_and_is_completed() -> io::Result<()> {
        let folder = tempdir()?;
        let folders =
            ManualFlags { man: folder.path().join("man"), completions: folder.path().join("completions") };
        let run = Command::new("run").about("Run it").arg(Arg::new("source").long("source"));
        let hidden = Command::new("manual").hide(true);
        manual(&Command::new("program").subcommand(run).subcommand(hidden), &folders)?;
        let page = fs::read_to_string(folders.man.join("program-run.1"))?;
        assert!(page.contains("Run it") && page.contains("source"), "{page}");
        assert!(!folders.man.join("program-manual.1").exists());
        for name in ["program.bash", "_program", "program.fish"] {
            assert!(fs::read_to_string(folders.completions.join(name))?.contains("source"), "{name}");
        }
        Ok(())
    }
}
