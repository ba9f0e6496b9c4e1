"""A scheduler on a clock that jumps: seconds of a simulated node take no time, and every run is the same."""

from __future__ import annotations

import asyncio
import selectors
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from runner_node.calls import Target
from runner_node.drivers.contract import Capabilities, Container, ContainerDriver, ContainerSpec, Exit, Sink
from runner_node.protocols.formats import format_of
from runner_node.resources import Resources
from runner_node.scheduler import Scheduler
from runner_node.settings import AgentSettings
from shared_models import errors
from shared_models.annotations import Annotations
from shared_models.image_policy import MISSING

MIB = 1 << 20
CORES = 2
EJECT = 1.0
"""Seconds: ``eject_idle`` of every simulated node."""
T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        self.now += 1e-9  # as on any machine: what is due in no time comes
        if not ready and timeout is None:
            raise AssertionError("everybody waits for ever")
        if not ready and timeout and timeout > 0:
            self.now += timeout
        return ready


class _JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _JumpingSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def simulated(test: Callable[[], Awaitable[T]]) -> Callable[[], T]:
    """A test that runs on the jumping clock."""

    async def main() -> T:
        return await test()

    def run() -> T:
        with asyncio.Runner(loop_factory=_JumpingLoop) as runner:
            return runner.run(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def now() -> float:
    return asyncio.get_running_loop().time()


class SimContainer(Container):
    io_dir = ""

    def __init__(self, driver: SimDriver, spec: ContainerSpec) -> None:
        self.id = spec.id
        self.spec = spec
        self.driver = driver
        self.ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        driver.alive[spec.image] += 1
        driver.most[spec.image] = max(driver.most[spec.image], driver.alive[spec.image])

    async def freeze(self) -> None: ...

    async def unfreeze(self) -> None:
        if self.driver.wakeless:
            await asyncio.sleep(self.driver.wakeless)
            raise errors.EngineUnavailable

    async def wait(self) -> Exit:
        return await asyncio.shield(self.ended)

    async def drain_output(self) -> None: ...
    async def write(self, data: bytes) -> None: ...
    async def close_stdin(self) -> None: ...
    def pause_talk(self) -> None: ...
    def resume_talk(self) -> None: ...

    async def sample(self) -> dict[str, int]:
        return {}

    async def remove(self) -> None:
        self.end(Exit(137))

    def end(self, how: Exit) -> None:
        """It runs no more."""
        if not self.ended.done():
            self.ended.set_result(how)
            self.driver.alive[self.spec.image] -= 1


class SimDriver(ContainerDriver):
    """Starts take *start_time* seconds; images in *broken* fail with that error, after as long."""

    capabilities = Capabilities(freeze=True, isolates=False)

    def __init__(self, start_time: float) -> None:
        self.start_time = start_time
        self.slow: dict[str, float] = {}
        self.broken: dict[str, errors.FnError] = {}
        self.wakeless = 0.0
        self.starts: dict[str, list[float]] = {}
        self.alive: Counter[str] = Counter()
        self.containers: list[SimContainer] = []
        self.most: Counter[str] = Counter()

    async def ping(self) -> None: ...
    async def ensure_image(self, image: str, pull: str = MISSING) -> None: ...

    async def start(self, spec: ContainerSpec, sink: Sink, talk: Sink | None = None) -> Container:
        self.starts.setdefault(spec.image, []).append(now())
        await asyncio.sleep(self.slow.get(spec.image, self.start_time))
        if spec.image in self.broken:
            raise self.broken[spec.image]
        container = SimContainer(self, spec)
        self.containers.append(container)
        return container


class Node:
    """A scheduler with memory for *containers* of 128 MB and two cores, and what its callers saw."""

    def __init__(self, containers: float, *, start_time: float = 0.2, **settings: Any) -> None:
        settings = {"eject_idle": EJECT, "freeze_idle": 1e6, **settings}
        self.settings = AgentSettings(**settings)
        self.driver = SimDriver(start_time)
        self.resources = Resources(
            int(containers * 128 * MIB), 1000 * CORES, self.settings.fair_share_reserve
        )
        self.scheduler = Scheduler(self.driver, self.settings, self.resources, "node")
        self.served: Counter[str] = Counter()
        self.waits: dict[str, list[float]] = {}
        self.tasks: list[asyncio.Task[Any]] = []

    def target(
        self, name: str, *, memory: int = 128, annotations: Annotations | None = None, **fields: Any
    ) -> Target:
        fields = {"fn_id": name, "path": "", "image": name, "idle_timeout": 1e5, "env": {}, **fields}
        return Target(
            app_id="app", memory=memory, cpus=0, tmpfs_size=0, timeout=30, annotations=annotations or {},
            format_=format_of("json"), **fields,
        )  # fmt: skip

    async def call(
        self, target: Target, seconds: float, *, sync: bool = True, patience: float = 1e4, **more: Any
    ) -> float:
        """One call that runs for *seconds*; how long it waited for its container."""
        began = now()
        container = await self.scheduler.acquire(target, sync=sync, patience=patience, **more)
        waited = now() - began
        self.waits.setdefault(target.fn_id, []).append(waited)
        await asyncio.sleep(seconds)
        self.served[target.fn_id] += 1
        self.scheduler.release(container, seconds, keep=True)
        return waited

    def press(self, target: Target, callers: int, seconds: float, *, sync: bool = True) -> None:
        """*callers* who call for ever, each of them again at once."""

        async def for_ever() -> None:
            while True:
                await self.call(target, seconds, sync=sync)

        self.tasks += [asyncio.create_task(for_ever()) for _ in range(callers)]

    def begin(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self.tasks.append(task)
        return task

    async def close(self) -> None:
        """Ends all callers; nothing may be left."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.scheduler.close()
        assert not +self.driver.alive, "a container was left"
        assert self.resources.free_memory == self.resources.memory, "memory was lost"
        assert self.scheduler.waiting() == 0
        assert not self.scheduler._queues, "slots were left"
        assert (self.scheduler._places.calls, self.scheduler._places.size) == (0, 0), "places were lost"
        assert not self.scheduler._pool.shares._by_name, "shares were left"
