"""Generation with a trained model for lists of texts and files of lines."""

from .answers import answer, answer_batch
from .reranking import NoisyChannelReranker
from .texts import generate_texts, translate_batch

__all__ = ["NoisyChannelReranker", "answer", "answer_batch", "generate_texts", "translate_batch"]
