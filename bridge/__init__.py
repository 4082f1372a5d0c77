"""Any text encoder and any causal language model, joined by interactive attention."""

from ..configuration.bridge import CrossMaskBridgeConfig
from .bridge import CrossMaskBridgeForConditionalGeneration

__all__ = ["CrossMaskBridgeConfig", "CrossMaskBridgeForConditionalGeneration"]
