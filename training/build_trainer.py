"""The trainer of a run, with its data tokenised and batched as the recipe says."""

from itertools import chain
from typing import cast

from transformers import EarlyStoppingCallback, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from ..data.encoder_states import CollatorWithStates
from ..tasks.base import Example, Task
from .batching import evaluation_split, make_batching, training_features
from .checkpoint_averaging import check_averaging
from .continuation import SettingsRecord
from .encoder_cache import EncoderCache
from .heap import TrimsHeap
from .multi_path import Multipath
from .precision import PrecisionRecord
from .recipe import RecipeArguments
from .run_arguments import RunArguments
from .schedule import follow_metric
from .streams import ExampleStream, packed_stream
from .teacher import load_teacher
from .trainer import CrossMaskTrainer


def build_trainer(
    recipe: RecipeArguments,
    arguments: RunArguments,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    train: list[Example] | ExampleStream,
    validation: list[Example],
) -> CrossMaskTrainer:
    """The trainer.

    Raises:
        InputError: texts that are too long, settings that do not fit.
    """
    data, optimization = recipe.data, recipe.optimization
    teacher = None
    if optimization.teacher is not None:
        weight = cast(float, optimization.teacher_weight)  # which has a default beside a teacher
        teacher = load_teacher(optimization.teacher, weight, model, tokenizer, recipe.batching.packs)
    if isinstance(train, ExampleStream):
        features = packed_stream(data, recipe.batching, arguments, train, tokenizer)
    else:
        features = training_features(recipe.tokenizer, data.limits, task, tokenizer, train, arguments.seed)
    callbacks: list[TrainerCallback] = [PrecisionRecord(), SettingsRecord(), TrimsHeap()]
    if optimization.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(optimization.early_stopping_patience))
    dataset, batches, collator = make_batching(recipe.batching, arguments, task, model.config, features)
    evaluation = evaluation_split(data.limits, task, tokenizer, validation)
    eval_collator, cache = task.evaluation_collator(model.config), None
    if optimization.cache_encoder:
        sources = chain(features["input_ids"], evaluation.features["input_ids"])
        cache = EncoderCache(sources, eval_collator, recipe.batching.eval_tokens)
        callbacks.append(cache)
        collator, eval_collator = (CollatorWithStates(one, cache.states) for one in (collator, eval_collator))
    if optimization.average_checkpoints is not None:
        keep_checkpoints(arguments, optimization.average_checkpoints)
    arguments.generation_num_beams = arguments.generation_num_beams or 1
    if arguments.metric_for_best_model is None:
        arguments.metric_for_best_model = f"eval_{task.primary_metric.name}"
        arguments.greater_is_better = task.primary_metric.greater_is_better
    follow_metric(arguments)
    multipath = None
    if optimization.multipath_k is not None:
        multipath = Multipath.of(optimization.multipath_k, arguments.seed, data.max_source_length)
    trainer = CrossMaskTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        eval_dataset=evaluation,
        data_collator=collator,
        processing_class=tokenizer,
        callbacks=callbacks,
        task=task,
        train_batches=batches,
        eval_collator=eval_collator,
        eval_tokens=recipe.batching.eval_tokens,
        multipath=multipath,
        learning_rates=optimization.learning_rates,
        r_drop=optimization.r_drop or 0.0,
        teacher=teacher,
    )
    if cache is not None:
        cache.trainer = trainer
    return trainer


def keep_checkpoints(arguments: RunArguments, number: int) -> None:
    """Have the run keep the checkpoints that will be averaged.

    Raises:
        InputError: as `check_averaging`.
    """
    check_averaging(arguments, number)
    if arguments.save_total_limit is not None:
        # One more: Trainer counts the best checkpoint, which may be an old one.
        arguments.save_total_limit = max(arguments.save_total_limit, number + 1)
