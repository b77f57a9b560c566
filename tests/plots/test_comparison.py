"""Several runs on one page: lines, colours, panels, summary, differences."""

import json
import shutil

import pytest

from fdjax.plots import lines_of, read_run, read_runs, run_figures, write_comparison
from fdjax.plots.differences import differences
from fdjax.plots.lines import legend, panels
from fdjax.plots.summary import summary
from fdjax.plots.verdicts import verdict_shares
from pages import Page


def metrics(arm, shift=0.0, steps=4):
    return [
        {
            "arm": arm,
            "step": step,
            "reward/mean": 0.125 * step + shift,
            "verdict/verified": 0.125 * step + shift,
            "verdict/rejected": 1 - 0.125 * step - shift,
        }
        for step in range(1, steps + 1)
    ]


def write(folder, *rows, config=None, versions=None):
    folder.mkdir(parents=True)
    content = {"config": config or {}, "provenance": {"packages": versions or {}}}
    (folder / "config.json").write_text(json.dumps(content))
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "metrics.jsonl").write_text("".join(lines) + '{"arm": "f')
    return folder


@pytest.fixture
def runs(tmp_path):
    one = write(
        tmp_path / "one",
        *metrics("fd"),
        config={"name": "one", "rate": 1, "fd": {"clip": None}},
        versions={"jax": "0.10.2", "flax": "1"},
    )
    for seed in (0, 1):
        write(
            tmp_path / "two" / f"seed{seed}",
            *metrics("fd", 0.125 * seed),
            *metrics("grpo"),
            config={"name": f"seed{seed}", "seed": seed, "rate": 2},
            versions={"jax": "0.10.1", "flax": "1"},
        )
    return [one, tmp_path / "two"]


def test_each_line_has_its_colour_while_they_last(runs):
    lines = lines_of(read_runs(runs))
    labels = ["one · FD", "two · FD", "two · GRPO"]
    assert [line.style.label for line in lines] == labels
    assert len({line.style.place for line in lines}) == 3
    assert [style.label for style in legend(lines)] == labels
    assert len(panels(lines)) == 1


def test_more_lines_than_colours_have_panels_by_arm(runs, tmp_path):
    for place in range(4):
        shutil.copytree(runs[1] / "seed0", tmp_path / f"run{place}")
    many = [tmp_path / f"run{place}" for place in range(4)]
    lines = lines_of(read_runs(many))
    assert [style.label for style in legend(lines)] == [
        *("run0", "run1", "run2", "run3")
    ]
    assert [(panel.title, len(panel.lines)) for panel in panels(lines)] == [
        *(("FD", 4), ("GRPO", 4)),
    ]
    axes = run_figures(lines)["reward"].axes
    assert [one.get_title(loc="left") for one in axes] == ["FD", "GRPO"]
    assert [len(one.lines) for one in axes] == [4, 4]
    assert axes[0].get_ylim() == axes[1].get_ylim()


def test_one_arm_needs_no_name(runs, tmp_path):
    shutil.copytree(runs[0], tmp_path / "other")
    lines = lines_of(read_runs([runs[0], tmp_path / "other"]))
    assert [line.style.label for line in lines] == ["one", "other"]


def test_the_summary_has_the_ends_of_the_curves(runs):
    table = summary(lines_of(read_runs(runs)))
    assert table["titles"] == ["reward"]
    rows = [(row["steps"], row["seeds"], *row["cells"]) for row in table["rows"]]
    assert rows == [
        (4, 1, (0.5, None, None, "nats")),
        (4, 2, (0.5625, 0.5, 0.625, "nats")),
        (4, 2, (0.5, 0.5, 0.5, "nats")),
    ]


def test_verdicts_of_seeds_are_pooled(runs):
    line = lines_of(read_runs(runs))[1]
    steps, shares = verdict_shares(line)
    assert steps.tolist() == [1, 2, 3, 4]
    assert shares[:, 0].tolist() == [0.1875, 0.3125, 0.4375, 0.5625]
    assert shares.sum(axis=1).tolist() == [1.0] * 4


def test_only_what_differs_is_listed(runs):
    settings, versions = differences(read_runs(runs))
    assert settings == [
        ("rate", ["1", "2"]),
        ("fd.clip", ["None", None]),
        ("seed", [None, "0, 1"]),
    ]
    assert versions == [("jax", ["0.10.2", "0.10.1"])]


def test_the_page(runs, run_dir, tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.json").write_text("{}")
    path = write_comparison([*runs, run_dir, begun], tmp_path / "page.html")
    page = Page(path.read_text(encoding="utf-8"))
    assert [a["id"] for tag, a in page.elements if tag == "section"] == [
        *("summary", "figures", "gap", "run", "differences", "samples")
    ]
    assert "comparison of 4 runs" in page.text
    assert "two · FD 2 seeds 4 0.562 0.500 – 0.625" in page.text
    assert {each["run"] for each in page.attempts} == {3}
    assert page.index["runs"] == ["one", "two/seed0", "two/seed1", run_dir.name]
    assert "script-src 'sha256-" in page.policy
    assert "img" not in {tag for tag, _ in page.elements}


def test_one_run_has_no_figures_of_a_comparison(runs):
    assert set(run_figures(lines_of([read_run(runs[0])]))) == {"reward", "verdicts"}
    assert "verified" in run_figures(lines_of(read_runs(runs)))
