"""Transformers' own common tests, applied to our classes; run by `modeling/test_transformers_common.py`.

Their code is not ours and not here: it is read from the folder `TRANSFORMERS_TESTS`, the `tests` of a source
distribution. That one has the mixins of models and configs, but not the folders beside them, so the two names that
they import from there are stood in for below. Given the `tests` of a full checkout, the generation tests run as well.
"""

import importlib.machinery
import json
import os
import sys
import types
import unittest
from importlib import import_module
from pathlib import Path
from unittest import mock

import torch
from tiny_encoders import encoder_config
from transformers import BertConfig, ElectraConfig, LlamaConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)

from crossmask import (
    CrossMaskBridgeConfig,
    CrossMaskBridgeForConditionalGeneration,
    CrossMaskConfig,
    CrossMaskForConditionalGeneration,
    CrossMaskForQuestionAnswering,
    CrossMaskForSequenceClassification,
    CrossMaskForTokenClassification,
    CrossMaskModel,
    CrossMaskQuestionAnsweringConfig,
    CrossMaskSequenceClassificationConfig,
    CrossMaskTokenClassificationConfig,
)

SOURCE = Path(os.environ["TRANSFORMERS_TESTS"])
PACKAGE = "transformers_tests"
STAND_INS = {
    "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    "utils.test_configuration_utils": {
        "config_common_kwargs": {
            "return_dict": False,
            "output_hidden_states": True,
            "output_attentions": True,
            "dtype": "float16",
            "tie_word_embeddings": False,
            "chunk_size_feed_forward": 5,
            "architectures": ["BertModel"],
            "id2label": {0: "label"},
            "label2id": {"label": "0"},
            "problem_type": "regression",
            "bos_token_id": 6,
            "pad_token_id": 7,
            "eos_token_id": 8,
            "decoder_start_token_id": 10,
        }
    },
}


def mount(source: Path) -> None:
    """Make `source` importable as a package, with stand-ins for what a source distribution leaves out."""
    package = types.ModuleType(PACKAGE)
    package.__path__ = [str(source)]
    package.__spec__ = importlib.machinery.ModuleSpec(PACKAGE, None, is_package=True)
    sys.modules[PACKAGE] = package
    for name, symbols in STAND_INS.items():
        if not (source / name.replace(".", "/")).with_suffix(".py").exists():
            module = types.ModuleType(f"{PACKAGE}.{name}")
            vars(module).update(symbols)
            sys.modules[f"{PACKAGE}.{name.split('.')[0]}"] = types.ModuleType(f"{PACKAGE}.{name.split('.')[0]}")
            sys.modules[f"{PACKAGE}.{name}"] = module


mount(SOURCE)
ModelTesterMixin = import_module(f"{PACKAGE}.test_modeling_common").ModelTesterMixin
ConfigTester = import_module(f"{PACKAGE}.test_configuration_common").ConfigTester
GenerationTesterMixin = import_module(f"{PACKAGE}.generation.test_utils").GenerationTesterMixin

# The tests choose by class names in these tables, which is more than registration with the Auto classes touches.
MODEL_MAPPING_NAMES["crossmask"] = "CrossMaskModel"
MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES["crossmask"] = "CrossMaskForConditionalGeneration"
MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES["crossmask-bridge"] = "CrossMaskBridgeForConditionalGeneration"
MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES["crossmask-sequence-classification"] = (
    "CrossMaskForSequenceClassification"
)
MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES["crossmask-token-classification"] = "CrossMaskForTokenClassification"
MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES["crossmask-question-answering"] = "CrossMaskForQuestionAnswering"


class CrossMaskTester:
    """A small model and a batch for it; attribute names are the mixins' own."""

    config_fields: dict = {}

    def __init__(self, parent):
        self.parent = parent
        self.batch_size = 3
        self.seq_length = self.encoder_seq_length = self.decoder_seq_length = 7
        self.key_length = 7
        self.is_training = True
        self.vocab_size = 99
        self.hidden_size = 32
        self.num_hidden_layers = 2
        self.num_attention_heads = 4
        self.intermediate_size = 48

    def get_config(self) -> CrossMaskConfig:
        return CrossMaskConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            encoder_layers=self.num_hidden_layers,
            decoder_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=2,
            max_position_embeddings=64,
            initializer_range=float(os.environ.get("INITIALIZER_RANGE", "0.2")),
            **self.config_fields,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[CrossMaskConfig, dict]:
        def tokens():
            return torch.randint(4, self.vocab_size, (self.batch_size, self.seq_length))

        ones = torch.ones(self.batch_size, self.seq_length, dtype=torch.long)
        inputs = {"input_ids": tokens(), "decoder_input_ids": tokens()}
        return self.get_config(), {**inputs, "attention_mask": ones, "decoder_attention_mask": ones.clone()}

    def prepare_config_and_inputs_for_model_class(self, model_class) -> tuple[CrossMaskConfig, dict]:
        return self.prepare_config_and_inputs_for_common()


class CrossMaskSuite(ModelTesterMixin, GenerationTesterMixin, unittest.TestCase):
    all_model_classes = (CrossMaskModel, CrossMaskForConditionalGeneration)
    is_encoder_decoder = True
    test_can_init_all_missing_weights_before_2023 = True  # the date is read from a copyright line, which we don't have
    config_fields: dict = {}

    def setUp(self):
        self.model_tester = CrossMaskTester(self)
        self.model_tester.config_fields = self.config_fields
        self.config_tester = ConfigTester(
            self, config_class=CrossMaskConfig, common_properties=["hidden_size", "num_attention_heads"]
        )
        if "custom_4d_attention_mask" in self._testMethodName:
            self.skipTest("it is for decoders alone: it gives no decoder_input_ids")
        if "rope_scaling_from_config" in self._testMethodName:
            self.skipTest("it changes what get_text_config(decoder=True) gives: of an encoder-decoder's config a copy")

    def test_config(self):
        self.config_tester.run_common_tests()


class SeparateEmbeddings(CrossMaskSuite):
    __test__ = False

    def test_inputs_embeds_matches_input_ids(self):
        self.skipTest("it looks decoder tokens up in the encoder's embedding, which is another one here")


class FactorisedSuite(SeparateEmbeddings):
    __test__ = True
    config_fields = {"embedding_size": 16, "embedding_act": "gelu", "tie_word_embeddings": "head"}


class UntiedSuite(SeparateEmbeddings):
    __test__ = True
    config_fields = {"tie_word_embeddings": False}


class AdditiveSuite(CrossMaskSuite):
    config_fields = {"cross_attention_score": "additive", "tie_word_embeddings": "embedding"}


class MaskedSuite(CrossMaskSuite):
    config_fields = {"encoder_mask": {"0": "window(2)", "rest": "blocks(3)"}, "cross_mask": "wait_k(2)"}


class MemorySuite(CrossMaskSuite):
    config_fields = {"memory_length": 7}


class QuestionAnsweringTester:
    """A small question answering model and a batch for it; attribute names are the mixins' own."""

    def __init__(self, family: str):
        self.family = family
        self.batch_size = 3
        self.seq_length = self.encoder_seq_length = self.key_length = 7
        self.is_training = True
        self.hidden_size = 32
        self.num_hidden_layers = 2
        self.num_attention_heads = 4

    def get_config(self) -> CrossMaskQuestionAnsweringConfig:
        return CrossMaskQuestionAnsweringConfig(
            encoder=encoder_config(self.family), no_answer=True, initializer_range=0.2, num_attention_heads=4
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[CrossMaskQuestionAnsweringConfig, dict]:
        shape = (self.batch_size, self.seq_length)
        inputs = {"input_ids": torch.randint(5, 60, shape), "attention_mask": torch.ones(shape, dtype=torch.long)}
        return self.get_config(), {**inputs, "passage_ids": torch.tensor([-1, -1, -1, 0, 0, 0, -1]).expand(shape)}

    def prepare_config_and_inputs_for_model_class(self, model_class):
        return self.prepare_config_and_inputs_for_common()


class QuestionAnsweringSuite(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (CrossMaskForQuestionAnswering,)
    test_can_init_all_missing_weights_before_2023 = True
    family = "bert"

    def setUp(self):
        self.model_tester = QuestionAnsweringTester(self.family)
        self.config_tester = ConfigTester(
            self, config_class=CrossMaskQuestionAnsweringConfig, common_properties=["num_attention_heads"]
        )
        if "eager_matches" in self._testMethodName:
            self.skipTest("it gives ids alone, and the model has to know which of them are the context")
        if "correct_missing_keys" in self._testMethodName:
            self.skipTest("it loads the base model's folder, which is an encoder's, as the whole model")

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        return {name: value + 4 if name.endswith("_positions") else value for name, value in inputs.items()}

    def test_config(self):
        self.config_tester.run_common_tests()


class QuestionAnsweringOnT5Suite(QuestionAnsweringSuite):
    family = "t5"

    def test_can_init_all_missing_weights(self):
        self.skipTest("T5 initialises its embedding as a part of the whole model, of which the encoder is here")


class QuestionAnsweringOnOwnEncoderSuite(QuestionAnsweringSuite):
    family = "crossmask"


class HeadTester(QuestionAnsweringTester):
    """A small model with another head and a batch for it."""

    def __init__(self, config_class, family: str, fields: dict):
        super().__init__(family)
        self.config_class = config_class
        self.fields = fields

    def get_config(self):
        return self.config_class(encoder=encoder_config(self.family), initializer_range=0.2, **self.fields)

    def prepare_config_and_inputs_for_common(self):
        shape = (self.batch_size, self.seq_length)
        inputs = {"input_ids": torch.randint(5, 60, shape), "attention_mask": torch.ones(shape, dtype=torch.long)}
        return self.get_config(), inputs


class SequenceClassificationSuite(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (CrossMaskForSequenceClassification,)
    config_class = CrossMaskSequenceClassificationConfig
    test_can_init_all_missing_weights_before_2023 = True
    family = "bert"
    fields: dict = {"pooling": "attention", "num_attention_heads": 4}

    def setUp(self):
        self.model_tester = HeadTester(self.config_class, self.family, self.fields)
        properties = ["num_attention_heads"] if "num_attention_heads" in self.fields else []
        self.config_tester = ConfigTester(self, config_class=self.config_class, common_properties=properties)
        if "correct_missing_keys" in self._testMethodName:
            self.skipTest("it loads the base model's folder, which is an encoder's, as the whole model")
        if "mismatched_shapes" in self._testMethodName:
            self.skipTest("it loads the folder by AutoModel, which has no class for a head alone")

    def test_config(self):
        self.config_tester.run_common_tests()


class SequenceClassificationByMeanSuite(SequenceClassificationSuite):
    fields = {"pooling": "mean", "num_attention_heads": 4}


class SequenceClassificationByDecoderSuite(SequenceClassificationSuite):
    family = "crossmask"
    fields = {"pooling": "decoder", "num_attention_heads": 4}


class TokenClassificationSuite(SequenceClassificationSuite):
    all_model_classes = (CrossMaskForTokenClassification,)
    config_class = CrossMaskTokenClassificationConfig
    fields = {}


class BridgeTester:
    """A small bridge and a batch for it; attribute names are the mixins' own."""

    encoder_class = BertConfig

    def __init__(self, parent):
        self.parent = parent
        self.batch_size = 3
        self.seq_length = self.encoder_seq_length = self.decoder_seq_length = self.key_length = 7
        self.is_training = True
        self.vocab_size = 99
        self.hidden_size = 32
        self.num_hidden_layers = 2
        self.num_attention_heads = 4

    def get_config(self) -> CrossMaskBridgeConfig:
        sizes = {
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "intermediate_size": 48,
            "max_position_embeddings": 64,
            "initializer_range": (spread := float(os.environ.get("INITIALIZER_RANGE", "0.2"))),
        }
        decoder = LlamaConfig(**sizes, pad_token_id=0, num_key_value_heads=2)
        return CrossMaskBridgeConfig(encoder=self.encoder_class(**sizes), decoder=decoder, initializer_range=spread)

    def prepare_config_and_inputs_for_common(self) -> tuple[CrossMaskBridgeConfig, dict]:
        def tokens():
            return torch.randint(4, self.vocab_size, (self.batch_size, self.seq_length))

        ones = torch.ones(self.batch_size, self.seq_length, dtype=torch.long)
        inputs = {"input_ids": tokens(), "decoder_input_ids": tokens()}
        return self.get_config(), {**inputs, "attention_mask": ones, "decoder_attention_mask": ones.clone()}

    def prepare_config_and_inputs_for_model_class(self, model_class):
        return self.prepare_config_and_inputs_for_common()


class BridgeSuite(ModelTesterMixin, GenerationTesterMixin, unittest.TestCase):
    all_model_classes = (CrossMaskBridgeForConditionalGeneration,)
    _is_composite = True
    is_encoder_decoder = True
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self):
        # Blocks that are open: with closed ones the encoder has no influence.
        opened = mock.patch.object(
            CrossMaskBridgeForConditionalGeneration, "_init_weights", PreTrainedModel._init_weights
        )
        self.enterContext(opened)
        self.model_tester = BridgeTester(self)
        fields = json.loads(self.model_tester.get_config().to_json_string())
        parts = {name: fields[name] for name in ("encoder", "decoder")}
        self.config_tester = ConfigTester(
            self, config_class=CrossMaskBridgeConfig, common_properties=["num_attention_heads"], **parts
        )
        if "training" in self._testMethodName:
            self.model_tester.encoder_class = ElectraConfig  # BERT has a pooler, which gets no gradient
        if "resize" in self._testMethodName:
            self.skipTest("vocabularies are resized by part")
        if self._testMethodName == "test_model_base_model_prefix":
            self.skipTest("it has two parts, neither of which is a base model")
        if "custom_4d_attention_mask" in self._testMethodName:
            self.skipTest("it is for decoders alone: it gives no decoder_input_ids")

    def test_config(self):
        self.config_tester.run_common_tests(can_init_without_params=False)
