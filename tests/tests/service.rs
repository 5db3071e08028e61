//! A head as a service: settings that are read again on SIGHUP, messages to the service manager, its state for scripts, and the
//! temperature of its board.
#![expect(clippy::disallowed_methods, reason = "what must happen is given a bound")]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::FileTypeExt, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use narrows_pair::terminate;
use narrows_tests::{LiveHead, TIMEOUT, bundle, ended, photos, root, said, start};
use serde_json::Value;
use tempfile::TempDir;

/// How long a stop may take on a machine that does other things as well; two seconds are promised.
const STOP: Duration = Duration::from_secs(4);

/// A folder with a configuration file, its photo and the socket of the head.
struct Setup {
    folder: TempDir,
}

impl Setup {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::copy(photos().join("orange.jpg"), folder.path().join("photo.jpg"))?;
        Ok(Setup { folder })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the file anew: what every test needs, and `rest`.
    fn write(&self, rest: &str) -> Result<()> {
        let bundle = bundle();
        let text = format!(
            "bundle = '{}'\nsource = 'yard=photo.jpg'\nrepeat = 0\nstatus-socket = 'head.sock'\n{rest}",
            bundle.display()
        );
        // As an editor does it, so that no half of it is read.
        fs::write(self.file("head.toml.new"), text)?;
        Ok(fs::rename(self.file("head.toml.new"), self.file("head.toml"))?)
    }

    fn command(&self) -> Command {
        let mut head = narrows_pair::head();
        head.args(["run", "--config"]).arg(self.file("head.toml")).current_dir(root());
        head.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        head
    }

    /// The state as the head tells it.
    fn status(&self) -> Result<Value> {
        let found = self.status_command(&["--json"]).output()?;
        ensure!(found.status.success(), "{}", said(&found));
        Ok(serde_json::from_slice(&found.stdout)?)
    }

    fn status_command(&self, arguments: &[&str]) -> Command {
        let mut head = narrows_pair::head();
        head.arg("status").arg("--config").arg(self.file("head.toml")).args(arguments);
        head
    }

    /// Waits for a state on which `fits` holds.
    fn status_with(&self, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        let begin = Instant::now();
        loop {
            let status = self.status()?;
            if fits(&status) {
                return Ok(status);
            }
            ensure!(begin.elapsed() < TIMEOUT, "{status}");
            sleep(Duration::from_millis(50));
        }
    }
}

fn hang_up(head: &LiveHead) -> Result<()> {
    ensure!(Command::new("kill").args(["-HUP", &head.child.id().to_string()]).status()?.success());
    Ok(())
}

/// Checks that every frame up to the last one has exactly one line.
fn check_whole(lines: &[Value]) -> Result<()> {
    let frames: Vec<u64> = lines.iter().filter_map(|line| line["frame"].as_u64()).collect();
    let distinct: BTreeSet<u64> = frames.iter().copied().collect();
    ensure!(frames.len() == lines.len() && distinct.len() == frames.len(), "a frame ended twice: {frames:?}");
    let last = distinct.last().context("no frame")?;
    ensure!(distinct.len() as u64 == last + 1, "{} of {} frames ended", distinct.len(), last + 1);
    Ok(())
}

#[test]
fn new_settings_take_effect_between_two_frames_and_bad_ones_do_not() -> Result<()> {
    let setup = Setup::new()?;
    setup.write("path = 'local'\ndevice = 'one'\nfps = 50\n")?;
    let head = LiveHead::of(setup.command())?;
    let mut lines = head.lines_until(|line| line["device"] == "one")?;

    setup.write("path = 'local'\ndevice = 'two'\nfps = 100\ntasks = ['classify']\n")?;
    hang_up(&head)?;
    lines.extend(head.lines_until(|line| line["device"] == "two")?);
    head.hears("head.toml: read again; changed: device, fps, tasks", 1)?;

    for (text, told) in [
        (
            "path = 'local'\ndevice = 'three'\nfps = 'often'\n",
            "head.toml:7: fps = 'often' cannot be used: invalid float",
        ),
        (
            "path = 'local'\ndevice = 'three'\nfps = 0\n",
            "head.toml:7: fps = 0: 0 is out of range; give 0.001 to 1000",
        ),
        (
            "path = 'local'\ndevice = 'three'\n[page]\nlisten = '192.0.2.1:1'\n",
            "head.toml:8: page.listen = '192.0.2.1:1': ",
        ),
        (
            "path = 'local'\ndevice = 'three'\nin_flight = 1\n",
            "head.toml:7: there is no key \"in_flight\"; is it in-flight?",
        ),
        ("path = 'split'\ndevice = 'three'\n", "--server: is missing"),
        ("path = 'local\n", "head.toml:5: "),
    ] {
        setup.write(text)?;
        hang_up(&head)?;
        head.hears(told, 1)?;
        let status = setup.status_with(|status| status["settings"]["error"].is_string())?;
        assert!(status["settings"]["error"].as_str().is_some_and(|error| error.contains(told)), "{status}");
        assert_eq!(status["settings"]["used"], 2, "{status}");
        lines.extend(head.waiting_lines());
        // It works on as before.
        lines.extend(head.lines_until(|line| line["device"] == "two")?);
        setup.write("path = 'local'\ndevice = 'two'\nfps = 100\ntasks = ['classify']\n")?;
    }

    // What cannot change while it runs is named; the rest takes effect.
    setup.write("path = 'local'\ndevice = 'four'\nverbose = 2\nsys = '/'\n")?;
    hang_up(&head)?;
    head.hears("head.toml: changes with the next start alone: sys, verbose", 1)?;
    lines.extend(head.lines_until(|line| line["device"] == "four")?);

    // A file of lines takes over from standard output and gives back.
    setup.write("path = 'local'\ndevice = 'five'\nlines = 'lines.jsonl'\nfps = 50\n")?;
    hang_up(&head)?;
    setup.status_with(|status| status["sinks"][0]["delivered"].as_u64() > Some(3))?;
    setup.write("path = 'local'\ndevice = 'six'\n")?;
    hang_up(&head)?;
    lines.extend(head.lines_until(|line| line["device"] == "six")?);
    let kept = fs::read_to_string(setup.file("lines.jsonl"))?;
    for line in kept.lines() {
        lines.push(serde_json::from_str(line)?);
    }
    let (rest, told) = head.interrupt()?;
    lines.extend(rest);
    check_whole(&lines)?;
    assert!(!told.contains("panicked"), "{told}");
    Ok(())
}

#[test]
fn frames_in_flight_are_answered_while_level_server_and_sources_change() -> Result<()> {
    let (pair, other, setup) = (start()?, start()?, Setup::new()?);
    let of = |pair: &narrows_pair::Pair, rest: &str| {
        let identity = pair.certs().join("devices/device");
        format!("server = '{}'\nidentity = '{}'\nfps = 30\n{rest}", pair.address(), identity.display())
            .replace("127.0.0.1", "localhost")
    };
    setup.write(&of(&pair, "level = 0\n"))?;
    let head = LiveHead::of(setup.command())?;
    let mut lines = head.lines_until(|line| line["level"] == 0)?;
    for level in [4, 2, 3] {
        setup.write(&of(&pair, &format!("level = {level}\n")))?;
        hang_up(&head)?;
        lines.extend(head.lines_until(|line| line["level"] == level)?);
    }
    setup.write(&of(&other, "level = 1\n"))?;
    hang_up(&head)?;
    lines.extend(head.lines_until(|line| line["level"] == 1)?);
    let address = other.address().replace("127.0.0.1", "localhost");
    let status = setup.status_with(|status| status["server"]["connected"] == true)?;
    assert_eq!(status["server"]["address"], address.as_str(), "{status}");
    fs::rename(setup.file("photo.jpg"), setup.file("other.jpg"))?;
    let text = fs::read_to_string(setup.file("head.toml"))?.replace("yard=photo.jpg", "gate=other.jpg");
    // The photo of frames that are captured until then is gone.
    lines.extend(head.waiting_lines());
    fs::write(setup.file("head.toml"), text)?;
    hang_up(&head)?;
    lines.extend(head.lines_until(|line| line["camera"] == "gate")?);
    let (rest, told) = head.interrupt()?;
    lines.extend(rest);
    check_whole(&lines)?;
    let unanswered = lines.iter().filter(|line| {
        let error = line["error"].as_str().unwrap_or_default();
        line["status"] != "answered" && !error.contains("photo.jpg") && !error.contains("interrupted")
    });
    assert_eq!(unanswered.cloned().collect::<Vec<_>>(), [Value::Null; 0], "{told}");
    Ok(())
}

/// Where a service manager hears a program.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    heard: Vec<String>,
}

impl Manager {
    fn listen(folder: &Path) -> Result<Self> {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        Ok(Manager { socket, path, heard: Vec::new() })
    }

    /// Waits for the next message with this assignment.
    fn hears(&mut self, wanted: &str) -> Result<String> {
        let (begin, mut buffer) = (Instant::now(), [0; 4096]);
        while begin.elapsed() < TIMEOUT {
            let read = self.socket.recv(&mut buffer).with_context(|| format!("{:?}", self.heard))?;
            let message = String::from_utf8_lossy(&buffer[..read]).into_owned();
            self.heard.push(message.clone());
            if message.lines().any(|line| line == wanted) {
                return Ok(message);
            }
        }
        bail!("no {wanted}: {:?}", self.heard)
    }
}

#[test]
fn the_service_manager_hears_of_start_reload_progress_and_end() -> Result<()> {
    let setup = Setup::new()?;
    let mut manager = Manager::listen(setup.folder.path())?;
    setup.write("path = 'local'\nfps = 10\nlines = 'none'\n")?;
    let mut command = setup.command();
    command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "400000");
    let head = LiveHead::of(command)?;
    let ready = manager.hears("READY=1")?;
    assert!(ready.contains("STATUS="), "{ready}");
    manager.hears("WATCHDOG=1")?;
    manager.hears("WATCHDOG=1")?;
    setup.write("path = 'local'\nfps = 20\nlines = 'none'\n")?;
    hang_up(&head)?;
    let reloading = manager.hears("RELOADING=1")?;
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.hears("READY=1")?;
    // Also where the file cannot be used, so that the manager does not wait.
    setup.write("path = 'local'\nfps = 'x'\n")?;
    hang_up(&head)?;
    manager.hears("RELOADING=1")?;
    manager.hears("READY=1")?;
    manager.hears("STATUS=answering on this device; 5 frames answered, 0 not").or_else(|_| {
        let told = manager.heard.iter().any(|message| message.contains("STATUS=answering on this device; "));
        if told { Ok(String::new()) } else { bail!("{:?}", manager.heard) }
    })?;
    let mut child = stop(head)?;
    manager.hears("STOPPING=1")?;
    assert_eq!(child.wait()?.code(), Some(143));
    Ok(())
}

/// Ends a head by SIGTERM, in time; returns it with its exit code.
fn stop(mut head: LiveHead) -> Result<std::process::Child> {
    terminate(head.child.id())?;
    let begin = Instant::now();
    while head.child.try_wait()?.is_none() {
        ensure!(begin.elapsed() < STOP, "it runs on: {}", head.said());
        sleep(Duration::from_millis(10));
    }
    let placeholder = Command::new("true").spawn()?;
    Ok(std::mem::replace(&mut head.child, placeholder))
}

#[test]
fn the_state_is_told_to_scripts_until_the_end() -> Result<()> {
    let setup = Setup::new()?;
    let silent = setup.status_command(&[]);
    setup.write("path = 'local'\nfps = 20\ndevice = 'gate'\n")?;
    let mut silent = silent;
    let output = silent.output()?;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("no head answers at") && said(&output).contains("No such file"),
        "{}",
        said(&output)
    );

    let head = LiveHead::of(setup.command())?;
    head.lines_until(|line| line["frame"] == 5)?;
    let status = setup.status_with(|status| status["frames"]["answered"].as_u64() >= Some(5))?;
    assert_eq!(
        (&status["device"], &status["path"], &status["settings"]["used"]),
        (&"gate".into(), &"local".into(), &1.into())
    );
    assert_eq!(
        (&status["frames"]["failed"], status["frames"]["local"] == status["frames"]["answered"]),
        (&0.into(), true)
    );
    let lines = setup.status_command(&["--max-age", "60"]).output()?;
    let text = String::from_utf8(lines.stdout.clone())?;
    assert_eq!(lines.status.code(), Some(0), "{}", said(&lines));
    for part in
        ["head      gate, version ", "path      local\n", "server    none", " answered (", "settings  "]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let old = setup.status_command(&["--max-age", "0.0000001"]).output()?;
    assert!(old.status.code() == Some(1) || said(&old).is_empty(), "{}", said(&old));
    assert!(fs::metadata(setup.file("head.sock"))?.file_type().is_socket());
    // A second head cannot take the socket away.
    let second = ended(setup.command().spawn()?, TIMEOUT)?;
    assert_eq!(second.status.code(), Some(2));
    assert!(
        said(&second).contains("status-socket = 'head.sock': ") && said(&second).contains("another program"),
        "{}",
        said(&second)
    );
    let mut child = stop(head)?;
    assert_eq!(child.wait()?.code(), Some(143));
    assert!(!setup.file("head.sock").exists());
    assert_eq!(setup.status_command(&[]).output()?.status.code(), Some(1));
    Ok(())
}

#[test]
fn temperature_and_throttling_of_the_board_are_told() -> Result<()> {
    let setup = Setup::new()?;
    let set = |file: &str, text: &str| -> Result<()> {
        let path = setup.file("sys").join(file);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        Ok(fs::write(path, format!("{text}\n"))?)
    };
    set("class/thermal/thermal_zone0/type", "cpu-thermal")?;
    set("class/thermal/thermal_zone0/temp", "61200")?;
    let flags = "devices/platform/soc/soc:firmware/get_throttled";
    set(flags, "0x0")?;
    setup.write("path = 'local'\nfps = 5\nsys = 'sys'\n")?;
    let head = LiveHead::of(setup.command())?;
    head.line()?;
    let status = setup.status_with(|status| status["board"].is_object())?;
    let board = &status["board"];
    assert_eq!((&board["zone"], &board["celsius"]), (&"cpu-thermal".into(), &61.2.into()), "{status}");
    assert_eq!((&board["limit_celsius"], &board["throttled_times"]), (&80.0.into(), &0.into()), "{status}");
    set(flags, "0x50005")?;
    head.hears("this board is throttled (cpu-thermal at 61 °C): the processor is throttled, the supply's voltage is too low", 1)?;
    let status = setup.status_with(|status| status["board"]["throttled_times"] == 1)?;
    assert_eq!(status["board"]["throttled"][0], "the processor is throttled", "{status}");
    set(flags, "0x50000")?;
    head.hears("this board is not throttled any more", 1)?;
    head.interrupt()?;
    Ok(())
}
