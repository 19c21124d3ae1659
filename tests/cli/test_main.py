"""The last place: whatever happens, one line on stderr and an exit code that says what it was."""

import errno
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from flopbench.cli import main
from flopbench.errors import FlopbenchError, NothingMeasuredError
from flopbench.flops import command

ROOT = Path(__file__).parents[2]

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Call `flopbench` in this process: its exit code, its stdout and its stderr."""

    def flopbench(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["flopbench", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return (end.value.code, *capsys.readouterr())  # pyright: ignore[reportReturnType]

    return flopbench


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (FlopbenchError("no such thing"), 2, "no such thing"),
        (NothingMeasuredError("nothing to see"), 3, "nothing to see"),
        (
            OSError(errno.ENOSPC, "No space left on device", "results/x"),
            2,
            "No space left on device: results/x",
        ),
        (OSError("AF_UNIX path too long"), 2, "AF_UNIX path too long"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 70, "UnicodeDecodeError: "),
        (RecursionError("maximum recursion depth exceeded"), 70, "RecursionError: maximum recursion depth"),
        (KeyError("candidate"), 70, "KeyError: 'candidate'"),
        (ValueError("first line\nsecond \x1b[31m line"), 70, "ValueError: first line ("),
        (MemoryError(), 70, "unexpected MemoryError ("),
        (SystemExit(1), 70, "sys.exit(1)"),
        (SystemExit(0), 70, "sys.exit(0)"),
        (GeneratorExit(), 70, "unexpected GeneratorExit"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, "broken pipe"),
    ],
)
@pytest.mark.parametrize("words", [["flops", "vit_ti16"], ["--debug", "flops", "vit_ti16"]])
def test_every_end_has_a_line_and_a_code(
    call: Call, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str, words: list[str]
):
    monkeypatch.setattr(command, "count", raising(error))
    ended, printed, complained = call(*words)
    assert (ended, printed) == (code, "")
    *stack, last = complained.splitlines()
    assert last.startswith("flopbench: ")
    assert line in last
    assert "\x1b" not in last
    # Of Ctrl-C typer keeps no stack.
    assert bool(stack) == ("--debug" in words and code != 130)


@pytest.mark.parametrize(
    "words",
    [
        ["--debug", "report", "absent"],
        ["report", "--debug", "absent"],
        ["report", "absent", "--debug"],
        ["profile", "check", "absent", "--debug"],
        ["gate", "--debug", "self-test", "--suite", "absent"],
        ["merge", "absent", "other", "--out", "x", "--debug"],
    ],
)
def test_debug_shows_the_stack_wherever_it_stands(call: Call, words: list[str]):
    code, _, complained = call(*words)
    assert code == 2
    assert complained.startswith("Traceback")
    assert "absent" in complained.splitlines()[-1]


def test_debug_behind_two_dashes_is_not_ours(call: Call):
    code, _, complained = call("report", "--", "--debug")
    assert (code, complained.count("\n")) == (2, 1)
    assert "--debug is not a run" in complained


def test_a_warning_is_one_line(call: Call, monkeypatch: pytest.MonkeyPatch):
    def warn(*_: object, **__: object) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("something\nis odd", UserWarning, stacklevel=1)
        raise FlopbenchError("the end")

    monkeypatch.setattr(command, "count", warn)
    _, _, complained = call("flops", "vit_ti16")
    assert complained == "flopbench: warning: something is odd\nflopbench: the end\n"


NOISY = """
import os
from torch import nn


class Net(nn.Linear):
    def __init__(self):
        print("built", flush=True)
        super().__init__(8, 8)

    def forward(self, x):
        print("called")
        os.write(1, b"from C\\n")
        return super().forward(x)


def net(image_size=8, num_classes=8):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), Net())
"""


def test_what_networks_print_goes_to_stderr(tmp_path: Path):
    (tmp_path / "noisy.py").write_text(NOISY)
    words = ["flops", "noisy:net", "--input", "3x8x8", "--format", "csv"]
    done = subprocess.run(
        [sys.executable, "-m", "flopbench", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert {"built", "called", "from C"} <= set(done.stderr.splitlines())
    assert not {"built", "called", "from C"} & set(done.stdout.splitlines())
    assert done.stdout.count(",") > 5


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("words", [["--help"], ["list", "suites"]])
def test_a_full_disk_is_the_users_to_mend(words: list[str]):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "flopbench", *words],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("flopbench: No space left on device")
    assert done.stderr.count("\n") == 1
