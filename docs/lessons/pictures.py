"""Draws the pictures of the lessons: `python docs/lessons/pictures.py [NAME ...]`. Needs the plots extra."""

import doctest
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from crossmask import CrossMaskConfig, CrossMaskForConditionalGeneration, audit, masks
from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.masks.view import Side, View, lay_view
from crossmask.plotting.masks import (
    ALLOWED,
    BORDER,
    FORBIDDEN,
    INK,
    PADDING,
    gallery,
    rule_cells,
    save_png,
    write_side,
)
from crossmask.plotting.training import alignment

FOLDER = Path(__file__).parent / "pictures"
SOURCE = ("a", "dog", "barks", ".", "</s>")
TARGET = ("<s>", "ein", "Hund", "bellt", ".")


def small_model(**fields) -> CrossMaskForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {"vocab_size": 400, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    config = CrossMaskConfig(**sizes, encoder_layers=1, decoder_layers=1, initializer_range=0.5, **fields)
    return CrossMaskForConditionalGeneration(config).eval()


def decoder_inputs(path: Path) -> None:
    """Labels above the decoder's inputs: the start token is orange, padding is white."""
    labels = ("ein", "Hund", "bellt", ".", "</s>", "-100", "-100")
    inputs = ("<s>", "ein", "Hund", "bellt", ".", "</s>", "<pad>")
    kinds = torch.tensor([[1, 1, 1, 1, 1, 0, 0], [3, 1, 1, 1, 1, 2, 0]])
    figure = Figure(figsize=(6.4, 1.7), layout="constrained")
    ax = figure.add_subplot()
    ax.imshow(kinds, cmap=ListedColormap([PADDING, ALLOWED, FORBIDDEN, BORDER]), vmin=0, vmax=3, aspect="auto")
    rule_cells(ax, *kinds.shape)
    for row, texts in enumerate((labels, inputs)):
        for column, text in enumerate(texts):
            colour = "white" if kinds[row, column] in (1, 3) else INK
            ax.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
    ax.set_yticks([0, 1], ["labels: to be predicted", "decoder input: read"])
    ax.set_xticks(range(len(labels)), [f"position {index}" for index in range(len(labels))])
    ax.tick_params(axis="x", labeltop=True, labelbottom=False)
    save_png(figure, path)


def interactive_attention(path: Path) -> None:
    """Weights of random scores."""
    torch.manual_seed(2)
    weights = (1.5 * torch.randn(len(TARGET), len(SOURCE))).softmax(-1)
    alignment(weights, SOURCE, TARGET, path, "random scores; each row sums to 1")


def masks_on_scores(path: Path) -> None:
    """The numbers of the page: source position 1 is hidden in three ways."""
    torch.manual_seed(0)
    query, key = torch.randn(3, 8), torch.randn(4, 8)
    keep = torch.tensor([1.0, 0.0, 1.0, 1.0])
    scores, zeroed_key = (query @ states.T / 8**0.5 for states in (key, key * keep[:, None]))
    panels = {
        "key set to 0:\nstill read": zeroed_key.softmax(-1),
        "weight set to 0:\nrows sum to less than 1": scores.softmax(-1) * keep,
        "score set to -inf:\nright": scores.masked_fill(keep == 0, -torch.inf).softmax(-1),
    }
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    for ax, (title, weights) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        ax.imshow(weights, cmap="Blues", vmin=0, vmax=1)
        rule_cells(ax, *weights.shape)
        write_side(ax, "x", Side("source", 4))
        write_side(ax, "y", Side("target", 3))
        ax.axvline(0.5, color=BORDER, linewidth=1.2)
        ax.axvline(1.5, color=BORDER, linewidth=1.2)
        for row, values in enumerate(weights.tolist()):
            for column, value in enumerate(values):
                colour = "white" if value > 0.5 else INK
                ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
        ax.set_title(title, fontsize=9, color=INK)
    save_png(figure, path)


def three_masks(path: Path) -> None:
    """One example, its source padded by two tokens."""
    tokens = (*SOURCE, "<pad>", "<pad>")
    segments = [1] * len(SOURCE) + [0, 0]
    source = {"source_tokens": tokens, "source_segments": segments}
    views = [
        lay_view("full()", scope="encoder", **source),
        lay_view("causal()", scope="decoder", source_tokens=TARGET),
        lay_view("wait_k(2)", target_tokens=TARGET, **source),
    ]
    titles = ("encoder_mask: full()", "decoder_mask: causal()", "cross_mask: wait_k(2)")
    save_png(gallery(renamed(views, titles), columns=3), path, dpi=130)


def choosing_masks(path: Path) -> None:
    """A mask for each task."""
    passages = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    views = [
        lay_view("full()", 10, 7),
        lay_view("wait_k(2)", 10, 7),
        lay_view("prefix(1) | window(2)", 10, scope="encoder"),
        lay_view("passages()", 10, scope="encoder", source_passages=passages),
        lay_view("monotonic(slope=1.4, width=2)", 10, 7),
        lay_view("causal() | prefix(3)", 10, scope="decoder"),
    ]
    titles = (
        "translation:\nfull()",
        "simultaneous:\nwait_k(2)",
        "long source:\nprefix(1) | window(2)",
        "several passages:\npassages()",
        "same order: a band\naround the diagonal",
        "prefix:\ncausal() | prefix(3)",
    )
    save_png(gallery(renamed(views, titles), columns=3), path, dpi=130)


def privacy(path: Path) -> None:
    """The audit of a span that is hidden from the decoder alone."""
    tokenizer = train_tokenizer(["call Ada at 5 pm", "ruf an"] * 5, vocab_size=330, byte_fallback=False)
    batch = dict(tokenizer(["call Ada at 5 pm"], text_target=["ruf an"], return_tensors="pt"))
    hidden = masks.blind((1, 2))
    report = audit(
        small_model(),
        batch | {"cross_mask": "drop((1, 2))"},
        encoder_mask=hidden,
        cross_mask=hidden,
        tokenizer=tokenizer,
    )
    report.plot(path)


def alignments(path: Path) -> None:
    """Weights of the page's model before and after training."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 24, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    config = CrossMaskConfig(**sizes, encoder_layers=1, decoder_layers=1, dropout=0.0, initializer_range=0.1)
    model = CrossMaskForConditionalGeneration(config)
    model.set_attn_implementation("eager")
    source = torch.tensor([[5, 6, 7, 8, 9, 10]])

    def weights() -> torch.Tensor:
        outputs = model(input_ids=source, labels=source.flip(1), output_attentions=True)
        return outputs.cross_attentions[0][0].mean(0).detach()

    before = weights()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(300):
        sources = torch.randint(4, 24, (32, 6))
        model(input_ids=sources, labels=sources.flip(1)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    words = tuple("abcdef")
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    panels = {"before training": before, "after training": weights()}
    for ax, (title, values) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        ax.imshow(values, cmap="Blues", vmin=0, vmax=1)
        rule_cells(ax, *values.shape)
        write_side(ax, "x", Side("source", 6, words))
        write_side(ax, "y", Side("target, written", 6, words[::-1]))
        ax.set_title(title, fontsize=9, color=INK)
    save_png(figure, path)


def measuring(path: Path) -> None:
    """Scores of four texts against one reference."""
    from sacrebleu.metrics import BLEU, CHRF

    from crossmask.tasks.metrics.seq2seq_qa import score

    reference = "the small dog does not bark at the children"
    texts = {
        "the same": reference,
        "opposite": "the small dog does bark at the children",
        "paraphrase": "the little puppy never barks at kids",
        "words in another order": "children bark at the small dog does not the",
    }
    metrics = {
        "BLEU": lambda text: BLEU(effective_order=True).sentence_score(text, [reference]).score,
        "chrF": lambda text: CHRF().sentence_score(text, [reference]).score,
        "F1": lambda text: 100 * score(text, [reference])[1],
    }
    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    ax = figure.add_subplot()
    for index, ((name, metric), colour) in enumerate(zip(metrics.items(), (INK, ALLOWED, BORDER), strict=True)):
        values = [metric(text) for text in texts.values()]
        bars = ax.bar([place + 0.27 * (index - 1) for place in range(4)], values, 0.25, color=colour, label=name)
        ax.bar_label(bars, fmt="%.0f", fontsize=8, color=INK)
    tidy(ax, "score")
    ax.set_xticks(range(4), list(texts))
    ax.set_ylim(0, 112)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8, labelcolor=INK)
    save_png(figure, path)


def warm_starts(path: Path) -> None:
    """The losses of the page's two bridges."""
    page = blocks((FOLDER.parent / "warm-starts.md").read_text(encoding="utf-8"))
    page["cold"] += page["train"](page["cold_model"], 70, page["translation"])
    figure = Figure(figsize=(6.0, 2.6), layout="constrained")
    ax = figure.add_subplot()
    ax.plot(page["cold"], color=BORDER, label="cold: nothing was learned before")
    ax.plot(page["warm"], color=ALLOWED, label="warm: the language model is trained, and frozen")
    tidy(ax, "loss")
    ax.set_xlabel("optimizer step", fontsize=9, color=INK)
    ax.set_ylim(0)
    ax.legend(frameon=False, fontsize=8, labelcolor=INK)
    save_png(figure, path)


def from_scratch(path: Path) -> None:
    """The losses of the page's run."""
    page = blocks((FOLDER.parent / "from-scratch.md").read_text(encoding="utf-8"))
    figure = Figure(figsize=(6.0, 2.4), layout="constrained")
    ax = figure.add_subplot()
    ax.plot(page["losses"], color=ALLOWED)
    tidy(ax, "training loss")
    ax.set_xlabel("optimizer step", fontsize=9, color=INK)
    ax.set_ylim(0)
    save_png(figure, path)


def blocks(text: str) -> dict[str, Any]:
    """The names that the code of a page leaves behind."""
    examples = doctest.DocTestParser().get_examples("\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.S)))
    names: dict[str, Any] = {}
    exec("".join(example.source for example in examples), names)
    return names


def tidy(ax: Axes, name: str) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(colors=INK, labelsize=8)
    ax.set_ylabel(name, fontsize=9, color=INK)


def renamed(views: list[View], titles: tuple[str, ...]) -> list[View]:
    return [View(title, v.allowed, v.rows, v.columns) for v, title in zip(views, titles, strict=True)]


PICTURES: dict[str, Callable[[Path], None]] = {
    "decoder-inputs": decoder_inputs,
    "interactive-attention": interactive_attention,
    "masks-on-scores": masks_on_scores,
    "three-masks": three_masks,
    "choosing-masks": choosing_masks,
    "from-scratch": from_scratch,
    "warm-starts": warm_starts,
    "alignments": alignments,
    "measuring": measuring,
    "privacy": privacy,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or PICTURES:
        PICTURES[name](FOLDER / f"{name}.png")
