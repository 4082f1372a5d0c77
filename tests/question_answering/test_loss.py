import copy
import math

import pytest
import torch
from question_cases import batch_of, model_of, tiny_reader, tiny_tokenizer
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from crossmask.question_answering.loss import answer_loss

LOWEST = torch.finfo(torch.float32).min


def positions(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers)


def test_by_hand():
    start = torch.tensor([[0.0, math.log(3.0), LOWEST]])
    end = torch.tensor([[LOWEST, 0.0, math.log(7.0)]])
    # The start has 3 / 4, the end 7 / 8.
    expected = (math.log(4 / 3) + math.log(8 / 7)) / 2
    assert answer_loss(start, end, None, positions(1), positions(2)).item() == pytest.approx(expected)


def test_no_answer_by_hand():
    scores = torch.tensor([[math.log(2.0), 0.0]])
    none = torch.tensor([2 * math.log(5.0)])  # as much as 5 beside either end's 2 + 1
    assert answer_loss(scores, scores, none, positions(-1), positions(-1)).item() == pytest.approx(math.log(8 / 5))
    with_answer = answer_loss(scores, scores, none, positions(0), positions(1)).item()
    assert with_answer == pytest.approx((math.log(8 / 2) + math.log(8 / 1)) / 2)


def test_examples_that_do_not_count():
    scores = torch.randn(3, 5)
    kept = answer_loss(scores[:1], scores[:1], None, positions(2), positions(3))
    assert torch.equal(answer_loss(scores, scores, None, positions(2, -100, -100), positions(3, -100, -100)), kept)
    nothing = torch.randn(2, 5, requires_grad=True)
    loss = answer_loss(nothing, nothing, None, positions(-100, -100), positions(-100, -100))
    loss.backward()
    assert loss.item() == 0
    assert (nothing.grad == 0).all()


def test_a_row_that_may_have_no_answer_gives_no_gradient():
    scores = torch.full((1, 4), LOWEST, requires_grad=True)
    loss = answer_loss(scores, scores, None, positions(-100), positions(-100))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("no_answer", [False, True])
def test_parts_of_a_step_add_up_to_the_whole(no_answer):
    model, batch = model_of("bert", no_answer=no_answer), batch_of(rows=5)
    starts = positions(7, 8, -1 if no_answer else -100, 9, -100)
    ends = positions(9, 8, -1 if no_answer else -100, 12, -100)

    def gradient(parts):
        model.zero_grad()
        for part in parts:
            inputs = {name: tensor[part] for name, tensor in batch.items()}
            counts = int((starts != -100).sum())
            model(
                **inputs, start_positions=starts[part], end_positions=ends[part], num_items_in_batch=counts
            ).loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    whole = gradient([slice(0, 5)])
    torch.testing.assert_close(gradient([slice(0, 1), slice(1, 4), slice(4, 5)]), whole, rtol=1e-4, atol=1e-6)
    model.zero_grad()
    model(**batch, start_positions=starts, end_positions=ends).loss.backward()
    mean = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(mean, whole)


def test_trainer_accumulates_gradients_exactly(tmp_path):
    batch = batch_of(rows=8)
    rows = [
        {**{name: tensor[row] for name, tensor in batch.items()}, "start_positions": 7 + row % 3, "end_positions": 10}
        for row in range(8)
    ]
    weights = []
    for size, steps in ((8, 1), (2, 4)):
        model = model_of("bert")
        arguments = TrainingArguments(
            tmp_path / str(size), per_device_train_batch_size=size, gradient_accumulation_steps=steps, max_steps=1,
            learning_rate=0.1, optim="sgd", lr_scheduler_type="constant", max_grad_norm=0.0, report_to=[],
            use_cpu=True, disable_tqdm=True, save_strategy="no", dataloader_pin_memory=False,
        )  # fmt: skip
        Trainer(model, arguments, train_dataset=rows).train()
        weights.append(model.pointer.k_proj.weight.detach())
    assert not torch.equal(weights[0], model_of("bert").pointer.k_proj.weight)
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-6)


def test_trainer_with_the_collator_of_transformers(tmp_path):
    tokenizer, model = tiny_tokenizer(), copy.deepcopy(tiny_reader(no_answer=False)[0])
    contexts = ["Ann is in the garden.", "Bob sits near Ann and Carl in the kitchen."]
    encoded = [tokenizer("Where is Ann?", context) for context in contexts]
    rows = [{**one, "start_positions": 7, "end_positions": 8} for one in encoded]
    before = model.pointer.k_proj.weight.detach().clone()
    arguments = TrainingArguments(
        tmp_path, per_device_train_batch_size=2, max_steps=2, report_to=[], use_cpu=True, disable_tqdm=True,
        save_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip
    collator = DataCollatorWithPadding(tokenizer)
    assert Trainer(model, arguments, train_dataset=rows, data_collator=collator).train().training_loss > 0
    assert not torch.equal(model.pointer.k_proj.weight, before)


@pytest.mark.parametrize(
    ("start", "end", "error", "message"),
    [
        ([3.0], [3.0], TypeError, "start_positions must be int64, got torch.float32"),
        ([3, 3], [3, 3], ValueError, r"start_positions must be \(1,\), the batch's, got \(2,\)"),
        ([5], [5], ValueError, "start_positions must be from 0 to 4, -1 for no answer or -100 .*got 5 in example 0"),
        ([-7], [3], ValueError, "start_positions must be from 0 to 4"),
        ([-1], [-1], ValueError, "start_positions has -1, no answer, which this model has no score for"),
        ([0], [3], ValueError, "start_positions: token 0 of example 0 may be no answer"),
        ([2], [0], ValueError, "end_positions: token 0 of example 0 may be no answer"),
        ([3], [2], ValueError, "end_positions must not be before start_positions"),
        ([-100], [2], ValueError, "and below 0 where these are, got -100 to 2 in example 0"),
    ],
)
def test_positions_that_no_answer_can_have(start, end, error, message):
    scores = torch.tensor([[LOWEST, 0.0, 0.0, 0.0, 0.0]])
    with pytest.raises(error, match=message):
        answer_loss(scores, scores, None, torch.tensor(start), torch.tensor(end))
