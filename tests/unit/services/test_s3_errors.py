"""Every exception of the SDK of S3 is known here, so that a new one is noticed."""

from __future__ import annotations

import inspect

import aiohttp
import pytest
from aiobotocore.response import AioReadTimeoutError
from botocore import exceptions, parsers
from botocore.exceptions import ClientError

from services.logstore.s3_errors import DRIVER_ERRORS, cause

KNOWN = [
    "AliasConflictParameterError",
    "ApiVersionNotFoundError",
    "AwsChunkedWrapperError",
    "BaseEndpointResolverError",
    "BotoCoreError",
    "CapacityNotAvailableError",
    "ChecksumError",
    "ClientError",
    "ConfigNotFound",
    "ConfigParseError",
    "ConnectTimeoutError",
    "ConnectionClosedError",
    "ConnectionError",
    "CredentialRetrievalError",
    "DataNotFoundError",
    "EndpointConnectionError",
    "EndpointProviderError",
    "EndpointResolutionError",
    "EndpointVariantError",
    "EventStreamError",
    "FlexibleChecksumError",
    "HTTPClientError",
    "IncompleteReadError",
    "InfiniteLoopConfigError",
    "InvalidChecksumConfigError",
    "InvalidConfigError",
    "InvalidDNSNameError",
    "InvalidDefaultsMode",
    "InvalidEndpointConfigurationError",
    "InvalidEndpointDiscoveryConfigurationError",
    "InvalidExpressionError",
    "InvalidHostLabelError",
    "InvalidIMDSEndpointError",
    "InvalidIMDSEndpointModeError",
    "InvalidMaxRetryAttemptsError",
    "InvalidProxiesConfigError",
    "InvalidRegionError",
    "InvalidRetryConfigurationError",
    "InvalidRetryModeError",
    "InvalidS3AddressingStyleError",
    "InvalidS3UsEast1RegionalEndpointConfigError",
    "InvalidSTSRegionalEndpointsConfigError",
    "LoginAuthorizationCodeError",
    "LoginError",
    "LoginInsufficientPermissions",
    "LoginRefreshRequired",
    "LoginTokenLoadError",
    "MD5UnavailableError",
    "MetadataRetrievalError",
    "MissingDependencyException",
    "MissingParametersError",
    "NoAuthTokenError",
    "NoCredentialsError",
    "NoRegionError",
    "OperationNotPageableError",
    "PaginationError",
    "ParamValidationError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "ProxyConnectionError",
    "RangeError",
    "ReadTimeoutError",
    "RefreshWithMFAUnsupportedError",
    "ResponseStreamingError",
    "SSLError",
    "SSOError",
    "SSOTokenLoadError",
    "ServiceNotInRegionError",
    "StubAssertionError",
    "StubResponseError",
    "TokenRetrievalError",
    "UnStubbedResponseError",
    "UnauthorizedSSOTokenError",
    "UnknownClientMethodError",
    "UnknownCredentialError",
    "UnknownEndpointError",
    "UnknownEndpointResolutionBuiltInName",
    "UnknownFIPSEndpointError",
    "UnknownKeyError",
    "UnknownParameterError",
    "UnknownRegionError",
    "UnknownServiceError",
    "UnknownServiceStyle",
    "UnknownSignatureVersionError",
    "UnknownTokenProviderError",
    "UnseekableStreamError",
    "UnsupportedOutpostResourceError",
    "UnsupportedS3AccesspointConfigurationError",
    "UnsupportedS3ArnError",
    "UnsupportedS3ConfigurationError",
    "UnsupportedS3ControlArnError",
    "UnsupportedS3ControlConfigurationError",
    "UnsupportedServiceProtocolsError",
    "UnsupportedSignatureVersionError",
    "ValidationError",
    "WaiterConfigError",
    "WaiterError",
]

NEVER_RAISED = {
    "ImminentRemovalWarning": "a warning",
    "MissingServiceIdError": "by tools that write service models",
    "UndefinedModelAttributeError": "by tools that write service models",
    "UnsupportedTLSVersionWarning": "a warning",
}


def sdk_errors() -> dict[str, type[Exception]]:
    found = inspect.getmembers(exceptions, inspect.isclass)
    own = {name: kind for name, kind in found if kind.__module__ == exceptions.__name__}
    return {name: kind for name, kind in own.items() if issubclass(kind, Exception)}


def test_no_exception_of_the_sdk_is_unknown() -> None:
    # A lower version of the SDK that we allow may lack some.
    assert sdk_errors().keys() <= {*KNOWN, *NEVER_RAISED}


@pytest.mark.parametrize("name", KNOWN)
def test_each_is_a_driver_error_told_in_one_line(name: str) -> None:
    kind = sdk_errors().get(name)
    if kind is None:
        return
    assert issubclass(kind, DRIVER_ERRORS)
    error = kind.__new__(kind)
    error.response = {"Error": {"Code": "SlowDown"}}  # type: ignore[attr-defined]
    assert cause(error)
    assert "\n" not in cause(error)


def test_errors_of_its_http_client_are_driver_errors() -> None:
    kinds = [kind for _, kind in inspect.getmembers(aiohttp.client_exceptions, inspect.isclass)]
    for kind in [kind for kind in kinds if kind.__name__.startswith("Client")]:
        assert issubclass(kind, DRIVER_ERRORS), kind
    for other in (TimeoutError, ConnectionResetError, AioReadTimeoutError, parsers.ResponseParserError):
        assert issubclass(other, DRIVER_ERRORS)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(), "it did not answer in time"),
        (exceptions.ReadTimeoutError(endpoint_url="x"), "it did not answer in time"),
        (exceptions.NoCredentialsError(), "no credentials: "),
        (exceptions.EndpointConnectionError(endpoint_url="x"), "it cannot be reached"),
        (aiohttp.ClientPayloadError(), "it cannot be reached, or broke off"),
        (parsers.ResponseParserError(), "its answer makes no sense"),
        (ClientError({"Error": {"Code": "SignatureDoesNotMatch"}}, "x"), "the secret key is wrong"),
        (ClientError({"Error": {"Code": "Odd"}}, "x"), "it answers Odd"),
        (ClientError({}, "x"), "it answers an error"),
    ],
)
def test_the_cause_is_told_in_our_words(error: Exception, words: str) -> None:
    assert cause(error).startswith(words)
