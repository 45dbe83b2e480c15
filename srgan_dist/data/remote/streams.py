"""Reading remote files as a stream of bytes: over HTTP, from object stores, and from a command.

An error that another attempt cannot overcome is a `UserError`; one that it may overcome is a `TransferError`, after
which the caller tries again. No state is kept between calls: any process and thread may read, also after a fork.
"""

from __future__ import annotations

import http.client
import os
import select
import signal
import socket
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import IO, Any, cast
from urllib.parse import urlsplit

import fsspec

from srgan_dist.data.remote.sources import PIPE
from srgan_dist.errors import UserError
from srgan_dist.utils.secrets import shown, shown_by_command, shown_in

_PIECE = 1 << 20
_STORE_PIECE = 16 << 20  # one request each: long enough for its latency not to matter
_MIN_RATE = 16 << 10  # bytes a second: a server that sends less holds us up for ever, a byte in time after another
_LAST_WORDS = 1 << 16  # bytes of a command's messages that are searched for the last one
_EXTRAS = {"s3": "s3", "gs": "gcs"}
_RETRYABLE = (408, 425, 429)  # the HTTP 4xx errors that another attempt may overcome
_ACCESS_ERRORS = ("AccessKey", "Credential", "Forbidden", "Signature", "AccessDenied", "Unauthorized", "ExpiredToken")


class TransferError(Exception):
    """A transfer broke off or delivered wrong data; another attempt may succeed. The message is one line."""


def read_pieces(url: str, *, timeout: float) -> Iterator[bytes]:
    """Read a remote file from its beginning.

    Args:
        url: `http(s)://`, `s3://`, `gs://`, or `pipe:COMMAND`, which /bin/sh runs.
        timeout: Seconds that the other side may stay silent; in twice that time a server must send 16 KiB a second.

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
    with _Hurry(timeout) as hurry:
        try:
            with hurry.opener.open(request, timeout=timeout) as response:
                first = True
                while piece := response.read1(_PIECE):  # what has come, where read would wait for all of it
                    # Login pages of proxies come with status 200. No file of ours begins with "<".
                    if first and piece.lstrip()[:1] == b"<":
                        raise TransferError("the server sent a web page instead of the file")
                    first = False
                    hurry.received += len(piece)
                    yield piece
        except http.client.IncompleteRead as error:
            yield error.partial  # the caller compares length and digest
        except urllib.error.HTTPError as error:
            error.close()
            raise _http_error(url, error.code) from error
        except urllib.error.URLError as error:
            raise TransferError(hurry.reason or f"cannot be reached ({_reason(error.reason)})") from error
        except (OSError, http.client.HTTPException) as error:
            raise TransferError(hurry.reason or f"the connection broke ({_reason(error)})") from error
        if hurry.reason:
            raise TransferError(hurry.reason)


class _Hurry:
    """Opens web addresses, and hangs up on a server that sends too little, which a limit for each answer misses.

    Args:
        timeout: Seconds that the server may stay silent.

    Attributes:
        opener: Opens addresses.
        received: Bytes received so far, to be counted by the reader.
        reason: Why it hung up, or "".
    """

    def __init__(self, timeout: float) -> None:
        self.received, self.reason = 0, ""
        self._seconds = 2 * timeout
        self._sockets: list[socket.socket] = []
        self._ended = threading.Event()
        self.opener = urllib.request.build_opener(_Web(self._connection), _Redirects)

    def __enter__(self) -> _Hurry:
        threading.Thread(target=self._watch, name="srgan-dist hurry", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for copy in self._sockets:
            copy.close()

    def _connection(
        self, kind: type[http.client.HTTPConnection], host: str, **options: Any
    ) -> http.client.HTTPConnection:
        def connect(*where: Any) -> socket.socket:
            made = socket.create_connection(*where)
            self._sockets.append(made.dup())  # the connection hands its own on, to TLS and to the response
            return made

        connection = kind(host, **options)
        connection._create_connection = connect  # type: ignore[attr-defined]
        return connection

    def _watch(self) -> None:
        before = 0
        while not self._ended.wait(self._seconds):
            if self.received - before < _MIN_RATE * self._seconds:
                self.reason = f"the server sent less than {_MIN_RATE >> 10} KiB a second for {self._seconds:.0f} s"
                for copy in self._sockets:
                    with suppress(OSError):  # closed by now
                        copy.shutdown(socket.SHUT_RDWR)
            before = self.received


_Connect = Callable[..., http.client.HTTPConnection]


class _Web(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    def __init__(self, connect: _Connect) -> None:
        super().__init__()
        self._connect = connect

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(self._connect, http.client.HTTPConnection), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(self._connect, http.client.HTTPSConnection), request)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects from the web to the web, where urllib goes to FTP as well."""

    def redirect_request(self, *redirect: Any) -> urllib.request.Request | None:
        url = redirect[-1]
        return super().redirect_request(*redirect) if urlsplit(url).scheme in ("http", "https") else None


def _http_error(url: str, code: int) -> Exception:
    where = shown(url)
    match code:
        case 404 | 410:
            return UserError(f"{where}: does not exist (HTTP {code}): correct the URL in data.train")
        case 401 | 403 | 407:
            return UserError(f"{where}: access is refused (HTTP {code}): check credentials, or sign the URL again")
        case _ if 300 <= code < 400:
            return UserError(
                f"{where}: redirects to what is no http:// or https:// address, or in a circle (HTTP {code}): correct "
                "the URL in data.train"
            )
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
            piece = _cat(filesystem, path, start, min(start + _STORE_PIECE, size), timeout)
        yield piece


def _cat(filesystem: Any, path: str, start: int, end: int, timeout: float) -> bytes:
    if not filesystem.async_impl:
        return bytes(filesystem.cat_file(path, start=start, end=end))
    seconds = max(2 * timeout, (end - start) / _MIN_RATE)
    part = fsspec.asyn.sync(filesystem.loop, filesystem._cat_file, path, start=start, end=end, timeout=seconds)
    return cast("bytes", part)


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
            messages.seek(max(0, messages.seek(0, os.SEEK_END) - _LAST_WORDS))
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
