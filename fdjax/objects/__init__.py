"""Object stores: addresses such as `gs://bucket/runs`, and what is done with them."""

from fdjax.objects.address import Place, local_folder, place, remote
from fdjax.objects.folders import (
    WEIGHTY,
    fetched,
    holds,
    is_whole,
    on_disk,
    publish,
    read_bytes,
    there,
)
from fdjax.objects.lease import Lease
from fdjax.objects.store import (
    append,
    children,
    delete,
    delete_each,
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
    "WEIGHTY",
    "Lease",
    "Place",
    "append",
    "children",
    "delete",
    "delete_each",
    "download",
    "exists",
    "fetched",
    "holds",
    "is_whole",
    "local_folder",
    "move",
    "on_disk",
    "open_store",
    "place",
    "publish",
    "read",
    "read_bytes",
    "remote",
    "store_failures",
    "there",
    "upload",
    "walk",
    "write",
]
