"""One interface over all engines: the same texts come out, a piece at a time too, and nothing is accepted in vain."""

import json
import sys

import pytest
from trained_models import TEXTS, tokenizer, trained_model

from crossmask import translate_batch
from crossmask.serving import Export, export, load_translator
from crossmask.serving.manifest import NAME, read_manifest
from crossmask.utils.errors import InputError, InputTypeError, MissingLibraryError

LIBRARIES = {"ctranslate2": "ctranslate2"}
ENGINES = ["torch", *LIBRARIES]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, export_trained):
    """By engine, a folder with the trained model; each is written when it is asked for."""
    place, made = tmp_path_factory.mktemp("engines"), {}

    def folder(engine: str):
        if engine not in made:
            if engine == "torch":
                trained_model().save_pretrained(place / engine)
                tokenizer().save_pretrained(place / engine)
            else:
                pytest.importorskip(LIBRARIES[engine])
                export_trained(engine, place / engine)
            made[engine] = place / engine
        return made[engine]

    return folder


@pytest.fixture(params=ENGINES)
def translator(request, folders):
    folder = folders(request.param)
    with load_translator(folder, dtype="float32" if request.param == "torch" else "auto", threads=1) as made:
        assert made.engine == request.param
        yield made


@pytest.mark.parametrize("batch_tokens", [1, 20, 4096])
@pytest.mark.parametrize("beams", [{}, {"num_beams": 3, "early_stopping": True}])
def test_every_engine_gives_the_texts_of_generate_in_their_order(translator, beams, batch_tokens):
    texts = [*TEXTS[:12], "  ", *TEXTS[12:]]
    expected = translate_batch(trained_model(), tokenizer(), texts, progress=False, **beams)
    assert translator.translate(texts, batch_tokens=batch_tokens, **beams) == expected
    assert expected[12] == ""
    assert translator.translate([]) == []


def test_a_stream_gives_the_greedy_output_in_pieces(translator):
    for text, expected in zip(TEXTS[:6], translator.translate(TEXTS[:6], 1), strict=True):
        pieces = list(translator.stream(text))
        assert "".join(pieces) == expected
        assert len(pieces) >= len(expected.split())
    assert list(translator.stream(" \n")) == []
    assert (
        "".join(translator.stream(TEXTS[2], max_new_tokens=2))
        == translator.translate(TEXTS[2:3], 1, max_new_tokens=2)[0]
    )


def test_a_stream_may_be_left_early(translator):
    stream = translator.stream(TEXTS[2])
    next(stream)
    stream.close()
    translator.stream(TEXTS[2])  # never asked for a piece
    assert "".join(translator.stream(TEXTS[2])) == translator.translate([TEXTS[2]], 1)[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 0}, "num_beams must be at least 1, got 0"),
        ({"num_beams": 1000}, r"num_beams must be at most the vocabulary's \d+, got 1000"),
        ({"max_new_tokens": 65}, "max_new_tokens must be at most 64"),
        ({"length_penalty": float("nan")}, "length_penalty must be a finite number"),
        ({"early_stopping": 3}, "early_stopping must be"),
        ({"num_beam": 2}, "num_beam"),
    ],
)
def test_options_that_cannot_be_used_are_refused(translator, options, message):
    with pytest.raises(ValueError, match=message):
        translator.translate(TEXTS[:2], **options)


def test_texts_that_cannot_be_used_are_refused(translator):
    with pytest.raises(InputError, match=r"texts\[1\] must have at most 64 tokens"):
        translator.translate(["a", "x" * 200])
    with pytest.raises(InputTypeError, match="texts must be a list of texts"):
        translator.translate("a dog")
    with pytest.raises(InputTypeError, match="text must be one text, got list"):
        translator.stream(["a dog"])
    with pytest.raises(InputError, match="num_beams must be 1 in a stream, got 4"):
        translator.stream("a dog", num_beams=4)
    with pytest.raises(InputError, match="batch_tokens must be at least 1"):
        translator.translate(["a dog"], batch_tokens=0)


def test_an_engine_without_masks_refuses_them(folders):
    with (
        load_translator(folders("ctranslate2"), threads=1) as translator,
        pytest.raises(InputError, match=r"options of CTranslate2 must be among num_beams, .* got 'cross_mask'"),
    ):
        translator.translate(TEXTS[:1], cross_mask="wait_k(3)")
    with pytest.raises(InputError, match='early_stopping must not be "never"'):
        translator.translate(TEXTS[:1], early_stopping="never")


def test_the_folder_says_which_engine_it_is_for(folders):
    with pytest.raises(InputError, match="must be a folder for ctranslate2, got one for torch; export it with"):
        load_translator(folders("torch"), "ctranslate2")
    with pytest.raises(InputError, match='must be a folder for torch, got one for ctranslate2; give engine="auto"'):
        load_translator(folders("ctranslate2"), "torch")
    with pytest.raises(InputError, match=r"engine must be one of auto, .*did you mean 'torch'"):
        load_translator(folders("torch"), "torhc")
    with pytest.raises(InputError, match="threads must be at least 1, got 0"):
        load_translator(folders("torch"), threads=0)


@pytest.mark.parametrize("engine", LIBRARIES)
def test_a_library_that_is_not_installed_is_named_with_its_command(folders, engine, monkeypatch, tmp_path):
    folder = folders(engine)
    monkeypatch.setitem(sys.modules, LIBRARIES[engine], None)
    for run in (lambda: load_translator(folder), lambda: export(folders("torch"), engine, tmp_path / "new")):
        with pytest.raises(MissingLibraryError, match=rf"pip install 'crossmask\[{engine}\]'"):
            run()
    assert list(tmp_path.iterdir()) == []


def test_what_an_export_says_of_itself(folders, tmp_path):
    written = export(folders("torch"), "ctranslate2", tmp_path / "new", dtype="int8")
    assert isinstance(written, Export)
    assert written.sizes.keys() == {str(path.relative_to(written.folder)) for path in written.folder.rglob("*")}
    assert str(written) == f"{tmp_path / 'new'}: ctranslate2, int8, {sum(written.sizes.values()) / 2**20:.1f} MiB"
    manifest = read_manifest(written.folder)
    assert (manifest.engine, manifest.dtype, manifest.mask_inputs) == ("ctranslate2", "int8", ())
    assert manifest.model_config.hidden_size == trained_model().config.hidden_size
    assert {"crossmask", "ctranslate2"} <= manifest.versions.keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"to": "tensorrt"}, "to must be one of"),
        ({"dtype": "int4"}, "dtype must be one of .*, got 'int4'"),
        ({"output": "."}, "must not exist yet"),
        ({"tokenizer": None}, "model must be .* without a tokenizer"),
        ({"model": "nowhere"}, "tokenizer must be left out"),
        ({"model": 3}, "model must be a folder, a name on the Hub, or a model with its tokenizer, got int"),
    ],
)
def test_an_export_that_cannot_be_is_refused(arguments, message, tmp_path):
    defaults = {"model": trained_model(), "to": "ctranslate2", "output": tmp_path / "new", "tokenizer": tokenizer()}
    with pytest.raises(InputError, match=message):
        export(**{**defaults, **arguments})
    assert list(tmp_path.iterdir()) == []


def test_folders_that_are_not_whole_are_refused(folders, tmp_path):
    written = export(folders("torch"), "ctranslate2", tmp_path / "new").folder
    for name, message in (
        ("model.bin", "must be a complete export to CTranslate2, .*; export it again"),
        ("generation_config.json", r"generation_config.json, line \d+, column \d+: must be valid JSON"),
        ("tokenizer.json", r"tokenizer.json, line \d+, column \d+: must be valid JSON"),
    ):
        content = (written / name).read_bytes()
        (written / name).write_bytes(content[:20])
        with pytest.raises(InputError, match=message):
            load_translator(written)
        (written / name).write_bytes(content)


MANIFEST = {
    "engine": "onnx",
    "dtype": "float32",
    "config": trained_model().config.to_dict(),
    "versions": {"torch": "2.13.0"},
    "mask_inputs": ["cross_mask"],
    "format": 1,
}


def without(name: str) -> dict:
    return {key: value for key, value in MANIFEST.items() if key != name}


def with_config(**fields) -> dict:
    return {**MANIFEST, "config": {**MANIFEST["config"], **fields}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must have at least one line, got an empty file"),
        (b"{", "line 1, column 2: must be valid JSON"),
        (b"\xff", "must be UTF-8, got byte 0xff"),
        *(
            (value, "must hold what was exported, with its format; export the model again")
            for value in ([], 3, None, {})
        ),
        (without("config"), "must have exactly config, dtype, engine, .*; export the model again"),
        ({**MANIFEST, "more": 1}, "must have exactly config, dtype, engine, .*; export the model again"),
        (without("format"), "must hold what was exported, with its format"),
        ({**MANIFEST, "format": True}, "must hold what was exported, with its format"),
        ({**MANIFEST, "format": 2}, "format must be 1, got 2, of another version of crossmask"),
        ({**MANIFEST, "engine": "tensorrt"}, "engine must be one of ctranslate2, onnx, web, got 'tensorrt'"),
        ({**MANIFEST, "engine": ["onnx"]}, r"engine must be one of ctranslate2, onnx, web, got \['onnx'\]"),
        ({**MANIFEST, "dtype": 3}, "dtype must be one of float32, int8, got 3"),
        ({**MANIFEST, "dtype": "bfloat16"}, "dtype must be one of float32, int8, got 'bfloat16'"),
        ({**MANIFEST, "mask_inputs": None}, "mask_inputs must be a list, each item text, got None"),
        ({**MANIFEST, "mask_inputs": [1]}, r"mask_inputs must be a list, each item text, got \[1\]"),
        ({**MANIFEST, "versions": ["2.13.0"]}, "versions must be a mapping from text to text, got"),
        ({**MANIFEST, "config": "crossmask"}, "config must be a mapping, got 'crossmask'"),
        ({**MANIFEST, "config": {}}, "model_type of config must be one of crossmask, got None"),
        (with_config(model_type="bart"), "model_type of config must be one of crossmask, got 'bart'"),
        (with_config(hidden_size="wide"), "config cannot be loaded: .*hidden_size.* expected int"),
        (with_config(cross_mask="wait_k("), "config cannot be loaded: cross_mask: a mask's text must be"),
        (with_config(dtype="float31"), "config cannot be loaded: "),
    ],
)
def test_a_damaged_account_of_the_export_is_one_line(content, message, tmp_path):
    (tmp_path / NAME).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(InputError, match=message) as error:
        load_translator(tmp_path)
    assert str(error.value).startswith(str(tmp_path / NAME))
    assert "\n" not in str(error.value)


def test_an_account_that_is_whole_is_read(tmp_path):
    (tmp_path / NAME).write_text(json.dumps(MANIFEST))
    manifest = read_manifest(tmp_path)
    assert (manifest.engine, manifest.mask_inputs) == ("onnx", ("cross_mask",))
