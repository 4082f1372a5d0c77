"""What the trainer refuses; what it does in several processes is in test_processes."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from datasets import Dataset
from small_models import small_model
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from training_jobs import corpus, tiny_trainer
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

from crossmask.tasks.examples import EvaluationSplit
from crossmask.training.muon import check_matrices
from crossmask.training.trainer import refuse_uneven_ties
from crossmask.utils.errors import InputError


@pytest.fixture
def pair() -> Iterator[DeviceMesh]:
    """Two processes, of which the other is not there."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield init_device_mesh("cpu", (2,))
    dist.destroy_process_group()


@pytest.mark.parametrize(("vocab_size", "refused"), [(41, True), (40, False)])
def test_tied_weights_that_do_not_divide_evenly_are_refused(pair, vocab_size, refused):
    model = small_model(vocab_size=vocab_size)
    refuse_uneven_ties(model)
    embedding = model.get_input_embeddings()
    embedding.weight = torch.nn.Parameter(distribute_tensor(embedding.weight.detach(), pair, [Shard(0)]))
    model.tie_weights()
    if refused:
        with pytest.raises(ValueError, match=r"is tied and has 41 rows over 2 processes: call resize_"):
            refuse_uneven_ties(model)
    else:
        refuse_uneven_ties(model)


def test_muon_refuses_a_matrix_of_which_it_has_a_piece(pair):
    model = small_model()
    projection = model.get_decoder().layers[0].self_attn.q_proj
    projection.weight = torch.nn.Parameter(distribute_tensor(projection.weight.detach(), pair, [Shard(0)]))
    with pytest.raises(InputError, match="optim must not be muon where the model is spread over processes"):
        check_matrices(model)


def trained_on_nothing(folder, **options):
    return tiny_trainer(folder / "run", "examples", **options)


def test_sources_alone_are_predicted_and_not_evaluated(tmp_path):
    trainer = trained_on_nothing(tmp_path)
    texts = [example.source for example in corpus(7)]
    split = EvaluationSplit.of_sources(texts, trainer.processing_class, max_source_length=64)
    found = trainer.predict(split, max_new_tokens=4)
    assert len(found.predictions) == 7
    assert not any("loss" in name or "chrf" in name for name in found.metrics)
    with_targets = trainer.predict(trainer.eval_dataset, max_new_tokens=4)
    assert with_targets.predictions == found.predictions
    assert "test_chrf" in with_targets.metrics
    with pytest.raises(InputError, match=r"evaluate needs labels, .* are sources alone: .*call predict"):
        trainer.evaluate(split)
    trainer.eval_dataset = None
    with pytest.raises(InputError, match="evaluate must have eval_dataset, got none; give one to it, or to the train"):
        trainer.evaluate()
    with pytest.raises(InputError, match=r"source 0 must have at most 1 tokens, got .*; split it"):
        EvaluationSplit.of_sources(texts, trainer.processing_class, max_source_length=1)


def test_the_stock_trainer_predicts_sources_alone(tmp_path):
    own = trained_on_nothing(tmp_path)
    arguments = Seq2SeqTrainingArguments(
        str(tmp_path),
        predict_with_generate=True,
        generation_max_length=5,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    tokenizer = own.processing_class
    sources = Dataset.from_dict({"input_ids": tokenizer([example.source for example in corpus(7)])["input_ids"]})
    found = Seq2SeqTrainer(own.model, arguments, processing_class=tokenizer).predict(sources, max_new_tokens=4)
    split = EvaluationSplit.of_sources([example.source for example in corpus(7)], tokenizer, max_source_length=64)
    texts = tokenizer.batch_decode(found.predictions, skip_special_tokens=True)
    assert texts == own.predict(split, max_new_tokens=4).predictions


def test_evaluation_has_the_workers_that_are_asked_for(tmp_path):
    trainer = trained_on_nothing(tmp_path, dataloader_num_workers=1, dataloader_prefetch_factor=3)
    for loader in (trainer.get_eval_dataloader(), trainer.get_test_dataloader(trainer.eval_dataset)):
        assert (loader.num_workers, loader.prefetch_factor) == (1, 3)


def test_training_keeps_its_workers_if_that_is_asked_for(tmp_path):
    trainer = trained_on_nothing(tmp_path, dataloader_num_workers=1, dataloader_persistent_workers=True)
    assert trainer.get_train_dataloader().persistent_workers
    assert not trainer.get_eval_dataloader().persistent_workers  # a new loader for every evaluation


@pytest.mark.parametrize(("drop", "batches"), [(False, 14), (True, 13)])
def test_a_last_batch_that_is_smaller_is_dropped_if_that_is_asked_for(tmp_path, drop, batches):
    trainer = trained_on_nothing(tmp_path, size=4, dataloader_drop_last=drop)
    assert len(trainer.get_train_dataloader()) == batches
