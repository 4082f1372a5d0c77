"""A pipeline that is given a model for another kind of task, or none, says so in one line."""

import pytest
from causal_lms import causal_lm
from head_cases import head
from question_cases import tiny_reader, tiny_tokenizer
from streaming_cases import tiny
from tiny_encoders import encoder_config
from transformers import BertForSequenceClassification, BertModel, T5Config, T5ForConditionalGeneration, pipeline

from crossmask import attach
from crossmask.pipelines import PipelineInputError

MODELS = {
    "ForConditionalGeneration": lambda: tiny()[0],
    "ForSequenceClassification": lambda: BertForSequenceClassification(encoder_config("bert")),
    "ForTokenClassification": lambda: head("bert, tags"),
    "ForQuestionAnswering": lambda: tiny_reader(False)[0],
}
TASKS = {
    "text2text-generation": ["ForConditionalGeneration"],
    "translation": ["ForConditionalGeneration"],
    "summarization": ["ForConditionalGeneration"],
    "question-answering": ["ForConditionalGeneration", "ForQuestionAnswering"],
    "text-classification": ["ForSequenceClassification"],
    "semantic-role-labeling": ["ForTokenClassification"],
}


@pytest.mark.parametrize("task", TASKS)
def test_a_model_of_another_kind_is_refused(task):
    for kind, model in MODELS.items():
        if kind not in TASKS[task]:
            with pytest.raises(PipelineInputError, match=rf"model must be one {TASKS[task][-1]}, got \w+{kind}; give"):
                pipeline(f"crossmask-{task}", model=model(), tokenizer=tiny_tokenizer(), device="cpu")
    for model in (BertModel(encoder_config("bert")), causal_lm("llama")):
        with pytest.raises(PipelineInputError, match=rf"model must be one {TASKS[task][-1]}|{TASKS[task][0]}, got"):
            pipeline(f"crossmask-{task}", model=model, tokenizer=tiny_tokenizer(), device="cpu")
    with pytest.raises(PipelineInputError, match=r"model must be given, .*, got none"):
        pipeline(f"crossmask-{task}")


@pytest.mark.parametrize("task", ["translation", "summarization", "text2text-generation", "question-answering"])
def test_masks_for_a_model_that_takes_none_are_refused_by_name(task):
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    tokenizer = tiny_tokenizer()
    model = T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer), decoder_start_token_id=0, **sizes))
    item, template = {"text": "ann sits"}, {}
    if task == "question-answering":
        item, template = {"question": "who", "context": "ann sits"}, {"source_template": "{question} {context}"}
    options = {"tokenizer": tokenizer, "device": "cpu", "max_new_tokens": 2, **template}
    pipe, message = pipeline(f"crossmask-{task}", model=model, **options), r"takes no masks; attach\(model\) makes"
    with pytest.raises(PipelineInputError, match=rf"cross_mask must be left out with T5.*, which {message}"):
        pipe(item, cross_mask="full()")
    with pytest.raises(PipelineInputError, match=rf"inputs\[1\]: encoder_mask must be left out .* {message}"):
        pipe([item, {**item, "encoder_mask": "window(1)"}])
    attached = pipeline(f"crossmask-{task}", model=attach(model), **options)
    assert attached([item, {**item, "encoder_mask": "window(1)"}])
