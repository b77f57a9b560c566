import json

import jax.numpy as jnp
import numpy as np
import pytest

from fdjax.errors import ConfigError, DataError
from fdjax.metrics import MetricsWriter, SampleWriter, read_metrics


def test_rows_are_read_back_as_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as writer:
        writer.write("fd", 1, {"reward/mean": 0.5, "samples": 256}, wall_time_s=7.0)
        writer.write("grpo", 1, {"reward/mean": np.float32(0.25)})
    first, second = read_metrics(path)
    assert first == {
        "arm": "fd",
        "step": 1,
        "time": 7.0,
        "reward/mean": 0.5,
        "samples": 256,
    }
    assert isinstance(first["samples"], int)
    assert second["reward/mean"] == 0.25
    assert second["time"] > 1.6e9  # Unix seconds


def test_only_finite_numbers_are_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    values = {
        "nan": float("nan"),
        "infinite": jnp.float32(jnp.inf),
        "none": None,
        "array": jnp.float32(1.5),
        "integer": np.int32(3),
    }
    with MetricsWriter(path) as writer:
        writer.write("fd", 0, values)
    row = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert {key: row[key] for key in values} == {
        "nan": None,
        "infinite": None,
        "none": None,
        "array": 1.5,
        "integer": 3,
    }


def test_a_row_is_in_the_file_when_write_returns(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path)
    writer.write("fd", 0, {"a": 1.0})
    assert len(read_metrics(path)) == 1  # not closed: as after kill -9
    writer.close()


@pytest.mark.parametrize(
    "torn", ['{"arm": "fd", "st', '{"arm": "fd", "step": 9}', "{", "\0\0\n"]
)
def test_a_torn_line_is_ignored_and_then_cut_off(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as writer:
        writer.write("fd", 1, {"a": 1.0})
    with path.open("a") as file:
        file.write(torn)
    assert [row["step"] for row in read_metrics(path)] == [1]
    with MetricsWriter(path) as writer:
        writer.write("fd", 2, {"a": 2.0})
    assert [row["step"] for row in read_metrics(path)] == [1, 2]


def test_resume_drops_later_rows_of_its_arm_only(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as writer:
        for step in range(4):
            writer.write("fd", step, {"a": float(step)})
            writer.write("grpo", step, {"a": float(step)})
    with path.open("a") as file:
        file.write('{"arm": "fd", "step": 4, "a"')
    with MetricsWriter(path) as writer:
        writer.truncate_after("fd", 1)
        writer.write("fd", 2, {"a": 20.0})
    rows = [(row["arm"], row["step"], row["a"]) for row in read_metrics(path)]
    assert rows == [
        ("fd", 0, 0.0),
        ("grpo", 0, 0.0),
        ("fd", 1, 1.0),
        ("grpo", 1, 1.0),
        ("grpo", 2, 2.0),
        ("grpo", 3, 3.0),
        ("fd", 2, 20.0),
    ]
    assert [item.name for item in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_lost_rows_are_marked_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as writer:
        for step in (1, 4, 5):
            writer.write("fd", step, {})
        writer.write("grpo", 2, {})
        writer.mark_gap("fd", 5, 5)
        writer.mark_gap("fd", 5, 5)
        writer.mark_gap("grpo", 2, 1)
    *_, mark = rows = read_metrics(path)
    assert len(rows) == 5
    assert (mark["arm"], mark["step"], mark["resume/missing_rows"]) == ("fd", 5, 2)


def test_damage_before_the_last_line_is_an_error(tmp_path):
    path = tmp_path / "metrics.jsonl"
    row = '{"arm": "fd", "step": 1}\n'
    path.write_text(row + "[]\n" + row)
    with pytest.raises(DataError, match="line 2"):
        read_metrics(path)
    path.write_text(row + "\0\0\0\n")  # zeros that a lost page leaves
    assert len(read_metrics(path)) == 1
    with pytest.raises(DataError, match="none"):
        read_metrics(tmp_path / "absent.jsonl")


def test_reserved_keys_are_refused(tmp_path):
    with (
        MetricsWriter(tmp_path / "metrics.jsonl") as writer,
        pytest.raises(ConfigError, match="step"),
    ):
        writer.write("fd", 1, {"step": 2.0})


def test_samples_are_truncated_like_metrics(tmp_path):
    path = tmp_path / "samples.jsonl"
    row = {"arm": "fd", "step": 1, "proof": "  exact ⟨h, h⟩\n", "kl": [0.5, None]}
    with SampleWriter(path) as writer:
        writer.write(row)
        writer.write({**row, "step": 2, "kl": [float("nan")]})
        writer.write({**row, "arm": "grpo", "step": 2})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[0] == row
    assert rows[1]["kl"] == [None]
    with SampleWriter(path) as writer:
        writer.truncate_after("fd", 1)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(one["arm"], one["step"]) for one in rows] == [("fd", 1), ("grpo", 2)]


def test_samples_need_an_arm_and_a_step(tmp_path):
    with (
        SampleWriter(tmp_path / "samples.jsonl") as writer,
        pytest.raises(DataError, match="arm and step"),
    ):
        writer.write({"arm": "fd"})


def test_a_failed_truncation_leaves_the_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as writer:
        writer.write("fd", 1, {})
        content = path.read_bytes() + b"damage\n"
        path.write_bytes(content)
        writer.write("fd", 2, {})
        with pytest.raises(DataError, match="line 2"):
            writer.truncate_after("fd", 0)
    assert path.read_bytes().startswith(content)
