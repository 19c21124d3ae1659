import sys
from collections.abc import Callable

import pytest

from flopbench.cli import main

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
