"""Objects of Google Cloud Storage by their addresses, through Google's own client.

Requests that a store turns down for a while are repeated for `PATIENCE_S`. After that,
and where it refuses, a function raises `StoreError`; where an object is missing,
`FileNotFoundError`.
"""

import functools
import secrets
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from etils import epath

from fdjax.errors import ConfigError, StoreError

__all__ = [
    "PATIENCE_S",
    "append",
    "blob_of",
    "children",
    "delete",
    "delete_each",
    "download",
    "exists",
    "move",
    "open_store",
    "read",
    "retrying",
    "store_failures",
    "talking",
    "upload",
    "versions",
    "walk",
    "write",
]

PATIENCE_S = 120.0
"""Time for which a request is repeated, seconds."""
_FIRST_S = 20.0
"""The same for the first of a run, which shows whether settings are right."""
_AT_ONCE = 16
"""Objects that are deleted side by side."""
_PART_BYTES = 32 << 20
"""Part of a large file that is sent at once; a multiple of 256 KiB."""


def open_store(address: epath.Path, *, writes: bool = True) -> None:
    """Makes sure that an address can be read and written, and tells Orbax's client.

    Args:
      address: of a folder to be.
      writes: whether it must be possible to write there.

    Raises:
      ConfigError: the library is missing, there are no credentials, no such bucket, or
        what is asked is not permitted.
      StoreError: the store does not answer.
    """
    try:
        import fsspec.config
        import gcsfs
        from google.api_core.exceptions import ClientError
        from google.auth.exceptions import GoogleAuthError
    except ImportError as error:
        raise ConfigError(
            f"expected the client of Google Cloud Storage for {address}, got none "
            f"({error.name}); pip install 'fdjax[gcs]'"
        ) from error
    del gcsfs
    # Several processes write: what one has listed may have changed since.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    # Other processes do the same.
    probe = address / f".fdjax-{secrets.token_hex(8)}"
    try:
        # Whoever has no credentials has no client.
        _client()
        blob = blob_of(probe)
        # Orbax asks for what the bucket is.
        blob.client.get_bucket(blob.bucket.name, retry=retrying(_FIRST_S))
        list(blob.client.list_blobs(blob.bucket, prefix=blob.name, max_results=1))
        if writes:
            blob.upload_from_string(b"", retry=retrying(_FIRST_S))
            blob.delete(retry=retrying(_FIRST_S))
    except (ClientError, GoogleAuthError) as error:
        raise ConfigError(
            f"expected to {'write, list and delete' if writes else 'list and read'} "
            f"objects at {address}, got "
            f"{_brief(error)}; check the bucket's name, the credentials (gcloud auth "
            "application-default login, or the machine's service account) and the role "
            "(Storage Object User, and Storage Legacy Bucket Reader)"
        ) from error
    except store_failures() as error:
        raise StoreError(
            f"expected the object store to answer for {address}, got {_brief(error)}; "
            "start again once it does"
        ) from error


def children(address: epath.Path) -> list[str]:
    """Names of the objects and folders right below an address."""
    blob = blob_of(address)
    prefix = f"{blob.name}/"
    with talking(address):
        listed = blob.client.list_blobs(
            blob.bucket, prefix=prefix, delimiter="/", retry=retrying()
        )
        names = {one.name for one in listed} | set(listed.prefixes)
    return sorted(name.removeprefix(prefix).rstrip("/") for name in names - {prefix})


def walk(address: epath.Path) -> dict[str, int]:
    """Sizes in bytes of all objects below an address, by their names from there."""
    return {name: blob.size for name, blob in _below(address)}


def versions(address: epath.Path) -> dict[str, int]:
    """Generations of all objects below an address, by their names from there."""
    return {name: blob.generation for name, blob in _below(address)}


def exists(address: epath.Path) -> bool:
    """Whether there is an object of this very name."""
    with talking(address):
        return blob_of(address).exists(retry=retrying())


def read(address: epath.Path) -> bytes:
    """The content of an object."""
    with talking(address):
        return blob_of(address).download_as_bytes(retry=retrying())


def write(address: epath.Path, content: bytes) -> None:
    """Writes an object, replacing the one that is there."""
    with talking(address):
        blob_of(address).upload_from_string(content, retry=retrying())


def upload(path: Path, address: epath.Path) -> None:
    """Writes a file's content to an object, in parts."""
    blob = blob_of(address)
    blob.chunk_size = _PART_BYTES
    with talking(address):
        blob.upload_from_filename(str(path), retry=retrying())


def append(path: Path, begin: int, address: epath.Path) -> None:
    """Brings an object, which has a file's first bytes, up to the whole file.

    Only what is new is sent. The store joins both, and readers see the object before or
    after. An object that has another size, or changes meanwhile, is written as a whole.

    Args:
      path: of the file, to which was only appended.
      begin: bytes that the object has.
      address: of the object.
    """
    blob, tail = blob_of(address), blob_of(address.with_name(f".{address.name}.tail"))
    with path.open("rb") as file:
        file.seek(begin)
        new = file.read()
    from google.api_core.exceptions import NotFound, PreconditionFailed

    with talking(address):
        try:
            blob.reload(retry=retrying())
            if blob.size == begin:
                tail.upload_from_string(new, retry=retrying())
                blob.compose(
                    [blob, tail],
                    if_generation_match=blob.generation,
                    retry=retrying(),
                )
        except (NotFound, PreconditionFailed):
            # Perhaps a repeated request met its own effect: then this is what it made.
            with suppress(NotFound):
                blob.reload(retry=retrying())
    delete_each([address.with_name(f".{address.name}.tail")])
    if blob.size != begin + len(new):
        upload(path, address)


def download(
    address: epath.Path, folder: Path, *, leave_out: Collection[str] = ()
) -> None:
    """Fetches all objects below an address, but for hidden ones, into a folder.

    Args:
      address: of the objects.
      folder: on this machine.
      leave_out: names of files and folders, at any level, that are not fetched.
    """
    for name, blob in _below(address):
        parts = name.split("/")
        hidden = any(part.startswith(".") for part in parts)
        if hidden or not set(leave_out).isdisjoint(parts):
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with talking(address / name):
            blob.download_to_filename(str(path), retry=retrying())


def delete(address: epath.Path, *, first: str = "") -> None:
    """Deletes an object, and all below its address.

    Args:
      address: of them.
      first: name below it of the one that goes before the others.
    """
    names = [name for name, _ in _below(address)]
    if first in names:
        delete_each([address / first])
    delete_each([address, *(address / name for name in names if name != first)])


def delete_each(addresses: Sequence[epath.Path]) -> None:
    """Deletes these objects, those of them that are there."""

    def go(address: epath.Path) -> None:
        with suppress(FileNotFoundError), talking(address):
            blob_of(address).delete(retry=retrying())

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(go, addresses))


def move(address: epath.Path, target: epath.Path, *, first: str = "") -> None:
    """Moves all objects below an address below another.

    Args:
      address: of them.
      target: where they come to be.
      first: name of the one that goes before the others.
    """
    for name, blob in sorted(_below(address), key=lambda found: found[0] != first):
        copy = blob_of(target / name)
        with talking(address):
            token, _, _ = copy.rewrite(blob, retry=retrying())
            while token is not None:
                token, _, _ = copy.rewrite(blob, token=token, retry=retrying())
            blob.delete(retry=retrying())


def blob_of(address: epath.Path) -> Any:
    """The client's own handle of an object.

    Raises:
      StoreError: there are no credentials.
    """
    bucket, _, name = str(address).removeprefix("gs://").partition("/")
    with talking(address):
        return _client().bucket(bucket).blob(name)


@functools.cache
def _client() -> Any:
    from google.cloud import storage

    # Objects need no project.
    return storage.Client(project=None)


def retrying(patience_s: float | None = None) -> Any:
    """How the client repeats a request that a store turns down for a while."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(patience_s or PATIENCE_S)


def store_failures() -> tuple[type[Exception], ...]:
    """What the clients raise, ours and Orbax's, where a store refuses or is gone."""
    import aiohttp
    import gcsfs.retry
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
    from requests.exceptions import RequestException

    return (
        *(GoogleAPIError, GoogleAuthError, InvalidResponse, DataCorruption),
        *(RequestException, aiohttp.ClientError, gcsfs.retry.HttpError),
    )


@contextmanager
def talking(address: epath.Path) -> Iterator[None]:
    """Gives the client's errors as ours.

    Raises:
      FileNotFoundError: there is no such object.
      StoreError: the store refuses, or does not answer.
    """
    from google.api_core.exceptions import NotFound

    try:
        yield
    except NotFound as error:
        raise FileNotFoundError(f"expected an object at {address}, got none") from error
    except store_failures() as error:
        raise StoreError(
            f"expected the object store to answer for {address}, got {_brief(error)}; "
            "what was kept there stays, and the same command goes on from it"
        ) from error


def _below(address: epath.Path) -> list[tuple[str, Any]]:
    blob = blob_of(address)
    prefix = f"{blob.name}/"
    with talking(address):
        listed = list(
            blob.client.list_blobs(blob.bucket, prefix=prefix, retry=retrying())
        )
    return [
        (one.name.removeprefix(prefix), one)
        for one in listed
        if not one.name.endswith("/")
    ]


def _brief(error: Exception) -> str:
    """What went wrong in a line: the client adds the whole of its last answer."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
