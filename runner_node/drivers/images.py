"""Making images available: looked for first, pulled when missing, one pull per image at a time."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus

from docker.errors import APIError, ImageNotFound, NotFound
from docker.utils import parse_repository_tag

from runner_node.drivers.engine import Engine, PullError, words
from runner_node.drivers.pulls import Progress, pulling
from shared_models import errors

log = logging.getLogger(__name__)

ATTEMPTS = 3
PAUSE = 0.25
PATIENCE = 4.0
"""Pulls of one image in a row, seconds before the second (doubled then), and after how many seconds of
failing no new one is begun: somebody waits for the answer."""


class Images:
    """The images of one engine. Never pulled again while they are there, as with Fn."""

    def __init__(self, engine: Engine, pull_timeout: float) -> None:
        self._engine = engine
        self._pull_timeout = pull_timeout
        self._pulls: dict[str, asyncio.Task[None]] = {}

    async def ensure(self, image: str) -> None:
        """Raises ImagePullFailed, ImageHasVolume, EngineUnavailable."""
        if await self._is_there(image):
            return
        pull = self._pulls.get(image)
        if pull is None:
            pull = self._pulls[image] = asyncio.create_task(self._pull(image), name=f"pull {image}")
            pull.add_done_callback(lambda done: self._done(image, done))
        await asyncio.shield(pull)
        if not await self._is_there(image):
            raise errors.ImagePullFailed(image, "the engine pulled it but does not have it")

    async def close(self) -> None:
        """Gives up the pulls that are at work."""
        pulls = list(self._pulls.values())
        for pull in pulls:
            pull.cancel()
        await asyncio.gather(*pulls, return_exceptions=True)

    def _done(self, image: str, pull: asyncio.Task[None]) -> None:
        del self._pulls[image]
        if not pull.cancelled():
            pull.exception()  # read, for when nobody waits any more

    async def _is_there(self, image: str) -> bool:
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
        return True

    async def _pull(self, image: str) -> None:
        with pulling(image) as progress:
            await self._persistently(image, progress)

    async def _persistently(self, image: str, progress: Progress) -> None:
        name, tag = parse_repository_tag(image)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for attempt in range(ATTEMPTS):
            try:
                log.info("pulling image %s", image)
                await self._engine.pull(name, tag or "latest", self._pull_timeout, progress.note)
                return
            except APIError as exc:
                failure = errors.ImagePullFailed(image, words(exc), _code(exc.status_code or 0))
                final = (exc.status_code or 0) < HTTPStatus.INTERNAL_SERVER_ERROR
            except PullError as exc:
                failure = errors.ImagePullFailed(image, str(exc)[:500], _code(exc.status))
                final = exc.status != 0
            log.warning("%s", failure.message)
            if final or attempt == ATTEMPTS - 1 or loop.time() - begun > PATIENCE:
                raise failure
            await asyncio.sleep(PAUSE * 2**attempt)


def _code(status: int) -> int:
    """The status to answer with: the registry's own when it refused, else that of a bad gateway."""
    refused = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return status if refused else HTTPStatus.BAD_GATEWAY
