"""Several processes as one program: how each is told of the others."""

from dataclasses import dataclass

from fdjax.ranges import FLAG, Whole, require_fields

__all__ = ["ProcessesConfig"]


@dataclass(frozen=True, kw_only=True)
class ProcessesConfig:
    """Several processes that run one program: the same command on every host.

    On TPU pods, SLURM and Kubernetes `join` is enough; elsewhere give the other three.
    """

    join: bool = False
    """Wait for the others before anything else, as the platform tells of them."""
    coordinator: str | None = None
    """host:port of process 0, on a port of it that is free."""
    count: int | None = None
    """Processes in the run."""
    index: int | None = None
    """This one, from 0."""

    def __post_init__(self) -> None:
        require_fields(self, join=FLAG)
        if self.count is not None:
            require_fields(self, count=Whole(1))
        if self.index is not None:
            require_fields(self, index=Whole(0, (self.count or 1) - 1))

    @property
    def several(self) -> bool:
        """Whether there are others to wait for."""
        return self.join or self.coordinator is not None
