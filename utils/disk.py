"""Errors of full disks that name the folder, where libraries leave it out."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EROFS: "the file system is read-only",
    errno.EFBIG: "the file grows too large for the file system",
}


@contextmanager
def naming_full_disks(folder: Path | str, fix: str = "free space, or choose another folder") -> Iterator[None]:
    """Name the folder in the error if its disk is full when something is written inside of the block.

    Raises:
        OSError: with the folder and the fix, instead of an error of this kind without a file's name.
    """
    try:
        yield
    except OSError as error:
        # Some releases of Arrow set no errno, but writes it.
        number = error.errno or next((code for code in _FULL if f"errno {code}]" in str(error).lower()), None)
        if number not in _FULL or error.filename is not None:
            raise
        raise OSError(number, f"{_FULL[number]}; {fix}", str(folder)) from error
