"""Object stores: addresses such as `gs://bucket/runs`, and what is done with them."""

from fdjax.objects.address import Place, local_folder, place, remote
from fdjax.objects.folders import is_whole, publish, read_bytes
from fdjax.objects.lease import Lease
from fdjax.objects.store import (
    append,
    children,
    delete,
    download,
    exists,
    move,
    open_store,
    read,
    store_failures,
    upload,
    walk,
    write,
)

__all__ = [
    "Lease",
    "Place",
    "append",
    "children",
    "delete",
    "download",
    "exists",
    "is_whole",
    "local_folder",
    "move",
    "open_store",
    "place",
    "publish",
    "read",
    "read_bytes",
    "remote",
    "store_failures",
    "upload",
    "walk",
    "write",
]
