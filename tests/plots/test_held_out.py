"""Probes of several seeds: courses, figure, tables, favourites and answers."""

import json

import numpy as np
import pytest

from fdjax.errors import DataError
from fdjax.plots import lines_of, read_run, run_figures, write_report
from fdjax.plots.answers import answers, favourites
from fdjax.plots.held_out import courses, held_out_tables
from fdjax.plots.pass_at_k import pass_at_k_trend


def probe(policy, iterations, reward, reader="student"):
    return {
        "arm": policy,
        "step": iterations,
        "policy": policy,
        "iterations": iterations,
        "reader": reader,
        "problems": ["q"],
        "reward": reward,
        "rewards": [reward],
        "entropy": 2.0,
        "marginal_entropy": 6.0 + reward,
        "length": 40.0,
        "finished": 0.5,
        "top_tokens": [[f" <{policy}>", 0.25], ["\n", 0.125]],
        "examples": {"q": f"by <{policy}> {reader}"},
    }


def seed(shift):
    return [
        probe("base", 0, 0.0),
        probe("base", 0, 0.5, "teacher"),
        probe("fd", 5, 0.25 + shift),
        probe("fd", 5, 0.5, "teacher"),
        probe("fd", 10, 0.5 + shift),
        probe("fd", 10, 0.5, "teacher"),
        {**probe("grpo", 5, 0.125), "reward": None if shift else 0.125},
        probe("grpo", 10, 0.125 if shift else 0.25),
    ]


SEEDS = [seed(0.0), seed(0.25)]


@pytest.fixture
def folder(tmp_path):
    for place, rows in enumerate(SEEDS):
        run = tmp_path / "french" / f"seed{place + 9}"
        run.mkdir(parents=True)
        lines = [json.dumps(row) + "\n" for row in rows]
        (run / "probes.jsonl").write_text("".join(lines))
        (run / "metrics.jsonl").write_text(json.dumps({"arm": "fd", "step": 1}) + "\n")
    return tmp_path / "french"


def test_courses_begin_at_the_base_and_hold_what_all_seeds_measured():
    found = {(one.policy, one.reader): one for one in courses(SEEDS, "reward")}
    assert list(found) == [("fd", "student"), ("fd", "teacher"), ("grpo", "student")]
    fd = found["fd", "student"]
    assert fd.iterations == [0, 5, 10]
    np.testing.assert_array_equal(fd.values, [[0, 0.25, 0.5], [0, 0.5, 0.75]])
    # One seed has no reward at 5.
    assert found["grpo", "student"].iterations == [0, 10]


def test_tables_have_the_mean_and_the_range():
    by_iteration, ends = held_out_tables(SEEDS)
    assert by_iteration[0] == ["iteration", "FD", "FD's teacher", "GRPO"]
    assert by_iteration[2:] == [
        ["5", "0.375 (0.250–0.500)", "0.500", "–"],
        ["10", "0.625 (0.500–0.750)", "0.500", "0.188 (0.125–0.250)"],
    ]
    assert [row[0] for row in ends[1:]] == ["base", "base with feedback", "FD", "GRPO"]
    assert ends[3][1:4] == ["0.625 (0.500–0.750)", "2.00", "6.62 (6.50–6.75)"]
    assert held_out_tables(SEEDS[:1])[0][2] == ["5", "0.250", "0.500", "0.125"]


def test_the_figure_draws_means_and_bands(folder):
    files = read_run(folder)
    assert [one.name for one in files.seeds] == ["seed9", "seed10"]
    figure = run_figures(lines_of([files]))["held_out"]
    reward = figure.axes[0]
    drawn = [line.get_ydata().tolist() for line in reward.get_lines()]
    assert [0.0, 0.375, 0.625] in drawn
    edges = reward.collections[0].get_paths()[0].vertices
    assert {0.25, 0.5, 0.75} <= set(edges[:, 1].tolist())
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["FD", "GRPO", "teacher, with feedback"]


def test_one_run_has_no_band(folder):
    figure = run_figures(lines_of([read_run(folder / "seed9")]))["held_out"]
    assert figure.axes[0].get_lines()
    assert not figure.axes[0].collections


def test_pass_at_k_of_one_run_has_the_interval_of_its_last_probe(tmp_path):
    measured = {
        "1": {"value": 0.25, "low": 0.125, "high": 0.5},
        "4": {"value": 0.5, "low": 0.25, "high": 0.75},
        "16": None,
    }
    rows = [probe("base", 0, 0.0), {**probe("fd", 5, 0.25), "pass_at_k": measured}]
    lines = [json.dumps(row) + "\n" for row in rows]
    (tmp_path / "probes.jsonl").write_text("".join(lines))
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"arm": "fd", "step": 5}) + "\n")
    (line,) = [one for one in lines_of([read_run(tmp_path)]) if one.arm == "fd"]
    trend = pass_at_k_trend(line)
    np.testing.assert_array_equal(trend.steps, [1, 4])
    np.testing.assert_array_equal(trend.values, [0.25, 0.5])
    np.testing.assert_array_equal(trend.low, [0.125, 0.25])
    np.testing.assert_array_equal(trend.high, [0.5, 0.75])


def test_tokens_and_answers_are_those_before_and_at_the_end():
    names = [(one.policy, one.reader) for one in favourites(SEEDS)]
    assert names == [
        ("base", "student"),
        ("base", "teacher"),
        ("fd", "student"),
        ("grpo", "student"),
    ]
    (of_problem,) = answers(SEEDS)
    assert of_problem.problem == "q"
    assert [text for _, _, text in of_problem.by][:2] == [
        "by <base> student",
        "by <base> teacher",
    ]
    # A run made before probes kept attempts.
    older = [{**row, "examples": {}} for row in SEEDS[0]]
    assert answers([older]) == []


def test_the_page_of_several_seeds_links_to_each(folder):
    page = write_report(folder).read_text()
    assert 'href="seed9/report.html"' in page
    assert "0.625 (0.500–0.750)" in page
    assert "report of 2 seeds" in page
    # Blanks of a token can be seen, and nothing of a run is markup.
    assert "␣&lt;" in page
    assert "by &lt;" in page
    assert "<fd>" not in page


def test_a_folder_of_seeds_that_did_not_begin_is_no_run(tmp_path):
    (tmp_path / "seed1").mkdir()
    with pytest.raises(DataError, match="got none"):
        read_run(tmp_path)
