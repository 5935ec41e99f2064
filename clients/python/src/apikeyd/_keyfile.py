"""The guard's own key."""

import os
import re
import threading
from typing import Tuple, Union

_MAX_BYTES = 4096
_KEY = re.compile(r"[\x21-\x7e]+")


class KeyFile:
    """A key that is read from its file. A file that is missing, empty or unreadable leaves the key unchanged.

    :raises OSError, ValueError: when there is no key at first; the text names the file and quotes nothing from it
    """

    def __init__(self, path: Union[str, "os.PathLike[str]"]) -> None:
        self._path = os.fspath(path)
        self._lock = threading.Lock()
        self._stamp, self._key = self._read()

    def current(self) -> str:
        """Reads the file only when it was replaced or its time or size changed."""
        with self._lock:
            try:
                if _stamp(os.stat(self._path)) != self._stamp:
                    self._stamp, self._key = self._read()
            except (OSError, ValueError):
                pass
            return self._key

    def reread(self) -> str:
        """Reads the file even when it seems unchanged."""
        with self._lock:
            try:
                self._stamp, self._key = self._read()
            except (OSError, ValueError):
                pass
            return self._key

    def _read(self) -> Tuple[Tuple[int, ...], str]:
        with open(self._path, "rb") as file:
            # Stat before reading: a change in between is noticed the next time.
            stamp = _stamp(os.fstat(file.fileno()))
            content = file.read(_MAX_BYTES + 1)
        key = content.decode("latin-1").strip()
        if len(content) > _MAX_BYTES or not _KEY.fullmatch(key):
            raise ValueError(f"{self._path} holds no key")
        return stamp, key


def _stamp(info: os.stat_result) -> Tuple[int, ...]:
    return info.st_dev, info.st_ino, info.st_mtime_ns, info.st_size
