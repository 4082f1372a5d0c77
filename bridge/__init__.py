"""Any text encoder and any causal language model, joined by interactive attention."""

from ..configuration.bridge import CrossMaskBridgeConfig
from .bridge import CrossMaskBridgeForConditionalGeneration
from .processing import CrossMaskBridgeProcessor

__all__ = ["CrossMaskBridgeConfig", "CrossMaskBridgeForConditionalGeneration", "CrossMaskBridgeProcessor"]
