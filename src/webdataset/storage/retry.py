"""How often and how long to go on after failures: counting and waiting, nothing else.

patience = Patience(options)
while True:
    try: ...; patience.progressed()
    except ...: patience.failed(error)      # waits, or raises the error when patience is at its end
"""

from __future__ import annotations

import logging
import random
import threading
import time

from ..errors import DataError
from .options import StorageOptions

logger = logging.getLogger(__name__)


def worth_retrying(status: int) -> bool:
    """Whether the same request may succeed later: 408, 425, 429, and what is the server's fault but 501, 505, 507."""
    return status in (408, 425, 429) or (500 <= status < 600 and status not in (501, 505, 507))


def seconds_of(retry_after: str | None, now: float | None = None) -> float | None:
    """Seconds that a Retry-After header asks to wait, None where it asks for nothing; a date is a date.

    >>> seconds_of("7"), seconds_of("Thu, 01 Jan 1970 00:01:00 GMT", now=50.0), seconds_of("soon"), seconds_of(None)
    (7.0, 10.0, None, None)
    """
    if retry_after is None:
        return None
    if retry_after.strip().isdigit():
        return float(retry_after)
    import email.utils

    try:
        moment = email.utils.parsedate_to_datetime(retry_after).timestamp()
    except ValueError:
        return None
    return max(0.0, moment - (time.time() if now is None else now))


class Patience:
    """Counts failures in a row, and the seconds since the last new byte.

    Args:
        stopped: when it is set, no more waiting: the next failure is raised at once.
    """

    def __init__(self, options: StorageOptions, stopped: threading.Event | None = None) -> None:
        self._options = options
        self._stopped = stopped
        self._failures = 0
        self._began = time.monotonic()

    def begin(self) -> None:
        """Somebody waits from now on."""
        if not self._failures:
            self._began = time.monotonic()

    def progressed(self) -> None:
        """There were new bytes."""
        self._failures = 0

    def timeouts(self) -> tuple[float, float]:
        """Seconds for the next connection and for the next bytes, within what is left of the deadline."""
        left = max(0.05, self._options.deadline - (time.monotonic() - self._began))
        return min(self._options.connect_timeout, left), min(self._options.read_timeout, left)

    def failed(self, error: DataError, wait: float | None = None) -> None:
        """Pause before the next attempt.

        Args:
            wait: seconds that the server asks for.

        Raises:
            DataError: the error itself, with the number of attempts, when there have been enough.
        """
        self._failures += 1
        options = self._options
        longest = min(options.backoff * 2 ** (self._failures - 1), options.longest_pause)
        pause = max(longest * random.uniform(0.5, 1.0), wait or 0.0)
        waited = time.monotonic() - self._began
        ended = self._stopped is not None and self._stopped.is_set()
        if ended or self._failures >= options.attempts or waited + pause >= options.deadline:
            raise self._gave_up(error, waited)
        logger.warning("%s; attempt %d of %d in %.1f s", error, self._failures + 1, options.attempts, pause)
        if self._stopped is None:
            time.sleep(pause)
        elif self._stopped.wait(pause):
            raise error

    def _gave_up(self, error: DataError, waited: float) -> DataError:
        if self._failures > 1:
            error.message += f" (given up after {self._failures} attempts in {waited:.1f} s)"
        return error
