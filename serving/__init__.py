"""Trained models on engines that are faster than PyTorch: exports, and one translator for all of them."""

from ..inference.translator import Translator
from .ctranslate2_refusals import refusals
from .ctranslate2_spec import register_converter
from .exports import Export, export
from .loading import load_translator
from .ray_translation import RayLines

__all__ = ["Export", "RayLines", "Translator", "export", "load_translator", "refusals", "register_converter"]
