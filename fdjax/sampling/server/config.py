"""Which server samples, how it is asked, and where it reads weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fdjax.errors import ConfigError
from fdjax.http import require_address
from fdjax.ranges import FLAG, Among, Number, TupleOf, Whole, require_fields

__all__ = ["ServerConfig"]


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """A server of vLLM or SGLang that nobody else uses (extra `sampling-server`)."""

    base_url: str
    """Its address, without `/v1`."""
    model: str
    """Its name of the model (`--served-model-name`)."""
    folder: Path
    """Where weights are exported: on a file system that the server reads, too."""
    seen_as: str = ""
    """The server's name of that folder; empty where it is the same."""
    api: Literal["vllm", "sglang"] = "vllm"
    """Whose API it is; SGLang-JAX has SGLang's."""
    key_env: str = ""
    """Environment variable that holds the key; empty where the server asks for none."""
    seeded: bool = True
    """Whether requests carry a seed, made of their key. vLLM refuses one on TPUs."""
    concurrency: int = 256
    """Requests under way at a time."""
    timeout_s: float = 900.0
    """Longest time for one request, that is for all its tokens, in seconds."""
    attempts: int = 6
    """How often a request is sent at most."""
    longest_pause_s: float = 60.0
    """Longest pause between two of them, in seconds. A server that asks by
    `Retry-After` for a longer one is not asked again."""
    load_s: float = 900.0
    """Longest time until the server holds the weights, its start included, in seconds.
    """
    probe: tuple[int, ...] = tuple(range(16))
    """Prompt after which some tokens are sampled with new weights, to compare their
    log-probabilities. One that means nothing is good: it leaves much open."""
    tolerance: float = 0.1
    """Largest mean distance of these log-probabilities from those of `Model.apply`,
    nats; for a server that computes in bfloat16."""

    def __post_init__(self) -> None:
        require_fields(
            self,
            api=Among("vllm", "sglang"),
            seeded=FLAG,
            concurrency=Whole(1),
            timeout_s=Number(above=0),
            attempts=Whole(1),
            longest_pause_s=Number(least=0),
            load_s=Number(above=0),
            probe=TupleOf(Whole(0)),
            tolerance=Number(above=0),
        )
        if not self.probe:
            raise ConfigError("expected tokens in ServerConfig.probe, got none")
        require_address(self.base_url)
