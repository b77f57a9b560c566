"""Rows reach TensorBoard and W&B as their own libraries read them, and end no run."""

import json
import logging
import math
import struct
import sys
from contextlib import closing, contextmanager

import pytest

from fdjax.errors import ConfigError, InstallError
from fdjax.metrics import MetricsWriter, read_metrics
from fdjax.metrics.trackers import TrackersConfig, Tracking


def events_of(folder):
    """Events in the files of a folder, oldest first, by tensorboardX's own records."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for path in sorted(folder.glob("events.*")):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack_from("<Q", content)
            # A record: its size and the size's checksum, itself and its checksum.
            found.append(event_pb2.Event.FromString(content[12 : 12 + size]))
            content = content[12 + size + 4 :]
    return found


def scalars(folder):
    return [
        (value.tag, event.step, event.wall_time, value.simple_value)
        for event in events_of(folder)
        for value in event.summary.value
    ]


@contextmanager
def writer_of(folder, run="abc", **settings):
    with (
        closing(TrackersConfig(**settings).open(folder, run=run)) as tracking,
        MetricsWriter(folder / "metrics.jsonl", tracking) as writer,
    ):
        yield writer


def test_tensorboard_has_the_rows_a_folder_for_each_phase(tmp_path):
    pytest.importorskip("tensorboardX")
    values = {"train/loss": 0.5, "reward/mean": math.nan, "rollout/length": 7}
    with writer_of(tmp_path, tensorboard=True) as writer:
        writer.write("fd", 1, values, wall_time_s=1e9)
        writer.write("grpo", 1, {"train/loss": 0.25}, wall_time_s=1e9 + 60)
    folder = tmp_path / "tensorboard"
    # What is undefined has no point.
    assert scalars(folder / "fd") == [
        ("train/loss", 1, 1e9, 0.5),
        ("rollout/length", 1, 1e9, 7.0),
    ]
    assert scalars(folder / "grpo") == [("train/loss", 1, 1e9 + 60, 0.25)]


def test_tensorboard_forgets_steps_that_a_resume_repeats(tmp_path):
    pytest.importorskip("tensorboardX")
    for values in ([1.0, 2.0, 3.0], [20.0, 30.0]):
        first = 4 - len(values)
        with writer_of(tmp_path, tensorboard=True) as writer:
            writer.truncate_after("fd", first - 1)
            for step, value in enumerate(values, first):
                writer.write("fd", step, {"a": value})
    # By the specification of the format, a session that starts at a step purges.
    starts = [
        event.step
        for event in events_of(tmp_path / "tensorboard/fd")
        if event.HasField("session_log")
    ]
    assert starts == [2]
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    read = reader.EventAccumulator(str(tmp_path / "tensorboard/fd")).Reload()
    points = [(point.step, point.value) for point in read.Scalars("a")]
    assert points == [(1, 1.0), (2, 20.0), (3, 30.0)]


def wandb_records(content):
    """Records of a file of W&B, a LevelDB log: blocks of 32 KiB that cut records."""
    place, record = 7, b""  # after W&B's own mark
    while place < len(content):
        left = -place % 32768
        if 0 < left < 7:
            place += left
            continue
        _, size, kind = struct.unpack_from("<IHB", content, place)
        record += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def test_wandb_has_the_rows_over_the_steps_of_a_phase(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_SILENT", "true")
    with writer_of(tmp_path, wandb="provers", wandb_mode="offline") as writer:
        writer.write("fd", 1, {"train/loss": 0.5, "reward/mean": math.nan}, 1e9)
        writer.write("fd", 2, {"train/loss": 0.25}, 1e9 + 60)
        writer.write("grpo", 1, {"train/loss": 0.125}, 1e9 + 90)
    [path] = (tmp_path / "wandb").glob("offline-run-*-abc/run-abc.wandb")
    rows, steps = [], set()
    for content in wandb_records(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(content)
        if record.HasField("history"):
            items = record.history.item
            row = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in items
            }
            rows.append({key: row[key] for key in row if not key.startswith("_")})
        if record.HasField("metric") and record.metric.step_metric:
            steps.add((record.metric.glob_name, record.metric.step_metric))
    assert rows == [
        {"fd/train/loss": 0.5, "fd/step": 1, "fd/time": 1e9},
        {"fd/train/loss": 0.25, "fd/step": 2, "fd/time": 1e9 + 60},
        {"grpo/train/loss": 0.125, "grpo/step": 1, "grpo/time": 1e9 + 90},
    ]
    assert steps == {("fd/*", "fd/step"), ("grpo/*", "grpo/step")}


class Failing:
    """Takes one row, and fails at everything else."""

    def __init__(self):
        self.rows, self.calls = [], 0

    def write(self, arm, step, values, wall_time_s):
        self.calls += 1
        if step > 1:
            raise ConnectionError("the network is gone")
        self.rows.append(values)

    def truncate_after(self, arm, step):
        pass

    def close(self):
        raise ConnectionError("the network is gone")


def test_a_tracker_that_fails_is_left_out_and_said_once(tmp_path, caplog):
    failing, good = Failing(), Failing()
    good.write = lambda arm, step, values, wall_time_s: good.rows.append(values)
    tracking = Tracking([failing, good])
    with (
        caplog.at_level(logging.WARNING),
        MetricsWriter(tmp_path / "metrics.jsonl", tracking) as writer,
    ):
        for step in (1, 2, 3):
            writer.write("fd", step, {"a": step})
    assert failing.rows == [{"a": 1}]
    assert failing.calls == 2
    assert good.rows == [{"a": 1}, {"a": 2}, {"a": 3}]
    [text] = caplog.messages
    assert "Failing failed and gets no more metrics" in text
    assert "the network is gone" in text
    tracking.close()  # not even here
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 3


@pytest.mark.parametrize(
    ("module", "settings"),
    [("tensorboardX", {"tensorboard": True}), ("wandb", {"wandb": "provers"})],
)
def test_a_library_that_is_missing_is_named_at_once(
    module, settings, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InstallError, match=r"pip install 'fdjax\["):
        TrackersConfig(**settings).open(tmp_path, run="abc")


def test_a_service_that_does_not_answer_does_not_keep_a_run_from_beginning(
    tmp_path, monkeypatch, caplog
):
    wandb = pytest.importorskip("wandb")

    def refuse(**settings):
        raise wandb.errors.CommError("no route")

    monkeypatch.setattr(wandb, "init", refuse)
    with caplog.at_level(logging.WARNING):
        TrackersConfig(wandb="provers").open(tmp_path, run="abc").write("fd", 1, {}, 0)
    assert caplog.messages == ["W&B gets no metrics of this run: no route"]


@pytest.mark.parametrize("settings", [{"wandb": ""}, {"wandb_mode": "sometimes"}])
def test_settings_that_are_none_are_refused(settings):
    with pytest.raises(ConfigError):
        TrackersConfig(**settings)
