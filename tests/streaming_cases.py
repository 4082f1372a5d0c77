"""A tiny model with a tokenizer, and texts, for tests of streams of words."""

from small_models import small_model

from crossmask.data.tokenizer_training import train_tokenizer

TEXTS = (
    "a small dog barks loudly at two cats",
    "two cats sleep",
    "the old man reads a newspaper, a small one, on the train",
    "dogs",
)
REFERENCES = (
    "ein kleiner Hund bellt zwei Katzen laut an",
    "zwei Katzen schlafen",
    "der alte Mann liest im Zug eine Zeitung",
    "Hunde und Katzen",
)


def tiny(**fields):
    """An untrained model that writes varied words, and its tokenizer."""
    tokenizer = train_tokenizer([*TEXTS, *REFERENCES] * 3, vocab_size=400)
    sizes = {"vocab_size": len(tokenizer), "tie_word_embeddings": False, "encoder_mask": "causal()"}
    model = small_model(5, **{**sizes, **fields})
    model.generation_config.update(max_new_tokens=20)
    # Whole words only, so that texts are readable and the same when they are tokenised again.
    pieces = [i for i in range(260, len(tokenizer)) if len(tokenizer.decode([i]).strip()) > 1]
    model.generation_config.suppress_tokens = [i for i in range(len(tokenizer)) if i not in {2, *pieces}]
    return model, tokenizer
