"""Making images available: looked for first, pulled when missing, one pull per image at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from http import HTTPStatus

from docker.errors import APIError, ImageNotFound, NotFound
from docker.utils import parse_repository_tag

from runner_node.drivers.credentials import Credentials, repository
from runner_node.drivers.engine import Engine, PullError, words
from runner_node.drivers.image_use import ImageUse
from runner_node.drivers.pull_errors import Overloaded, failure
from runner_node.drivers.pulls import Progress, pulling
from shared_models import errors
from shared_models.image_policy import ALWAYS, MISSING, NEVER, PULL

log = logging.getLogger(__name__)

ATTEMPTS = 3
PAUSE = 0.25
PATIENCE = 4.0
"""Pulls of one image in a row, seconds before the second (doubled then), and after how many seconds of
failing no new one is begun: somebody waits for the answer."""
FRESH = 10.0
"""Seconds for which an image that was there is believed to be there. After that it is looked for again,
behind the start that asks: no start waits for it."""
CHECKED = 10.0
"""Seconds for which an image that is always asked for has been asked for."""


class Images:
    """The images of one engine. Those that are there are pulled again for functions that say so only."""

    def __init__(
        self, engine: Engine, pull_timeout: float, credentials: Credentials, use: ImageUse | None = None
    ) -> None:
        self.use = use or ImageUse(on=False)
        self.on_pulled: Callable[[], None] = lambda: None
        """Called when a pull has brought an image."""
        self._engine = engine
        self._pull_timeout = pull_timeout
        self._credentials = credentials
        self._overloaded = Overloaded()
        self._checked: dict[str, float] = {}
        """Images that were asked for at their registry while they were there, and when."""
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._seen: dict[str, float] = {}
        """Images that were there, and when they were last looked for."""
        self._looks: set[asyncio.Task[bool]] = set()
        self._removed: set[str] = set()
        """Images that this node has removed at some time."""

    async def ensure(self, image: str, pull: str = MISSING) -> None:
        """Raises ImagePullFailed, ImageHasVolume, EngineUnavailable. *pull*: see ``image_policy``.

        What has changed of an image that was there before is seen by the next who asks; see ``again``.
        """
        if pull == NEVER:
            self.use.keep(image)
        await self._available(image, pull)
        self.use.note(image)

    async def _available(self, image: str, pull: str) -> None:
        now = asyncio.get_running_loop().time()
        if pull == ALWAYS and now - self._checked.get(image, -CHECKED) >= CHECKED:
            await self._fetch(image)
            self._checked[image] = now
            return
        if (seen := self._seen.get(image)) is not None:
            if now - seen > FRESH:
                self._seen[image] = now
                look = asyncio.create_task(self._is_there(image), name=f"look for {image}")
                self._looks.add(look)
                look.add_done_callback(self._looked)
            return
        await self._ensure(image, pull)

    async def again(self, image: str) -> bool:
        """As ``ensure``, after the engine said that it has no such image; False when that is no news."""
        if self._seen.pop(image, None) is None and image not in self._removed:
            return False
        await self._ensure(image)
        return True

    def forget(self, images: Collection[str]) -> None:
        """They are removed now: whoever needs one looks for it first."""
        for image in images:
            self._seen.pop(image, None)
        self._removed.update(images)

    async def _ensure(self, image: str, pull: str = MISSING) -> None:
        if await self._is_there(image):
            return
        if pull == NEVER:
            raise errors.ImagePullFailed(
                image, f"this runner does not have it, and {PULL} is never: load it there, or change that"
            )
        await self._fetch(image)

    async def _fetch(self, image: str) -> None:
        pull = self._pulls.get(image)
        if pull is None:
            pull = self._pulls[image] = asyncio.create_task(self._pull(image), name=f"pull {image}")
            pull.add_done_callback(lambda done: self._done(image, done))
        await asyncio.shield(pull)
        if not await self._is_there(image):
            raise errors.ImagePullFailed(image, "the engine pulled it but does not have it")

    async def close(self) -> None:
        """Gives up the pulls that are at work."""
        tasks: list[asyncio.Task[None] | asyncio.Task[bool]] = [*self._pulls.values(), *self._looks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, image: str, pull: asyncio.Task[None]) -> None:
        del self._pulls[image]
        if not pull.cancelled():
            pull.exception()  # read, for when nobody waits any more

    def _looked(self, look: asyncio.Task[bool]) -> None:
        self._looks.discard(look)
        if not look.cancelled() and (trouble := look.exception()):
            log.info("%s", trouble)

    async def _is_there(self, image: str) -> bool:
        try:
            there = await self._look(image)
        except BaseException:
            self._seen.pop(image, None)
            raise
        if there:
            self._seen[image] = asyncio.get_running_loop().time()
        else:
            self._seen.pop(image, None)
        return there

    async def _look(self, image: str) -> bool:
        try:
            found = await self._engine.call(lambda client: client.inspect_image(image))  # type: ignore[no-untyped-call]
        except (ImageNotFound, NotFound):
            return False
        except APIError as exc:
            if exc.status_code == HTTPStatus.BAD_REQUEST:
                raise errors.ImagePullFailed(image, words(exc), HTTPStatus.BAD_REQUEST) from exc
            raise errors.EngineUnavailable(detail=words(exc)) from exc
        if (found.get("Config") or {}).get("Volumes"):
            raise errors.ImageHasVolume
        self.use.seen(image, str(found.get("Id") or ""))
        return True

    async def _pull(self, image: str) -> None:
        before = await self._id(image) if self.use.on else None
        with pulling(image) as progress:
            await self._persistently(image, progress)
        if before is not None and (after := await self._id(image)) and after != before:
            self.use.came(image, after)
            self.on_pulled()

    async def _id(self, image: str) -> str | None:
        """By which the engine knows *image*; empty: it has none; None: it does not say."""
        try:
            found = await self._engine.call(lambda client: client.inspect_image(image))  # type: ignore[no-untyped-call]
        except (ImageNotFound, NotFound):
            return ""
        except (APIError, errors.EngineUnavailable):
            return None
        return str(found.get("Id") or "")

    async def _persistently(self, image: str, progress: Progress) -> None:
        name, tag = parse_repository_tag(image)
        host = repository(image).host
        self._overloaded.check(image, host)
        login = await asyncio.to_thread(self._credentials.login, image)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for attempt in range(ATTEMPTS):
            try:
                log.info("pulling image %s", image)
                await self._engine.pull(name, tag or "latest", self._pull_timeout, progress.note, login)
                self._overloaded.note(host, None)
                return
            except APIError as exc:
                said, status = words(exc), exc.status_code or 0
            except PullError as exc:
                said, status = str(exc)[:500], exc.status
            failed = failure(image, host, said, status, logged_in=bool(login))
            self._overloaded.note(host, failed)
            log.warning("%s", failed.message)
            if failed.final or attempt == ATTEMPTS - 1 or loop.time() - begun > PATIENCE:
                raise failed
            await asyncio.sleep(PAUSE * 2**attempt)
