"""Which images this node pulled, and when each was last used by it. Only those are ever removed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Mapping

from runner_node.drivers.image_names import canonical


@dataclasses.dataclass(slots=True)
class Pulled:
    """An image that was pulled: the *names* by which it was asked for, *used* in unix seconds."""

    names: set[str]
    used: float


class ImageUse:
    """Of one process, by the engine's ids of images. *on*: whether anybody wants to know who pulled what."""

    def __init__(self, *, on: bool) -> None:
        self.on = on
        self._pulled: dict[str, Pulled] = {}
        self._used: dict[str, float] = {}
        """Of all images, those that others pulled, too."""
        self._ids: dict[str, str] = {}
        """By the names that functions give them."""
        self._kept: set[str] = set()

    @property
    def pulled(self) -> Mapping[str, Pulled]:
        """What may be removed, by id."""
        return self._pulled

    @property
    def kept(self) -> Collection[str]:
        """Names of images that would not be pulled again."""
        return self._kept

    def seen(self, image: str, image_id: str) -> None:
        """The engine has *image*, with this id."""
        self._ids[image] = image_id

    def came(self, image: str, image_id: str) -> None:
        """This node's pull of *image* has brought the one with this id, which was not there before."""
        self.seen(image, image_id)
        self._pulled.setdefault(image_id, Pulled(set(), 0.0)).names.add(canonical(image))
        self.note(image)

    def note(self, image: str) -> None:
        """*image* is needed now."""
        if image_id := self._ids.get(image):
            now = self._used[image_id] = time.time()
            if pulled := self._pulled.get(image_id):
                pulled.used = max(pulled.used, now)

    def keep(self, image: str) -> None:
        """*image* is one that its function does not want to be pulled: it could not come back."""
        self._kept.add(image)

    def names(self, image_id: str) -> list[str]:
        """By which functions asked for that image."""
        return [name for name, known in self._ids.items() if known == image_id]

    def snapshot(self) -> dict[str, Pulled]:
        """What is known, for another thread."""
        return {key: Pulled(set(one.names), one.used) for key, one in self._pulled.items()}

    def uses(self) -> dict[str, float]:
        """When each image was last used by this process, for another thread."""
        return dict(self._used)

    def learn(self, known: Mapping[str, Pulled]) -> None:
        """Adds what other processes of this node know, or earlier runs of it."""
        for image_id, one in known.items():
            mine = self._pulled.setdefault(image_id, Pulled(set(), 0.0))
            mine.names |= one.names
            mine.used = max(mine.used, one.used, self._used.get(image_id, 0.0))

    def forget(self, gone: Collection[str]) -> None:
        """The images with these ids are there no more."""
        for image_id in gone:
            self._pulled.pop(image_id, None)
            self._used.pop(image_id, None)
