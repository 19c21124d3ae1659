"""The last place: whatever happens, one line on stderr and an exit code that says what it was."""

import errno
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from flopbench.__main__ import main as begin
from flopbench.errors import FlopbenchError, NothingMeasuredError
from flopbench.runner import counting
from tests.cli.conftest import Call

ROOT = Path(__file__).parents[2]


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
    monkeypatch.setattr(counting, "count", raising(error))
    ended, printed, complained = call(*words)
    assert (ended, printed) == (code, "")
    *stack, last = complained.splitlines()
    assert last.startswith("flopbench: ")
    assert line in last
    assert "\x1b" not in last
    # Of Ctrl-C and a closed pipe typer keeps no stack.
    assert bool(stack) == ("--debug" in words and code not in (130, 141))


def test_ctrl_c_is_one_line_while_commands_are_being_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    interrupted = mock.Mock(find_spec=mock.Mock(side_effect=KeyboardInterrupt))
    monkeypatch.delitem(sys.modules, "flopbench.cli")
    monkeypatch.setattr(sys, "meta_path", [interrupted])
    with pytest.raises(SystemExit) as end:
        begin()
    assert end.value.code == 130
    assert capsys.readouterr() == ("", "flopbench: interrupted\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--suite", "vitt"], "unknown suite 'vitt'; did you mean vit"),
        (["run", "--suite", "absent/x.toml"], "no suite file at absent/x.toml"),
        (["run", "--batch-size", "0"], "--batch-size: input should be greater than or equal to 1, got '0'"),
        (["run", "--batch-size", "many"], "--batch-size: input should be a valid integer"),
        (["run", "--image-size", "225"], "image height 225 does not suit"),
        (["run", "--image-size", "big"], "--image-size: not an image size; write 224 or 224x192"),
        (["run", "--mode", "warp"], "--mode: input should be 'eager', 'compile'"),
        (["run", "--device", "tpu"], "--device 'tpu': choose cpu or cuda"),
        (["run", "--device", "cpu", "--dtype", "tf32"], "dtype tf32 exists on CUDA only"),
        (["run", "--pair", "vit_s16"], "pair 'vit_s16' has no baseline"),
        (["run", "--quick", "--full"], "--quick and --full exclude one another: choose one, or neither"),
        (["run", "--full", "--suite", "gate"], "suite 'gate' has no full profile for"),
        (["run", "--budget", "soon"], "--budget 'soon' is not a duration; write 90s, 5m or 1.5h"),
        (["run", "--shard", "3/2"], "--shard 3/2"),
        (["run", "--resume", "absent"], "absent is not a run: it has no run.json"),
        (["run", "--format", "xml"], "--format 'xml': choose one of table"),
        (["list", "things"], "cannot list 'things': choose suites, recipes, models or all"),
        (["merge", "absent", "other", "--out", "x"], "absent is not a run"),
        (["report", "absent"], "absent holds nothing that was measured: it has no run.json"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["flops"], "Missing argument 'MODEL|PAIR'"),
        (["flops", "--audit"], "No such option: --audit"),
        (["profile", "vit_s16.flop", "--width", "30"], "--width: input should be a multiple of 4, got '30'"),
        (["flops", "audit", "vit_b16"], "unexpected extra argument"),
        (["profile", "predict", "vit_s16.flop"], "Missing option '--calibration'"),
        (["profile", "check", "absent"], "absent holds no runs"),
        (["gate", "self-tset"], "unexpected extra argument"),
        (["gate", "--trials", "5"], "No such option: --trials"),
        (["gate", "self-test", "--tier", "all"], "No such option: --tier"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
):
    monkeypatch.chdir(tmp_path)
    code, printed, complained = call(*words)
    assert (code, printed) == (2, "")
    assert message in complained
    assert len(complained.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


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
    assert "--debug holds nothing that was measured" in complained


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["run", "--shard", ""], "--shard is empty"),
        (["run", "--suite="], "--suite is empty"),
        (["run", "--device", " "], "--device is empty"),
        (["run", "--batch-size", ""], "--batch-size is empty"),
        (["run", "--resume", ""], "--resume is empty"),
        (["gate", "self-test", "--suite", ""], "--suite is empty"),
        (["flops", ""], "an argument is empty"),
        (["report", ""], "an argument is empty"),
        (["run", "--cell-seconds", "inf"], "--cell-seconds must be a finite number, got inf"),
        (["run", "--precision", "nan"], "--precision must be a finite number, got nan"),
        (["history", "results", "--min-change", "nan"], "'--min-change'"),
        (["profile", "vit_s16.flop", "--seconds", "1e999"], "--seconds"),
        (["run", "--replicates", "300000000"], "replicates"),
        (["calibrate", "--replicates", "300000000"], "replicates"),
        (["gate", "--processes", "300000000"], "--processes"),
        (["gate", "self-test", "--trials", "300000000"], "--trials"),
        (["submit", "--shards", "300000000"], "--shards"),
        (["run", "--batch-size", "9" * 5000], "--batch-size"),
        (["run", "--budget", "9" * 5000 + "h"], "--budget"),
        (["run", "--shard", "1/" + "9" * 5000], "--shard"),
        (["flops", "vit_ti16", "--input", "3x9999999999x8"], "--input"),
        (["submit", "--shards", "1", "--set", "mem_gb=²", "--cluster", "none"], "submit"),
    ],
)
def test_what_no_option_takes_is_refused_with_its_name(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], line: str
):
    monkeypatch.chdir(tmp_path)
    code, printed, complained = call(*words)
    assert (code, printed, complained.count("\n")) == (2, "", 1), complained
    assert line in complained
    assert list(tmp_path.iterdir()) == []


def test_a_warning_is_one_line(call: Call, monkeypatch: pytest.MonkeyPatch):
    def warn(*_: object, **__: object) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("something\nis odd", UserWarning, stacklevel=1)
        raise FlopbenchError("the end")

    monkeypatch.setattr(counting, "count", warn)
    _, _, complained = call("flops", "vit_ti16")
    assert complained == "flopbench: warning: something is odd\nflopbench: the end\n"


def test_shells_complete_commands(call: Call, monkeypatch: pytest.MonkeyPatch):
    for name, value in {"": "complete_bash", "WORDS": "flopbench hist", "CWORD": "1"}.items():
        monkeypatch.setenv(f"COMP_{name}" if name else "_FLOPBENCH_COMPLETE", value)
    assert call() == (0, "history\n", "")


NOISY = """
import os
from flopbench.cli.console import echo, stdout_kept
with stdout_kept():
    print("a network")
    os.write(1, b"from C\\n")
    os.system("echo a child")
    echo("ours")
print("afterwards")
"""


def test_what_networks_print_goes_to_stderr():
    done = subprocess.run([sys.executable, "-c", NOISY], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "ours\nafterwards\n"
    assert sorted(done.stderr.splitlines()) == ["a child", "a network", "from C"]


@pytest.mark.parametrize(
    ("words", "closed", "code"),
    [("--version", ">&-", 0), ("list suites", "<&- >&- 2>&-", 0), ("nonsense", ">&- 2>&-", 2)],
)
def test_closed_streams_are_no_regression(words: str, closed: str, code: int):
    script = f'"{sys.executable}" -m flopbench {words} {closed}'
    done = subprocess.run(["sh", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, "")


def test_no_columns_are_as_good_as_no_word_of_them(call: Call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "0")
    code, printed, _ = call("list", "suites")
    assert not code
    assert "vit" in printed


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
