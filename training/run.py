"""The main job: read, build, train, test, report."""

import logging
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from transformers import set_seed

from ..hub.upload import push_folder
from ..tasks import get_task
from ..tasks.base import Example
from ..tasks.examples import EvaluationSplit, read_examples
from ..utils.errors import InputError
from .arguments import RunSpec
from .checkpoint_averaging import load_average_if_better
from .continuation import check_settings_kept, check_weights_fit, settings_of
from .factory import build_model, build_tokenizer, build_trainer, check_model, evaluation_split
from .fields import check_metric, check_task_fields
from .report import RunResult, write_report
from .requirements import check_requirements
from .run_directory import full_disk_as_oserror, lock_folder, prepare_folder, remove_checkpoints, staged
from .streams import ExampleStream, check_stream
from .timing import seconds_of
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
    check_requirements(recipe, arguments)
    task = get_task(recipe.task, **(recipe.task_options or {}))
    check_task_fields(recipe, arguments, task)
    check_model(recipe, task, arguments)
    set_seed(arguments.seed)
    folder = Path(arguments.output_dir)
    lock = lock_folder(folder) if arguments.process_index == 0 else None
    checkpoint = prepare_folder(folder, arguments.resume_from_checkpoint, recipe.overwrite)
    arguments.settings = settings_of(recipe, arguments)
    if checkpoint is not None:
        check_settings_kept(checkpoint, arguments.settings)
    if recipe.batching == "stream":
        check_stream(recipe, arguments, checkpoint)
    data = recipe.data_dir
    validation, test = (read_examples(getattr(recipe, name), task, name, data) for name in ("validation", "test"))
    check_metric(arguments, task, validation)
    train = (ExampleStream.of if recipe.batching == "stream" else read_examples)(recipe.train, task, "train", data)
    learnt_from = train.first(recipe.tokenizer_examples) if isinstance(train, ExampleStream) else train
    tokenizer = build_tokenizer(recipe, task, learnt_from, checkpoint)
    model = build_model(recipe, task, tokenizer)
    if checkpoint is not None:
        check_weights_fit(model, checkpoint)
    trainer = build_trainer(recipe, arguments, task, tokenizer, model, train, validation)
    if trainer.is_world_process_zero():
        print(f"training in {arguments.precision}")
    return PreparedRun(run, folder, checkpoint, trainer, train, evaluation_split(recipe, task, tokenizer, test), lock)


def execute(job: PreparedRun) -> None:
    """Train, test, and fill the output folder; upload it if that was asked for.

    Raises:
        OSError: a full disk, or an upload that failed; what was written before is whole.
        DivergedError: a loss that is not finite; the checkpoints before it are whole.
        StreamFault: a record of a stream that cannot be trained on; likewise.
    """
    run, trainer, folder = job.run, job.trainer, job.folder
    if run.recipe.overwrite and trainer.is_world_process_zero():
        remove_checkpoints(folder)
    with full_disk_as_oserror(folder):
        trainer.train(resume_from_checkpoint=str(job.checkpoint) if job.checkpoint else None)
    if run.recipe.average_checkpoints is not None:
        load_average_if_better(trainer, folder, run.recipe.average_checkpoints)
    seconds = seconds_of(trainer)
    beams = trainer.model.generation_config.num_beams
    metrics = trainer.evaluate(job.test, metric_key_prefix="test", num_beams=beams)
    model = trainer.whole_model()
    if not trainer.is_world_process_zero():
        return
    outcome = RunResult(
        model=trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False),  # as its users will run it
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
    task, attention = outcome.task, outcome.model.config._attn_implementation
    model = task.auto_class.from_pretrained(folder, attn_implementation=attention).to(outcome.model.device)
    expected, output = (task.output(m.eval(), outcome.tokenizer, outcome.test[0]) for m in (outcome.model, model))
    if output != expected:
        raise RuntimeError(f"the model in {folder} gives {output}, before saving it was {expected}")
    logger.info("reloaded %s through %s: same output", folder, task.auto_class.__name__)
