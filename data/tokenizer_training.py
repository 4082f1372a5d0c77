"""Tokenizer training with `tokenizers`: byte-pair encoding or a unigram model, saved as a fast tokenizer.

Pieces keep the space before them (" house"), so that decoding is plain concatenation: every text comes back exactly,
with its leading, double and non-breaking spaces, and no space is put between the digits of a number.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, get_type_hints

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from ..utils.errors import InputError
from ..utils.text import check_unicode
from ..utils.type_checks import check_type

PAD, BOS, EOS, UNK = "<pad>", "<s>", "</s>", "<unk>"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]

_LARGEST_VOCABULARY = 2**31 - 1

_WORD = r" ?[\p{L}\p{M}]+"
_OTHER = r" ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s"
_PIECES = f"{_WORD}| ?\\p{{N}}+|{_OTHER}"
_PIECES_AND_DIGITS = f"{_WORD}|\\p{{N}}|{_OTHER}"


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    *,
    algorithm: Literal["bpe", "unigram"] = "bpe",
    byte_fallback: bool = True,
    split_digits: bool = False,
    lowercase: bool = False,
    special_tokens: Sequence[str] = (),
    model_max_length: int | None = None,
    truncation_side: Literal["left", "right"] = "right",
    add_bos_token: bool = False,
    add_eos_token: bool = True,
) -> PreTrainedTokenizerFast:
    """A tokenizer that by default appends `</s>` to every text, and gives every text back exactly when it decodes.

    ```python
    >>> tokenizer = train_tokenizer(["ein Haus", "zwei Häuser"] * 20, vocab_size=300)
    >>> tokenizer.decode(tokenizer("zwei  Häuser").input_ids, skip_special_tokens=True)
    'zwei  Häuser'
    ```

    Args:
        texts: to learn from; special tokens in them are left out.
        vocab_size: the largest size of the vocabulary, special tokens and the 256 bytes included; a small corpus gives
            a smaller one.
        algorithm: `bpe` (Sennrich et al. 2016) or `unigram` (Kudo 2018).
        byte_fallback: write characters that are not in the vocabulary as bytes; without it they become `<unk>`.
        split_digits: make each digit a token, without the space before it.
        lowercase: lowercase all text; decoding then gives the lowercase text.
        special_tokens: further tokens, never split; their ids follow `<pad>`=0, `<s>`=1, `</s>`=2, `<unk>`=3.
        model_max_length: the longest input that the model takes, kept with the tokenizer.
        truncation_side: which end of an overlong source is cut off, kept with the tokenizer.
        add_bos_token, add_eos_token: whether `<s>` is put before every text, and `</s>` after it. Sources and targets
            of encoder-decoders end with `</s>`; a prompt of a causal language model begins with `<s>` and has no end.
    """
    check_settings(
        {
            "vocab_size": vocab_size,
            "algorithm": algorithm,
            "byte_fallback": byte_fallback,
            "split_digits": split_digits,
            "lowercase": lowercase,
            "special_tokens": special_tokens,
            "model_max_length": model_max_length,
            "truncation_side": truncation_side,
        }
    )
    specials = list(dict.fromkeys([PAD, BOS, EOS, UNK, *special_tokens]))
    reserved = specials + (BYTES if byte_fallback else [])
    learnable = vocab_size - len(reserved)
    if learnable < 1:
        raise InputError(
            f"vocab_size must be at least {len(reserved) + 1}, got {vocab_size}; leave space beside {len(specials)} "
            f"special tokens{' and 256 bytes' if byte_fallback else ''} for tokens to learn"
        )
    pieces = _count_pieces(texts, specials, split_digits, lowercase)
    if not pieces:
        raise InputError("texts to train the tokenizer on must have at least one that is not empty, got none")
    learn = _learn_bpe if algorithm == "bpe" else _learn_unigram
    tokenizer = Tokenizer(learn(pieces, learnable, reserved, byte_fallback))
    tokenizer.normalizer = normalizers.Lowercase() if lowercase else None
    tokenizer.pre_tokenizer = _pre_tokenizer(split_digits)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    before, after = (f"{BOS} " if add_bos_token else ""), (f" {EOS}" if add_eos_token else "")
    used = [token for token, is_used in ((BOS, add_bos_token), (EOS, add_eos_token)) if is_used]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{before}$A{after}",
        pair=f"{before}$A{after} $B{after}",
        special_tokens=[(token, specials.index(token)) for token in used],
    )
    limit: dict[str, Any] = {} if model_max_length is None else {"model_max_length": model_max_length}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        extra_special_tokens=specials[4:],
        clean_up_tokenization_spaces=False,
        padding_side="right",
        truncation_side=truncation_side,
        **limit,
    )


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings of `train_tokenizer` that are not of their types or out of their bounds.

    Raises:
        InputError: with the setting, what was given and what was expected.
    """
    declared = get_type_hints(train_tokenizer)
    for name, value in settings.items():
        check_type(f"tokenizer {name}", value, declared[name])
    for name, largest in {"vocab_size": _LARGEST_VOCABULARY, "model_max_length": 10**30}.items():
        value = settings.get(name)
        if value is not None and not 1 <= value <= largest:
            raise InputError(f"tokenizer {name} must be from 1 to {largest}, got {value}")
    if "" in settings.get("special_tokens", ()):
        raise InputError("tokenizer special_tokens must be texts that are not empty, got ''; leave it out")


def _pre_tokenizer(split_digits: bool) -> pre_tokenizers.PreTokenizer:
    pattern = Regex(_PIECES_AND_DIGITS if split_digits else _PIECES)
    return pre_tokenizers.Split(pattern, behavior="isolated")


def _count_pieces(texts: Iterable[str], specials: list[str], split_digits: bool, lowercase: bool) -> Counter[str]:
    splitter, lower = _pre_tokenizer(split_digits), normalizers.Lowercase()
    pieces: Counter[str] = Counter()
    for number, text in enumerate(texts, start=1):
        check_unicode(text, f"text {number} to train the tokenizer on")
        for special in specials:
            text = text.replace(special, "\n")
        text = lower.normalize_str(text) if lowercase else text
        pieces.update(piece for piece, _ in splitter.pre_tokenize_str(text))
    return pieces


def _alphabet(pieces: Counter[str], size: int) -> list[str]:
    """The characters that get a token of their own: all, or the most frequent ones up to half of the vocabulary."""
    characters: Counter[str] = Counter()
    for piece, count in pieces.items():
        for character in piece:
            characters[character] += count
    ranked = sorted(characters, key=lambda character: (-characters[character], character))
    return ranked if len(ranked) <= size // 2 else ranked[: max(1, size // 2)]


def _learn_bpe(pieces: Counter[str], size: int, reserved: list[str], byte_fallback: bool) -> models.Model:
    alphabet = _alphabet(pieces, size)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        show_progress=False,
        special_tokens=[],
        # All of it is given, because the trainer breaks ties between rare characters at random.
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
    )
    learned = _train(models.BPE(), trainer, pieces)
    names = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    return models.BPE(
        vocab={token: index for index, token in enumerate(reserved + names)},
        merges=[tuple(pair) for pair in learned["merges"]],
        unk_token=UNK,
        byte_fallback=byte_fallback,
    )


def _learn_unigram(pieces: Counter[str], size: int, reserved: list[str], byte_fallback: bool) -> models.Model:
    alphabet = _alphabet(pieces, size)
    trainer = trainers.UnigramTrainer(vocab_size=size, show_progress=False, special_tokens=[])
    known = set(alphabet)
    kept = Counter({piece: count for piece, count in pieces.items() if known.issuperset(piece)})
    learned = _train(models.Unigram(), trainer, kept)["vocab"][:size]
    # The trainer's sums depend on the order of its threads, and it ranks characters that it did not learn at random.
    # Rounding removes the former; for the latter, characters get their scores in the order of their frequency.
    rounded = {token: round(score, 6) for token, score in learned}
    characters = [character for character in alphabet if character in rounded]
    ranked = sorted((rounded[character] for character in characters), reverse=True)
    rounded |= zip(characters, ranked, strict=True)
    scored = sorted(rounded.items(), key=lambda pair: (-pair[1], pair[0]))
    # No text is segmented into reserved tokens: their score only has to be lower than any learned one.
    lowest = scored[-1][1] - 100.0
    return models.Unigram(
        [(token, lowest) for token in reserved] + scored,
        unk_id=reserved.index(UNK),
        byte_fallback=byte_fallback,
    )


def _train(model: models.Model, trainer: trainers.Trainer, pieces: Counter[str]) -> dict[str, Any]:
    """Trains on the counted pieces, in sorted order, so that the result is reproducible; returns the model as JSON."""
    tokenizer = Tokenizer(model)
    tokenizer.train_from_iterator((piece for piece in sorted(pieces) for _ in range(pieces[piece])), trainer)
    return json.loads(tokenizer.to_str())["model"]


class SpecialTokenIds(Protocol):
    """The fields of a model's config that have to agree with the tokenizer."""

    vocab_size: int
    pad_token_id: int | None
    bos_token_id: int | None
    eos_token_id: int | None
    decoder_start_token_id: int | None


def check_special_tokens(tokenizer: PreTrainedTokenizerFast, config: SpecialTokenIds) -> None:
    """Refuse a config whose special token ids or vocabulary do not fit the tokenizer's.

    Also a tokenizer that does not append its eos_token to a text: a model learns from it where to stop.

    Raises:
        InputError: with what does not fit and how to fix it.
    """
    for name in ("pad_token", "eos_token", "bos_token"):
        config_id, token_id = getattr(config, f"{name}_id"), getattr(tokenizer, f"{name}_id")
        if token_id is None and name != "bos_token":
            raise InputError(
                f"the tokenizer must have a {name}, for which the config has id {config_id}, got none; add it"
            )
        if token_id is not None and config_id != token_id:
            raise InputError(
                f"config.{name}_id must be {token_id}, the id of the tokenizer's {getattr(tokenizer, name)!r}, got "
                f"{config_id}; set it"
            )
    if tokenizer.eos_token_id not in tokenizer("a").input_ids:
        raise InputError(
            f"the tokenizer must append its eos_token {tokenizer.eos_token!r} to a text, so that targets have an end; "
            "set its backend_tokenizer.post_processor to tokenizers.processors."
            f"TemplateProcessing(single='$A {tokenizer.eos_token}', "
            f"special_tokens=[({tokenizer.eos_token!r}, {tokenizer.eos_token_id})]) and save it"
        )
    start = config.decoder_start_token_id
    if start is None or not 0 <= start < len(tokenizer):
        raise InputError(
            f"decoder_start_token_id must be one of the tokenizer's {len(tokenizer)} ids, got {start}; set it to the "
            f"bos_token_id {tokenizer.bos_token_id}, for instance"
        )
    if len(tokenizer) > config.vocab_size:
        raise InputError(
            f"vocab_size of the config must be at least the tokenizer's {len(tokenizer)}, got {config.vocab_size}; "
            f"set it to {len(tokenizer)} or call model.resize_token_embeddings({len(tokenizer)})"
        )
