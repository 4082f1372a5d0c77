"""The loss: shifted once, over the labels that count, and the same however a batch is cut into pieces."""

import pytest
import torch
from accelerate import cpu_offload
from small_models import PAD, START, small_model, tokens
from torch.nn.functional import cross_entropy, log_softmax, pad
from transformers import Trainer, TrainingArguments

from crossmask import CrossMaskForConditionalGeneration
from crossmask.seq2seq.decoder_inputs import attention_mask_from_labels, shift_right

LENGTHS = (9, 2, 5, 1, 7, 3, 1, 1)
LABELS = torch.tensor([[5, 6, 7, 2, -100, -100], [8, -100, 9, 10, 11, 2]])


def test_labels_are_shifted_once():
    inputs = shift_right(LABELS, START, PAD)
    assert inputs.tolist() == [[1, 5, 6, 7, 2, 0], [1, 8, 0, 9, 10, 11]]
    assert attention_mask_from_labels(LABELS).tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 0, 1, 1, 1]]
    model = small_model()
    out = model(input_ids=tokens(2, 5), labels=LABELS)
    explicit = model(
        input_ids=tokens(2, 5), decoder_input_ids=inputs, decoder_attention_mask=attention_mask_from_labels(LABELS)
    )
    torch.testing.assert_close(out.logits, explicit.logits)
    terms = [
        -log_softmax(explicit.logits[row, column], -1)[label]
        for row, labels in enumerate(LABELS.tolist())
        for column, label in enumerate(labels)
        if label != -100
    ]
    assert len(terms) == 9
    torch.testing.assert_close(out.loss, sum(terms) / 9)


def test_what_the_loss_ignores_changes_nothing():
    model = small_model()
    loss = model(input_ids=tokens(2, 5), labels=LABELS).loss
    longer = pad(LABELS, (0, 4), value=-100)
    torch.testing.assert_close(model(input_ids=tokens(2, 5), labels=longer).loss, loss)
    loss.backward()
    assert torch.isfinite(model.lm_head.weight.grad).all()


def test_the_number_of_items_divides_the_sum():
    model = small_model()
    out = model(input_ids=tokens(2, 5), labels=LABELS)
    for items in (36, torch.tensor(36)):
        part = model(input_ids=tokens(2, 5), labels=LABELS, num_items_in_batch=items)
        torch.testing.assert_close(part.loss, out.loss * 9 / 36)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("skip_logits", [False, True])
@pytest.mark.parametrize("items", [None, 0, torch.tensor(0)])
def test_a_batch_in_which_no_label_counts_is_worth_nothing(items, skip_logits, smoothing):
    model, labels = small_model(), torch.full((2, 3), -100)
    how = {"num_items_in_batch": items, "skip_logits": skip_logits, "smoothing": smoothing}
    loss = model(input_ids=tokens(2, 5), labels=labels, **how).loss
    assert loss.item() == 0
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name  # what a process of several lacks, the others would wait for
        assert not parameter.grad.any(), name


def test_given_decoder_inputs_stand():
    model = small_model()
    given = tokens(2, 6, seed=3)
    out = model(input_ids=tokens(2, 5), decoder_input_ids=given, labels=LABELS)
    logits = model(input_ids=tokens(2, 5), decoder_input_ids=given).logits
    torch.testing.assert_close(out.logits, logits)
    torch.testing.assert_close(out.loss, cross_entropy(logits.flatten(0, 1), LABELS.flatten()))


def examples() -> list[dict[str, torch.Tensor]]:
    return [{"input_ids": tokens(6, seed=n), "labels": tokens(n, seed=50 + n)} for n in LENGTHS]


def collate(features: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    longest = max(len(feature["labels"]) for feature in features)
    labels = torch.stack(
        [pad(feature["labels"], (0, longest - len(feature["labels"])), value=-100) for feature in features]
    )
    return {
        "input_ids": torch.stack([feature["input_ids"] for feature in features]),
        "labels": labels,
        "decoder_input_ids": shift_right(labels, START, PAD),
        "decoder_attention_mask": attention_mask_from_labels(labels),
    }


def train(folder, batch: int, accumulate: int, smoothing: float) -> tuple[list, CrossMaskForConditionalGeneration]:
    model = small_model(initializer_range=0.2)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulate,
        max_steps=2,
        learning_rate=1e-3,
        optim="sgd",
        label_smoothing_factor=smoothing,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=1,
    )
    trainer = Trainer(model, arguments, train_dataset=examples(), data_collator=collate)
    trainer.train()
    return [(log["loss"], log["grad_norm"]) for log in trainer.state.log_history if "grad_norm" in log], model


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradient_accumulation_is_exact(smoothing, tmp_path):
    whole, model = train(tmp_path, batch=4, accumulate=1, smoothing=smoothing)
    parts, other = train(tmp_path, batch=1, accumulate=4, smoothing=smoothing)
    assert len(whole) == 2
    torch.testing.assert_close(torch.tensor(parts), torch.tensor(whole), rtol=1e-4, atol=1e-5)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], weight, rtol=1e-4, atol=1e-6)
    unmoved = small_model(initializer_range=0.2)
    assert not torch.equal(unmoved.lm_head.weight, model.lm_head.weight)


def test_labels_after_cached_tokens():
    """Labels go on behind what a cache holds: the loss is that of the later labels of the whole target."""
    model, source, target = small_model(), tokens(2, 5), tokens(2, 7, seed=3)
    inputs = shift_right(target, START, PAD)
    cache = model(input_ids=source, decoder_input_ids=inputs[:, :3]).past_key_values
    later = model(input_ids=source, decoder_input_ids=inputs[:, 3:], labels=target[:, 3:], past_key_values=cache)
    counted = torch.cat([torch.full((2, 3), -100), target[:, 3:]], dim=-1)
    torch.testing.assert_close(later.loss, model(input_ids=source, decoder_input_ids=inputs, labels=counted).loss)
    cache = model(input_ids=source, decoder_input_ids=inputs[:, :3]).past_key_values
    begun = model(input_ids=source, labels=target[:, 3:], past_key_values=cache)  # from a start token of its own
    assert torch.isfinite(begun.loss)


@pytest.mark.parametrize("skip_logits", [False, True])
def test_labels_want_all_logits(skip_logits):
    with pytest.raises(ValueError, match="logits_to_keep must be left out where labels are given"):
        small_model()(input_ids=tokens(2, 5), labels=LABELS, logits_to_keep=2, skip_logits=skip_logits)


def test_an_output_layer_that_is_offloaded():
    """Its weight is somewhere else until it is called, so nothing may read it past the call."""
    model, source = small_model(tie_word_embeddings=False), tokens(2, 5)
    expected = model(input_ids=source, labels=LABELS).loss
    cpu_offload(model.lm_head, execution_device="cpu")
    assert model.lm_head.weight.is_meta
    for skip_logits in (False, True):
        loss = model(input_ids=source, labels=LABELS, skip_logits=skip_logits).loss
        torch.testing.assert_close(loss, expected)
