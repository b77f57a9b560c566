"""Episodes of several turns with tools; see `docs/episodes.md`."""

from fdjax.episodes.calls import Call, CallError, CallFormat
from fdjax.episodes.episode import Episodes
from fdjax.episodes.fenced import Fenced
from fdjax.episodes.glue import Glue
from fdjax.episodes.hermes import Hermes
from fdjax.episodes.play import Budget
from fdjax.episodes.records import Ended, Episode, Row, Turn

__all__ = [
    "Budget",
    "Call",
    "CallError",
    "CallFormat",
    "Ended",
    "Episode",
    "Episodes",
    "Fenced",
    "Glue",
    "Hermes",
    "Row",
    "Turn",
]
