"""From a trained model and a list of texts to what it makes of them."""

from .answers import answer, answer_batch
from .texts import generate_texts, translate_batch

__all__ = ["answer", "answer_batch", "generate_texts", "translate_batch"]
