//! `vcgencmd`, the command-line client of a Raspberry Pi's firmware.
#![expect(clippy::disallowed_methods, reason = "the client is given a bound of time here")]

use std::{
    io::{self, Read},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long the client may take. It takes some milliseconds, and hangs where the firmware does.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time between two looks whether it has ended.
const STEP: Duration = Duration::from_millis(2);

/// Runs the client with one command, and ends it after two seconds. What it prints has to fit into a pipe.
///
/// # Errors
/// Those of starting it, and [`io::ErrorKind::TimedOut`].
pub fn ask(vcgencmd: &Path, command: &str) -> io::Result<Output> {
    let mut client = Command::new(vcgencmd);
    client.arg(command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = client.spawn()?;
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(status) = client.try_wait()? {
            let (stdout, stderr) = (all(client.stdout.take())?, all(client.stderr.take())?);
            return Ok(Output { status, stdout, stderr });
        }
        thread::sleep(STEP);
    }
    give_up(client);
    let reason = format!("it has not answered within {} s", PATIENCE.as_secs());
    Err(io::Error::new(io::ErrorKind::TimedOut, reason))
}

/// Ends the client without waiting for it: one that waits for the firmware ends when that answers.
fn give_up(mut client: Child) {
    // It may just have ended by itself.
    let _ = client.kill();
    thread::spawn(move || client.wait());
}

fn all(pipe: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_client_that_hangs_is_given_up_and_one_that_answers_is_heard() {
        let folder = tempfile::tempdir().unwrap();
        let client = folder.path().join("vcgencmd");
        let script = "#!/bin/sh\n[ \"$1\" = get_throttled ] || exec sleep 60\necho throttled=0x0\necho no >&2; exit 3\n";
        fs::write(&client, script).unwrap();
        fs::set_permissions(&client, fs::Permissions::from_mode(0o755)).unwrap();
        let Output { status, stdout, stderr } = ask(&client, "get_throttled").unwrap();
        assert_eq!((status.code(), &*stdout, &*stderr), (Some(3), &b"throttled=0x0\n"[..], &b"no\n"[..]));
        let began = Instant::now();
        assert_eq!(ask(&client, "pmic_read_adc").unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() < Duration::from_secs(20));
        assert_eq!(ask(&folder.path().join("none"), "x").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
