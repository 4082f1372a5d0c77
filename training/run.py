"""The main job: read, build, train, test, report."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from transformers import ProcessorMixin, set_seed

from ..data.language_codes import set_languages
from ..hub.upload import push_folder
from ..tasks import get_task
from ..tasks.base import Example, Task
from ..tasks.examples import EvaluationSplit, read_examples
from ..tasks.group_scores import task_by_column
from ..utils.errors import InputError
from .adapters import add_adapters, check_adapters, merge_adapters
from .attaching import load_finished
from .batching import check_bpe_dropout, evaluation_split
from .build_model import build_model, build_on_meta
from .build_tokenizer import build_tokenizer, check_tokenizer_settings, load_tokenizer
from .build_trainer import build_trainer
from .checkpoint_averaging import check_averaging, load_average_if_better
from .combinations import check_metric, check_task_fields
from .continuation import check_settings_kept, check_state_saved, check_steps_left, check_weights_fit, settings_of
from .encoder_cache import check_encoder_cache
from .generation import beams_of
from .joining import joins, load_processor_of_parts, processor_of, writing_tokenizer
from .multi_path import Multipath
from .optimizers import check_optimizer
from .parsing import RunSpec
from .parts import freeze_parts, trained_parameters
from .r_drop import check_r_drop
from .recipe import RecipeArguments
from .report import RunResult, write_report
from .requirements import check_requirements
from .run_arguments import RunArguments
from .run_directory import full_disk_as_oserror, lies_in, lock_folder, prepare_folder, remove_checkpoints, staged
from .streams import ExampleStream, check_stream
from .teacher import check_teacher
from .timing import stopwatch_of
from .trainer import CrossMaskTrainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedRun:
    """A run with everything built and checked, ready to train."""

    run: RunSpec
    folder: Path
    checkpoint: Path | None
    trainer: CrossMaskTrainer
    train: list[Example] | ExampleStream
    test: EvaluationSplit
    lock: FileLock | None  # on the folder, while this job is there; one process of several has it


def prepare(run: RunSpec) -> PreparedRun:
    """Check the output folder, read the data, build tokenizer, model and trainer.

    Raises:
        ValueError, OSError: with what was given, what was expected and how to fix it; nothing was computed yet.
    """
    try:
        return _prepare(run)
    except (InputError, OSError) as error:
        if run.secrets.hide(str(error)) == str(error):
            raise
        kind = InputError if isinstance(error, InputError) else OSError
        raise kind(run.secrets.hide(str(error))) from None


def _prepare(run: RunSpec) -> PreparedRun:
    recipe, arguments = run.recipe, run.arguments
    data, is_stream = recipe.data, recipe.batching.batching == "stream"
    task = get_task(data.task, **(data.task_options or {}))
    check_recipe(recipe, task, arguments)
    set_seed(arguments.seed)
    folder = Path(arguments.output_dir)
    lock = lock_folder(folder) if arguments.process_index == 0 else None
    checkpoint = prepare_folder(folder, arguments.resume_from_checkpoint, recipe.report.overwrite)
    settings = settings_of(recipe, arguments)
    arguments.settings = settings
    if checkpoint is not None:
        check_state_saved(checkpoint)
        check_settings_kept(checkpoint, settings)
        check_steps_left(checkpoint, arguments.max_steps)
    if is_stream:
        check_stream(recipe, task, arguments, checkpoint)
    validation = read_examples(data.sources("validation"), task, "validation", data.data_dir)
    test = read_examples(data.sources("test"), task_of_test(recipe), "test", data.data_dir)
    check_metric(arguments, task, validation)
    if is_stream:
        train: Any = ExampleStream.of(data.sources("train"), task, "train", data.data_dir)
    else:
        train = read_examples(data.sources("train"), task, "train", data.data_dir, data.temperature, arguments.seed)
    tokenizer = prepare_tokenizer(recipe, task, train, checkpoint)
    if not isinstance(tokenizer, ProcessorMixin):
        set_languages(tokenizer, recipe.tokenizer.source_language, recipe.tokenizer.target_language)
    packed = recipe.batching.packs
    call_masks = recipe.optimization.multipath_k is not None
    model = build_model(recipe.model, data.limits, task, tokenizer, packed, call_masks)
    if checkpoint is not None:
        check_weights_fit(model, checkpoint)
    add_adapters(model, recipe.optimization.lora)
    freeze_parts(model, recipe.optimization)
    trainer = build_trainer(recipe, arguments, task, tokenizer, model, train, validation)
    if trainer.is_world_process_zero():
        print(f"training in {arguments.precision}")
        if (trained := trained_parameters(model)) < model.num_parameters():
            print(f"training {trained:,} of {model.num_parameters():,} parameters")
    test_split = evaluation_split(data.limits, task, tokenizer, test)
    return PreparedRun(run, folder, checkpoint, trainer, train, test_split, lock)


def task_of_test(recipe: RecipeArguments) -> Task:
    """The task by which test records are read: its groups are those of the column that the report is by.

    Raises:
        InputError: the task has no groups, or is told to take them from another column.
    """
    return task_by_column(recipe.data.task, recipe.data.task_options or {}, recipe.report.report_by)


def check_recipe(recipe: RecipeArguments, task: Task, arguments: RunArguments) -> None:
    """Refuse what cannot be trained, before the data is read.

    Raises:
        InputError: with the field, what was given and what was expected.
    """
    task.check_libraries()
    task_of_test(recipe)
    check_requirements(recipe.model.attn_implementation, arguments)
    check_optimizer(arguments)
    check_task_fields(recipe, arguments, task)
    if (r_drop := recipe.optimization.r_drop) is not None:
        task.check_loss_field("r_drop", r_drop)
    if (teacher := recipe.optimization.teacher) is not None:
        task.check_loss_field("teacher", teacher)
        check_teacher(teacher, recipe.data.limits, task)
    check_tokenizer_settings(recipe.tokenizer)
    if recipe.optimization.average_checkpoints is not None:
        check_averaging(arguments, recipe.optimization.average_checkpoints)
    check_adapters(recipe.optimization.lora, arguments)
    if recipe.optimization.multipath_k is not None:
        Multipath.of(recipe.optimization.multipath_k, arguments.seed, recipe.data.max_source_length)
    packed = recipe.batching.packs
    call_masks = recipe.optimization.multipath_k is not None
    model = build_on_meta(recipe.model, recipe.data.limits, task, arguments.device, packed, call_masks)
    add_adapters(model, recipe.optimization.lora)
    freeze_parts(model, recipe.optimization)
    if recipe.optimization.cache_encoder:
        check_encoder_cache(model, arguments)
    if r_drop is not None:
        check_r_drop(r_drop, model)
    if recipe.tokenizer.bpe_dropout is not None:
        check_bpe_dropout(recipe.tokenizer.bpe_dropout, model.config)
    check_optimizer(arguments, model)


def prepare_tokenizer(
    recipe: RecipeArguments, task: Task, train: list[Example] | ExampleStream, checkpoint: Path | None
) -> Any:
    """The tokenizer: of the checkpoint to go on from, of the model or encoder to fine-tune, loaded, or trained.

    Raises:
        InputError: settings that do not fit. OSError: a tokenizer that cannot be loaded.
    """
    if checkpoint is not None:
        return load_tokenizer("resume_from_checkpoint", str(checkpoint), of_model=True)
    if recipe.model.decoder_name_or_path:
        return load_processor_of_parts(recipe.model)
    if recipe.model.model_name_or_path:
        return load_tokenizer("model_name_or_path", recipe.model.model_name_or_path, of_model=True)
    of_encoder = None
    if recipe.model.encoder_name_or_path:
        of_encoder = load_tokenizer("encoder_name_or_path", recipe.model.encoder_name_or_path)
        if not joins(recipe.model, task):
            return of_encoder
        if recipe.model.share_embeddings:
            return processor_of(recipe.model, of_encoder, writing_tokenizer(of_encoder))
    examples = train.first(recipe.tokenizer.tokenizer_examples) if isinstance(train, ExampleStream) else train
    new = build_tokenizer(recipe.tokenizer, recipe.data, task, examples, targets_only=of_encoder is not None)
    return new if of_encoder is None else processor_of(recipe.model, of_encoder, new)


def execute(job: PreparedRun) -> None:
    """Train, test, and fill the output folder; upload it if that was asked for.

    Raises:
        OSError: a full disk, or an upload that failed; what was written before is whole.
        DivergedError: a loss that is not finite; the checkpoints before it are whole.
        StreamFault: a record of a stream that cannot be trained on; likewise.
    """
    run, trainer, folder = job.run, job.trainer, job.folder
    if trainer.is_world_process_zero():
        if run.recipe.report.overwrite:
            remove_checkpoints(folder)
        elif lies_in(folder, job.checkpoint):
            remove_checkpoints(folder, after=job.checkpoint)
    with full_disk_as_oserror(folder):
        trainer.train(resume_from_checkpoint=str(job.checkpoint) if job.checkpoint else None)
    trainer.use_evaluated_weights()
    if (number := run.recipe.optimization.average_checkpoints) is not None:
        load_average_if_better(trainer, folder, number)
    tuned: Any = trainer.model
    trained = trained_parameters(tuned)
    if run.recipe.optimization.lora is not None:
        merge_adapters(tuned)
    seconds = stopwatch_of(trainer).seconds()
    metrics = trainer.evaluate(job.test, metric_key_prefix="test", num_beams=beams_of(tuned))
    model = trainer.whole_model()
    if not trainer.is_world_process_zero():
        return
    outcome = RunResult(
        model=trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False),  # as its users will run it
        trained_parameters=trained,
        tokenizer=trainer.processing_class,
        task=trainer.task,
        train_size=None if isinstance(job.train, ExampleStream) else len(job.train),
        test=job.test.examples,
        predictions=trainer.predictions,
        scores={**trainer.scores, "loss": metrics["test_loss"]},
        seconds=seconds,
        log_history=trainer.state.log_history,
    )
    with full_disk_as_oserror(folder), staged(folder) as place:
        write_report(place, run, outcome, name=run.repository or str(folder))
    check_reload(folder, outcome)
    remove_checkpoints(folder)
    shown = {key: value for key, value in outcome.scores.items() if not isinstance(value, str)}
    print(f"\n{folder}: " + ", ".join(f"{key} {value:.2f}" for key, value in shown.items()))
    if run.push:
        arguments = run.arguments
        push_folder(
            folder,
            run.repository,
            private=arguments.hub_private_repo,
            token=run.token,
            revision=arguments.hub_revision,
        )


def check_reload(folder: Path, outcome: RunResult) -> None:
    """Load the saved model through its Auto class, and see that it gives what the trained one gives.

    Raises:
        RuntimeError: it gives something else.
    """
    task = outcome.task
    model = load_finished(folder, outcome.model, task).to(outcome.model.device)
    expected, output = (task.output(m.eval(), outcome.tokenizer, outcome.test[0]) for m in (outcome.model, model))
    if not _same(output, expected):
        raise RuntimeError(f"the model in {folder} gives {output}, before saving it was {expected}")
    logger.info("reloaded %s through %s: same output", folder, task.auto_class.__name__)


def _same(output: Any, expected: Any) -> bool:
    """Whether two nested lists are equal, numbers that are not whole to rounding: it depends on where weights lie."""
    if isinstance(output, list) and isinstance(expected, list):
        return len(output) == len(expected) and all(map(_same, output, expected))
    if isinstance(output, float) and isinstance(expected, float):
        return math.isclose(output, expected, rel_tol=1e-3, abs_tol=1e-3)
    return bool(output == expected)
