"""What masks promise, on every family of pretrained encoder-decoders that they can be put on."""

import pytest
import torch
from attached_families import FAMILIES, HEADS, attached, ids, plain, source_of

from crossmask import attach, audit, detach, masks
from crossmask.masks import MaskError

pytestmark = pytest.mark.filterwarnings("ignore")

SOURCE, TARGET = 9, 6
cases = [(family, attention) for family, each in FAMILIES.items() for attention in each.attention]
each_case = pytest.mark.parametrize(("family", "attention"), cases)
each_family = pytest.mark.parametrize("family", FAMILIES)
OPTIONS = {"max_new_tokens": 6, "eos_token_id": None, "do_sample": False}


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=2e-4, rtol=2e-4)


def same(family: str, a: torch.Tensor, b: torch.Tensor) -> None:
    """Equal to the bit; experts multiply other numbers of rows at once, which rounds differently."""
    if "rows" in FAMILIES[family].differs:
        close(a, b)
    else:
        assert torch.equal(a, b)


def has(family: str, *differences: str) -> bool:
    return not FAMILIES[family].differs.isdisjoint(differences)


def masks_for(family: str) -> dict[str, str]:
    """A wait-k policy, with an encoder that does not look ahead where there can be one."""
    given = {"cross_mask": "wait_k(2)"}
    return given if has(family, "encoder") else {**given, "encoder_mask": "causal()"}


def scores_of(model, source: dict, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens, and the scores of every step, or of the sequences where there are beams, of which the last tie."""
    options = {**OPTIONS, **options}
    outputs = model.generate(**source, **options, output_scores=True, return_dict_in_generate=True)
    beams = outputs.get("sequences_scores")
    return outputs.sequences, torch.stack(outputs.scores).clamp(min=-1e4) if beams is None else beams


def check_same_generation(model, source: dict, one: dict, other: dict) -> None:
    (tokens, scores), (others, other_scores) = (scores_of(model, source, **options) for options in (one, other))
    assert torch.equal(tokens, others)
    close(scores, other_scores)


@each_case
@torch.no_grad()
def test_where_nothing_is_masked_every_bit_is_the_untouched_models(family, attention):
    model, source, target = plain(family, attention), source_of(family), ids(2, TARGET, seed=1)
    batches = [{**source, "decoder_input_ids": target}]
    if not has(family, "audio"):
        padding = torch.tensor([[1] * SOURCE, [1] * 5 + [0] * 4])
        padded = {"input_ids": source["input_ids"].masked_fill(padding == 0, 1), "attention_mask": padding}
        of_target = torch.tensor([[1] * TARGET, [1] * 4 + [0] * 2])
        batches += [{**padded, "decoder_input_ids": target, "decoder_attention_mask": of_target}]
    before = [model(**batch).logits for batch in batches]
    tokens = [model.generate(**source, **OPTIONS, num_beams=beams) for beams in (1, 3)]
    attach(model)
    for batch, logits in zip(batches, before, strict=True):
        assert torch.equal(model(**batch).logits, logits)
        assert torch.equal(model(**batch, cross_mask="full()", decoder_mask="causal()").logits, logits)
    for beams, expected in zip((1, 3), tokens, strict=True):
        assert torch.equal(model.generate(**source, **OPTIONS, num_beams=beams), expected)
    detach(model)
    assert vars(model).keys() == vars(plain(family)).keys()
    assert type(model) is type(plain(family))
    assert torch.equal(model(**batches[0]).logits, before[0])


@each_case
@torch.no_grad()
def test_a_tensor_closes_source_states_to_the_bit(family, attention):
    model, source, target = attached(family, attention), source_of(family), ids(2, TARGET, seed=1)
    states = model.get_encoder()(**source)
    size = states[0].shape[1]
    allowed = torch.rand(2, TARGET, size, generator=torch.Generator().manual_seed(2)) > 0.6
    allowed[:, 0, 0] = True
    reached = allowed.cummax(1).values  # what an earlier token saw, a later one has from it
    padding = {} if has(family, "audio") else {"attention_mask": torch.ones(2, size, dtype=torch.long)}
    call = {"decoder_input_ids": target, "encoder_outputs": states, **padding}
    before = model(**call, cross_mask=allowed).logits
    own = states.last_hidden_state.clone()
    for position in range(0, size, 2):
        states.last_hidden_state = own.clone()
        states.last_hidden_state[:, position] += 3
        after = model(**call, cross_mask=allowed).logits
        changed = (before != after).any(-1)
        if has(family, "window"):  # by which a later token has lost sight of an earlier one
            assert not (changed & ~reached[:, :, position]).any()
        elif not has(family, "rows"):
            assert torch.equal(changed, reached[:, :, position])
        close(after[~reached[:, :, position]], before[~reached[:, :, position]])


@each_family
def test_every_influence_is_one_that_is_allowed(family):
    if has(family, "audio"):
        pytest.skip("the audit measures from ids")
    model = attached(family, FAMILIES[family].attention[0], decoder_mask="window(2)", **masks_for(family))
    batch = {"input_ids": ids(1, 7), "decoder_input_ids": ids(1, 4, seed=1)}
    padding = torch.tensor([[1] * 6 + [0]])
    if has(family, "encoder"):
        leaks = audit(model, batch, encoder_mask="full()").leaks
        assert not leaks
        return
    report = audit(model, {**batch, "attention_mask": padding})
    assert report.ok, report
    assert not report.source.unused.any()
    assert not report.target.unused.any()
    detach(model)
    assert audit(model, batch, encoder_mask="causal()", cross_mask="wait_k(2)").leaks


@each_family
@torch.no_grad()
def test_heads_and_layers_have_masks_of_their_own(family):
    model = attached(family, "eager", cross_mask={0: "heads({0: window(1), 'rest': full()})", 1: "drop((0, 3))"})
    outputs = model(**source_of(family), decoder_input_ids=ids(2, TARGET, seed=1), output_attentions=True)
    first, second = outputs.cross_attentions
    assert first.shape[1] == HEADS
    distance = torch.arange(first.shape[-1]) - torch.arange(TARGET)[:, None]
    outside = (distance.abs() > 1).expand(2, -1, -1)
    assert first[:, 0][outside].max() == 0
    assert (first[:, 1:] > 0).all()
    assert (second[..., :3] == 0).all()
    assert (second[..., 3:] > 0).all()


@each_family
@torch.no_grad()
def test_sdpa_and_eager_are_the_same_under_masks(family):
    if len(FAMILIES[family].attention) == 1:
        pytest.skip("Transformers has one attention implementation for this family")
    source, target = source_of(family), ids(2, TARGET, seed=1)
    given = {**source, "decoder_input_ids": target, **masks_for(family), "decoder_mask": "window(1)"}
    close(*(attached(family, attention)(**given).logits for attention in FAMILIES[family].attention))


@each_case
@torch.no_grad()
def test_wait_k_with_a_causal_encoder_is_what_is_computed_incrementally(family, attention):
    if has(family, "audio", "encoder"):
        pytest.skip("its encoder looks ahead whatever the mask")
    model, source, target = attached(family, attention), ids(1, SOURCE), ids(1, TARGET, seed=1)
    given = {"encoder_mask": "causal()", "cross_mask": "wait_k(2)"}
    at_once = model(input_ids=source, decoder_input_ids=target, **given).logits
    assert not torch.equal(at_once, model(input_ids=source, decoder_input_ids=target).logits)
    for step in range(TARGET):
        so_far = model(input_ids=source[:, : step + 2], decoder_input_ids=target[:, : step + 1], **given).logits
        close(at_once[:, step], so_far[:, -1])


@each_case
@torch.no_grad()
def test_a_blind_span_shows_nowhere_or_is_refused(family, attention):
    if has(family, "audio", "encoder"):
        pytest.skip("its encoder looks at the span whatever the mask")
    model, source, target = attached(family, attention), ids(2, SOURCE), ids(2, TARGET, seed=1)
    given = {"encoder_mask": "blind((2, 5))", "cross_mask": "blind((2, 5))", "decoder_input_ids": target}
    if has(family, "blind"):
        with pytest.raises(MaskError, match="must be without blind spans on this model, since"):
            model(input_ids=source, **given)
        return
    changed = source.clone()
    changed[:, 2:5] = torch.tensor([1, 2, 3])  # padding among them
    padding = torch.ones_like(source)  # or BERT's wrapper takes it as padding
    results = [model(input_ids=each, attention_mask=padding, **given).logits for each in (source, changed)]
    assert torch.equal(*results)
    given.pop("decoder_input_ids")
    options = {"attention_mask": padding, "num_beams": 2, **given, **OPTIONS}
    tokens = [model.generate(each, **options) for each in (source, changed)]
    assert torch.equal(*tokens)
    assert not torch.equal(results[0], model(input_ids=source, decoder_input_ids=target).logits)
    with pytest.raises(MaskError, match="encoder_mask must have blind"):
        model(input_ids=source, decoder_input_ids=target, cross_mask="blind((2, 5))")


@each_case
@torch.no_grad()
def test_a_query_with_nothing_to_see_gets_zero(family, attention):
    model, source, target = attached(family, attention), source_of(family), ids(2, TARGET, seed=1)
    size = model.get_encoder()(**source)[0].shape[1]
    closed = torch.ones(2, TARGET, size, dtype=torch.bool)
    closed[:, 3] = False
    inputs = []
    modules = model.attachment.attentions.cross
    hooks = []
    for module in modules:
        projection = next((child for name, child in module.named_children() if name in OUTPUTS), None)
        if projection is None:  # BERT has it in another module
            hooks.append(module.register_forward_hook(lambda module, args, output: inputs.append(output[0])))
        else:
            hooks.append(projection.register_forward_pre_hook(lambda module, args: inputs.append(args[0])))
    of_target = torch.ones(2, TARGET, TARGET, dtype=torch.bool)
    of_target[:, 3] = False
    given = {"decoder_mask": of_target} if model.attachment.attentions.merged else {}
    outputs = model(**source, decoder_input_ids=target, cross_mask=closed, **given)
    assert outputs.logits.isfinite().all()
    assert len(inputs) == len(modules)
    for states in inputs:
        assert (states[:, 3] == 0).all()
        assert (states[:, 2] != 0).any()
    for hook in hooks:
        hook.remove()
    if attention == "eager":
        outputs = model(**source, decoder_input_ids=target, cross_mask=closed, **given, output_attentions=True)
        assert all((weights[:, :, 3] == 0).all() for weights in outputs.cross_attentions)


OUTPUTS = ("out_proj", "o_proj", "o", "c_proj")


@each_case
@torch.no_grad()
def test_cached_uncached_beams_rows_and_static_caches_write_the_same(family, attention):
    model, source = attached(family, attention), source_of(family)
    size = model.get_encoder()(**source)[0].shape[1]
    tensor = torch.rand(2, 1, TARGET + 1, size, generator=torch.Generator().manual_seed(3)) > 0.5
    target = ids(2, TARGET, seed=1)
    for given in (masks_for(family), {"cross_mask": tensor[:, :, :TARGET]}, {"decoder_mask": "window(1)"}):
        logits = [model(**source, decoder_input_ids=target, **each).logits for each in (given, {})]
        assert not torch.equal(*logits)
    for given in (masks_for(family), {"cross_mask": tensor}, {"decoder_mask": "window(1)", "cross_mask": "window(2)"}):
        for beams in (1, 3):
            check_same_generation(
                model, source, {**given, "num_beams": beams}, {**given, "num_beams": beams, "use_cache": False}
            )
    given = masks_for(family)
    rows = [{name: value[row : row + 1] for name, value in source.items()} for row in range(2)]
    together, _ = scores_of(model, source, num_beams=3, num_return_sequences=2, **given)
    alone = [scores_of(model, row, num_beams=3, num_return_sequences=2, **given)[0] for row in rows]
    assert torch.equal(together, torch.cat(alone))
    if not has(family, "static"):
        check_same_generation(model, source, given, {**given, "cache_implementation": "static"})


@each_family
@torch.no_grad()
def test_sampled_and_assisted_decoding(family):
    model, source = attached(family), source_of(family)
    given = masks_for(family)
    sampled = []
    for use_cache in (True, False):
        torch.manual_seed(0)
        sampled.append(scores_of(model, source, **given, use_cache=use_cache, do_sample=True)[0])
    assert torch.equal(*sampled)
    if has(family, "static", "window") or "whisper" in family:
        return  # Transformers cannot take tokens back from their caches, or has a loop of its own
    one = {name: value[:1] for name, value in source.items()}
    plainly = model.generate(**one, **given, **OPTIONS)
    assert torch.equal(plainly, model.generate(**one, **given, **OPTIONS, assistant_model=attached(family)))
    assert torch.equal(plainly, model.generate(**one, **given, **OPTIONS, prompt_lookup_num_tokens=2))


@each_family
@torch.no_grad()
def test_a_target_that_outgrows_a_tensor_is_refused(family):
    model, source = attached(family), source_of(family)
    size = model.get_encoder()(**source)[0].shape[1]
    tensor = torch.ones(2, 3, size, dtype=torch.bool)
    tensor[:, :, 0] = False
    for beams in (1, 3):
        with pytest.raises(MaskError, match="cross_mask must have a row for each of 4 decoder tokens, got 3"):
            model.generate(**source, cross_mask=tensor, num_beams=beams, **OPTIONS)
    repeated = masks.tensor(tensor, repeat_last=True)
    rule = model.generate(**source, cross_mask="drop((0, 1))", **OPTIONS)
    assert torch.equal(model.generate(**source, cross_mask=repeated, **OPTIONS), rule)


@each_family
@torch.no_grad()
def test_padded_rows_equal_rows_alone_under_masks(family):
    if has(family, "audio", "encoder"):
        pytest.skip("its encoder has no padding, or blocks that padding shifts")
    model = attached(family, **masks_for(family))
    short, long, target = ids(1, 5), ids(1, SOURCE, seed=1), ids(2, TARGET, seed=2)
    source = torch.cat([torch.nn.functional.pad(short, (0, 4), value=1), long])
    mask = torch.tensor([[1] * 5 + [0] * 4, [1] * SOURCE])
    both = model(input_ids=source, attention_mask=mask, decoder_input_ids=target).logits
    close(both[:1], model(input_ids=short, decoder_input_ids=target[:1]).logits)
    close(both[1:], model(input_ids=long, decoder_input_ids=target[1:]).logits)
