"""Names that are a local folder or a repository on the Hub."""

import os
from pathlib import Path

_OUR_OUTPUT = "runs"  # where training writes to


def check_not_a_missing_path(name: str, kind: str) -> None:
    """Refuse a name that can only be a path and does not exist, before the Hub is asked for it.

    A name can only be a path if it is absolute, starts with `.` or `~`, ends with a separator, has more than one, or
    starts with a folder that exists.

    Args:
        kind: what should be there, for the error.

    Raises:
        FileNotFoundError: it does not exist.
    """
    if os.path.exists(name):
        return
    parts = Path(name).parts
    in_a_folder = len(parts) > 1 and (parts[0] == _OUR_OUTPUT or os.path.isdir(parts[0]))
    if not parts or name.startswith((".", "~", os.sep)) or name.endswith(os.sep) or len(parts) > 2 or in_a_folder:
        fix = "train that model first, or correct the path" if parts[:1] == (_OUR_OUTPUT,) else "correct it"
        raise FileNotFoundError(
            f"{name!r} must be {kind} or an id on the Hub such as user/name, got a path that does not exist; {fix}"
        )
