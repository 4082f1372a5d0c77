"""From a trained model and a list of texts to what it makes of them."""

from .texts import generate_texts, translate_batch

__all__ = ["generate_texts", "translate_batch"]
