"""What is read of a foreign model's config."""

import pytest
from transformers import BertConfig, MptConfig, RobertaConfig, T5Config, XLNetConfig

from crossmask.seq2seq.pretrained_parts import max_length_of


@pytest.mark.parametrize(
    ("config", "first_position", "length"),
    [
        (BertConfig(max_position_embeddings=64), 0, 64),
        (RobertaConfig(max_position_embeddings=66), 2, 64),
        (MptConfig(max_seq_len=64), 0, 64),
        (T5Config(), 0, None),
        (XLNetConfig(), 0, None),  # whose max_position_embeddings are -1
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_the_longest_sequence_of_a_model(config, first_position, length):
    assert max_length_of(config, first_position) == length
