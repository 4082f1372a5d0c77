"""What a pipeline is called with: one input, several, or a stream of them, each checked and named in errors."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset
from transformers import PreTrainedModel
from transformers.pipelines.base import ChunkPipeline

from ..seq2seq.lengths import longest_source
from ..seq2seq.pretrained_parts import is_encoder_decoder

_ChunkPipeline: Any = ChunkPipeline  # whose type hints leave subclasses no parameters of their own
GENERATION, CLASSES = "ForConditionalGeneration", "ForSequenceClassification"
TAGS, SPANS = "ForTokenClassification", "ForQuestionAnswering"
"""How the names of model classes end, by what they are for."""
Check = Callable[[Any, str], dict[str, Any]]
"""Takes an input and its name in errors, and returns what the pipeline reads of it."""


class BasePipeline(_ChunkPipeline):
    """Reads texts, each of which may become several items of a batch. It needs a tokenizer, and nothing for images."""

    _load_processor: bool | None = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_video_processor = False
    _load_tokenizer = True


class PipelineInputError(ValueError):
    """An input or an option that a pipeline cannot use. The message is one line, with the number of the input."""


def check_head(model: PreTrainedModel, wanted: str) -> None:
    """Refuse a model for another kind of task. Wrappers of other libraries are taken, whatever they are called.

    Args:
        wanted: what the names of such classes have, such as `GENERATION`.

    Raises:
        PipelineInputError: a model without such a head; for `GENERATION` one that is no encoder-decoder.
    """
    name = type(model).__name__
    if wanted == GENERATION:
        fits = model.can_generate() and is_encoder_decoder(model.config)
    else:
        fits = wanted in name or not isinstance(model, PreTrainedModel)
    if not fits:
        raise PipelineInputError(f"model must be one {wanted}, got {name}; give it to the pipeline of its own task")


def longest_text(model: PreTrainedModel, tokenizer: Any) -> int | None:
    """The most tokens of a text that a model and its tokenizer take, None without a limit."""
    limits = (longest_source(model), tokenizer.model_max_length)
    return min((limit for limit in limits if limit is not None and limit < 10**9), default=None)


def check_length(length: int, limit: int | None, name: str, fix: str) -> None:
    """Refuse a text of more tokens than `limit`. Raises PipelineInputError."""
    if limit is not None and length > limit:
        raise PipelineInputError(
            f"{name} must have at most {limit} tokens, which is what the model takes, got {length}; {fix}"
        )


def refuse_options(options: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse options that would do nothing. Raises PipelineInputError, with those that there are."""
    for name in options:
        raise PipelineInputError(f"options must be among {', '.join(known)}, got {name!r}; leave it out")


class CheckedDataset(Dataset[Any]):
    """A dataset of PyTorch whose items are checked as they are read."""

    def __init__(self, dataset: Any, check: Check) -> None:
        self.dataset = dataset
        self.check = check

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.check(self.dataset[index], f"inputs[{index}]")


def check_inputs(inputs: Any, check: Check) -> Any:
    """The inputs of a call, checked, in the container by which Transformers tells what to return.

    One input stays one. A sequence becomes a list, all of which is checked before anything is computed. A dataset of
    PyTorch stays one, and any other iterable becomes a generator: their items are checked as they are read.

    Args:
        inputs: a text or a mapping, or several in a list, a column of `datasets`, a dataset or a generator.
        check: raises PipelineInputError for an input that cannot be used.
    """
    if inputs is None or isinstance(inputs, str | bytes | bytearray | Mapping):
        return check(inputs, "the input")
    if isinstance(inputs, Dataset):
        return CheckedDataset(inputs, check)
    if isinstance(inputs, Sequence):
        return [check(item, f"inputs[{index}]") for index, item in enumerate(inputs)]
    if isinstance(inputs, Iterable):
        return _generate(inputs, check)
    return check(inputs, "the input")


def _generate(inputs: Iterable[Any], check: Check) -> Iterator[dict[str, Any]]:
    for index, item in enumerate(inputs):
        yield check(item, f"inputs[{index}]")


def check_text(text: Any, name: str) -> str:
    """A text with something in it.

    Raises:
        PipelineInputError: no text, an empty one, one with NUL, or one that is not valid Unicode.
    """
    if not isinstance(text, str):
        fix = "; decode it" if isinstance(text, bytes | bytearray) else ""
        raise PipelineInputError(f"{name} must be text, got {type(text).__name__}{fix}")
    if not text.strip():
        raise PipelineInputError(f"{name} must have something in it, got {text[:20]!r}; leave it out")
    if "\0" in text:
        raise PipelineInputError(f"{name} must be without NUL, got one at {text.index(chr(0))}; leave it out")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PipelineInputError(
            f"{name} must be valid Unicode, got {text[error.start]!r} at character {error.start}; read it with the "
            "right encoding"
        ) from None
    return text


def check_keys(item: Mapping[str, Any], name: str, needed: Sequence[str], optional: Sequence[str]) -> None:
    """Refuse a mapping that lacks a key, or has another that would do nothing. Raises PipelineInputError."""
    for key in needed:
        if key not in item:
            raise PipelineInputError(
                f"{name} must have {key!r}, got {', '.join(map(repr, item)) or 'nothing'}; add it"
            )
    for key in item:
        if key not in needed and key not in optional:
            known = ", ".join(map(repr, (*needed, *optional)))
            raise PipelineInputError(f"{name} must have no other keys than {known}, got {key!r}; leave it out")
