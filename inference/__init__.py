"""Generation with a trained model for lists of texts and files of lines."""

from .texts import generate_texts, translate_batch

__all__ = ["generate_texts", "translate_batch"]
