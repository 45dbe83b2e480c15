"""train.log: what the first rank logs, in the run's folder, with times in UTC."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from srgan_dist.errors import UserError
from srgan_dist.utils.files import check_is_file
from srgan_dist.utils.names import printable
from srgan_dist.utils.secrets import shown_in
from srgan_dist.utils.times import utc

log = logging.getLogger("srgan_dist")


class TrainLog(logging.Handler):
    """Appends log lines to a run's train.log; those that come before the folder is known, or do not fit, wait."""

    def __init__(self) -> None:
        super().__init__()
        self.path: Path | None = None
        self._waiting: list[str] = []
        self._has_warned = False

    def begin(self, folder: Path) -> None:
        """Write into a folder from now on.

        Args:
            folder: The run's folder.

        Raises:
            UserError: There is something else of that name.
        """
        path = folder / "train.log"
        try:
            if path.exists():
                check_is_file(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}): move it away and start again") from None
        self.path = path
        self._write()

    def end(self, reason: BaseException) -> None:
        """Note what ended the run, which is not logged, but the command's last line.

        Args:
            reason: The error.
        """
        text = shown_in(" ".join(str(reason).split())) or type(reason).__name__
        self._add("ERROR", f"ended: {text}", None)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a log line."""
        self._add(record.levelname, record.getMessage(), record.created)

    def _add(self, level: str, message: str, seconds: float | None) -> None:
        self._waiting.append(f"{utc(seconds)} {level} {printable(message)}\n")
        if self.path:
            self._write()

    def _write(self) -> None:
        assert self.path
        try:
            with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write("".join(self._waiting))
        except OSError as error:  # such as a full disk, which ends the run at its next record
            if not self._has_warned:
                self._has_warned = True
                log.warning("%s: cannot be written (%s); later lines are kept until it can", self.path, error.strerror)
        else:
            self._waiting.clear()


@contextmanager
def train_log(*, is_main: bool) -> Iterator[TrainLog]:
    """Around a run: its train.log, which begins as soon as the folder is known.

    Args:
        is_main: Whether this is the rank whose lines are written.
    """
    handler = TrainLog()
    if not is_main:
        yield handler
        return
    log.addHandler(handler)
    try:
        yield handler
    except BaseException as error:
        if handler.path:
            handler.end(error)
        raise
    finally:
        log.removeHandler(handler)
