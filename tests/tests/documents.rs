//! The commands of README.md and of docs/ work as they stand there.
//!
//! The `sh` blocks of a document are run in order in a folder that has the project's `models`, `bench` and `docs`, with
//! the programs in PATH. `narrows-tail serve` is started and left running to the document's end. Of `make` only the
//! target is checked: the targets that a document names are the build and the tests themselves.
//!
//! Blocks marked `sh board` are for a machine with the packages, root's rights or a camera. They are not run here; that the shell
//! understands them, that the programs know their flags, and that the project's files in them exist is checked.
#![expect(clippy::disallowed_methods, reason = "a server must listen within a bound")]

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use narrows_tests::{TIMEOUT, root, runtime, said, skipped};
use tempfile::TempDir;

#[test]
fn commands_of_the_readme_work() -> Result<()> {
    run("README.md")
}

#[test]
fn commands_for_two_machines_work() -> Result<()> {
    run("docs/two-machines.md")
}

#[test]
fn commands_for_the_paths_work() -> Result<()> {
    run("docs/paths.md")
}

#[test]
fn commands_for_sources_work() -> Result<()> {
    run("docs/sources.md")
}

#[test]
fn commands_for_cameras_work() -> Result<()> {
    run("docs/cameras.md")
}

#[test]
fn commands_for_answers_work() -> Result<()> {
    run("docs/answers.md")
}

#[test]
fn commands_for_operating_work() -> Result<()> {
    run("docs/operating.md")
}

#[test]
fn commands_for_the_status_work() -> Result<()> {
    run("docs/status.md")?;
    run("docs/METRICS.md")
}

#[test]
fn commands_for_boards_work() -> Result<()> {
    run("docs/boards.md")
}

#[test]
fn commands_for_kubernetes_work() -> Result<()> {
    run("docs/kubernetes.md")
}

#[test]
fn commands_for_scheduling_work() -> Result<()> {
    run("docs/scheduling.md")
}

#[test]
fn commands_for_the_inference_protocol_work() -> Result<()> {
    run("docs/oip.md")
}

#[test]
fn commands_for_bundles_work() -> Result<()> {
    run("docs/bundles.md")
}

#[test]
fn commands_for_configuration_work() -> Result<()> {
    run("docs/configuration.md")
}

#[test]
fn commands_for_certificates_work() -> Result<()> {
    run("docs/certificates.md")
}

#[test]
fn commands_for_enrolment_work() -> Result<()> {
    run("docs/enrolment.md")
}

#[test]
fn commands_for_rate_control_work() -> Result<()> {
    run("docs/rate-control.md")
}

#[test]
fn commands_for_several_servers_and_the_spool_work() -> Result<()> {
    run("docs/servers.md")?;
    run("docs/spool.md")
}

#[test]
fn commands_for_power_and_comparing_work() -> Result<()> {
    run("docs/power.md")?;
    run("docs/compare.md")
}

#[test]
fn commands_for_boards_and_servers_work() -> Result<()> {
    for document in ["docs/gpu-server.md", "docs/troubleshooting.md", "docs/upgrade.md"] {
        run(document)?;
    }
    // What these say is for a machine with packages.
    for document in ["docs/raspberry-pi.md", "docs/jetson.md", "docs/security.md"] {
        check_board_blocks(document)?;
    }
    Ok(())
}

#[test]
fn every_document_is_run() -> Result<()> {
    let own = fs::read_to_string(root().join("tests/tests/documents.rs"))?;
    for entry in fs::read_dir(root().join("docs"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name = format!("\"docs/{}\"", path.file_name().context("a name")?.to_string_lossy());
            assert!(own.contains(&name), "{name} is run by no test");
        }
    }
    Ok(())
}

#[test]
fn documents_link_to_files_that_exist() -> Result<()> {
    let mut documents =
        vec![root().join("README.md"), root().join("CONTRIBUTING.md"), root().join("SECURITY.md")];
    for folder in
        ["docs", "bench", "bench/photos", "codec", "wire", "models", "models/results", "models/recipes"]
    {
        let entries = fs::read_dir(root().join(folder))?.map(|entry| Ok(entry?.path()));
        let entries = entries.collect::<Result<Vec<PathBuf>>>()?;
        documents.extend(entries.into_iter().filter(|path| path.extension().is_some_and(|end| end == "md")));
    }
    for document in documents {
        let text = fs::read_to_string(&document)?;
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            let found = document.parent().context("a folder")?.join(path);
            assert!(found.exists(), "{}: there is no {target}", document.display());
        }
    }
    Ok(())
}

/// Checks the blocks of a document that are for another machine.
fn check_board_blocks(document: &str) -> Result<()> {
    let text = fs::read_to_string(root().join(document))?;
    let kinds = text.lines().filter_map(|line| line.strip_prefix("```sh"));
    for kind in kinds {
        ensure!(["", " board"].contains(&kind), "{document}: there is no kind of block called \"sh{kind}\"");
    }
    for command in commands(&text, "```sh board") {
        let name = |error: anyhow::Error| error.context(format!("{document}: {command}"));
        let output = Command::new("bash").args(["-n", "-c", &command]).output()?;
        ensure!(output.status.success(), "{document}: {command}: {}", said(&output));
        check_flags(&command).map_err(name)?;
        for file in command.split_whitespace().filter(|word| word.starts_with("deploy/")) {
            ensure!(root().join(file).exists(), "{document}: there is no {file}");
        }
    }
    Ok(())
}

/// Checks that each program of ours in a command has the subcommand and the flags that it is given.
fn check_flags(command: &str) -> Result<()> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let is_program = |word: &&str| ["narrows-head", "narrows-tail", "narrows-bench"].contains(word);
    for (at, _) in words.iter().enumerate().filter(|(_, word)| is_program(word)) {
        let rest: Vec<&str> =
            words[at..].iter().copied().take_while(|word| !["|", "--", ";"].contains(word)).collect();
        let is_name = |word: &&&str| word.chars().all(|letter| letter.is_ascii_lowercase());
        // `apt install narrows-head` is no command of the program's.
        let Some(first) = rest.get(1).filter(|word| is_name(word)) else { continue };
        let programs = PathBuf::from(narrows_pair::head().get_program());
        let program = programs.parent().unwrap_or(Path::new("")).join(rest[0]);
        let mut help = Command::new(program);
        help.arg(first);
        if ["certs", "enrol", "bundle"].contains(first) && rest[0] == "narrows-tail" {
            help.args(rest.get(2));
        }
        let output = help.arg("--help").output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{}", said(&output));
        for flag in rest.iter().filter(|word| word.starts_with("--")) {
            ensure!(text.contains(flag), "{} {first} has no {flag}", rest[0]);
        }
    }
    Ok(())
}

/// Runs the `sh` blocks of a document.
fn run(document: &str) -> Result<()> {
    check_board_blocks(document)?;
    let text = fs::read_to_string(root().join(document))?;
    let commands = commands(&text, "```sh");
    assert!(!commands.is_empty(), "{document} has no commands");
    let place = Place::new()?;
    let mut servers = Vec::new();
    for command in commands {
        let name = |error: anyhow::Error| error.context(format!("{document}: {command}"));
        if let Some(rest) = command.strip_prefix("make ") {
            make(rest).map_err(name)?;
        } else if command.starts_with("curl ") && Command::new("curl").arg("--version").output().is_err() {
            skipped(document, "curl (apt install curl)");
        } else if command.starts_with("narrows-tail serve") {
            servers.push(Server::start(&command, &place).map_err(name)?);
        } else {
            let output = place.shell(&command).output()?;
            let words = format!("{}{}", String::from_utf8_lossy(&output.stdout), said(&output));
            // Most machines that run tests have no power sensor; the document says what the program does then.
            let unmeasured =
                command.starts_with("narrows-head power") && words.contains("o power sensor can be read");
            ensure!(output.status.success() || unmeasured, "{document}: {command}: {words}");
        }
    }
    Ok(())
}

/// The commands in the blocks of a document that begin with the line `fence`, without comments, lines that are continued joined.
fn commands(text: &str, fence: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut inside, mut command) = (false, String::new());
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == fence;
            continue;
        }
        if !inside {
            continue;
        }
        let line = line.split_once(" #").map_or(line, |(line, _)| line).trim();
        match line.strip_suffix('\\') {
            Some(begun) => command.push_str(begun),
            None => {
                command.push_str(line);
                if !command.is_empty() {
                    found.push(std::mem::take(&mut command));
                }
            }
        }
    }
    found
}

/// Where a document's commands run.
struct Place {
    /// A folder like that of the project: what commands read is linked, what they write stays in it.
    folder: TempDir,
    /// Free ports in the place of those that documents name, for frames and for enrolments, so that documents can be run at the
    /// same time.
    port: String,
    enrolments: String,
}

impl Place {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        for name in ["models", "bench", "docs"] {
            symlink(root().join(name), folder.path().join(name))?;
        }
        // Below the range from which systems give ports to sockets that ask for any.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let first = 12_000 + (std::process::id() % 16_000) as u16;
        let free = || {
            let port = (0..4_000).map(|_| first + NEXT.fetch_add(1, Ordering::Relaxed)).find(|port| {
                UdpSocket::bind(("127.0.0.1", *port)).is_ok()
                    && TcpListener::bind(("127.0.0.1", *port)).is_ok()
            });
            Ok::<_, anyhow::Error>(port.context("no free port")?.to_string())
        };
        Ok(Place { folder, port: free()?, enrolments: free()? })
    }

    /// A shell that runs `command` here; the server of the documents is this machine.
    fn shell(&self, command: &str) -> Command {
        let programs = PathBuf::from(narrows_pair::head().get_program());
        let programs = programs.parent().unwrap_or(Path::new("")).display().to_string();
        let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
        let command = command.replace("server.example", "localhost").replace("7461", &self.port);
        let command = command.replace("7463", &self.enrolments);
        let port = format!(":{}", self.port);
        let command = command.replace(":8080", &port).replace(":7462", &port);
        let mut shell = Command::new("bash");
        shell.arg("-ec").arg(command).current_dir(self.folder.path());
        shell.env("PATH", path).env("NARROWS_ORT", runtime()).stdin(Stdio::null());
        shell
    }
}

/// Checks that make has the target.
fn make(arguments: &str) -> Result<()> {
    let target = arguments.split_whitespace().next().context("a target")?;
    let makefile = fs::read_to_string(root().join("Makefile"))?;
    ensure!(makefile.contains(&format!("\n{target}:")), "the Makefile has no target {target}");
    Ok(())
}

/// A server that a document starts.
struct Server(Child);

impl Server {
    /// Starts it and waits until it listens.
    fn start(command: &str, place: &Place) -> Result<Self> {
        let (port, log) = (place.folder.path().join("port"), place.folder.path().join("tail.log"));
        let child = place
            .shell(&format!("exec {command} --port-file port"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()?;
        let mut server = Server(child);
        let begun = Instant::now();
        while !port.is_file() {
            if let Some(status) = server.0.try_wait()? {
                bail!("ended with {status}: {}", fs::read_to_string(&log)?);
            }
            ensure!(begun.elapsed() < 4 * TIMEOUT, "does not listen: {}", fs::read_to_string(&log)?);
            sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
