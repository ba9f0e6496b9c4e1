"""Which images go, in which order; how much they take; by which names they are known."""

from __future__ import annotations

import pytest

from runner_node.drivers.image_choice import Image, Stock, in_order, stock, taken
from runner_node.drivers.image_names import canonical, matching
from runner_node.drivers.image_use import Pulled

NOW = 1000.0
DIGEST = "sha256:" + "0" * 64
PULLED = {
    "old": Pulled({"docker.io/me/old:1"}, 10.0),
    "new": Pulled({"docker.io/me/new:1"}, 30.0),
    "moved": Pulled({"docker.io/me/new:1"}, 40.0),
    "pinned": Pulled({f"docker.io/me/pinned@{DIGEST}"}, 20.0),
}
IMAGES = (
    Image("new", ("me/new:1",), (f"me/new@{DIGEST}",), 100),
    Image("moved", (), ("me/new@sha256:1",), 100),
    Image("old", ("docker.io/me/old:1",), (), 100),
    Image("pinned", (), (f"me/pinned@{DIGEST}",), 100),
    Image("foreign", ("me/foreign:1",), (), 100),
)


@pytest.mark.parametrize(
    ("in_use", "exempt", "before", "order"),
    [
        ((), (), NOW, ["moved", "old", "pinned", "new"]),
        (("old", "moved"), (), NOW, ["pinned", "new"]),
        ((), ("me/old",), NOW, ["moved", "pinned", "new"]),
        ((), ("me/old:2",), NOW, ["moved", "old", "pinned", "new"]),
        ((), ("me/new:1",), NOW, ["moved", "old", "pinned"]),
        ((), (f"me/pinned@{DIGEST}",), NOW, ["moved", "old", "new"]),
        ((), (), 30.0, ["old", "pinned"]),
        ((), (), 10.0, []),
    ],
    ids=["all", "in-use", "a-name", "another-tag", "a-tag", "a-digest", "used-lately", "all-used-lately"],
)
def test_what_nobody_can_name_goes_first_and_then_the_longest_unused(
    in_use: tuple[str, ...], exempt: tuple[str, ...], before: float, order: list[str]
) -> None:
    found = in_order(IMAGES, PULLED, in_use=in_use, exempt=matching(exempt), before=before)
    assert [one.id for one in found] == order


@pytest.mark.parametrize(
    "image",
    [
        Image("old", ("me/old:1", "mine/kept:1"), (), 100),
        Image("old", ("me/old:1",), (f"mine/kept@{DIGEST}",), 100),
        Image("old", ("me/old:2",), (), 100),
    ],
    ids=["another-tag", "another-digest", "other-than-pulled"],
)
def test_an_image_with_a_name_that_others_gave_it_stays(image: Image) -> None:
    assert in_order([image], PULLED, in_use=(), exempt=matching(()), before=NOW) == []


@pytest.mark.parametrize(
    ("found", "bytes_"),
    [
        (Stock((Image("old", (), (), 100, 90), Image("new", (), (), 100, 90)), 110), 110),
        (Stock((Image("old", (), (), 100, 0), Image("foreign", (), (), 900, 0)), 1000), 100),
        (Stock((Image("old", (), (), 100, 90), Image("foreign", (), (), 900, 90)), 910), 100),
        (Stock((Image("old", (), (), 100), Image("new", (), (), 100)), -1), 200),
        (Stock((Image("old", (), (), 100), Image("foreign", (), (), 900)), 1000), 100),
        (Stock((Image("foreign", (), (), 900, 0),), 900), 0),
    ],
    ids=["shared-by-two", "others", "shared-with-others", "not-told", "shares-not-told", "none-of-ours"],
)
def test_bytes_are_those_of_images_that_the_node_pulled(found: Stock, bytes_: int) -> None:
    assert taken(found, PULLED) == bytes_


@pytest.mark.parametrize(
    ("listed", "usage", "found"),
    [
        (
            {"Id": "a", "RepoTags": ["<none>:<none>"], "RepoDigests": None, "Size": 7, "SharedSize": -1},
            {"LayersSize": 9, "Images": [{"Id": "a", "SharedSize": 3}]},
            Stock((Image("a", (), (), 7, 3),), 9),
        ),
        (
            {"Id": "a", "RepoTags": ["x:1"], "RepoDigests": ["x@sha256:1"], "Size": 7, "SharedSize": 2},
            {"ImageUsage": {"TotalSize": 9}},
            Stock((Image("a", ("x:1",), ("x@sha256:1",), 7, 2),), 9),
        ),
        ({"Id": "a", "Size": 7}, {}, Stock((Image("a", (), (), 7),), -1)),
        ({"Id": "a", "Size": 7}, {"LayersSize": None, "Images": None}, Stock((Image("a", (), (), 7),), -1)),
    ],
    ids=["api-1.41", "api-1.52", "little", "nothing"],
)
def test_what_engines_of_several_versions_tell_is_read(
    listed: dict[str, object], usage: dict[str, object], found: Stock
) -> None:
    assert stock([listed], usage) == found


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("docker.io/library/busybox:latest", "docker.io/library/busybox:latest"),
        ("index.docker.io/me/fn:1", "docker.io/me/fn:1"),
        ("reg.example:5000/a/b/c", "reg.example:5000/a/b/c:latest"),
        ("localhost/fn:1", "localhost/fn:1"),
        (f"me/fn:1@{DIGEST}", f"docker.io/me/fn@{DIGEST}"),
    ],
)
def test_an_image_has_one_name_however_it_is_written(image: str, name: str) -> None:
    assert canonical(image) == name
    assert matching([image])(name)


def test_an_exempt_name_without_a_tag_is_exempt_with_all_of_them() -> None:
    exempt = matching(["me/fn", "busybox:1"])
    assert exempt("me/fn:1")
    assert exempt(f"docker.io/me/fn@{DIGEST}")
    assert exempt("busybox:1")
    assert not exempt("busybox:2")
    assert not exempt("me/fn2:1")
