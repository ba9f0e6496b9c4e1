"""Removes images that this node pulled and uses least, when they take too much of the engine's disk."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus

from docker.errors import APIError, NotFound
from prometheus_client import Counter, Gauge

from runner_node.drivers.engine import Engine, words
from runner_node.drivers.image_choice import Image, Stock, in_order, stock, taken
from runner_node.drivers.image_names import matching
from runner_node.drivers.image_record import Held, ImageRecord
from runner_node.drivers.images import Images
from runner_node.drivers.settings import DriverSettings
from runner_node.loops import Changes
from shared_models import errors
from shared_models.aside import Aside
from shared_models.pulse import Pulse
from shared_models.telemetry import REGISTRY

log = logging.getLogger(__name__)

EVERY = 600.0
AGAIN = 60.0
"""Seconds between two looks at the engine without a pull, and when the last one could not do its work."""
GAP = 5.0
"""Seconds between a look and the next one that a pull asks for, at least."""
STARTS = 120.0
"""Seconds for which an image is left alone after it was asked for: longer than any start takes."""
STUCK = 3600.0
"""Seconds after which a round counts as standing still: each of its removals may take its time."""
_NEVER_TOLD = (
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.NOT_IMPLEMENTED,
)
"""What engines, and proxies before them, answer that tell nobody what is on the disk."""

_bytes = Gauge(
    "fn_runner_image_bytes",
    "Bytes of images that this node pulled, at most, as of the last look (FN_IMAGE_CLEAN_MAX_SIZE)",
    registry=REGISTRY,
)
_removed = Counter("fn_runner_images_removed", "Images that were removed for want of room", registry=REGISTRY)
_freed = Counter(
    "fn_runner_image_bytes_freed", "Bytes that were free after removals of images", registry=REGISTRY
)
_failures = Counter(
    "fn_runner_image_clean_failures",
    "Looks at images, and removals, that failed; not those of images in use",
    registry=REGISTRY,
)


class ImageCleaner:
    """Of one engine; ``clean`` runs in the background. *here*: names of images whose containers are here."""

    def __init__(
        self, engine: Engine, images: Images, settings: DriverSettings, here: Callable[[], set[str]]
    ) -> None:
        self.pulse = Pulse()
        self._engine = engine
        self._images = images
        self._use = images.use
        self._here = here
        self._high = settings.image_clean_max_size
        self._low = self._high * settings.image_clean_low // 100
        prefork = (settings.prefork_image,) if settings.prefork_image else ()
        self._exempt = matching((*settings.image_clean_exempt, *prefork))
        folder = settings.image_record
        self._record = ImageRecord(folder, settings.docker_host) if folder else None
        self._file, self._lock = Aside("image record"), Aside("image cleaner's lock")
        self._changes = Changes()
        self._gone: set[str] = set()
        """Ids that are to be taken out of the record."""
        self._troubles: set[str] = set()
        """What the log says already."""
        images.on_pulled = self._changes.tell

    async def clean(self) -> None:
        """Remembers each pull at once, and looks at the engine behind it, and now and then; endless."""
        loop = asyncio.get_running_loop()
        due, last = 0.0, -math.inf
        while True:
            self.pulse.beat("image cleaner", STUCK)
            changed = self._changes.next
            await self.remember()
            if loop.time() >= due:
                done = await self.look()
                last = loop.time()
                due = last + (EVERY if done else AGAIN)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(due - loop.time(), 0.0)):
                    await changed.wait()
            if changed.is_set():
                due = min(due, last + GAP)

    async def remember(self) -> None:
        """Exchanges what is known with the record, if that can be had. Never raises."""
        if self._record is None:
            return
        record, gone = self._record, set(self._gone)
        mine, uses = self._use.snapshot(), self._use.uses()
        try:
            known = await self._file.do(lambda: record.exchange(mine, uses, gone))
        except OSError as exc:
            self._tell("record", f"what was pulled cannot be kept in FN_IMAGE_RECORD_PATH: {exc}")
            return
        self._troubles.discard("record")
        self._gone -= gone
        self._use.learn(known)

    async def look(self) -> bool:
        """One look at the engine, with as many removals as are needed; whether it could do what it is for."""
        lock: Held | None = None
        if self._record:
            try:
                lock = await self._lock.do(self._record.alone)
            except OSError as exc:
                # Where it cannot be had it keeps nobody else out either.
                log.debug("no lock for images: %s", exc)
            else:
                if lock is None:
                    return False
        try:
            done = await self._below()
            self._troubles.discard("engine")
            return done
        except (APIError, errors.EngineUnavailable) as exc:
            _failures.inc()
            said = words(exc) if isinstance(exc, APIError) else exc.explained
            self._tell("engine", f"images cannot be looked at: {said}")
            return False
        finally:
            if lock:
                lock.close()

    async def _below(self) -> bool:
        limit, before = self._high, -1
        tried: set[str] = set()
        while self._use.pulled:
            found = await self._stock(exactly=bool(tried))
            has = taken(found, self._use.pulled)
            _bytes.set(has)
            if before > has:
                _freed.inc(before - has)
            if has <= limit:
                self._troubles.discard("room")
                return True
            limit, before = self._low, has
            one, later = await self._first(found, tried)
            if one is None:
                return self._no_more(has, later=later)
            tried.add(one.id)
            await self._remove(one)
        _bytes.set(0)
        return True

    def _no_more(self, has: int, *, later: bool) -> bool:
        if has <= self._high:
            return True
        if later:
            return False
        self._tell(
            "room",
            f"images that this node pulled take {has} bytes, more than FN_IMAGE_CLEAN_MAX_SIZE={self._high}: "
            "those that are left are in use, exempt, or have names that others gave them",
        )
        return False

    async def _stock(self, *, exactly: bool) -> Stock:
        listed = await self._engine.images()
        found = stock(listed, {})
        # Older engines look through all volumes for this answer: without need they are not asked.
        if exactly or taken(found, self._use.pulled) > self._high:
            try:
                found = stock(listed, await self._engine.image_usage())
            except APIError as exc:
                # Busy engines fail, too: by sizes alone, images would go that need not. They are asked again.
                if exc.status_code not in _NEVER_TOLD:
                    raise
                log.debug("the engine does not tell what its images share: %s", exc)
        gone = self._use.pulled.keys() - {one.id for one in found.images}
        self._gone |= gone
        self._use.forget(gone)
        return found

    async def _first(self, found: Stock, tried: set[str]) -> tuple[Image | None, bool]:
        """The one that goes next, and whether one may go later: it was asked for a moment ago."""
        in_use = await self._engine.images_in_use()
        here = {*self._here(), *self._use.kept}
        in_use |= {one.id for one in found.images if here.intersection(self._use.names(one.id))}

        def first(before: float) -> Image | None:
            order = in_order(
                found.images,
                self._use.pulled,
                in_use=in_use | tried,
                exempt=self._exempt,
                before=before,
            )
            return order[0] if order else None

        return first(time.time() - STARTS), first(math.inf) is not None

    async def _remove(self, image: Image) -> None:
        names = self._use.names(image.id)
        shown = " ".join(image.references)
        idle = time.time() - self._use.pulled[image.id].used
        log.info("removing image %s, %d bytes, unused for %.0f s", shown, image.size, idle)
        self._images.forget(names)
        try:
            for reference in image.references:
                await self._engine.remove_image(reference)
            _removed.inc()
        except NotFound:
            pass  # by somebody else
        except APIError as exc:
            if exc.status_code != HTTPStatus.CONFLICT:
                _failures.inc()
            log.info("image %s stays: %s", shown, words(exc))
        finally:
            # Who looked meanwhile may have seen it.
            self._images.forget(names)

    def _tell(self, about: str, trouble: str) -> None:
        log.log(logging.DEBUG if about in self._troubles else logging.WARNING, "%s", trouble)
        self._troubles.add(about)
