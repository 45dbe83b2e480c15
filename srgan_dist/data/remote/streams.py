"""Reading remote files as a stream of bytes: over HTTP, from object stores, and from a command.

An error that another attempt cannot overcome is a `UserError`; one that it may overcome is a `TransferError`, after
which the caller tries again. No state is kept between calls: any process and thread may read, also after a fork.
"""

from __future__ import annotations

import http.client
import os
import select
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

import fsspec

from srgan_dist.data.remote.sources import PIPE
from srgan_dist.errors import UserError
from srgan_dist.utils.secrets import shown, shown_by_command, shown_in

_PIECE = 1 << 20
_STORE_PIECE = 16 << 20  # one request each: long enough for its latency not to matter
_EXTRAS = {"s3": "s3", "gs": "gcs"}
_RETRYABLE = (408, 425, 429)  # the HTTP 4xx errors that another attempt may overcome
_ACCESS_ERRORS = ("AccessKey", "Credential", "Forbidden", "Signature", "AccessDenied", "Unauthorized", "ExpiredToken")


class TransferError(Exception):
    """A transfer broke off or delivered wrong data; another attempt may succeed. The message is one line."""


def read_pieces(url: str, *, timeout: float) -> Iterator[bytes]:
    """Read a remote file from its beginning.

    Args:
        url: `http(s)://`, `s3://`, `gs://`, or `pipe:COMMAND`, which /bin/sh runs.
        timeout: Seconds that the other side may stay silent.

    Yields:
        The bytes, in pieces of at most 16 MiB. A stream that ends early over HTTP may end without an error: compare.
        its length.

    Raises:
        UserError: The file does not exist, access is refused, or the command failed.
        TransferError: An error that another attempt may overcome.
    """
    if url.startswith(PIPE):
        yield from _command(url, timeout)
    elif url.startswith(("http://", "https://")):
        yield from _web(url, timeout)
    else:
        yield from _store(url, timeout)


def _web(url: str, timeout: float) -> Iterator[bytes]:
    # Without "identity", a proxy may compress; some servers refuse urllib's default user agent.
    request = urllib.request.Request(url, headers={"User-Agent": "srgan-dist", "Accept-Encoding": "identity"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            first = True
            while piece := response.read(_PIECE):
                # Login pages of proxies come with status 200. No file of ours begins with "<".
                if first and piece.lstrip()[:1] == b"<":
                    raise TransferError("the server sent a web page instead of the file")
                first = False
                yield piece
    except http.client.IncompleteRead as error:
        yield error.partial  # the caller compares length and digest
    except urllib.error.HTTPError as error:
        error.close()
        raise _http_error(url, error.code) from error
    except urllib.error.URLError as error:
        raise TransferError(f"cannot be reached ({_reason(error.reason)})") from error
    except (OSError, http.client.HTTPException) as error:
        raise TransferError(f"the connection broke ({_reason(error)})") from error


def _http_error(url: str, code: int) -> Exception:
    where = shown(url)
    match code:
        case 404 | 410:
            return UserError(f"{where}: does not exist (HTTP {code}): correct the URL in data.train")
        case 401 | 403 | 407:
            return UserError(f"{where}: access is refused (HTTP {code}): check credentials, or sign the URL again")
        case _ if 400 <= code < 500 and code not in _RETRYABLE:
            return UserError(f"{where}: the server refuses the request (HTTP {code}): correct the URL in data.train")
        case _:
            return TransferError(f"the server answers HTTP {code}")


def _store(url: str, timeout: float) -> Iterator[bytes]:
    options: dict[str, Any] = {}
    if url.startswith("s3://"):  # the driver also retries by itself, by default for up to a minute
        limits = {"connect_timeout": min(timeout, 5), "read_timeout": timeout, "retries": {"max_attempts": 1}}
        options = {"config_kwargs": limits}
    with _driver_errors(url):
        filesystem, path = fsspec.core.url_to_fs(url, **options)
        size = filesystem.info(path)["size"]
    for start in range(0, size, _STORE_PIECE):
        with _driver_errors(url):
            piece: bytes = filesystem.cat_file(path, start=start, end=min(start + _STORE_PIECE, size))
        yield piece


@contextmanager
def _driver_errors(url: str) -> Iterator[None]:
    scheme = url.partition("://")[0]
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"{shown(url)}: the driver for {scheme}:// is not installed: pip install 'srgan-dist[{_EXTRAS[scheme]}]'"
        ) from error
    except FileNotFoundError as error:
        raise UserError(f"{shown(url)}: does not exist, or its bucket does not: correct it in data.train") from error
    except Exception as error:  # each driver raises its own, of several libraries
        message = f"{type(error).__name__}: {error}"
        if isinstance(error, PermissionError) or any(word in message for word in _ACCESS_ERRORS):
            raise UserError(f"{shown(url)}: access is refused ({_reason(error)}): check the credentials") from error
        raise TransferError(f"cannot be read ({_reason(error)})") from error


def _command(url: str, timeout: float) -> Iterator[bytes]:
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(
            ["/bin/sh", "-c", url.removeprefix(PIPE)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=messages,
            start_new_session=True,  # so that all of a pipeline can be ended
        )
        output = cast("IO[bytes]", process.stdout)
        try:
            yield from _until_silent(output, timeout)
            code = process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise TransferError(f"the command has not ended {timeout:.0f} s after its output") from error
        finally:
            output.close()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code:
            messages.seek(0)
            lines = [line.strip() for line in messages.read().decode(errors="replace").splitlines() if line.strip()]
            last = lines[-1] if lines else "no message"
            said = shown_by_command(last, url)
            raise UserError(f"{shown(url)}: the command failed with exit code {code} ({said}): run it by hand")


def _until_silent(stream: IO[bytes], timeout: float) -> Iterator[bytes]:
    while select.select([stream], [], [], timeout)[0]:
        piece = os.read(stream.fileno(), _PIECE)
        if not piece:
            return
        yield piece
    raise TransferError(f"the command was silent for {timeout:.0f} s")


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    message = str(getattr(error, "strerror", None) or error).strip()
    return shown_in(message.splitlines()[0]) if message else type(error).__name__
