"""Answers that are written, and quoted: training, evaluation, pipelines and commands give the same ones."""

import io
import json
import sys
from pathlib import Path

import pytest
import yaml
from tiny_encoders import encoder_config
from training_jobs import job_of
from transformers import BertModel, pipeline

from crossmask.cli.main import main
from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.hub.registration import register
from crossmask.seq2seq.sentences import sentence_spans
from crossmask.server import load_served_model
from crossmask.training.run import execute

CONTEXTS = ("ann is in the garden. bob sits near carl.", "dora left the kitchen, and carl is there. ann and bob left.")
PLAIN = ["--device", "cpu", "--dtype", "float32", "--quiet"]
pytestmark = pytest.mark.usefixtures("without_drawing")
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
MODELS = {
    "own": {
        "model": {**SIZES, "encoder_layers": 1, "decoder_layers": 1},
        "tokenizer": {"vocab_size": 300},
        "task_options": {"quote": "answer", "rationale_sentence": True, "no_answer": "nobody knows"},
    },
    "bridge": {
        "model": {"decoder": {"model_type": "llama", **SIZES, "hidden_size": 32, "num_hidden_layers": 1}},
        "share_embeddings": True,
        "task_options": {"quote": "answer", "rationale_sentence": True, "no_answer": "nobody knows"},
    },
    "t5": {
        "model": {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2},
        "tokenizer": {"vocab_size": 300},
        "task_options": {"quote": "answer", "rationale_sentence": True, "no_answer": "nobody knows"},
    },
}  # fmt: skip
MODELS["sentences"] = {**MODELS["own"], "task_options": {"quote": "sentences", "rationale_column": "support"}}
MODELS["bridge with cached states"] = {**MODELS["bridge"], "freeze": ["encoder"], "cache_encoder": True}


def sentences_of(context):
    return [context[first:last] for first, last in sentence_spans(context)]


def recipe_file(folder: Path, name: str) -> str:
    paragraphs = [
        {
            "context": context,
            "qas": [
                {"question": f"where is {name}", "answers": [{"text": name, "answer_start": context.index(name)}]}
                for name in ("ann", "bob", "carl")
            ]
            + [{"question": "where is the garden near", "answers": [], "is_impossible": True}],
        }
        for context in CONTEXTS
    ]
    (folder / "squad.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    data = {"format": "squad", "path": str(folder / "squad.json")}
    if name == "sentences":
        rows = [
            {"question": f"where is {name}", "context": context, "answer": "here", "support": sentences_of(context)[0]}
            for context in CONTEXTS
            for name in ("ann", "bob")
        ]
        (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        data = {"format": "jsonl", "path": str(folder / "rows.jsonl")}
    given = dict(MODELS[name])
    if name.startswith("bridge"):
        tokenizer = train_tokenizer([*CONTEXTS, "Answer: "], vocab_size=300, special_tokens=["<sep>"])
        config = encoder_config("bert")
        config.vocab_size, config.max_position_embeddings = len(tokenizer), 128
        for part in (BertModel(config), tokenizer):
            part.save_pretrained(folder / "encoder")
        given["encoder_name_or_path"] = str(folder / "encoder")
    recipe = {
        "task": "question-answering", "train": data, "validation": data, "test": data, **given,
        "max_source_length": 128, "max_target_length": 100, "overlong": "drop", "generation": {"max_new_tokens": 100},
        "max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 0.01, "eval_strategy": "no",
        "save_strategy": "no", "load_best_model_at_end": False, "disable_tqdm": True, "report_to": [],
        "output_dir": str(folder / "run"),
    }  # fmt: skip
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return str(path)


def squeezed(text):
    return "".join(text.split())


def assert_scores_agree(run: Path, data: Path, names: tuple[str, ...], capsys) -> None:
    """`crossmask evaluate` gives the scores of the run that made the model."""
    capsys.readouterr()
    given = ["--task", "question-answering", "--data", str(data), "--json", *PLAIN]
    assert main(["evaluate", str(run), *given]) == 0
    scores, metrics = json.loads(capsys.readouterr().out), json.loads((run / "metrics.json").read_text())
    for name in names:
        assert scores[name] == pytest.approx(metrics[name])


def answers_of_command(folder: str, questions: list[dict[str, str]], monkeypatch, capsys) -> list[str]:
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(map(json.dumps, questions)).encode())))
    assert main(["answer", folder, *PLAIN]) == 0
    return capsys.readouterr().out.splitlines()


def answers_of_server(folder: str, questions: list[dict[str, str]]) -> list[dict[str, str]]:
    served = load_served_model(folder, task="question-answering", device="cpu", dtype="float32")
    encoded = served.encode([(question["question"], question["context"]) for question in questions])
    assert sum(one.tokens for one in encoded) > 60  # several batches, whose texts are sorted by length
    return served.run([one.payload for one in encoded], 60)


def test_reasons_are_the_same_everywhere(tmp_path, capsys, monkeypatch):
    register()
    execute(job_of(recipe_file(tmp_path, "sentences")))
    folder, rows = str(tmp_path / "run"), (tmp_path / "rows.jsonl").read_text().splitlines()
    written = [
        json.loads(line)["prediction"] for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()
    ]
    questions = [{key: json.loads(row)[key] for key in ("question", "context")} for row in rows]
    answers = pipeline("question-answering", model=folder, device="cpu")(questions, batch_size=3)
    for text, answer, question in zip(written, answers, questions, strict=True):
        chain = squeezed(answer.get("rationale", ""))
        for sentence in sentences_of(question["context"]):
            chain = chain.replace(squeezed(sentence), "", 1)
        assert chain == ""
        assert text.endswith(answer["answer"])
    assert_scores_agree(tmp_path / "run", tmp_path / "rows.jsonl", ("f1", "loss"), capsys)
    assert answers_of_command(folder, questions, monkeypatch, capsys) == [answer["answer"] for answer in answers]
    assert answers_of_server(folder, questions) == answers


@pytest.mark.parametrize("name", [name for name in MODELS if name != "sentences"])
def test_quoted_answers_are_the_same_everywhere(tmp_path, name, capsys, monkeypatch):
    register()
    execute(job_of(recipe_file(tmp_path, name)))
    folder = str(tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics.keys() >= {"HasAns_f1", "NoAns_f1"}
    rows = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    questions = [
        {"question": question["question"], "context": paragraph["context"]}
        for paragraph in json.loads((tmp_path / "squad.json").read_text())["data"][0]["paragraphs"]
        for question in paragraph["qas"]
    ]
    assert len(rows) == len(questions) == 8

    answers = pipeline("question-answering", model=folder, device="cpu")(questions, batch_size=3)
    none = MODELS[name]["task_options"]["no_answer"]
    for row, answer, question in zip(rows, answers, questions, strict=True):
        written = answer["answer"]
        if "rationale" in answer:
            assert squeezed(answer["rationale"]) in map(squeezed, sentences_of(question["context"]))
            assert written
            assert squeezed(written) in squeezed(answer["rationale"])
        else:
            assert written == ""
        assert row["prediction"].endswith(written or none)

    assert_scores_agree(tmp_path / "run", tmp_path / "squad.json", ("f1", "NoAns_f1"), capsys)
    assert answers_of_command(folder, questions, monkeypatch, capsys) == [answer["answer"] for answer in answers]
    assert answers_of_server(folder, questions) == answers
