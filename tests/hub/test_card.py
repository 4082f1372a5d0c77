"""The model card: its metadata, its parts, and the snippet in it, which runs."""

import re

import pytest
from huggingface_hub import ModelCard
from new_process import run_code

from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.hub.card import CardFacts, Result, Sample, render_card, write_card

LINES = ["say hello to the house", "the house is small", 'he said "no"']


def facts(**changes) -> CardFacts:
    given = {
        "name": "tiny-en-de",
        "location": "tester/tiny-en-de",
        "summary": "Translates short English lines into German.",
        "task": "translation",
        "example": LINES[0],
        "example_output": "sag *hallo*",
        "max_new_tokens": 5,
        "training_data": "Three lines.",
        "masks": {
            "encoder": "full()",
            "decoder": "causal()",
            "cross": {"0": "wait_k(2) | prefix(1)", "rest": "full()"},
        },
        "architecture": {"width": 16, "encoder layers": 2},
        "parameters": 12345,
        "recipe": "tiny",
        "recipe_text": "task: translation\nseed: 7\n",
        "command": "python train.py recipes/tiny.yaml --seed 7",
        "seed": 7,
        "seconds": 3725.4,
        "hardware": "2 CPU cores",
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "results": [
            Result(
                dataset="Tiny en-de",
                split="test",
                metric="sacrebleu",
                name="sacreBLEU",
                value=35.126,
                signature="nrefs:1|case:mixed",
            ),
            Result(dataset="Tiny en-de", split="test", metric="chrf", name="chrF", value=60.0),
        ],
        "samples": [Sample(source="a | b\n<c>", reference="*x*", output="[y](z)")],
        "images": {"curve.png": "Learning curve"},
        "languages": ["en", "de"],
        "datasets": ["tester/tiny"],
        "tags": ["wait-k"],
    }
    return CardFacts(**{**given, **changes})


PATTERN = [
    r"^---\n.*\n---\n",
    r"# tiny-en-de\n\nTranslates short English lines into German\.\n",
    r"12,345 parameters",
    r"## Use\n\n```python\nfrom transformers import AutoModelForSeq2SeqLM, AutoTokenizer\n\n",
    r"name = \"tester/tiny-en-de\"\n",
    r"trust_remote_code=True\)\n.*max_new_tokens=5\)\n.*```\n\nThis model answers: sag &#42;hallo&#42;\n",
    r"## Masks in force\n\n\| scope \| mask \|\n\|---\|---\|\n",
    r"\| encoder \| <code>full\(\)</code> \|\n\| decoder \| <code>causal\(\)</code> \|\n\| cross ",
    r"\| layers 0: <code>wait&#95;k\(2\) &#124; prefix\(1\)</code><br>layers rest: <code>full\(\)</code> \|\n\n",
    r"## Architecture\n.*\| width \| 16 \|\n\| encoder layers \| 2 \|\n\n",
    r"## Training data\n\nThree lines\.\n\n",
    r"## Training\n\nRecipe `tiny`, seed 7, 1 h 2 min on 2 CPU cores\.\n\n",
    r"```bash\npython train\.py recipes/tiny\.yaml --seed 7\n```\n",
    r"```yaml\ntask: translation\nseed: 7\n```\n",
    r"\| torch \| 2\.13\.0 \|\n\| transformers \| 5\.23\.0 \|\n\n",
    r"!\[Learning curve\]\(curve\.png\)\n\n",
    r"## Results\n\n\| data \|.*\n\|---\|---\|---\|---:\|---\|\n",
    r"\| Tiny en-de \| test \| sacreBLEU \| 35\.13 \| <code>nrefs:1&#124;case:mixed</code> \|\n",
    r"\| Tiny en-de \| test \| chrF \| 60\.00 \|  \|\n\n",
    r"## Samples\n.*\| a &#124; b<br>&#60;c&#62; \| &#42;x&#42; \| &#91;y&#93;\(z\) \|\n\n",
    r"## Limits\n\n- Trained for translation on the data named above; nothing else was tested\.\n"
    r"- Its output is not checked by anything; read it before you rely on it\.$",
]


def test_the_card_holds_every_fact_in_its_place(tmp_path):
    (tmp_path / "curve.png").write_bytes(b"png")
    text = write_card(tmp_path, facts()).read_text()
    assert re.search(".*?".join(PATTERN), text.rstrip("\n"), re.DOTALL), text
    assert "{{" not in text
    assert "{%" not in text
    assert "\n\n\n" not in text


def test_the_license_is_the_one_that_is_given():
    assert ModelCard(str(render_card(facts(license="cc-by-4.0")))).data.license == "cc-by-4.0"


def test_the_metadata_is_what_the_hub_reads(tmp_path):
    (tmp_path / "curve.png").write_bytes(b"png")
    data = ModelCard.load(write_card(tmp_path, facts())).data
    assert data.library_name == "transformers"
    assert data.license is None
    assert data.pipeline_tag == "translation"
    assert data.language == ["en", "de"]
    assert data.datasets == ["tester/tiny"]
    assert data.metrics == ["sacrebleu", "chrf"]
    assert data.tags == ["crossmask", "encoder-decoder", "custom_code", "wait-k"]
    assert data.model_name == "tiny-en-de"
    first, second = data.eval_results
    assert (first.metric_type, first.metric_value, first.dataset_name, first.dataset_split) == (
        "sacrebleu",
        35.126,
        "Tiny en-de",
        "test",
    )
    assert (second.metric_type, second.metric_value) == ("chrf", 60.0)


def test_what_was_not_measured_or_drawn_is_left_out():
    text = str(render_card(facts(results=[], samples=[], images=None, example_output=None, languages=[], datasets=[])))
    assert "## Results\n\nNot measured.\n\n## Limits" in text
    assert "## Samples" not in text
    assert "![" not in text
    assert "This model answers" not in text
    assert "Trained for translation on the data named above" in text
    assert "model-index" not in text.split("---")[1]


def test_a_picture_that_is_not_there_leaves_the_old_card(tmp_path):
    (tmp_path / "README.md").write_text("old")
    with pytest.raises(FileNotFoundError, match=r"curve\.png must exist, since the card shows it"):
        write_card(tmp_path, facts())
    assert (tmp_path / "README.md").read_text() == "old"


def test_a_number_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"chrF on x \(test\) must be a finite number, got nan"):
        facts(results=[Result(dataset="x", split="test", metric="chrf", name="chrF", value=float("nan"))])


def test_text_with_template_marks_and_quotes_stays_text():
    example = 'say "{{ facts.seed }}" \\ \nand go'
    text = str(render_card(facts(example=example, training_data="{% for %}", samples=[])))
    snippet = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    literal = re.search(r"tokenizer\(\[(.*)\], return", snippet)[1]
    assert eval(literal) == example
    assert "{% for %}" in text


def test_the_snippet_runs_where_crossmask_is_not_imported(model, tmp_path):
    folder = tmp_path / "run"
    model.save_pretrained(folder)
    train_tokenizer(LINES * 20, vocab_size=300).save_pretrained(folder)
    path = write_card(folder, facts(location=str(folder), example=LINES[2], images=None))
    snippet = re.search(r"```python\n(.*?)```", path.read_text(), re.DOTALL)[1]
    printed = run_code(snippet, cwd=tmp_path)
    assert re.fullmatch(r"\[['\"].*['\"]\]", printed.strip()), printed
