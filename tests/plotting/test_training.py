import pytest
import torch

from crossmask import CrossMaskConfig

plots = pytest.importorskip("crossmask.plotting.training", reason="needs matplotlib", exc_type=ImportError)

HISTORY = [
    {"loss": 5.0, "learning_rate": 1e-3, "epoch": 0.5, "step": 10},
    {
        "eval_loss": 4.0,
        "eval_runtime": 1.0,
        "eval_samples_per_second": 9.0,
        "eval_bleu": 10.0,
        "eval_chrf": 30.0,
        "step": 10,
    },
    {"loss": 3.0, "learning_rate": 1e-3, "epoch": 1.0, "step": 20},
    {
        "eval_loss": 3.5,
        "eval_runtime": 1.0,
        "eval_samples_per_second": 9.0,
        "eval_bleu": 12.0,
        "eval_chrf": 29.0,
        "step": 20,
    },
    {"train_runtime": 2.0, "train_loss": 4.0, "step": 20},
    {"eval_loss": 3.6, "eval_bleu": 11.0, "eval_chrf": 31.0, "step": 20},  # a mean of checkpoints
]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, in order."""
    figures = []
    save = plots.save_png
    monkeypatch.setattr(plots, "save_png", lambda figure, path: figures.append(figure) or save(figure, path))
    return figures


def series(ax):
    return {line.get_label(): [tuple(point) for point in line.get_xydata()] for line in ax.lines}


def test_learning_curve_has_losses_and_the_metric(drawn, tmp_path):
    path = plots.learning_curve(HISTORY, tmp_path / "curve.png")
    losses, scores = drawn[0].axes
    assert path.read_bytes().startswith(b"\x89PNG")
    assert series(losses) == {"training": [(10, 5.0), (20, 3.0)], "evaluation": [(10, 4.0), (20, 3.5)]}
    assert [tuple(point) for point in scores.lines[0].get_xydata()] == [(10, 10.0), (20, 12.0)]
    assert scores.get_ylabel() == "bleu"
    assert scores.get_title(loc="right") == "best bleu: 12 at step 20"


def test_learning_curve_draws_the_metric_asked_for(drawn, tmp_path):
    plots.learning_curve(HISTORY, tmp_path / "curve.png", metric="chrf", greater_is_better=False)
    assert drawn[0].axes[1].get_title(loc="right") == "best chrf: 29 at step 20"


@pytest.mark.parametrize("metric", [None, "eval_loss"])
def test_learning_curve_without_metrics_has_one_panel(metric, drawn, tmp_path):
    plots.learning_curve([entry for entry in HISTORY if "loss" in entry], tmp_path / "curve.png", metric=metric)
    assert len(drawn[0].axes) == 1


def test_learning_curve_is_logarithmic_where_losses_fall_far(drawn, tmp_path):
    history = [{"loss": 6.0, "step": 1}, {"loss": float("nan"), "step": 2}, {"loss": 0.01, "step": 3}]
    plots.learning_curve(history, tmp_path / "curve.png")
    assert drawn[0].axes[0].get_yscale() == "log"


@pytest.mark.parametrize(
    ("history", "metric", "message"),
    [
        ([], None, "must have losses or metrics, got neither"),
        ([{"train_loss": 1.0, "step": 1}], None, "must have losses or metrics, got neither"),
        (HISTORY, "rouge", r"one that evaluation logged \(eval_bleu, eval_chrf\), got 'rouge'"),
    ],
)
def test_learning_curve_says_what_is_missing(history, metric, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        plots.learning_curve(history, tmp_path / "curve.png", metric=metric)
    assert not list(tmp_path.iterdir())


def test_alignment_draws_the_mean_over_heads_with_tokens(drawn, tmp_path, recwarn):
    weights = torch.tensor(
        [[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]], dtype=torch.bfloat16
    )
    plots.alignment(weights.requires_grad_(), ["für", "$5$", "狗"], ["▁dog", "</s>"], tmp_path / "a.png", "$ 狗 $")
    ax = drawn[0].axes[0]
    assert ax.images[0].get_array().tolist() == [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["▁dog", "</s>"]
    assert [label.get_text() for label in ax.get_xticklabels()][:2] == ["für", "$5$"]
    assert not list(recwarn)


def test_alignment_refuses_weights_of_another_shape(tmp_path):
    with pytest.raises(ValueError, match=r"for 2 target and 1 source tokens, got \(1, 2\)"):
        plots.alignment(torch.ones(1, 2), ["a"], ["b", "c"], tmp_path / "a.png")


def test_masks_in_force_shows_each_distinct_rule_once(drawn, tmp_path):
    config = CrossMaskConfig(
        encoder_layers=4, decoder_layers=2, encoder_mask={"0": "full()", "1-2": "window(8)", "rest": "full()"}
    )
    plots.masks_in_force(config, tmp_path / "masks.png")
    assert [ax.get_title() for ax in drawn[0].axes] == [
        "encoder, layers 0, 3\nfull()",
        "encoder, layers 1-2\nwindow(left=8)",
        "decoder, all layers\ncausal()",
        "cross, all layers\nfull()",
    ]
    assert drawn[0].axes[1].images[0].get_array().shape == (16, 16)


def test_masks_in_force_shows_the_memory_in_place_of_the_source(drawn, tmp_path):
    plots.masks_in_force(CrossMaskConfig(memory_length=5), tmp_path / "masks.png")
    cross = drawn[0].axes[-1]
    assert cross.get_xlabel() == "memory"
    assert cross.images[0].get_array().shape == (12, 5)
