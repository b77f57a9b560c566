"""`fdjax plan`: bad input in one line, and a plan as page and JSON."""

import importlib.util
import json

import pytest
from rich.console import Console

from fdjax import cli
from fdjax.plan import Plan, command, report, search
from fdjax.plan.display import print_plan
from fdjax.plan.page import plan_page
from fdjax.plan.programs import DECODE, ON_THE_SIDE, jobs
from pages import Page
from planning import compiled, compiler, on_cpus, subject


def _run(*arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(["plan", *arguments])
    return ended.value.code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("experiments.nothing", "--topology", "v5e:2x2"), "experiments.nothing"),
        (("fdjax.jsonl", "--topology", "v5e:2x2"), "to have CONFIG"),
        (("experiments.prover", "--topology", "v5e:2x2"), "expected a policy"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, said):
    assert _run(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_a_missing_compiler_is_said_with_the_way_to_it(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert _run("experiments.prover", "--topology", "v5e:2x2", "--policy", "tiny") == 2
    assert 'pip install "jax[tpu]==' in capsys.readouterr().err


def test_help_without_an_experiment(capsys):
    assert _run("--help") == 0
    assert "fdjax plan experiments.prover --help" in capsys.readouterr().out


def _plan(monkeypatch, **sizes):
    """A plan of programs that were not compiled."""
    on_cpus(monkeypatch)
    run = subject()
    found = iter(compiled(run, **sizes))
    by_name = {one.name: one for one in found}
    monkeypatch.setattr(report, "compile_job", lambda job, usable: by_name[job.name])
    assert {job.name for job in jobs(run)} == set(by_name)
    return report.make_plan(run)


def test_the_exit_code_says_whether_it_fits(monkeypatch, tmp_path, capsys):
    """The command end to end, only that nothing is compiled."""
    arguments = ["experiments.prover", "--policy", "tiny", "--topology", "v5e:2x4"]
    arguments += ["--mesh.fsdp", "8", "--json", str(tmp_path / "plan.json")]
    arguments += ["--page", str(tmp_path / "plan.html")]
    on_cpus(monkeypatch)
    monkeypatch.setattr(command, "prepare", lambda: None)
    for step, code in ((2.0, 0), (20.0, 1)):
        named = {one.name: one for one in compiled(subject(), step=step)}
        monkeypatch.setattr(
            report, "compile_job", lambda job, usable, named=named: named[job.name]
        )
        assert command.plan_experiment(arguments) == code
        assert json.loads((tmp_path / "plan.json").read_text())["fits"] is (code == 0)
        out = capsys.readouterr().out
        assert ("What would give room" in out) is bool(code)
        assert "1,024 tokens" in out
    assert "does not fit" in (tmp_path / "plan.html").read_text()


def _searched(monkeypatch, folder, size):
    """Exit code and figures of `--search` with a compiler that is told sizes."""
    on_cpus(monkeypatch)
    monkeypatch.setattr(command, "prepare", lambda: None)
    for module in (report, search):
        monkeypatch.setattr(module, "compile_job", compiler(size))
    out = folder / "plan.json"
    code = command.plan_experiment(
        [
            *("experiments.prover", "--policy", "tiny", "--topology", "v5e:2x4"),
            *("--mesh.fsdp", "8", "--search", "--json", str(out)),
            *("--page", str(folder / "plan.html")),
        ]
    )
    return code, json.loads(out.read_text())


def test_what_a_search_chose_is_planned(monkeypatch, tmp_path, capsys):
    """256 attempts: steps fit with eight in a microbatch, and 64 slots decode."""

    def size(run, name):
        if name == DECODE:
            return run.slotting.slots.slots / 8
        parts = run.mesh.shape["fsdp"] * run.phases[0].microbatches
        return 1.0 if name in ON_THE_SIDE else 256 / parts

    code, found = _searched(monkeypatch, tmp_path, size)
    assert code == 0
    assert found["fits"]
    [chosen] = [row for row in found["search"] if row["chosen"]]
    assert chosen["settings"] == (
        "fsdp 8 × tensor 1, remat none, 4 microbatches, 64 slots"
    )
    assert found["mesh"] == {"data": 1, "fsdp": 8, "tensor": 1}
    assert chosen["fits"]
    assert chosen["excess_bytes"] < 0
    both = [one["iteration_s"] for one in found["bounds"]]
    assert min(both) <= chosen["iteration_s"] <= max(both)
    assert any(not row["fits"] for row in found["search"])
    out = capsys.readouterr().out
    assert "chosen" in out
    assert "too much" in out
    assert "Nothing fits" not in out
    assert "fits: tightest while" in out


def test_where_nothing_fits_the_settings_are_planned(monkeypatch, tmp_path, capsys):
    code, found = _searched(monkeypatch, tmp_path, lambda run, name: 20.0)
    assert code == 1
    assert not found["fits"]
    assert found["search"]
    assert not any(row["fits"] or row["chosen"] for row in found["search"])
    out = capsys.readouterr().out
    assert "Nothing fits; as the settings are:" in out
    assert "What would give room" in out


def test_the_page_shows_a_bar_for_each_moment(monkeypatch):
    plan = _plan(monkeypatch, step=20.0)
    assert isinstance(plan, Plan)
    page = Page(plan_page(plan))
    bars = [one for tag, one in page.elements if one.get("class") == "track"]
    assert len(bars) == len(plan.moments) == 12
    assert "does not fit" in page.text
    assert plan.advice[0].change in page.text
    assert "default-src 'none'" in page.policy


def test_the_screen_says_bounds_are_bounds(monkeypatch):
    plan = _plan(monkeypatch)
    console = Console(record=True, width=160)
    print_plan(console, plan)
    text = console.export_text()
    assert "fits: tightest while" in text
    assert "an iteration takes at least" in text
    assert "at most" in text
    assert "What would give room" not in text
