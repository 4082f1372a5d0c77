"""Everything that needs matplotlib."""

try:
    import matplotlib  # noqa: F401
except ModuleNotFoundError as error:
    from ..utils.errors import MissingLibraryError

    raise MissingLibraryError(
        "matplotlib must be installed to draw figures; run: pip install 'crossmask[plots]'"
    ) from error
