"""The log of a run: what the package's loggers say while a workflow writes to the run's directory."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from bloodauto.errors import BloodautoError
from bloodauto.run.directory import RunDirectory

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_LOGGER = logging.getLogger("bloodauto")


class _RunLogHandler(logging.FileHandler):
    """A file that is created with the first message. A disk that takes no more ends the log, not the workflow."""

    def __init__(self, run: RunDirectory) -> None:
        super().__init__(run.log, encoding="utf-8", delay=True)
        self.setFormatter(logging.Formatter(_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # the name is the standard library's
        """Keeps logging's own traceback from standard error."""

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def run_log(run: RunDirectory) -> Iterator[None]:
    """Appends what logger ``bloodauto`` says in the block to ``log.txt`` of the run.

    The file is created with the first message. Handler and level are removed at the end of the block.

    Args:
        run: The run; its directory exists.

    Raises:
        Exception: Whatever the block raises. An error that the package does not raise on purpose is logged with its
            traceback, and carries a note that names the file.
    """
    handler = _RunLogHandler(run)
    level, propagate = _LOGGER.level, _LOGGER.propagate
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.INFO)
    # Nobody configured logging: a handler that the root logger gets meanwhile is a library's, and would print to the terminal.
    if not logging.getLogger().handlers:
        _LOGGER.propagate = False
    try:
        yield
    except BloodautoError as error:
        _LOGGER.error("%s", error)  # noqa: TRY400 -- raised on purpose: its message says all.
        raise
    except Exception as error:
        _LOGGER.exception("unexpected error")
        error.add_note(f"full traceback in {run.log}")
        raise
    finally:
        _LOGGER.setLevel(level)
        _LOGGER.propagate = propagate
        _LOGGER.removeHandler(handler)
        handler.close()
