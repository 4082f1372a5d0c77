import importlib.util

import pytest
import torch
from sacrebleu.metrics import BLEU, CHRF
from streaming_cases import TEXTS, tiny

from crossmask import translate_batch
from crossmask.tasks import Example, get_task
from crossmask.tasks.bleu import tokenizer_for
from crossmask.utils.errors import InputError

GERMAN = ["Der Hund läuft heute schnell durch den Park.", "Eine Frau liest am Fenster ein Buch."]
FRENCH = ["Le chien court vite dans le parc aujourd'hui."]
CHINESE = ["我们今天坐火车去北京。", "他明天早上八点钟开会。"]


def record(target, group=None):
    return {"source": "some source", "target": target} | ({"group": group} if group else {})


def test_example_from_a_record():
    task = get_task("translation")
    assert task.example({"source": "<2de> one", "target": "eins", "group": "de"}) == Example(
        "<2de> one", "eins", ("eins",), "de"
    )
    assert task.example(record(["eins", "ein"])).references == ("eins", "ein")
    assert task.example(record(["eins", "ein"])).target == "eins"
    other = get_task("translation", source_column="en", target_column="de", group_column="year")
    assert other.example({"en": "one", "de": "eins", "year": 2016}) == Example("one", "eins", ("eins",), "2016")


def test_scores_are_those_of_sacrebleu():
    task = get_task("translation")
    predictions = ["Der Hund läuft schnell durch den Park.", "Eine Frau liest ein Buch am Fenster."]
    scores = task.metrics(predictions, [task.example(record(text)) for text in GERMAN])
    bleu, uncased, chrf = BLEU(), BLEU(lowercase=True), CHRF()
    assert scores == {
        "sacrebleu": bleu.corpus_score(predictions, [GERMAN]).score,
        "sacrebleu_signature": str(bleu.get_signature()),
        "sacrebleu_lowercase": uncased.corpus_score(predictions, [GERMAN]).score,
        "sacrebleu_lowercase_signature": str(uncased.get_signature()),
        "chrf": chrf.corpus_score(predictions, [GERMAN]).score,
        "chrf_signature": str(chrf.get_signature()),
        "exact_match": 0.0,
    }
    assert 0 < scores["sacrebleu"] < 100
    assert scores["sacrebleu_signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")


def test_bleu_by_hand():
    # Precisions 5/6, 4/5, 3/4, 2/3 and no brevity penalty: (5/6 * 4/5 * 3/4 * 2/3) ** (1/4) = (1/3) ** (1/4).
    task = get_task("translation")
    scores = task.metrics(["a b c d e x"], [Example("s", "a b c d e f", ("a b c d e f",), None)])
    assert scores["sacrebleu"] == pytest.approx(100 * (1 / 3) ** 0.25)


def test_each_group_by_itself_and_chinese_by_its_own_tokenizer():
    task = get_task("translation")
    texts = [*GERMAN, *FRENCH, *CHINESE]
    groups = ["de", "de", "fr", "zh", "zh"]
    examples = [task.example(record(text, group)) for text, group in zip(texts, groups, strict=True)]
    predictions = [GERMAN[0], "Eine Frau liest.", "Le chien court dans le parc.", CHINESE[0], "他明天早上九点钟开会。"]
    scores = task.metrics(predictions, examples)
    exact = {key: value for key, value in scores.items() if key.startswith("exact_match")}
    assert exact == {"exact_match": 40.0, "exact_match_de": 50.0, "exact_match_fr": 0.0, "exact_match_zh": 50.0}
    assert scores["sacrebleu_de"] == BLEU().corpus_score(predictions[:2], [GERMAN]).score
    assert scores["sacrebleu_zh"] == BLEU(tokenize="zh").corpus_score(predictions[3:], [CHINESE]).score
    assert scores["sacrebleu_zh"] != BLEU().corpus_score(predictions[3:], [CHINESE]).score
    assert scores["chrf_zh"] == CHRF().corpus_score(predictions[3:], [CHINESE]).score
    assert scores["chrf"] == CHRF().corpus_score(predictions, [texts]).score
    assert "|tok:13a|" in scores["sacrebleu_signature_fr"]
    assert "|tok:zh|" in scores["sacrebleu_signature_zh"]
    by_hand = (
        BLEU().corpus_score(predictions[:2], [GERMAN]).score + BLEU().corpus_score(predictions[2:3], [FRENCH]).score
    )
    by_hand += BLEU(tokenize="zh").corpus_score(predictions[3:], [CHINESE]).score
    assert scores["sacrebleu"] == pytest.approx(by_hand / 3)
    assert scores["sacrebleu_lowercase"] == pytest.approx(
        (scores["sacrebleu_lowercase_de"] + scores["sacrebleu_lowercase_fr"] + scores["sacrebleu_lowercase_zh"]) / 3
    )
    signature = scores["sacrebleu_signature"].split("|")
    assert signature[:4] == ["nrefs:1", "case:mixed", "eff:no", "tok:13a+zh"]
    assert signature[-1] == "aggregate:mean-of-3-groups"
    assert task.primary_metric.name in scores


def example(text, group=None):
    return Example("s", text, (text,), group)


def test_groups_with_one_tokenizer_have_one_corpus_score():
    examples = [example(text, group) for text, group in zip([*GERMAN, *FRENCH], ["de", "de", "fr"], strict=True)]
    predictions = [GERMAN[0], "Eine Frau liest.", "Le chien court dans le parc."]
    scores = get_task("translation").metrics(predictions, examples)
    assert scores["sacrebleu"] == BLEU().corpus_score(predictions, [[*GERMAN, *FRENCH]]).score
    assert "aggregate" not in scores["sacrebleu_signature"]


@pytest.mark.parametrize("group", ["zh", None, "task 1"])
def test_chinese_alone_is_scored_as_chinese(group):
    predictions = [CHINESE[0], "他明天早上九点钟开会。"]
    scores = get_task("translation").metrics(predictions, [example(text, group) for text in CHINESE])
    bleu = BLEU(tokenize="zh")
    assert scores["sacrebleu"] == bleu.corpus_score(predictions, [CHINESE]).score
    assert scores["sacrebleu_signature"] == str(bleu.get_signature())
    assert 50 < scores["sacrebleu"] < 100


def test_examples_without_a_group_are_a_part_of_the_mean():
    examples = [example(GERMAN[0]), *(example(text, "zh") for text in CHINESE)]
    predictions = [GERMAN[0], CHINESE[0], "他明天早上九点钟开会。"]
    scores = get_task("translation").metrics(predictions, examples)
    assert scores["sacrebleu"] == pytest.approx((100 + scores["sacrebleu_zh"]) / 2)
    assert scores["sacrebleu_signature"].endswith("|aggregate:mean-of-2-groups")


@pytest.mark.parametrize(
    ("text", "tokenizer"),
    [
        ("我使用 PyTorch 和 transformers。", "zh"),
        ("PyTorch uses 张 for a name of its own here.", "13a"),
        ("私は昨日、東京へ行きました。", "ja"),
        ("カタカナ", "ja"),
        ("저는 어제 서울에 갔습니다.", "ko"),
        ("ฉันไปกรุงเทพเมื่อวานนี้", "char"),
        ("ខ្ញុំទៅភ្នំពេញ", "char"),
        ("ຂ້ອຍໄປວຽງຈັນ", "char"),
        ("ကျွန်တော် ရန်ကုန်သွားတယ်", "char"),
        ("བོད་སྐད་", "char"),
        ("मैं कल दिल्ली गया था।", "13a"),
        ("אני הולך", "13a"),
        ("Я еду в Москву.", "13a"),
        ("12 %", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("installed", [True, False])
def test_tokenizer_for_a_script(monkeypatch, text, tokenizer, installed):
    monkeypatch.setattr("crossmask.tasks.bleu.find_spec", lambda name: installed or None)
    long = {"ja": "ja-mecab" if installed else "char", "ko": "ko-mecab" if installed else "char"}
    assert tokenizer_for([text]) == long.get(tokenizer, tokenizer)


def test_mixed_scripts_without_groups_are_warned_of(monkeypatch):
    warnings = []
    monkeypatch.setattr("crossmask.tasks.bleu.logger.warning_once", warnings.append)
    assert tokenizer_for([*GERMAN, "北京"]) == "13a"
    assert "group_column" in warnings[0]
    assert tokenizer_for(GERMAN) == "13a"
    assert len(warnings) == 1


@pytest.mark.parametrize(
    ("group", "tokenize", "texts", "used"),
    [
        ("zh-Hant", "13a", CHINESE, "zh"),
        ("zh_CN", "13a", CHINESE, "zh"),
        ("zh", "13a", GERMAN, "13a"),  # translated from Chinese
        ("zh", "char", CHINESE, "char"),
        ("de", "intl", GERMAN, "intl"),
    ],
)
def test_tokenizer_of_a_group(group, tokenize, texts, used):
    task = get_task("translation", tokenize=tokenize)
    scores = task.metrics(texts, [task.example(record(text, group)) for text in texts])
    assert f"|tok:{used}|" in scores[f"sacrebleu_signature_{group}"]
    assert f"|tok:{used}|" in scores["sacrebleu_signature"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokenize": "ja-mecab"}, "tokenize='ja-mecab' cannot be used here: .* pip install"),
        ({"tokenize": 13}, "task option tokenize must be text, got 13"),
        ({"lowercase": "yes"}, "task option lowercase must be true or false, got 'yes'"),
        ({"group_column": ["a"]}, r"task option group_column must be text, got \['a'\]"),
        ({"source_column": "target"}, "source_column and target_column must differ, got 'target' for both"),
    ],
)
def test_options_that_cannot_act_are_refused_before_training(options, message):
    if options.get("tokenize") == "ja-mecab" and importlib.util.find_spec("MeCab"):
        pytest.skip("MeCab is installed")
    with pytest.raises(InputError, match=message):
        get_task("translation", **options)


def test_lowercase_is_for_bleu_and_chrf_only():
    examples = [Example("s", GERMAN[0], (GERMAN[0],), None)]
    predictions = [GERMAN[0].lower()]
    cased = get_task("translation").metrics(predictions, examples)
    lower = get_task("translation", lowercase=True).metrics(predictions, examples)
    assert lower["sacrebleu"] == pytest.approx(100)
    assert lower["chrf"] == pytest.approx(100)
    assert cased["sacrebleu"] < 100
    assert cased["chrf"] < 100
    assert cased["exact_match"] == lower["exact_match"] == 0.0
    assert "case:lc" in lower["sacrebleu_signature"]
    assert "case:lc" in lower["chrf_signature"]
    assert cased["sacrebleu_lowercase"] == pytest.approx(100)
    assert "case:lc" in cased["sacrebleu_lowercase_signature"]
    assert "sacrebleu_lowercase" not in lower


def test_several_references_of_unequal_number():
    task = get_task("translation")
    examples = [task.example(record([GERMAN[0], "Ein Hund rennt."])), task.example(record(GERMAN[1]))]
    predictions = ["Ein Hund rennt.", GERMAN[1]]
    scores = task.metrics(predictions, examples)
    columns = [GERMAN, ["Ein Hund rennt.", None]]
    assert scores["sacrebleu"] == BLEU().corpus_score(predictions, columns).score == pytest.approx(100)
    assert scores["exact_match"] == 100.0


def test_an_empty_prediction_counts_as_wrong():
    examples = [Example("s", text, (text,), "de") for text in GERMAN]
    scores = get_task("translation").metrics(["", GERMAN[1]], examples)
    assert scores["exact_match"] == 50.0
    assert 0 < scores["sacrebleu"] < 100
    assert get_task("translation").metrics(["", ""], examples)["sacrebleu"] == 0.0


@pytest.mark.parametrize(
    ("options", "row", "message"),
    [
        (
            {},
            {"en": "one", "de": "eins"},
            "the record must have a column 'source', got 'en', 'de'; set the task option source_column to one of "
            "them, or rename the column",
        ),
        (
            {"source_column": "en"},
            {"en": "one", "de": "eins"},
            "the record must have a column 'target', got 'en', 'de'; set the task option target_column to one of "
            "them, or rename the column",
        ),
        (
            {"group_column": "language"},
            {"source": "one", "target": "eins"},
            "the record must have a column 'language', got 'source', 'target'; name one of them in report_by "
            "or the task option group_column, or leave both out",
        ),
        (
            {},
            record([]),
            "column 'target' has no text in the record {'source': 'some source', 'target': []}; drop such rows",
        ),
        (
            {},
            record(None),
            "column 'target' must hold text, got NoneType in the record {'source': 'some source', 'target': None}",
        ),
        (
            {},
            record(["a", 3]),
            "column 'target' must hold text, got int in the record {'source': 'some source', 'target': ['a', 3]}",
        ),
        (
            {},
            record("eins") | {"group": ["de"]},
            "the group must be a name or a number, got ['de'] in the record {'source': 'some source', 'target': 'eins"
            "', 'group': ['de']}",
        ),
    ],
)
def test_bad_records(options, row, message):
    with pytest.raises(ValueError) as caught:
        get_task("translation", **options).example(row)
    assert str(caught.value) == message


def test_unknown_tokenizer_is_refused_before_training():
    with pytest.raises(ValueError, match=r"^tokenize='14a' is not a tokenizer of sacreBLEU; choose one of: 13a,"):
        get_task("translation", tokenize="14a")


def test_without_sacrebleu_examples_are_made_and_metrics_say_how_to_fix_it(monkeypatch):
    real = importlib.util.find_spec

    def without(name, package=None):
        return None if name == "sacrebleu" else real(name, package)

    monkeypatch.setattr("crossmask.tasks.translation.find_spec", without)
    monkeypatch.setattr("crossmask.tasks.metrics.find_spec", without)
    task = get_task("translation")
    examples = [task.example(record("eins"))]
    with pytest.raises(ImportError) as caught:
        task.metrics(["eins"], examples)
    message = "the metric seq2seq_translation needs sacrebleu, which is not installed; pip install sacrebleu"
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "options", [{"encoder_repetition_penalty": 50.0}, {"encoder_no_repeat_ngram_size": 1}, {"num_beams": 3}]
)
def test_options_that_look_into_the_source_act_in_an_evaluation(options):
    task, (model, tokenizer) = get_task("translation"), tiny(encoder_mask="full()")
    rows = [{"input_ids": ids, "labels": ids} for ids in tokenizer(list(TEXTS))["input_ids"]]
    with torch.no_grad():
        found = task.evaluate_batch(model, tokenizer, task.collator(model.config)(rows), options).predictions
    assert found == translate_batch(model, tokenizer, TEXTS, progress=False, **options)
    assert found != translate_batch(model, tokenizer, TEXTS, progress=False)
