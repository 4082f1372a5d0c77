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
from training_jobs import SOMEWHERE

from crossmask.training.arguments import RecipeArguments, RunArguments
from crossmask.training.build import batched
from crossmask.training.trainer import refuse_uneven_ties


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


def test_another_way_of_batching_is_refused(tmp_path):
    recipe = RecipeArguments(train=SOMEWHERE, validation=SOMEWHERE, test=SOMEWHERE)
    arguments = RunArguments(str(tmp_path), train_sampling_strategy="group_by_length", report_to=[])
    with pytest.raises(ValueError, match="train_sampling_strategy is 'group_by_length': leave it out and"):
        batched(recipe, arguments, Dataset.from_list([]), {"pad_token_id": 0, "decoder_start_token_id": 1})
