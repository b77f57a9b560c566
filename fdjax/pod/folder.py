"""Whether all hosts write into the same folder."""

import secrets
from contextlib import suppress

import jax

from fdjax.encoding import decode, encode
from fdjax.objects import Place, delete, exists, remote, write
from fdjax.sharding import gather

__all__ = ["folder_of_all"]


def folder_of_all(folder: Place) -> list[str]:
    """Of each process what is wrong with its folder; empty where nothing is.

    A collective: process 0 leaves a file, the others look for it and leave their own,
    for which process 0 looks. All files go again.

    Args:
      folder: made where it is absent.
    """
    first = jax.process_index() == 0
    name = f".fdjax-doctor-{decode(gather(encode(secrets.token_hex(8)))[0])}"
    mine = folder / f"{name}-{jax.process_index()}"
    try:
        wrong = _left(mine) if first else ""
        gather(b"")
        if not first:
            wrong = _left(mine) or _unseen(folder / f"{name}-0", "host 0 has others")
        wrong_of = [decode(fact) for fact in gather(encode(wrong))]
        if first:
            wrong_of = [
                said or _unseen(folder / f"{name}-{index}", "its file is not here")
                for index, said in enumerate(wrong_of)
            ]
        return decode(gather(encode(wrong_of))[0])
    finally:
        with suppress(OSError):
            _take_away(mine)


def _left(file: Place) -> str:
    try:
        if remote(file):
            write(file, b"")
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"")
    except OSError as error:
        return str(error)
    return ""


def _unseen(file: Place, otherwise: str) -> str:
    try:
        seen = exists(file) if remote(file) else file.exists()
    except OSError as error:
        return str(error)
    return "" if seen else f"not the same folder: {otherwise}"


def _take_away(file: Place) -> None:
    if remote(file):
        delete(file)
    else:
        file.unlink(missing_ok=True)
