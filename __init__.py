"""crossmask: the encoder-decoder of the Hugging Face ecosystem whose masks you can program."""

__version__ = "0.1.0"
