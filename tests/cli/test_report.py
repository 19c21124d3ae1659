"""`flopbench report`."""

import json

import pytest
from typer.testing import CliRunner

from flopbench.cli import app
from flopbench.cli.console import make_console
from flopbench.cli.run import _show
from flopbench.errors import FlopbenchError
from flopbench.report.result import Result
from tests.support.evaluations import make_evaluation, write_evaluation
from tests.support.runs import CPU, make_run


@pytest.fixture
def run(tmp_path):
    return make_run(
        tmp_path / "vit-cpu", device=CPU, pairs=("vit_s16.flop",), batch_sizes=(1,), modes=("compile",)
    )


def test_it_prints_the_table_and_says_where_the_report_is(run, tmp_path):
    result = CliRunner().invoke(app, ["report", str(run.path), "--out", str(tmp_path / "reports")])
    assert result.exit_code == 0
    assert "E(ViT-S/16)" in result.stdout
    for name in ("report.md", "report.html"):
        path = tmp_path / "reports" / "vit-cpu" / name
        assert path.is_file()
        assert f"report: {path}" in result.stdout


def test_the_terminal_ends_with_the_answer(run, tmp_path, capsys):
    report = ["report", str(run.path), "--out", str(tmp_path / "reports")]
    _show(Result([run]), tmp_path / "reports", "table", make_console())
    for printed in (CliRunner().invoke(app, report).stdout, capsys.readouterr().out):
        last = " ".join(printed[printed.rindex("report:") :].split("On an ", 1)[1].split())
        assert last.startswith("Intel Xeon @ 2.80 GHz (fp32, compiled), E(ViT-S/16) needs 55 % of the MACs")
        assert last.endswith("is realised.")


def test_a_pipe_gets_the_data_alone(run, tmp_path):
    out = ["--out", str(tmp_path / "reports"), "--format", "json"]
    result = CliRunner().invoke(app, ["report", str(run.path), *out])
    assert [row["cell"] for row in json.loads(result.stdout)] == [record.cell.id for record in run.records()]
    assert "report.html" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere holds nothing that was measured: it has no run.json, races.json"),
        (["{run}", "--format", "xml"], "--format 'xml': choose one of table, json, csv, markdown"),
        (["{run}", "{run}"], "the runs of a report must differ"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(run, tmp_path, arguments, message):
    given = [argument.format(run=run.path) for argument in arguments]
    result = CliRunner().invoke(app, ["report", *given, "--out", str(tmp_path / "reports")])
    assert isinstance(result.exception, FlopbenchError)
    assert message in str(result.exception)
    assert not (tmp_path / "reports").exists()


@pytest.fixture
def evaluation(tmp_path):
    return write_evaluation(tmp_path / "evaluation", make_evaluation("vit_s16"))


def test_other_kinds_are_printed_and_piped_as_runs_are(evaluation, tmp_path):
    report = ["report", str(evaluation), "--out", str(tmp_path / "reports")]
    shown = CliRunner().invoke(app, report)
    assert "E(ViT-S/16)" not in shown.stdout
    assert "78.0\u00a0%" in shown.stdout
    assert " ".join(shown.stdout.split()).endswith("right, at 60.0 images per second.")
    assert (tmp_path / "reports" / "evaluate-vit_s16-photographs" / "report.html").is_file()
    (row,) = json.loads(CliRunner().invoke(app, [*report, "--format", "json"]).stdout)
    assert row["top1"] == 0.78
    table, _ = CliRunner().invoke(app, [*report, "--format", "markdown"]).stdout.split("\n\n")
    assert table.startswith("| model | weights | data |")


def test_a_mixture_is_refused_in_one_line(run, evaluation, call, tmp_path):
    code, stdout, stderr = call("report", str(run.path), str(evaluation), "--out", str(tmp_path / "reports"))
    assert (code, stdout) == (2, "")
    assert stderr.count("\n") == 1
    assert "give one kind at a time" in stderr
    assert not (tmp_path / "reports").exists()
