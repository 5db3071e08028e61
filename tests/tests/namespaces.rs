//! Networks that a test machine does not have: name servers that never answer, small packets, link-local addresses. Each test
//! runs its programs in a network namespace of its own, and says so where that is not allowed.
#![expect(clippy::disallowed_methods, reason = "what must end is given a bound")]

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use narrows_pair::terminate;
use narrows_tests::{bundle, lines, photos, runtime, said, skipped};
use tempfile::TempDir;

/// Time in which a head reads its bundle and identity on a machine with other work.
const START: Duration = Duration::from_secs(10);

/// A shell command in new user, network and mount namespaces. `None`, and one line that says why, where that is not allowed.
fn isolated(script: &str) -> Option<Command> {
    let prepare = "set -e; ip link set lo up; ip link add va type veth peer name vb; ip link set va up; ip link set vb up";
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "--mount", "sh", "-c", script]).stdin(Stdio::null());
        command
    };
    match unshare(prepare).output() {
        Ok(output) if output.status.success() => Some(unshare(&format!("{prepare}\n{script}"))),
        Ok(output) => {
            skipped("namespaces", &format!("user namespaces: {}", said(&output).trim()));
            None
        }
        Err(error) => {
            skipped("namespaces", &format!("unshare (util-linux) and ip (iproute2): {error}"));
            None
        }
    }
}

/// The certificates of a tail that carries `names`, and of one device.
fn certificates(names: &[&str]) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let mut init = narrows_pair::tail();
    init.args(["certs", "init", "--dir"]).arg(folder.path());
    for name in names {
        init.args(["--name", name]);
    }
    let mut device = narrows_pair::tail();
    device.args(["certs", "device", "device", "--dir"]).arg(folder.path());
    for mut command in [init, device] {
        let output = command.output()?;
        ensure!(output.status.success(), "{}", said(&output));
    }
    Ok(folder)
}

/// The shell words of `narrows-head run` against `server`.
fn head(server: &str, certs: &Path, more: &str) -> String {
    format!(
        "{} run --server '{server}' --bundle '{}' --identity '{}' --source '{}' {more}",
        program(&narrows_pair::head()),
        bundle().display(),
        certs.join("devices/device").display(),
        photos().join("cat.png").display()
    )
}

fn program(command: &Command) -> String {
    format!("'{}'", Path::new(command.get_program()).display())
}

/// A resolver whose name server never answers: its address is on a cable whose other end takes no packet.
fn silent_resolver(certs: &TempDir) -> Result<String> {
    let file = certs.path().join("resolv.conf");
    std::fs::write(&file, "nameserver 10.9.0.2\noptions timeout:30 attempts:5\n")?;
    Ok(format!(
        "ip addr add 10.9.0.1/24 dev va; ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev va\n\
         mount --bind '{}' /etc/resolv.conf\n",
        file.display()
    ))
}

fn run(mut command: Command) -> Result<(Output, Duration)> {
    let begin = Instant::now();
    let output = command.output()?;
    Ok((output, begin.elapsed()))
}

#[test]
fn a_name_server_that_does_not_answer_holds_nothing_up() -> Result<()> {
    let certs = certificates(&[])?;
    let resolver = silent_resolver(&certs)?;
    let try_for = |more: &str| format!("{resolver}exec {}", head("tail.example:7461", certs.path(), more));
    let Some(command) = isolated(&try_for("--retry-for 1 --fallback never")) else { return Ok(()) };
    let (output, took) = run(command)?;
    assert_eq!(output.status.code(), Some(6), "{}", said(&output));
    assert!(said(&output).contains("no server at tail.example:7461"), "{}", said(&output));
    assert!(took < START + Duration::from_secs(2), "it took {took:?}");

    let Some(command) = isolated(&try_for("--retry-for 1")) else { return Ok(()) };
    let (output, took) = run(command)?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(lines(&output)?.iter().all(|line| line["path"] == "local"), "{output:?}");
    assert!(took < START + Duration::from_secs(4), "it took {took:?}");
    Ok(())
}

#[test]
fn a_signal_ends_a_head_whose_name_server_does_not_answer() -> Result<()> {
    let certs = certificates(&[])?;
    let script =
        silent_resolver(&certs)? + "exec " + &head("tail.example:7461", certs.path(), "--retry-for 600");
    let Some(mut command) = isolated(&script) else { return Ok(()) };
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    std::thread::sleep(Duration::from_secs(4));
    let begin = Instant::now();
    terminate(child.id())?;
    let status = child.wait()?;
    assert_eq!(status.code(), Some(143));
    assert!(begin.elapsed() < Duration::from_secs(3), "it took {:?}", begin.elapsed());
    Ok(())
}

#[test]
fn an_interface_that_is_too_small_for_quic_is_named_by_head_and_doctor() -> Result<()> {
    let certs = certificates(&[])?;
    let script = format!(
        "ip link set lo mtu 1000; exec {}",
        head("127.0.0.1:7461", certs.path(), "--retry-for 1 --fallback never")
    );
    let Some(command) = isolated(&script) else { return Ok(()) };
    let (output, _) = run(command)?;
    assert_eq!(output.status.code(), Some(6), "{}", said(&output));
    assert!(said(&output).contains("MTU"), "{}", said(&output));
    let script = format!(
        "ip link set lo mtu 1000; exec {} doctor --server 127.0.0.1:7461 --bundle '{}' --identity '{}'",
        program(&narrows_pair::head()),
        bundle().display(),
        certs.path().join("devices/device").display()
    );
    let Some(command) = isolated(&script) else { return Ok(()) };
    let (output, _) = run(command)?;
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let udp = report.lines().find(|line| line.starts_with("failed   udp")).unwrap_or(&report);
    assert!(udp.contains("MTU to at least 1280") && output.status.code() == Some(1), "{udp}");
    Ok(())
}

#[test]
fn without_a_route_the_network_is_named() -> Result<()> {
    let certs = certificates(&[])?;
    let script = format!("exec {}", head("10.1.2.3:7461", certs.path(), "--retry-for 0 --fallback never"));
    let Some(command) = isolated(&script) else { return Ok(()) };
    let (output, _) = run(command)?;
    assert_eq!(output.status.code(), Some(6), "{}", said(&output));
    let told = said(&output);
    assert!(told.contains("no route to 10.1.2.3") && !told.contains("sendmsg"), "{told}");
    Ok(())
}

#[test]
fn a_link_local_address_is_dialled_with_its_interface_and_verified_without() -> Result<()> {
    let certs = certificates(&["fe80::7%va"])?;
    let port = certs.path().join("port");
    let tail = format!(
        "{} serve --listen '[::]:7461' --device cpu --bundle '{}' --identity '{}' --runtime '{}' --port-file '{}'",
        program(&narrows_pair::tail()),
        bundle().display(),
        certs.path().join("server").display(),
        runtime().display(),
        port.display()
    );
    let script = format!(
        "ip addr add fe80::7/64 dev va nodad\n{tail} 2>/dev/null & tail=$!\n\
         for _ in $(seq 600); do [ -e '{}' ] && break; sleep 0.1; done\n\
         set +e\n{}; code=$?\nINDEX=$(ip -o link show va | cut -d: -f1)\n{} >/dev/null || code=9\n\
         {} >/dev/null && code=8\nkill $tail; exit $code",
        port.display(),
        head("[fe80::7%va]:7461", certs.path(), "--fallback never"),
        head("[fe80::7%'$INDEX']:7461", certs.path(), "--fallback never"),
        head("[fe80::7%nowhere0]:7461", certs.path(), "--fallback never --retry-for 0"),
    );
    let Some(command) = isolated(&script) else { return Ok(()) };
    let (output, _) = run(command)?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(lines(&output)?.iter().all(|line| line["path"] == "split"), "{output:?}");
    assert!(said(&output).contains("no network interface \"nowhere0\""), "{}", said(&output));
    Ok(())
}

#[test]
fn a_connection_survives_a_change_of_the_devices_address() -> Result<()> {
    let certs = certificates(&["10.8.0.1"])?;
    let folder = certs.path().display();
    let tail = format!(
        "{} serve --listen 10.8.0.1:7461 --device cpu --bundle '{}' --identity '{}' --runtime '{}' --port-file '{folder}/port'",
        program(&narrows_pair::tail()),
        bundle().display(),
        certs.path().join("server").display(),
        runtime().display(),
    );
    let photos = photos();
    let head =
        head("10.8.0.1:7461", certs.path(), "--fallback never --repeat 0 --budget 20000 --retry-for 30")
            .replace(&format!("{}", photos.join("cat.png").display()), &format!("{}", photos.display()));
    // The tail lives in a namespace of its own, at the other end of the cable.
    let script = format!(
        "unshare --net sh -c 'echo $$ > {folder}/pid; while [ ! -e {folder}/go ]; do sleep 0.1; done; ip addr add 10.8.0.1/24 dev vb; \
         ip link set vb up; exec \"$@\"' sh {tail} 2> '{folder}/tail.log' & tail=$!\n\
         while [ ! -s '{folder}/pid' ]; do sleep 0.1; done\n\
         ip link set vb netns \"$(cat '{folder}/pid')\"; ip addr add 10.8.0.2/24 dev va; touch '{folder}/go'\n\
         for _ in $(seq 600); do [ -e '{folder}/port' ] && break; sleep 0.1; done\n\
         set +e\n{head} > '{folder}/lines' 2> '{folder}/head.log' & head=$!\n\
         lines() {{ wc -l < '{folder}/lines'; }}\n\
         wait_for() {{ for _ in $(seq 300); do [ \"$(lines)\" -ge \"$1\" ] && break; sleep 0.1; done; }}\n\
         wait_for 3\n\
         ip addr del 10.8.0.2/24 dev va; sleep 0.3; ip addr add 10.8.0.3/24 dev va\n\
         wait_for $(($(lines) + 8))\n\
         ip addr del 10.8.0.3/24 dev va; ip addr add 10.8.0.4/24 dev va\n\
         wait_for $(($(lines) + 8))\n\
         kill -TERM $head; wait $head; kill $tail; wait $tail; cat '{folder}/lines'; cat '{folder}/head.log' '{folder}/tail.log' >&2"
    );
    let Some(command) = isolated(&script) else { return Ok(()) };
    let (output, _) = run(command)?;
    let (told, lines) = (said(&output), lines(&output)?);
    let interrupted =
        |line: &serde_json::Value| line["error"].as_str().is_some_and(|why| why.contains("interrupted"));
    assert!(lines.len() >= 16, "{} lines: {told}", lines.len());
    assert!(lines.iter().all(|line| line["status"] == "answered" || interrupted(line)), "{told}");
    assert!(told.contains("address is 10.8.0.3 now") && told.contains("address is 10.8.0.4 now"), "{told}");
    // The tail has seen one connection.
    assert_eq!(told.matches(" connected peer=").count(), 1, "{told}");
    Ok(())
}
