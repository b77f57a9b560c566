"""The writer that the hosts must reach is that of the run's own flags."""

from dataclasses import dataclass, field

import pytest
import tyro

from fdjax.feedback import CompilerFeedback, ModelFeedback, PolicyFeedback
from tpu.gcloud import Launch
from tpu.job import Place
from tpu.writer import writer_of


@dataclass(frozen=True, kw_only=True)
class Settings:
    """As an experiment has them."""

    policy: str = ""
    feedback: CompilerFeedback | ModelFeedback | PolicyFeedback = field(
        default_factory=CompilerFeedback
    )


OPENAI = "feedback:model-feedback {} feedback.endpoint:open-ai-endpoint"
ANTHROPIC = "feedback:model-feedback {} feedback.endpoint:anthropic-endpoint"
MODEL = "--feedback.endpoint.model m"


@pytest.mark.parametrize(
    ("flags", "address"),
    [
        ("--policy p", ""),
        ("feedback:policy-feedback", ""),
        (f"{OPENAI} {MODEL}", "https://api.openai.com/v1"),
        (f"{ANTHROPIC} {MODEL}", "https://api.anthropic.com"),
        (
            f"--policy p {OPENAI} {MODEL} --feedback.endpoint.base-url http://w:8000/v1",
            "http://w:8000/v1",
        ),
        (
            f"{ANTHROPIC} --feedback.endpoint.base_url=http://w_1:8000 {MODEL}",
            "http://w_1:8000",
        ),
    ],
)
def test_the_address_is_the_one_that_the_run_reads(flags, address):
    words = flags.replace("{}", "").split()
    assert writer_of(words) == address
    feedback = tyro.cli(Settings, args=words).feedback
    read = feedback.endpoint.base_url if isinstance(feedback, ModelFeedback) else ""
    assert read == address


def test_a_run_that_reads_a_recording_asks_nobody():
    given = "--feedback.replay --feedback.recording answers.jsonl"
    words = f"{OPENAI} {MODEL}".format(given).split()
    feedback = tyro.cli(Settings, args=words).feedback
    assert isinstance(feedback, ModelFeedback)
    assert feedback.replay
    assert writer_of(words) == ""


def launched(*own):
    flags = f"{OPENAI} {MODEL}".format("").split()
    command = ("experiments.prover", *flags)
    verb = Launch(name="fd", zone="z", runs="gs://b/runs", command=command, **dict(own))
    return verb.job().check(Place(python="python", fdjax="fdjax"))


def test_a_launch_has_its_hosts_reach_the_writer():
    assert launched()[-2:] == ["--endpoint", "https://api.openai.com/v1"]
    assert launched(("endpoint", "http://w"))[-2:] == ["--endpoint", "http://w"]
