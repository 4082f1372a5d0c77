"""What an exported folder says of itself: `crossmask_export.json`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..configuration.crossmask import CrossMaskConfig
from ..data.text_files import read_json
from ..inference.loading import naming_load_errors
from ..utils.atomic_write import write_text
from ..utils.errors import InputError
from ..utils.type_checks import check_choice, check_type
from .ctranslate2_spec import DTYPES as CTRANSLATE2_DTYPES
from .onnx_export import DTYPES as ONNX_DTYPES
from .web import ALL, SUFFIXES

NAME = "crossmask_export.json"
DTYPES = {"ctranslate2": CTRANSLATE2_DTYPES, "onnx": ONNX_DTYPES, "web": (ALL, *SUFFIXES)}
"""By engine, the dtypes that a model can be exported in; the first is the default."""
FORMAT = 1
"""Of exported folders. It grows when an older version of this package could not read what a newer one writes."""


@dataclass(frozen=True)
class Manifest:
    """What was exported, and by what.

    Attributes:
        engine: `ctranslate2`, `onnx` or `web`, which are ONNX graphs too.
        dtype: of the weights; of `web` it may be several, joined by commas.
        config: of the model that was exported, as its config.json has it.
        versions: of the libraries that wrote the folder, by name.
        mask_inputs: the masks that a call may give as tensors.
        format: of the folder.
    """

    engine: str
    dtype: str
    config: dict[str, Any]
    versions: Mapping[str, str] = field(default_factory=dict)
    mask_inputs: tuple[str, ...] = ()
    format: int = FORMAT

    @property
    def model_config(self) -> CrossMaskConfig:
        """The config of the model that was exported."""
        return CrossMaskConfig.from_dict(dict(self.config))

    def write(self, folder: Path) -> None:
        """Write it into a folder. Raises OSError."""
        write_text(folder / NAME, json.dumps(asdict(self), indent=2) + "\n")


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of an exported folder, or None where there is none.

    Raises:
        InputError: it cannot be read, or the folder was exported by a version that this one does not know.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    values = read_json(path)
    names = {item.name for item in fields(Manifest)}
    if not isinstance(values, dict) or type(values.get("format")) is not int:
        raise InputError(f"{path} must hold what was exported, with its format; export the model again")
    if values["format"] != FORMAT:
        raise InputError(
            f"{path}: format must be {FORMAT}, got {values['format']}, of another version of crossmask; export the "
            "model again with this version"
        )
    if values.keys() != names:
        raise InputError(f"{path} must have exactly {', '.join(sorted(names))}; export the model again")
    check_choice(f"{path}: engine", values["engine"], DTYPES)
    check_choice(f"{path}: dtype", values["dtype"], DTYPES[values["engine"]])
    for name, declared in (("config", dict), ("versions", dict[str, str]), ("mask_inputs", list[str])):
        check_type(f"{path}: {name}", values[name], declared)
    check_choice(f"{path}: model_type of config", values["config"].get("model_type"), [CrossMaskConfig.model_type])
    manifest = Manifest(**{**values, "mask_inputs": tuple(values["mask_inputs"])})
    with naming_load_errors(f"{path}: config", str(folder)):
        _ = manifest.model_config
    return manifest
