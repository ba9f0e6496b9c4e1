import msgspec
import pytest

from hybrid_client.answers import Answer
from hybrid_client.settings import addresses
from shared_models import errors


def leaves(tree=errors.FnError):
    for leaf in tree.__subclasses__():
        if "text" in vars(leaf):
            yield leaf
        yield from leaves(leaf)


def answer_of(exc, *, v1):
    body = {"message": exc.message}
    return Answer(exc.code, msgspec.json.encode({"error": body} if v1 else body) + b"\n")


@pytest.mark.parametrize("v1", [True, False])
@pytest.mark.parametrize("leaf", list(leaves()))
def test_every_error_comes_back_with_its_words_and_status(leaf, v1):
    sent = leaf()
    got = answer_of(sent, v1=v1).error()
    assert (got.message, got.code) == (sent.message, sent.code)
    # Two leaves may share their words; what comes back is one of them.
    assert type(got) is leaf or (type(got).text, type(got).status) == (leaf.text, leaf.status)


@pytest.mark.parametrize(
    "leaf",
    [
        errors.AppNotFound,
        errors.FnNotFound,
        errors.RouteNotFound,
        errors.TriggerNotFound,
        errors.CallExists,
        errors.LeaseLost,
        errors.QueueUnavailable,
        errors.StoreUnavailable,
    ],
)
def test_what_data_access_raises_comes_back_as_the_same_class(leaf):
    assert type(answer_of(leaf(), v1=True).error()) is leaf


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.Invalid),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (413, errors.TooLarge),
        (418, errors.APINodeUnavailable),
        (500, errors.APINodeUnavailable),
        (502, errors.APINodeUnavailable),
    ],
)
def test_unknown_words_keep_the_kind_of_their_status(status, kind):
    got = answer_of(type("Other", (errors.FnError,), {"status": status})("odd words"), v1=True).error()
    assert type(got) is kind
    assert "odd words" in f"{got.message} {got.detail}"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"x"', b'{"error": 5}', b"null", b"\xff"])
def test_an_answer_that_is_no_error_of_ours_is_still_one(body):
    assert type(Answer(500, body).error()) is errors.APINodeUnavailable
    assert Answer(404, body).message == ""


def test_a_detail_travels_in_its_header():
    got = Answer(400, b'{"message": "Invalid JSON"}', {"Error-Detail": "a: b"}).error()
    assert (type(got), got.detail) == (errors.InvalidJSON, "a: b")


def test_an_unreadable_success_is_the_nodes_fault():
    class Value(msgspec.Struct):
        number: int = 0

    with pytest.raises(errors.APINodeUnavailable):
        Answer(200, b"<html>").decode(Value)
    assert Answer(200, b'{"Number": 5}').decode(Value).number == 5


def test_addresses_are_split_and_completed():
    assert addresses("http://a:1/, b:2 https://c/x/") == ("http://a:1", "http://b:2", "https://c/x")
    assert addresses("http://user:password@a:1") == ("http://a:1",)


@pytest.mark.parametrize("text", ["ftp://a", "http://", "http://a?b", "http://a:port"])
def test_an_address_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="must be addresses"):
        addresses(text)
