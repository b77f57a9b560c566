"""The raw rows of a Hugging Face dataset: by name, from Parquet or Arrow, as saved."""

import importlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from fdjax.data.rows.files import RawRow
from fdjax.encoding import encode
from fdjax.errors import DataError, InstallError

__all__ = ["dataset_rows", "is_table"]

_TABLES = {".parquet": "parquet", ".arrow": "arrow"}
_SAVED = ("state.json", "dataset_dict.json")


def is_table(path: Path) -> bool:
    """Whether only the package `datasets` reads what is at a path."""
    return path.suffix in _TABLES or any((path / name).is_file() for name in _SAVED)


def dataset_rows(
    source: Path | str,
    keys: Collection[str],
    *,
    split: str | None,
    config: str | None,
    revision: str | None,
) -> Iterator[RawRow]:
    """Rows of a dataset, with the columns that are named.

    Args:
      source: Parquet or Arrow file, a folder that `save_to_disk` wrote, another folder
        of data files, or the name of a dataset on the Hub.
      keys: columns to read, as far as there are such.
      split: of the dataset, with slices as `load_dataset` knows them; None: the only
        one of a file or a saved dataset.
      config: of a dataset that has several.
      revision: of a dataset on the Hub.

    Raises:
      InstallError: the package `datasets` is missing.
      DataError: the dataset cannot be loaded.
    """
    datasets = _datasets()
    try:
        table = _load(datasets, source, split, config, revision)
    # What a dataset may raise is what its readers, file systems and builders raise.
    except Exception as error:
        raise DataError(
            f"Expected a dataset at {source}, got {type(error).__name__}: {error}; "
            "correct its name, split or configuration."
        ) from error
    if isinstance(table, dict):
        raise DataError(
            f"Expected one split of {source}, got {', '.join(table)}; name one."
        )
    columns = [column for column in table.column_names if column in keys]
    if not columns:
        raise DataError(
            f"{source}: expected columns that a format knows, got "
            f"{sorted(table.column_names)}; rename them as docs/data.md lists them."
        )
    for number, row in enumerate(table.select_columns(columns), start=1):
        place = f"{source}, row {number}"
        yield RawRow(number, place, _as_row(row))


def _as_row(values: dict[str, Any]) -> bytes:
    """A row as JSON; what JSON cannot hold is shown as text."""
    return encode({key: _plain(value) for key, value in values.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    is_json = value is None or isinstance(value, str | bool | int | float)
    return value if is_json else repr(value)


def _load(
    datasets: Any,
    source: Path | str,
    split: str | None,
    config: str | None,
    revision: str | None,
) -> Any:
    path = Path(source)
    if path.suffix in _TABLES and path.is_file():
        builder, files = _TABLES[path.suffix], str(path)
        return datasets.load_dataset(builder, data_files=files, split=split or "train")
    if is_table(path):
        saved = datasets.load_from_disk(str(path))
        if split is None:
            return saved
        if not isinstance(saved, dict):
            raise ValueError(f"one without splits, asked for {split}")
        return saved[split]
    return datasets.load_dataset(str(source), config, split=split, revision=revision)


def _datasets() -> Any:
    try:
        return importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        raise InstallError(
            "Hugging Face datasets, Parquet and Arrow need the package datasets, which "
            "is missing; run `pip install fdjax[datasets]`."
        ) from error
