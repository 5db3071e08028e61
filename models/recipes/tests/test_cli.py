"""The command line: help of every command without PyTorch, required options, and no options that a command ignores."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from recipe import cli

ROOT = Path(__file__).resolve().parents[1]
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; sys.argv[0] = 'recipe'; from recipe.cli import main; main()"


def run_without_torch(*arguments: str) -> subprocess.CompletedProcess:
    """The command line in a process in which importing torch raises ImportError."""
    return subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *arguments], cwd=ROOT, check=False, capture_output=True, text=True)


def test_help_lists_every_command_without_importing_torch():
    done = run_without_torch("--help")
    assert done.returncode == 0, done.stderr
    assert set(cli.COMMANDS) <= set(done.stdout.split())


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_and_an_example_without_importing_torch(name: str):
    done = run_without_torch(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "example: python -m recipe " + name in " ".join(done.stdout.split())


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_example_is_accepted_by_the_parser(name: str):
    arguments = cli.COMMANDS[name].example.removeprefix(cli.RECIPE).split()
    assert cli.parser().parse_args(arguments).command == name


def documented() -> list[str]:
    """The recipe commands in the documents, without comments and placeholders."""
    text = "".join((ROOT / file).read_text() for file in ("README.md", "../results/README.md", "configs/ablations.toml"))
    found = re.findall(r"python -m recipe ([a-z][^\n`#&]*)", text)
    return [line.strip() for line in found if len(line.split()) > 1]


@pytest.mark.parametrize("line", documented())
def test_every_documented_command_is_accepted_by_the_parser(line: str):
    assert cli.parser().parse_args(line.split()).command == line.split()[0]


@pytest.mark.parametrize("name", [name for name, command in cli.COMMANDS.items() if cli.data_option in command.options])
def test_commands_that_read_photos_require_data(name: str, capsys: pytest.CaptureFixture):
    arguments = [name, "a"] if name == "task" else [name]
    with pytest.raises(SystemExit):
        cli.parser().parse_args(arguments)
    assert "--data" in capsys.readouterr().err


def test_parts_of_a_training_that_read_photos_require_data():
    with pytest.raises(SystemExit, match="reads photos.*--data DIR"):
        cli.main(["train", "--part", "segment"])


@pytest.mark.parametrize("arguments", [["check", "--data", "x"], ["curve", "--resume"], ["features", "--bundle", "x"]])
def test_options_of_other_commands_are_refused(arguments: list[str]):
    with pytest.raises(SystemExit):
        cli.parser().parse_args(arguments)
