"""What the agent asks of a container engine. Plain data in, plain data out; no scheduling in here.

Suite: tests/conformance/test_driver.py, run on every driver. Every method has a time limit of its own
(an engine that hangs must not wedge the runner) and raises EngineUnavailable when the limit passes or
the engine does not answer.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from shared_models.image_policy import MISSING
from shared_models.pulse import Pulse

SOCKET = "lsnr.sock"
"""The name under which a function makes its socket in the directory that it shares with the runner."""

Sink = Callable[[bytes], None]
"""Takes pieces of what a container writes to stdout and stderr, in order, on the event loop.

The one that is given as *talk* takes stdout alone, and ``b""`` once when there is no more of it.
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """One container to be. Memory in bytes, CPU in milli-CPUs (0: no limit), tmpfs in MB (0: no limit).

    *id* is fresh and names the container. *env* wins over the image's own environment. The driver adds
    ``FN_LISTENER``, since only it knows where the function sees the socket directory.
    """

    id: str
    image: str
    env: Mapping[str, str]
    memory: int
    cpus: int = 0
    tmpfs_size: int = 0
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stdio: bool = False
    """The function reads calls from stdin and answers on stdout; it gets no socket and no ``FN_LISTENER``."""


@dataclasses.dataclass(frozen=True, slots=True)
class Exit:
    """How a container ended: its exit *code* (128 + signal when killed), and whether memory ran out."""

    code: int
    oom: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a driver can do. *isolates*: functions are kept apart from the node and each other."""

    freeze: bool
    isolates: bool


class Container(ABC):
    """A started container. The verbs may be called in any state and more than once."""

    id: str
    io_dir: str
    """Host path of the directory in which the function makes ``lsnr.sock``; empty with ``spec.stdio``."""

    @abstractmethod
    async def freeze(self) -> None:
        """Suspends all of its processes."""

    @abstractmethod
    async def unfreeze(self) -> None:
        """Resumes them."""

    @abstractmethod
    async def wait(self) -> Exit:
        """How it ended, as soon as it has; any number of tasks may wait."""

    @abstractmethod
    async def drain_output(self) -> None:
        """Returns when what the container wrote before this call has reached its sink.

        Exact where the driver owns the pipes or can see the container's processes; elsewhere as close as
        the engine allows. Bounded. What goes to *talk* is not waited for.
        """

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Writes to stdin, no faster than the function reads; writers take turns.

        Raises FunctionResponseError when the function has closed stdin (where the engine tells; else it
        waits) or has ended. Given up in the middle it has written a part of *data*: the container is then
        of no more use. For containers with ``spec.stdio``, as the next three are.
        """

    @abstractmethod
    async def close_stdin(self) -> None:
        """The function reads all that was written, and then the end. Idempotent; never raises."""

    @abstractmethod
    def pause_talk(self) -> None:
        """Until ``resume_talk`` nothing is given to *talk*, its end neither.

        What the function says meanwhile is held back, and beyond a bound (some 100 KiB) is not read: the
        function waits. How it ended is told all the same.
        """

    @abstractmethod
    def resume_talk(self) -> None:
        """Gives what was held back to *talk* before it returns, and then what comes."""

    @abstractmethod
    async def sample(self) -> dict[str, int]:
        """What the container has used; {} when that cannot be told. Never raises; slows no call.

        net_rx, net_tx, mem_limit, mem_usage, disk_read, disk_write in bytes; cpu_user, cpu_total,
        cpu_kernel in nanoseconds.
        """

    @abstractmethod
    async def remove(self) -> None:
        """Kills and removes it with all that it left, frozen or not. Idempotent; never raises.

        What was held back from *talk* is dropped, and *talk* is told the end if it was not yet.
        """


class ContainerDriver(ABC):
    """A way to run containers. Lifetime in ``open_driver``, which sweeps what a dead predecessor left."""

    capabilities: Capabilities
    pulse: Pulse | None = None
    """Whether its background loops turn, where it has such."""

    @abstractmethod
    async def ping(self) -> None:
        """Raises EngineUnavailable, with the reason, when the engine does not answer."""

    @abstractmethod
    async def ensure_image(self, image: str, pull: str = MISSING) -> None:
        """Makes *image* available, pulling it as *pull* says (``image_policy``); who ask at once share one.

        Raises ImagePullFailed (names the image and the cause), ImageHasVolume, EngineUnavailable.
        """

    @abstractmethod
    async def start(self, spec: ContainerSpec, sink: Sink, talk: Sink | None = None) -> Container:
        """Creates and starts a container whose output goes to *sink*. *spec.image* must be available.

        With ``spec.stdio`` stdout goes to *talk* and only stderr to *sink*, and stdin is open; without it
        *talk* is not used, and stdin is at its end.

        Returns when the engine says that it runs - with ``spec.stdio`` and an image that has a health
        check: when it is healthy or has ended - not when the function is ready. Raises
        ContainerInitFailed (with the engine's words as detail) when this image cannot be started,
        DoesNotFit when the engine refuses the resources, EngineUnavailable; leaves nothing behind then.
        """
