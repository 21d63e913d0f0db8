"""Tests of every command: help, suggestions, one-line errors, start-up."""

import errno
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cifar10.commands import discovery
from cifar10.commands.command import Command, LazyGroup
from cifar10.commands.main import main, root_group
from cifar10.errors import Cifar10Error
from cifar10.suggestions import closest, did_you_mean

ROOT = Path(__file__).parent.parent.parent
PROGRAM = [sys.executable, "-m", "cifar10"]


def every_command(group: LazyGroup | None = None, above: tuple[str, ...] = ()):
    """Yield (words, command) of all commands except groups."""
    group = group or root_group()
    context = click.Context(group)
    for name in group.places:
        command = group.get_command(context, name)
        words = (*above, name)
        if isinstance(command, LazyGroup):
            yield from every_command(command, words)
        else:
            yield words, command


COMMANDS = dict(every_command())


def start(*arguments: str, **more) -> subprocess.Popen[str]:
    return subprocess.Popen([*PROGRAM, *arguments], cwd=ROOT, text=True, **more)


def test_the_commands_are_those_promised() -> None:
    promised = {
        "data", "list", "train", "study", "export", "predict", "serve", "report", "compare", "ls",
        "show", "table", "doctor",
    }  # fmt: skip
    assert promised <= {words[0] for words in COMMANDS}
    stages = {words[1] for words in COMMANDS if words[0] == "bench"}
    assert stages == {
        "run", "load", "verify", "scenarios", "robustness", "resources", "bulk", "settings",
        "chaos", "peers", "sensitivity", "all", "fleet", "verdicts",
    }  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS)
def test_help_has_examples_that_parse(words: tuple[str, ...], capsys) -> None:
    """Each example is a command line that its command accepts."""
    command = COMMANDS[words]
    assert isinstance(command, Command)
    assert main([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    program = " ".join(["cifar10", *words])
    lines = [line for line in command.examples.splitlines() if line.startswith("cifar10 ")]
    assert lines, f"{program} --help has no example"
    for line in lines:
        assert line in shown
        assert line.startswith(program), line
        arguments = line.removeprefix(program).partition("  ")[0].split()
        with command.make_context(words[-1], arguments, resilient_parsing=False):
            pass


@pytest.mark.parametrize("words", COMMANDS)
def test_summary_is_the_first_line_of_the_help(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    places = discovery.top_level() | discovery.room("bench.commands")
    summary = discovery.summary(places[words[-1]])
    assert summary
    assert len(summary) <= 80
    assert command.help.startswith(summary)


def test_a_stage_is_not_imported_for_the_help() -> None:
    code = (
        "import sys; from cifar10.commands.main import main; main(['--help']); "
        "main(['bench', '--help']); "
        "print(sorted(set(sys.modules) & {'bench', 'training', 'export', 'service', 'rich', "
        "'numpy', 'onnxruntime', 'bentoml', 'keras'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "suggested"),
    [
        (["trian", "simple_cnn"], "Did you mean train?"),
        (["bench", "veryfy"], "Did you mean verify?"),
        (["ls", "--jsno"], "Did you mean --json?"),
        (["--vresion"], "Did you mean --version?"),
        (["show", "simple_cn"], "Did you mean simple_cnn"),
        (["train", "simple_cn"], "Did you mean simple_cnn"),
        (["bench", "run", "compct"], "Did you mean compact"),
        (["bench", "chaos", "sok"], "Did you mean soak?"),
        (["bench", "peers", "fastapy"], "Did you mean fastapi"),
    ],
)
def test_a_misspelt_word_gets_a_suggestion(arguments: list[str], suggested: str, capsys) -> None:
    assert main(arguments) in (1, 2)
    said = capsys.readouterr().err
    assert suggested in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "arguments",
    [["xyzzy"], ["bench", "xyzzy"], ["ls", "--xyzzy"], ["show", "xyzzy"], ["train", "xyzzy"]],
)
def test_no_suggestion_is_made_for_a_word_similar_to_none(arguments: list[str], capsys) -> None:
    assert main(arguments) in (1, 2)
    assert "Did you mean" not in capsys.readouterr().err


def test_a_common_prefix_alone_gives_no_suggestion() -> None:
    settings = ["CIFAR10_LOAD", "CIFAR10_DEVICE", "CIFAR10_TOKEN"]
    assert closest("CIFAR10_DEVISE", settings) == ["CIFAR10_DEVICE"]
    assert closest("CIFAR10_QX", settings) == []
    assert did_you_mean("anything", []) == ""


def test_version(capsys) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("cifar10 0.")


def test_completion_knows_commands_and_options() -> None:
    environment = {
        **os.environ,
        "_CIFAR10_COMPLETE": "bash_complete",
        "COMP_WORDS": "cifar10 bench ru",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(PROGRAM, cwd=ROOT, env=environment, capture_output=True, text=True)
    # `python -m cifar10` completes under the program's own name.
    assert done.stdout.splitlines() == ["plain,run"]


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("bench.commands.ls.found_in", failing)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Cifar10Error("no such thing"), 1, "error: no such thing\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "error: cannot write the output: No space left on device\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/etc/rows"),
            1,
            "error: /etc/rows: Permission denied\n",
        ),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, ""),
    ],
)
def test_a_failure_is_one_line(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    fail_with(monkeypatch, error)
    assert main(["ls"]) == code
    assert capsys.readouterr().err == said


def test_a_missing_package_names_the_pip_install(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    fail_with(monkeypatch, ModuleNotFoundError("No module named 'keras'", name="keras"))
    assert main(["ls"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: `cifar10 ls` needs the Python package keras")
    assert "pip install -c constraints.txt -e '.[train]'" in said


def test_a_closed_pipe_is_no_error() -> None:
    """This is what a command behind ``| head -1`` sees once head has ended."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        process = start("ls", "--json", stdout=writer, stderr=subprocess.PIPE)
        _, said = process.communicate(timeout=60)
    finally:
        os.close(writer)
    assert process.returncode == 141
    assert said == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [["ls", "--json"], ["--help"]])
def test_a_full_disk_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        process = start(*arguments, stdout=full, stderr=subprocess.PIPE)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said == "error: cannot write the output: No space left on device\n"


def test_ctrl_c_is_one_line(tmp_path: Path) -> None:
    """The signal is sent while `bench verify` waits for a server that never answers."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = start(
            "bench", "verify", "--url", f"http://127.0.0.1:{silent.getsockname()[1]}",
            "--data", "synthetic", "--results", str(tmp_path),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        silent.settimeout(120)
        connection, _ = silent.accept()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        connection.close()
    assert process.returncode == 130
    assert "Traceback" not in said
    assert said.count("\n") == 1


def test_piped_output_is_plain_and_whole() -> None:
    done = subprocess.run(
        [*PROGRAM, "list"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "40", "FORCE_COLOR": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "backbone_mobilenetv3large_native" in done.stdout
    assert "\x1b" not in done.stdout
    assert "…" not in done.stdout
    assert not set("│┃━─") & set(done.stdout)


@pytest.mark.parametrize("command", ["list", "ls"])
def test_json_is_one_document(command: str, capsys) -> None:
    assert main([command, "--json"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out), list)


def test_no_color(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    assert main(["show", "nosuch"]) == 1
    assert main(["list"]) == 0
    shown = capsys.readouterr()
    assert "\x1b[3" not in shown.out + shown.err


def test_a_new_file_in_a_room_is_a_new_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "plugged"
    package.mkdir()
    (package / "__init__.py").write_text('"""Commands of a plugin."""\n')
    (package / "helper.py").write_text('"""No command."""\n')
    (package / "hello.py").write_text(
        '"""Say hello."""\nimport click\n\n@click.command()\ndef command():\n    return 7\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    places = {"plugged": "plugged"}
    monkeypatch.setattr(discovery, "top_level", lambda: places)
    assert discovery.room("plugged") == {"hello": "plugged.hello:command"}
    assert discovery.summary("plugged.hello:command") == "Say hello"
    assert "plugged.hello" not in sys.modules
    assert main(["plugged", "hello"]) == 7


@pytest.mark.parametrize("options", [[], ["--int8"]])
def test_export_names_its_missing_extra_before_it_asks_for_data(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Uses an environment that only serves, without a data set."""
    find = importlib.util.find_spec
    hidden = ("keras", "tensorflow", "tf2onnx", "onnx")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in hidden else find(name)
    )
    assert main(["export", "compact", *options]) == 1
    said = capsys.readouterr().err
    assert "pip install -c constraints.txt -e '.[train]'" in said
    assert said.count("\n") == 1


def test_without_data_the_advice_begins_with_what_works_in_any_install(capsys) -> None:
    assert main(["bench", "run"]) == 1
    said = capsys.readouterr().err
    assert said.index("--data PATH") < said.index("cifar10 data") < said.index("extra `train`")
