import pytest
from aiohttp.test_utils import make_mocked_request
from yarl import URL

from api_node.paging import encoded, lenient_cursor


def read(cursor):
    return lenient_cursor(make_mocked_request("GET", str(URL("/").with_query(cursor=cursor))))


@pytest.mark.parametrize("key", ["", "a", "ab", "abc", "p03", "/r29", "é", "中文𠀋"])
def test_a_cursor_leads_back_to_its_key(key):
    assert read(encoded(key)) == key


@pytest.mark.parametrize(
    ("cursor", "key"),
    [
        ("cDAz", "p03"),
        ("cDAz!!!!", "p03"),
        ("cDA=", ""),
        ("cDAzeg==", "p03"),
        ("!!!", ""),
        ("c", ""),
        ("_w", "\ufffd"),
        (encoded("a\0b"), "a"),
    ],
)
def test_of_a_broken_cursor_counts_what_can_be_read(cursor, key):
    assert read(cursor) == key
