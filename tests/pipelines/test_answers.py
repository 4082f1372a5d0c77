"""Pipelines that answer questions: by a span of the context, or by what the decoder writes."""

import pytest
import torch
from question_cases import tiny_reader, tiny_tokenizer
from streaming_cases import tiny
from tiny_encoders import encoder_config
from transformers import BertForQuestionAnswering, pipeline

from crossmask import answer, answer_batch
from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.pipelines import GeneratedAnswersPipeline, PipelineInputError, QuestionAnsweringPipeline

CONTEXTS = (
    "bob left . ann is in the garden",
    "ann is in the kitchen\nbob sits near carl\ndora left",
    "ann is in the garden . bob left . " * 20,
)
ITEMS = [{"question": "where is ann ?", "context": context} for context in CONTEXTS]
WINDOWS = {"max_seq_len": 40, "doc_stride": 10}


def reader(no_answer: bool):
    model, tokenizer = tiny_reader(no_answer)
    return pipeline("question-answering", model=model, tokenizer=tokenizer, device="cpu")


@pytest.mark.parametrize("no_answer", [False, True])
def test_answers_are_those_of_answer_batch(no_answer):
    pipe = reader(no_answer)
    assert type(pipe) is QuestionAnsweringPipeline
    questions = [item["question"] for item in ITEMS]
    options = {"n_best": 3, "max_length": 40, "stride": 10, "max_answer_length": 15}
    wanted = answer_batch(pipe.model, pipe.tokenizer, questions, CONTEXTS, **options)
    for found in (
        pipe(ITEMS, top_k=3, batch_size=4, **WINDOWS),
        pipe(question=questions, context=list(CONTEXTS), top_k=3, **WINDOWS),
        [pipe(item, top_k=3, **WINDOWS) for item in ITEMS],
        list(pipe((item for item in ITEMS), top_k=3, batch_size=2, **WINDOWS)),
    ):
        for answers, others in zip(found, wanted, strict=True):
            for one, other in zip(answers, others, strict=True):
                assert list(one) == ["score", "start", "end", "answer"]
                assert (one["answer"], one["start"], one["end"]) == (other.text, other.start, other.end)
                assert one["score"] == pytest.approx(other.score, abs=1e-5)


def test_one_question_gives_one_answer():
    pipe = reader(False)
    found = pipe(question="where is ann ?", context=CONTEXTS[0])
    assert found["answer"] == CONTEXTS[0][found["start"] : found["end"]]
    assert pipe(ITEMS[:1]) == [found]
    assert pipe(question=["where is ann ?"] * 2, context=CONTEXTS[0]) == [found, found]
    assert pipe([]) == []


@pytest.mark.parametrize("batch_size", [1, 3])
def test_passages_and_hidden_spans_belong_to_their_own_item(batch_size):
    pipe = reader(False)
    items = [ITEMS[1], {**ITEMS[1], "passages": [1]}, {**ITEMS[1], "hidden": [(0, 3)]}]
    found = pipe(items, batch_size=batch_size)
    options = [{}, {"passages": [1]}, {"hidden": [(0, 3)]}]
    for one, masks in zip(found, options, strict=True):
        other = answer(pipe.model, pipe.tokenizer, **ITEMS[1], max_answer_length=15, **masks)
        assert (one["answer"], one["start"]) == (other.text, other.start)
        assert one["score"] == pytest.approx(other.score, abs=1e-5)
    assert 22 <= found[1]["start"] < found[1]["end"] <= 40


def test_whether_there_is_no_answer():
    pipe = reader(True)
    found = pipe(ITEMS, top_k=4)
    assert any(one["answer"] == "" and one["start"] is None for answers in found for one in answers)
    without = pipe(ITEMS, top_k=4, handle_impossible_answer=False)
    assert all(one["answer"] for answers in without for one in answers)
    with pytest.raises(PipelineInputError, match="handle_impossible_answer must not be True for a model with no_ans"):
        reader(False)(ITEMS[0], handle_impossible_answer=True)


def test_models_of_transformers_score_no_answer_by_their_first_token():
    torch.manual_seed(0)
    config = encoder_config("bert")
    config.vocab_size = len(tiny_tokenizer())
    model = BertForQuestionAnswering(config)
    pipe = pipeline("question-answering", model=model, tokenizer=tiny_tokenizer(), device="cpu")
    assert not model.training
    assert pipe(ITEMS[0])["answer"]
    torch.nn.init.zeros_(model.qa_outputs.weight)
    with torch.no_grad():
        inputs = tiny_tokenizer()("where is ann ?", CONTEXTS[0], return_tensors="pt")
        outputs = model(**inputs)
    every = pipe(ITEMS[0], top_k=1000, handle_impossible_answer=True)
    assert outputs.start_logits.std() < 1e-6
    # Where all tokens score the same, no answer is as likely as each span.
    assert {round(one["score"], 5) for one in every} == {round(1 / len(every), 5)}
    with pytest.raises(PipelineInputError, match="must have no other keys than 'question', 'context', got 'passages'"):
        pipe({**ITEMS[0], "passages": [0]})


BAD = {
    "no context": ({"question": "a"}, "the input must have 'context', got 'question'; add it"),
    "empty": ([{"question": "", "context": "a"}], r"inputs\[0\]: 'question' must have something in it"),
    "bytes": ([ITEMS[0], {"question": "a", "context": b"x"}], r"inputs\[1\]: 'context' must be text, got bytes"),
    "text": ("where ?", "the input must be {'question': ..., 'context': ...}, got str"),
    "passage": ([{**ITEMS[0], "passages": [4]}], r"inputs\[0\]: .*there is no passage 4"),
    "hidden": ([{**ITEMS[0], "hidden": [(9, 4)]}], r"inputs\[0\]: .*a span must be"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_named(name):
    inputs, message = BAD[name]
    with pytest.raises(PipelineInputError, match=message):
        reader(False)(inputs)


def test_questions_and_contexts_that_do_not_pair_up():
    with pytest.raises(PipelineInputError, match="one text, or one for each of 2 questions, got 1"):
        reader(False)(question=["a", "b"], context=["c"])
    with pytest.raises(PipelineInputError, match="question and context must be given together"):
        reader(False)(question="a")


@pytest.fixture(scope="module")
def writer():
    """An encoder-decoder, and a tokenizer with the separator of the task."""
    model, _ = tiny()
    tokenizer = train_tokenizer([*CONTEXTS, "two cats"], vocab_size=400, special_tokens=["<sep>"])
    return model, tokenizer


def test_a_decoder_writes_its_answers(writer):
    model, tokenizer = writer
    pipe = pipeline("question-answering", model=model, tokenizer=tokenizer, device="cpu", max_new_tokens=6)
    assert type(pipe) is GeneratedAnswersPipeline

    def by_hand(source, **options):
        output = model.generate(**tokenizer([source], return_tensors="pt"), max_new_tokens=6, **options)
        return {"answer": tokenizer.decode(output[0], skip_special_tokens=True).strip()}

    wanted = [by_hand(f"{item['question']}<sep> {item['context']}") for item in ITEMS[:2]]
    assert pipe(ITEMS[:2], batch_size=2) == wanted
    assert pipe(**ITEMS[0]) == wanted[0]
    assert len(pipe(ITEMS[0], num_beams=2, num_return_sequences=2)) == 2
    masked = by_hand(f"{ITEMS[0]['question']}<sep> {ITEMS[0]['context']}", cross_mask="window(1)")
    assert pipe([{**ITEMS[0], "cross_mask": "window(1)"}]) == [masked]
    turned = pipeline(
        "question-answering", model=model, tokenizer=tokenizer, device="cpu", max_new_tokens=6,
        source_template="{context}<sep> {question}",
    )  # fmt: skip
    assert turned(ITEMS[0]) == by_hand(f"{ITEMS[0]['context']}<sep> {ITEMS[0]['question']}")


def test_what_an_answer_follows_from_is_left_out(writer):
    model, tokenizer = writer
    pipe = pipeline("question-answering", model=model, tokenizer=tokenizer, device="cpu")
    written = "Ann went to the garden. Answer: garden"
    assert pipe.result(written) == {"answer": "garden", "rationale": "Ann went to the garden."}
    assert pipe.result("she went . answer : the garden") == {"answer": "the garden", "rationale": "she went ."}
    assert pipe.result("Answer: garden") == pipe.result("garden") == {"answer": "garden"}


def test_a_saved_model_says_how_its_sources_are_made(writer, tmp_path):
    model, _ = writer
    template = "{context}<sep> {question}"
    model.config.task_specific_params = {"question-answering": {"source_template": template}}
    for part in writer:
        part.save_pretrained(tmp_path)
    del model.config.task_specific_params
    pipe = pipeline("question-answering", model=str(tmp_path), device="cpu")
    assert pipe.source_template == template


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source_template": "{question}"}, "source_template must have {question} and {context} and nothing else"),
        ({"overlong": "split"}, "overlong must be error or truncate for questions, got 'split'"),
    ],
)
def test_options_that_do_not_fit(writer, options, message):
    model, tokenizer = writer
    with pytest.raises(PipelineInputError, match=message):
        pipeline("question-answering", model=model, tokenizer=tokenizer, device="cpu", **options)


def test_a_template_is_needed_where_the_tokenizer_has_no_separator():
    model, tokenizer = tiny()
    with pytest.raises(PipelineInputError, match="source_template must be given for a tokenizer without <sep>"):
        pipeline("question-answering", model=model, tokenizer=tokenizer, device="cpu")


def test_options_of_transformers_4():
    pipe = reader(False)
    item = pipe.create_sample(question="where is ann ?", context="bob left.ann is in the gardenkitchen near dora")
    assert pipe.create_sample(question=["a", "b"], context="c") == [
        {"question": "a", "context": "c"},
        {"question": "b", "context": "c"},
    ]
    plain, whole = (pipe(item, top_k=4, align_to_words=align) for align in (False, True))
    assert plain != whole
    spaced = f" {item['context']} "
    for one, aligned in zip(plain, whole, strict=True):
        start, end = aligned["start"], aligned["end"]
        assert start <= one["start"] < one["end"] <= end
        assert aligned["answer"] == item["context"][start:end]
        assert spaced[start] == spaced[end + 1] == " "
    cut = pipe({**item, "question": "where is"}, top_k=4)
    assert pipe(item, top_k=4, max_question_len=2) == cut != plain
    assert pipe(item, top_k=4, max_question_len=99) == plain


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"source_template": "{question} {context}"},
            r"options must be among top_k, .*, got .source_template.",
        ),
        ({"padding": True}, "got 'padding'"),
        ({"num_beams": 2}, "got 'num_beams'"),
        ({"max_question_len": 0}, "max_question_len must be at least 1, got 0"),
    ],
)
def test_options_that_nothing_takes_are_refused(options, message):
    pipe = reader(False)
    with pytest.raises(PipelineInputError, match=message):
        pipe(ITEMS[0], **options)
    with pytest.raises(PipelineInputError, match=message):
        pipeline("question-answering", model=pipe.model, tokenizer=pipe.tokenizer, device="cpu", **options)


@pytest.mark.parametrize("stride", [-1, 40])
def test_a_stride_that_leaves_no_window_is_refused(stride):
    with pytest.raises(PipelineInputError, match=f"doc_stride must be from 0 to below max_seq_len, 40, got {stride}"):
        reader(False)(ITEMS[2], max_seq_len=40, doc_stride=stride)
