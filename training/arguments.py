"""The fields of a recipe, in groups: each builder takes its own."""

import os
from dataclasses import dataclass, field
from typing import Any, get_args

from ..data.tokenization import Overlong
from ..tasks.base import LengthLimits
from ..utils.errors import InputError
from ..utils.imports import import_all
from ..utils.type_checks import check_type
from .recipe_group import SOURCES, RecipeGroup, Settings, Sources
from .search_space import parse_space
from .validation import LARGEST_RATE, check_attention


@dataclass
class DataArguments(RecipeGroup):
    """What is learned: the task, its records, and how long its examples may be."""

    imports: list[str] | None = field(
        default=None,
        metadata={
            "help": "Python files or installed modules to import before anything else: they register tasks, formats, "
            "mask rules or attention backends of your own."
        },
    )
    task: str = field(default="translation", metadata={"help": "Name of the task, see crossmask.tasks."})
    task_options: Settings | None = field(default=None, metadata={"help": "Options of the task."})
    train: Sources | None = field(
        default=None,
        metadata={"help": "Where training records come from (crossmask.data.sources), or a list of such."},
    )
    validation: Sources | None = field(default=None, metadata={"help": "Where validation records come from."})
    test: Sources | None = field(default=None, metadata={"help": "Where test records come from."})
    temperature: float | None = field(
        default=None,
        metadata={
            "help": "Repeat the smaller of several sources in train: each has a part in proportion to its size to the "
            "power of 1/temperature (Arivazhagan et al. 2019), 5 for instance; 1 leaves them as they are."
        },
    )
    data_dir: str | None = field(
        default=None,
        metadata={
            "help": "A folder with local copies of datasets (crossmask.data.sources), instead of the one that the "
            "environment variable CROSSMASK_DATA names. What it does not have is read from the Hub."
        },
    )
    source_prefix: str | None = field(
        default=None,
        metadata={
            "help": "Text that stands before every source, for models that take their task as text, such as T5: "
            "'translate English to German: '. The model's config keeps it, for pipelines and commands."
        },
    )
    max_source_length: int = field(default=256, metadata={"help": "Tokens in a source at most, end token included."})
    max_target_length: int = field(default=256, metadata={"help": "Tokens in a target at most, end token included."})
    overlong: str = field(
        default="error",
        metadata={
            "help": "What to do with longer texts; split is for language modeling and extractive question answering.",
            "choices": list(get_args(Overlong)),
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        import_all(self.imports or ())
        for name in SOURCES:
            if not isinstance(given := getattr(self, name), dict | list):
                raise InputError(
                    f"{name} must be a mapping or a list of mappings, got {given!r}; give for instance "
                    f"{{format: tsv, path: {name}.tsv}}"
                )
        if self.temperature is not None and (not isinstance(self.train, list) or len(self.train) < 2):
            raise InputError(
                f"temperature must be left out where train is one source, got {self.temperature}; give a list of "
                "sources"
            )

    def sources(self, name: str) -> Any:
        """What `train`, `validation` or `test` has, with the prefix before each source text."""
        given, prefix = getattr(self, name), self.source_prefix
        if prefix is None:
            return given
        if isinstance(given, list):
            return [{**one, "tag": prefix + one.get("tag", "")} for one in given]
        return {**given, "tag": prefix + given.get("tag", "")}

    @property
    def limits(self) -> LengthLimits:
        """The lengths of training examples."""
        return LengthLimits(self.max_source_length, self.max_target_length, self.overlong)


@dataclass
class TokenizerArguments(RecipeGroup):
    """What texts are cut with, and how."""

    tokenizer: Settings | str | None = field(
        default=None,
        metadata={
            "help": "Settings to train a tokenizer with (crossmask.data.tokenizer_training), or a path or Hub id."
        },
    )
    tokenizer_examples: int = field(
        default=1_000_000, metadata={"help": "Examples of a stream, the first, that a tokenizer is trained on."}
    )
    source_language: str | None = field(
        default=None,
        metadata={
            "help": "Language of the sources, by its name in a tokenizer with language codes (mBART, NLLB, M2M100)."
        },
    )
    target_language: str | None = field(default=None, metadata={"help": "Language of the targets, likewise."})
    bpe_dropout: float | None = field(
        default=None,
        metadata={
            "help": "Cut training texts into subwords by BPE-dropout of this probability, 0.1 for instance; an epoch "
            "then goes over `bpe_dropout_copies` copies of the data, each cut otherwise."
        },
    )
    bpe_dropout_copies: int | None = field(
        default=None, metadata={"help": "Copies of the training data under bpe_dropout, 8 unless it is given."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bpe_dropout is None and self.bpe_dropout_copies is not None:
            raise InputError(
                f"bpe_dropout_copies must be left out without bpe_dropout, got {self.bpe_dropout_copies}; set "
                "bpe_dropout, for instance to 0.1, or leave the copies out"
            )


@dataclass
class ModelArguments(RecipeGroup):
    """What is trained: a new model or a saved one, its attention, and how it generates afterwards."""

    model: Settings | None = field(
        default=None,
        metadata={
            "help": "Fields of a new model's config: of CrossMaskConfig, or of the class that model_type names. With "
            "an encoder-decoder of Transformers also encoder_mask, decoder_mask and cross_mask."
        },
    )
    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "A model to fine-tune, with its tokenizer; `model` then changes fields of its config."},
    )
    encoder_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "A pretrained encoder, with its tokenizer, to build the model on; `model` then has the other "
            "fields of its config. Tasks that write a text join it to decoder_name_or_path, or to a new decoder."
        },
    )
    decoder_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "A pretrained causal language model, with its tokenizer, that is joined to the encoder; `model` "
            "then has fields of CrossMaskBridgeConfig. Without it, model.decoder has the model_type and sizes of a "
            "new one, whose tokenizer is trained on the targets."
        },
    )
    share_embeddings: bool = field(
        default=False,
        metadata={
            "help": "A new decoder has the encoder's tokenizer, and its embeddings of tokens begin as the encoder's."
        },
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "Attention backend to train with; eager is the fastest on CPU for short rows."}
    )
    generation: Settings | None = field(
        default=None, metadata={"help": "Fields of GenerationConfig, for the test and for users."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attn_implementation is not None:
            check_attention(self.attn_implementation)
        for name in ("encoder_name_or_path", "decoder_name_or_path"):
            if self.model_name_or_path and (part := getattr(self, name)):
                raise InputError(
                    f"{name} must be left out beside model_name_or_path, which is a whole model, got {part}; give one "
                    "of them"
                )
        if self.decoder_name_or_path and not self.encoder_name_or_path:
            raise InputError(
                f"encoder_name_or_path must be given with decoder_name_or_path, got the decoder "
                f"{self.decoder_name_or_path} alone"
            )
        if self.share_embeddings and (self.decoder_name_or_path or not self.encoder_name_or_path):
            raise InputError(
                "share_embeddings must be left out without a new decoder on a pretrained encoder, got True; give "
                "encoder_name_or_path and model.decoder"
            )


@dataclass
class BatchingArguments(RecipeGroup):
    """How examples become batches, in training and in evaluation."""

    batching: str = field(
        default="examples",
        metadata={
            "help": "examples: `per_device_train_batch_size` examples a batch, padded; packed: that many rows "
            "of whole examples; buckets: examples of similar length, `batch_tokens` a batch; stream: as packed, of "
            "data that is read as it is needed, for what is larger than memory (needs `max_steps`).",
            "choices": ["examples", "packed", "buckets", "stream"],
        },
    )
    source_row_length: int = field(default=256, metadata={"help": "Source tokens in a packed row."})
    target_row_length: int = field(default=256, metadata={"help": "Target tokens in a packed row."})
    batch_tokens: int = field(default=8192, metadata={"help": "Tokens in a bucketed batch, both sides and padding."})
    stream_buffer: int = field(
        default=16384, metadata={"help": "Examples of a stream that are in memory, shuffled and packed at a time."}
    )
    eval_tokens: int = field(
        default=4096, metadata={"help": "Tokens in an evaluation batch at most, padding included."}
    )

    @property
    def packs(self) -> bool:
        """Whether a row of a training batch has several examples."""
        return self.batching in ("packed", "stream")


@dataclass
class OptimizationArguments(RecipeGroup):
    """How a model is trained, beside what Transformers' training arguments say."""

    freeze: list[str] | None = field(
        default=None,
        metadata={
            "help": "Parts of the model that are not trained, by the beginning of their parameters' names: encoder, "
            "decoder.layers.0, ... (crossmask.training.parts)."
        },
    )
    lora: Settings | None = field(
        default=None,
        metadata={
            "help": "Low-rank adapters: fields of peft.LoraConfig, target_modules among them. They are trained in "
            "frozen parts too, and merged into the finished model (crossmask.training.adapters)."
        },
    )
    cache_encoder: bool = field(
        default=False,
        metadata={
            "help": "Compute the states of a bridge's frozen encoder once for every source, and keep them on disk, "
            "for this run and later ones (crossmask.training.encoder_cache)."
        },
    )
    learning_rates: Settings | None = field(
        default=None,
        metadata={"help": "Parts of the model with a learning rate other than learning_rate: {bridge: 1.0e-3, ...}."},
    )
    multipath_k: list[int] | None = field(
        default=None,
        metadata={
            "help": "Lowest and highest k: every training step has the cross mask wait_k(k) for a k drawn from them, "
            "so that one model translates simultaneously at any of these waits."
        },
    )
    r_drop: float | None = field(
        default=None,
        metadata={
            "help": "Read every batch twice under different dropout, and have both outputs agree (R-Drop): alpha of "
            "the paper, 1 to 5 there. A step takes 1.5 to 1.8 times as long."
        },
    )
    teacher: str | None = field(
        default=None,
        metadata={
            "help": "A finished encoder-decoder with the tokenizer of the run, a folder or a Hub id, whose "
            "predictions are a share of every target (distillation). It reads each batch before the model does."
        },
    )
    teacher_weight: float | None = field(
        default=None, metadata={"help": "The share of the teacher in the target, 0.5 by default."}
    )
    average_checkpoints: int | None = field(
        default=None,
        metadata={
            "help": "Average the weights of this many checkpoints, the last; the mean is tested and saved if it is no "
            "worse on validation than the checkpoint that the run would keep."
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop after this many evaluations without a better metric, counted on in a resumed run."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.teacher = None if self.teacher is None else os.path.expanduser(self.teacher)
        if self.teacher is None and self.teacher_weight is not None:
            raise InputError(
                f"teacher_weight must be left out without teacher, got {self.teacher_weight:g}; name the model"
            )
        if self.teacher is not None and self.teacher_weight is None:
            self.teacher_weight = 0.5
        if self.teacher is not None and self.cache_encoder:
            raise InputError(
                f"teacher must be left out with cache_encoder, got {self.teacher}; it reads the sources themselves"
            )
        for part, rate in (self.learning_rates or {}).items():
            check_type(f"learning_rates.{part}", rate, float)
            if rate <= 0:
                raise InputError(f"learning_rates.{part} must be more than 0, got {rate}; name it in freeze instead")
            if rate > LARGEST_RATE:
                raise InputError(f"learning_rates.{part} must be at most {LARGEST_RATE:g}, got {rate:g}; lower it")
            if part in (self.freeze or ()) and self.lora is None:
                raise InputError(f"{part} must be in freeze or in learning_rates, got both; leave one out")


@dataclass
class ReportArguments(RecipeGroup):
    """What the output folder says of the model, and whether it may replace another."""

    language: list[str] | None = field(default=None, metadata={"help": "Language codes for the model card."})
    license: str | None = field(
        default=None,
        metadata={
            "help": "Of the model, for its card, as the Hub writes it: mit, cc-by-4.0. Without one the card has none."
        },
    )
    summary: str | None = field(default=None, metadata={"help": "What the model does, for the model card."})
    report_by: str | None = field(
        default=None,
        metadata={
            "help": "A column of the test records, such as a language or a domain: the report has the score of each "
            "of its values, with bootstrap intervals, the worst one and the spread."
        },
    )
    samples: int = field(default=40, metadata={"help": "Test examples on the page of samples."})
    overwrite: bool = field(
        default=False,
        metadata={
            "help": "Start anew in an output folder that holds a run; a finished model there stays until the new one "
            "is whole."
        },
    )


@dataclass
class SearchArguments(RecipeGroup):
    """What `crossmask tune` searches."""

    search: Settings | None = field(
        default=None,
        metadata={
            "help": "What crossmask tune may set fields to: {learning_rate: {low: 1.0e-4, high: 3.0e-3, log: true}, "
            "model.dropout: [0.1, 0.3]}. train takes the recipe's own values."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.search is not None:
            parse_space(self.search)
