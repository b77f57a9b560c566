"""Manifests as text."""

from typing import Any

import yaml

__all__ = ["to_yaml"]


class _Dumper(yaml.SafeDumper):
    """Texts of several lines stay as they are."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def to_yaml(manifest: dict[str, Any]) -> str:
    """YAML, its keys in the given order and its lines never broken."""
    return yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=10_000)
