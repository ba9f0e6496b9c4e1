"""What s3:// URLs say, and what they may not."""

from __future__ import annotations

import pytest

from services import urls
from services.logstore.s3_settings import S3Settings
from tests.servers.certificates import certificate


def settings(url: str) -> S3Settings:
    return S3Settings.of(urls.parse(url, "FN_LOGSTORE_URL", ("s3",)), "FN_LOGSTORE_URL")


def test_fn_s_own_form_is_read() -> None:
    found = settings("s3://key:secret@minio:9000/us-east-1/fn-calls")
    assert (found.endpoint, found.region, found.bucket) == ("http://minio:9000", "us-east-1", "fn-calls")
    assert (found.key, found.secret, found.session_token) == ("key", "secret", "")
    assert (found.style, found.prefix, found.base, found.ca) == ("path", "", "", "")
    assert (found.pool_size, found.connect_timeout, found.timeout) == (50, 5, 30)


@pytest.mark.parametrize(
    ("url", "endpoint", "style"),
    [
        ("s3://k:s@minio/r-1/calls", "http://minio", "path"),
        ("s3://k:s@minio/r-1/calls?ssl=true", "https://minio", "path"),
        ("s3://k:s@minio:9000/r-1/calls?ssl=false", "http://minio:9000", "path"),
        ("s3://k:s@[::1]:9000/r-1/calls", "http://[::1]:9000", "path"),
        ("s3://k:s@minio/r-1/calls?style=virtual", "http://minio", "virtual"),
        ("s3://k:s@/eu-central-1/calls", "", "virtual"),
        ("s3:///eu-central-1/calls", "", "virtual"),
        ("s3:///eu-central-1/calls?style=path&ssl=true", "", "path"),
    ],
)
def test_host_and_style_say_where_it_is(url: str, endpoint: str, style: str) -> None:
    assert (settings(url).endpoint, settings(url).style) == (endpoint, style)


def test_every_parameter_reaches_the_sdk() -> None:
    with certificate("nobody") as made:
        found = settings(
            f"s3://k:s@minio/r-1/calls?style=virtual&prefix=/a/b/&session_token=t&ca={made.cert}"
            "&pool_size=7&connect_timeout=1.5&timeout=2"
        )
    assert found.base == "a/b/"
    arguments = found.arguments()
    config = arguments.pop("config")
    assert arguments == {
        "region_name": "r-1",
        "endpoint_url": "http://minio",
        "aws_access_key_id": "k",
        "aws_secret_access_key": "s",
        "aws_session_token": "t",
        "verify": str(made.cert),
    }
    assert (config.connect_timeout, config.read_timeout, config.max_pool_connections) == (1.5, 2, 7)
    assert config.s3 == {"addressing_style": "virtual"}


def test_what_a_url_leaves_out_is_the_sdk_s_to_find() -> None:
    arguments = settings("s3:///eu-central-1/calls").arguments()
    names = ("endpoint_url", "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "verify")
    assert [arguments[name] for name in names] == [None] * 5


def test_a_login_may_have_any_characters() -> None:
    found = settings("s3://k%40y:se/cr+et%2F@minio:9000/r-1/calls")
    assert (found.key, found.secret) == ("k@y", "se/cr+et/")


def test_nothing_secret_is_in_what_is_printed() -> None:
    url = "s3://AKIAHUSH:hush-secret@minio:9000/r-1/calls?session_token=hush-token"
    found = settings(url)
    printed = f"{found} {found!r} {found.where} {urls.parse(url, 'FN_LOGSTORE_URL', ('s3',))}"
    assert "hush" not in printed.lower()
    assert found.where == "http://minio:9000, bucket calls"
    assert settings("s3:///r-1/calls").where == "AWS S3, bucket calls"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://k:hush@minio:9000", "the path of an s3:// URL is /REGION/BUCKET"),
        ("s3://k:hush@minio:9000/us-east-1", "the path of an s3:// URL is /REGION/BUCKET"),
        ("s3://k:hush@minio:9000/us-east-1/", "the path of an s3:// URL is /REGION/BUCKET"),
        ("s3://k:hush@minio:9000//calls", "the path of an s3:// URL is /REGION/BUCKET"),
        ("s3://k:hush@minio:9000/us-east-1/calls/more", "the path of an s3:// URL is /REGION/BUCKET"),
        ("s3://k:hush@minio:9000/us east/calls", "the path of an s3:// URL is /REGION/BUCKET"),
        ("s3://k:hush@minio:9000/us-east-1/ab", "the name of a bucket has at least 3 characters"),
        ("s3://hush@minio:9000/us-east-1/calls", "has both, KEY:SECRET@, or neither"),
        ("s3://:hush@minio:9000/us-east-1/calls", "has both, KEY:SECRET@, or neither"),
        ("s3:///us-east-1/calls?ssl=false", "which is asked with TLS"),
        ("s3://k:hush@minio/r-1/calls?ssl=yes", "parameter ssl must be one of true, false"),
        ("s3://k:hush@minio/r-1/calls?style=dns", "parameter style must be one of path, virtual"),
        ("s3://k:hush@minio/r-1/calls?pool_size=0", "parameter pool_size must be a whole number"),
        ("s3://k:hush@minio/r-1/calls?timeout=0", "parameter timeout must be a number of seconds"),
        ("s3://k:hush@minio/r-1/calls?connect_timeout=-1", "connect_timeout must be a number of seconds"),
        ("s3://k:hush@minio/r-1/calls?ca=/nowhere/ca.pem", "the file ca has no usable certificates"),
        ("s3://k:hush@minio/r-1/calls?stile=path", "has no parameter 'stile'"),
    ],
)
def test_a_url_that_means_nothing_is_refused_in_words(url: str, told: str) -> None:
    with pytest.raises(ValueError, match=r"^FN_LOGSTORE_URL: ") as caught:
        settings(url)
    assert told in str(caught.value)
    assert "hush" not in str(caught.value)
