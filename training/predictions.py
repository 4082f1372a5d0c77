"""The predictions of a test, on disk, so that models can be compared afterwards."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..tasks.base import Example
from ..utils.atomic_write import write_text
from ..utils.errors import InputError

logger = logging.getLogger(__name__)
FILE = "predictions.jsonl"


def write_predictions(folder: Path, examples: Sequence[Example], predictions: Sequence[Any]) -> None:
    """Write `predictions.jsonl` into a folder: a line for each example, with its source, references and prediction.

    Predictions are texts, or dataclasses and named tuples such as an answer with its score, which become objects. Of
    others, which a task of one's own may have, there is no file, and a warning is logged.
    """
    if other := next((one for one in predictions if not _has_fields(one) and not isinstance(one, str)), None):
        logger.warning(
            "%s is not written: predictions are %s, no texts, dataclasses or named tuples", FILE, type(other)
        )
        return
    rows = (
        {"source": example.source, "references": list(example.references), "prediction": _as_json(prediction)}
        for example, prediction in zip(examples, predictions, strict=True)
    )
    write_text(folder / FILE, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_predictions(path: Path, examples: Sequence[Example]) -> list[Any]:
    """The predictions that another model made for the same examples.

    Raises:
        InputError: there is no such file, or it is of other examples.
    """
    if not path.is_file():
        raise InputError(
            f"{path} must have the other model's predictions, got no file; run crossmask evaluate on that model with "
            "--output, and compare with its metrics.json"
        )
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        references = [row["references"] for row in rows]
        predictions = [row["prediction"] for row in rows]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} must have a prediction on each line, as crossmask writes them: {error}") from None
    if references != [list(example.references) for example in examples]:
        raise InputError(f"{path} must have predictions for the same examples; evaluate both models on the same data")
    return predictions


def _has_fields(prediction: Any) -> bool:
    return dataclasses.is_dataclass(prediction) or hasattr(prediction, "_asdict")


def _as_json(prediction: Any) -> Any:
    if isinstance(prediction, str):
        return prediction
    return prediction._asdict() if hasattr(prediction, "_asdict") else dataclasses.asdict(prediction)
