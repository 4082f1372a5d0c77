"""The recipes read the Hub, or a local copy in the data directory, or say in one line that neither is there."""

import json
import os
from pathlib import Path

import pytest
import yaml
from command_line import command

from crossmask.data.formats import babi, hub
from crossmask.data.sources import SourceSpec, load_split, name_sources, stream_split
from crossmask.tasks import get_task
from crossmask.tasks.examples import make_examples, read_examples
from crossmask.training.parsing import parse_run
from crossmask.training.recipe_group import SOURCES

main = command("extract")

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
CORPORA = Path(os.environ.get("CROSSMASK_DATA", Path(__file__).parents[2] / "../shared/data"))


@pytest.fixture(autouse=True)
def without_a_data_directory(monkeypatch):
    monkeypatch.delenv("CROSSMASK_DATA", raising=False)


@pytest.fixture
def source(tmp_path) -> dict:
    """A dataset in a folder that stands for the Hub, and the declaration of a copy of it."""
    published = tmp_path / "published"
    published.mkdir()
    (published / "train.jsonl").write_text(json.dumps({"en": "of the Hub", "de": "D"}) + "\n")
    (published / "other.jsonl").write_text(json.dumps({"fr": 1}) + "\n")
    return {
        "format": "hub",
        "name": str(published),
        "data_files": "train*",
        "columns": {"source": "en", "target": "de"},
        "repeat": 2,
        "local": {"format": "lines", "source": "pairs/a.en", "target": ["pairs/a.de"]},
    }


@pytest.fixture
def corpora(tmp_path) -> Path:
    folder = tmp_path / "corpora"
    (folder / "pairs").mkdir(parents=True)
    (folder / "pairs" / "a.en").write_text("of the copy\n")
    (folder / "pairs" / "a.de").write_text("D\n")
    return folder


def texts(source, data_dir=None):
    spec = SourceSpec.from_mapping(source, data_dir)
    loaded = load_split(spec)["source"][:]
    assert [record["source"] for record in stream_split(spec)] == loaded
    return loaded


def test_the_hub_without_a_data_directory(source):
    assert texts(source) == ["of the Hub"] * 2


def test_the_copy_where_the_variable_names_a_folder_that_has_it(source, corpora, monkeypatch):
    monkeypatch.setenv("CROSSMASK_DATA", str(corpora))
    assert texts(source) == ["of the copy"] * 2  # `repeat` holds for both
    assert texts({**source, "local": {**source["local"], "repeat": 3}}) == ["of the copy"] * 3


def test_an_argument_is_before_the_variable(source, corpora, tmp_path, monkeypatch):
    assert texts(source, str(corpora)) == ["of the copy"] * 2
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("CROSSMASK_DATA", str(corpora))
    assert texts(source, tmp_path / "empty") == ["of the Hub"] * 2


def test_a_list_mixes_copies_and_the_hub(source, corpora):
    named = name_sources("train", [source, {**source, "local": {"format": "tsv", "path": "none.tsv"}}], corpora)
    assert [load_split(spec)["source"][0] for spec in named.values()] == ["of the copy", "of the Hub"]
    task = get_task("translation")
    assert [example.source for example in read_examples(source, task, "train", str(corpora))] == ["of the copy"] * 2


def test_a_part_of_a_copy_is_refused(source, corpora):
    (corpora / "pairs" / "a.de").unlink()
    with pytest.raises(ValueError, match=r"train: the data directory .* and pairs/a.de is missing; complete the copy"):
        name_sources("train", source, corpora)


@pytest.mark.parametrize("how", ["data_dir", "CROSSMASK_DATA"])
def test_a_data_directory_that_does_not_exist_is_refused(source, how, monkeypatch):
    monkeypatch.setenv("CROSSMASK_DATA", "nowhere")
    with pytest.raises(ValueError, match=f"{how} must be a folder that holds copies of datasets, got 'nowhere'"):
        name_sources("train", source, "nowhere" if how == "data_dir" else None)


@pytest.mark.parametrize(
    ("local", "message"),
    [
        ({"format": "cldr", "split": "train"}, "local must have a format that reads files"),
        ({"format": "tsv"}, "must have the option 'path'"),
        ({"path": "a.tsv"}, "a data source must have a format"),
        ("a.tsv", "local must be a mapping, got 'a.tsv'"),
        ({"format": "tsv", "path": "a", "local": {"format": "tsv", "path": "b"}}, "local must be one mapping"),
    ],
    ids=["no files", "no path", "no format", "text", "nested"],
)
def test_a_declaration_that_cannot_be_a_copy_is_refused_with_and_without_one(source, corpora, local, message):
    for data_dir in (None, corpora):
        with pytest.raises(ValueError, match=message):
            name_sources("train", {**source, "local": local}, data_dir)


@pytest.mark.parametrize("read", [load_split, lambda spec: next(stream_split(spec))], ids=["whole", "stream"])
def test_where_neither_is_there_the_error_says_both_ways(source, read, monkeypatch):
    def offline(*arguments, **options):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(hub, "load_dataset", offline)
    with pytest.raises(OSError, match=r"the network; or set CROSSMASK_DATA .* that holds pairs/a.en$"):
        read({**source, "name": "user/pairs"})


NOT_LOCAL = ("cldr", "hub", "babi_hub")
TRANSLATED = ("runs/multi30k-translated", "runs/news-translated")  # by the models of other recipes


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_needs_no_file_that_a_clone_lacks(recipe):
    parsed = parse_run([str(recipe)], command="c").recipe.data
    for name in SOURCES:
        for spec in name_sources(name, getattr(parsed, name)).values():
            path = spec.options.get("path", "runs/")
            assert spec.format in (*NOT_LOCAL, "propbank") or path.startswith("runs/"), (
                spec
            )  # PropBank is not on the Hub
            assert spec.format == "cldr" or spec.local or path.startswith(TRANSLATED)


@pytest.mark.skipif(not CORPORA.is_dir(), reason=f"no corpora at {CORPORA}: set CROSSMASK_DATA")
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_finds_its_local_copies(recipe, monkeypatch):
    for module, function in ((hub, "load_dataset"), (babi, "hf_hub_download")):
        monkeypatch.setattr(module, function, lambda *a, **o: pytest.fail("asked the Hub"))
    parsed = parse_run([str(recipe), "--data_dir", str(CORPORA)], command="c").recipe.data
    for name in SOURCES:
        for spec in name_sources(name, getattr(parsed, name), parsed.data_dir).values():
            assert spec.format not in ("hub", "babi_hub")
            if name == "validation":
                assert len(load_split(spec)) >= 100


@pytest.mark.slow
@pytest.mark.skipif(not CORPORA.is_dir(), reason=f"no corpora at {CORPORA}: set CROSSMASK_DATA")
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_record_of_a_recipe_is_an_example(recipe):
    data = parse_run([str(recipe), "--data_dir", str(CORPORA)], command="c").recipe.data
    task = get_task(data.task, **(data.task_options or {}))
    for name in SOURCES:
        for place, spec in name_sources(name, getattr(data, name), data.data_dir).items():
            if not str(spec.options.get("path")).startswith("runs/"):  # what another recipe writes
                assert list(make_examples(place, spec, task, load_split))


@pytest.mark.parametrize("name", ["news-en-de", "news-en-de-diversified"])
def test_checkpoints_of_the_news_recipe_are_not_chosen_on_its_test(name):
    recipe = yaml.safe_load(next(path for path in RECIPES if path.stem == name).read_text())
    news = {name: str(recipe[name]["local"]["source"]) for name in ("validation", "test")}
    assert "newstest2016" in news["validation"]
    assert "newstest2017" in news["test"]
    for year in ("newstest2016", "newstest2017"):
        assert year not in str(recipe["train"])


def test_a_column_as_a_file_of_lines(source, corpora, tmp_path, capsys):
    recipe, output = tmp_path / "recipe.yaml", tmp_path / "new" / "lines.txt"
    recipe.write_text(yaml.safe_dump({"train": [source, source]}))
    assert main([str(recipe), "--column", "source", "--output", str(output), "--data-dir", str(corpora)]) == 0
    assert output.read_text() == "of the copy\n" * 2  # each record once, whatever its `repeat`
    recipe.write_text(yaml.safe_dump({"data_dir": str(corpora), "train": [source]}))
    assert main([str(recipe), "--column", "source", "--output", str(output)]) == 0
    assert output.read_text() == "of the copy\n"
    recipe.write_text(yaml.safe_dump({"train": [source, source]}))
    assert main([str(recipe), "--column", "fr", "--output", str(output)]) == 2
    assert main([str(recipe), "--part", "test", "--column", "source", "--output", str(output)]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("crossmask extract: ")]
    assert len(errors) == 2
    assert "--column must be one of source, target, the columns of train[0], got 'fr'" in errors[0]
    assert "must be a recipe with `test`" in errors[1]
