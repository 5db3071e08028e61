//! Instructions between marks in a run of this program: by Valgrind on x86, by a plugin of QEMU's for 64-bit ARM.

use std::{env, fs, hint::black_box, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};

/// A stage with what it needs.
pub(crate) type Stage<'a> = Box<dyn FnMut() -> Result<()> + 'a>;

/// How often a stage runs between two marks.
const TIMES: u32 = 4;

/// Where a count begins or ends: callgrind writes down what was executed since the last call of this function, the plugin
/// what was executed before the system call in it.
#[inline(never)]
fn instruction_mark() {
    black_box(std::os::unix::process::parent_id());
}

/// Runs every stage `times` times between two marks, after a run that fills its buffers. Prints their names.
pub(crate) fn run_marked<'a>(
    stages: impl Iterator<Item = (&'a str, &'a mut (dyn FnMut() -> Result<()> + 'a))>,
    times: u32,
) -> Result<()> {
    for (name, stage) in stages {
        stage().with_context(|| name.to_owned())?;
        instruction_mark();
        for _ in 0..times {
            stage().with_context(|| name.to_owned())?;
        }
        instruction_mark();
        println!("{name}");
    }
    Ok(())
}

/// Runs this program under callgrind; returns the instructions of one run of each of `stages` stages.
pub(crate) fn count(bundle: &Path, stages: usize) -> Result<Vec<u64>> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out");
    let program = env::current_exe()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--dump-before=*instruction_mark*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args(["frame", "--marked", &TIMES.to_string(), "--bundle"])
        .arg(bundle)
        .output();
    let output = match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("--instructions: valgrind is not installed (apt install valgrind)")
        }
        output => output.context("valgrind cannot be started")?,
    };
    ensure!(output.status.success(), "valgrind: {}", String::from_utf8_lossy(&output.stderr));
    let mut parts = Vec::new();
    for number in 1.. {
        let Ok(text) = fs::read_to_string(out.with_extension(number.to_string())) else { break };
        let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
        parts.push(total.context("a part without a total")?.trim().parse::<u64>()?);
    }
    ensure!(
        parts.len() == 2 * stages,
        "valgrind counted {} parts where there are {}",
        parts.len(),
        2 * stages
    );
    Ok(parts.iter().skip(1).step_by(2).map(|count| count / u64::from(TIMES)).collect())
}
