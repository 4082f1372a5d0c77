"""Names that stand for a folder here or for a repository of the Hub."""

import os
from pathlib import Path

_OUR_OUTPUT = "runs"  # where training writes to


def check_not_a_missing_path(name: str, what: str) -> None:
    """Refuse a name that can only be a path, of which there is nothing; the Hub is not asked for it.

    A path is absolute, starts with `.` or `~`, ends with a separator, has more than one of them, or is in a folder
    that is here. `what` says what was looked for.

    Raises:
        FileNotFoundError: nothing is there.
    """
    if os.path.exists(name):
        return
    parts = Path(name).parts
    in_a_folder = len(parts) > 1 and (parts[0] == _OUR_OUTPUT or os.path.isdir(parts[0]))
    if not parts or name.startswith((".", "~", os.sep)) or name.endswith(os.sep) or len(parts) > 2 or in_a_folder:
        raise FileNotFoundError(f"{name!r} does not exist: expected {what}, or an id on the Hub such as user/name")
