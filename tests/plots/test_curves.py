import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from fdjax.plots import RunFiles, lines_of, read_run, run_figures, write_figures
from fdjax.plots.curves import training_figure
from fdjax.plots.drawing import figure_svg


def lines_with(rows):
    files = RunFiles(name="run", config={}, metrics=rows, evaluation={}, samples=[])
    return lines_of([files])


def figures_of(run_dir):
    return run_figures(lines_of([read_run(run_dir)]))


def colours_of(run_dir):
    return {line.arm: line.style.colour for line in lines_of([read_run(run_dir)])}


def lines(figure):
    """Data of the drawn lines by colour; labels by colour."""
    axes = figure.axes[0]
    return (
        {line.get_color(): line.get_xydata() for line in axes.lines},
        {text.get_color(): text.get_text() for text in axes.texts},
    )


def test_pass_at_k_lines_hold_the_files_numbers(run_dir):
    figure = figures_of(run_dir)["pass_at_k"]
    drawn, labels = lines(figure)
    colour = colours_of(run_dir)["grpo"]
    # 1 success of 4: pass@1 1/4, pass@2 1/2, pass@4 1.
    np.testing.assert_allclose(drawn[colour], [[1, 0.25], [2, 0.5], [4, 1.0]])
    assert labels[colour] == "GRPO"
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "2", "4"]
    assert len(axes.collections) == 2  # a band for each arm


def test_training_lines_hold_the_rows(run_dir):
    figures, colours = figures_of(run_dir), colours_of(run_dir)
    drawn, _ = lines(figures["reward"])
    expected = [[step, 0.1 * step] for step in range(1, 6)]
    np.testing.assert_allclose(drawn[colours["fd"]], expected)
    np.testing.assert_allclose(drawn[colours["grpo"]], expected)
    # GRPO's entropy was null throughout.
    assert list(lines(figures["entropy"])[1].values()) == ["FD"]


def test_entropy_is_the_samplers_and_begins_with_the_arms():
    rows = [
        # SFT's first steps are those of an untrained model.
        {"arm": "sft", "step": step, "train/entropy": 6.0}
        for step in range(20, 1801, 20)
    ]
    rows += [
        {"arm": "grpo", "step": step, "train/entropy": 3.0, "rollout/entropy": 0.2}
        for step in range(1, 37)
    ]
    figures = run_figures(lines_with(rows))
    assert set(figures) == {"entropy"}
    axes = figures["entropy"].axes[0]
    faint, smooth = axes.lines
    np.testing.assert_array_equal(faint.get_ydata(), [0.2] * 36)
    np.testing.assert_allclose(smooth.get_ydata(), [0.2] * 36)
    assert -2 < axes.get_xlim()[0] <= 1
    assert 36 <= axes.get_xlim()[1] < 40
    assert axes.get_ylim()[1] < 0.3
    assert "sampled token" in axes.get_title(loc="left")


def test_names_of_lines_that_meet_are_kept_apart(run_dir):
    figure = figures_of(run_dir)["reward"]
    canvas_text = figure.axes[0].texts
    figure.draw_without_rendering()
    boxes = sorted(
        (text.get_window_extent() for text in canvas_text), key=lambda b: b.y0
    )
    assert boxes[0].y1 <= boxes[1].y0 + 1.0


def test_long_courses_are_smoothed():
    generator = np.random.default_rng(0)
    rows = [
        {"arm": "fd", "step": step, "a": 1.0 + generator.normal(scale=0.1)}
        for step in range(200)
    ]
    axes = training_figure(lines_with(rows), "a", "a").axes[0]
    faint, smooth = axes.lines
    raw = np.array([row["a"] for row in rows])
    np.testing.assert_array_equal(faint.get_ydata(), raw)
    shown = np.asarray(smooth.get_ydata())
    # Window of 200 / 20 = 10 rows: five to either side.
    assert shown[100] == pytest.approx(raw[95:106].mean())
    assert shown[0] == pytest.approx(raw[:6].mean())


def test_files_are_images_with_ink(run_dir):
    before = dict(matplotlib.rcParams)
    written = write_figures(run_dir)
    assert dict(matplotlib.rcParams) == before
    assert [path.name for path in written] == [
        "pass_at_k.png",
        "pass_at_k.svg",
        "entropy.png",
        "entropy.svg",
        "reward.png",
        "reward.svg",
        "gap.png",
        "gap.svg",
    ]
    for path in written:
        if path.suffix == ".png":
            pixels = imread(path)[..., :3]
            assert pixels.shape[1] > 700
            assert 0.005 < np.mean(np.any(pixels < 0.9, axis=-1)) < 0.5
        else:
            root = ElementTree.parse(path).getroot()
            assert root.tag == "{http://www.w3.org/2000/svg}svg"
            assert "FD" in {
                (text.text or "").strip() for text in root.iter() if text.text
            }


def test_equal_runs_give_equal_drawings(run_dir):
    first, second = (figures_of(run_dir)["pass_at_k"] for _ in range(2))
    assert figure_svg(first) == figure_svg(second)


def test_dollars_in_an_arm_are_no_formula():
    rows = [{"arm": "$\\bad$", "step": 1, "a": 1.0}]
    figure = training_figure(lines_with(rows), "a", "a")
    assert "$\\bad$" in figure_svg(figure)
