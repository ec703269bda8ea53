"""The one file that knows the errors of the S3 client, and which of them another try may cure."""

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from xml.etree.ElementTree import ParseError

import structlog
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3.exceptions import HTTPError

from audiofoundation.errors import AudioFoundationError, InvalidRequest, ObjectNotFound, StorageUnavailable

_ABSENT = frozenset({"NoSuchKey", "NoSuchObject", "NoSuchUpload", "ResourceNotFound"})
_TRANSIENT = frozenset({"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted"})
_CODE_IN_BODY = re.compile(r"<Code>(\w+)</Code>")
_FIRST_CAP_S, _LAST_CAP_S = 0.25, 4.0
_MIN_RETRIES = 5
# A store that restarts is back well within this; a caller that can wait longer has a job to retry.
_PATIENCE_S = 20.0

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


class TransientStorageError(StorageUnavailable):
    """The server was away or busy: the same call may succeed at once."""


@contextmanager
def translated_errors(key: str) -> Iterator[None]:
    """Turn the client's errors into ours.

    Raises:
        ObjectNotFound: there is no object under the key.
        TransientStorageError: worth another try.
        StorageUnavailable: another try will not help; the message says why.
    """
    try:
        yield
    except S3Error as error:
        raise _from_code(error.code or "unknown", key) from error
    except InvalidResponseError as error:
        # rclone calls its XML text/xml, which the client does not read (minio 7.2.20).
        named = _CODE_IN_BODY.search(str(error))
        code = named[1] if named else "InternalError"
        raise _from_code(code, key) from error
    except (ServerError, HTTPError, ConnectionError, TimeoutError, ParseError) as error:
        raise TransientStorageError(
            f"The object store did not answer for {key!r} ({type(error).__name__}). Try again."
        ) from error
    except MinioException as error:
        raise StorageUnavailable(f"The object store refused {key!r}: {error}.") from error


def _from_code(code: str, key: str) -> AudioFoundationError:
    if code in _ABSENT:
        return ObjectNotFound(f"The object store has no object {key!r}.")
    if code == "InvalidRange":
        return InvalidRequest(f"The range begins after the end of the object {key!r}.", param="offset")
    if code in _TRANSIENT:
        return TransientStorageError(f"The object store is busy ({code}) for {key!r}. Try again.")
    return StorageUnavailable(
        f"The object store refused {key!r} with {code}: check AF_STORAGE__* (keys, bucket, region)."
    )


def with_retries(operation: Callable[[], _T]) -> _T:
    """Call until it succeeds: full jitter under a doubling cap, five retries and 20 s at least."""
    deadline = time.monotonic() + _PATIENCE_S
    num_retries = 0
    while True:
        try:
            return operation()
        except TransientStorageError as error:
            if num_retries >= _MIN_RETRIES and time.monotonic() >= deadline:
                raise
            delay_s = random.uniform(0.0, min(_FIRST_CAP_S * 2**num_retries, _LAST_CAP_S))
            _log.info("storage_retry", error=error.message, retry=num_retries, delay_s=round(delay_s, 2))
            time.sleep(delay_s)
            num_retries += 1
