"""A pipeline that is given a model for another kind of task, or none, says so in one line."""

import pytest
from causal_lms import causal_lm
from head_cases import head
from question_cases import tiny_reader, tiny_tokenizer
from streaming_cases import tiny
from tiny_encoders import encoder_config
from transformers import BertForSequenceClassification, BertModel, pipeline

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
