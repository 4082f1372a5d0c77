"""An agent for SimulEval to evaluate a crossmask model.

    simuleval --agent streaming/simuleval_agent.py --model runs/multi30k-en-de-waitk --cross-mask "wait_k(3)" \\
        --source test.en --target test.de --quality-metrics BLEU --latency-metrics AL LAAL DAL --output results

Instead of `--agent`, `--agent-class crossmask.streaming.simuleval_agent.CrossMaskAgent` needs no path. SimulEval is
not a dependency of crossmask; version 1.1.4 was tested. Install it with `--no-deps` or in an environment of its own.
"""

from argparse import ArgumentParser, Namespace
from typing import Any

from simuleval.agents import TextToTextAgent
from simuleval.agents.actions import Action, ReadAction, WriteAction
from simuleval.utils import entrypoint

# SimulEval runs this file by its path, outside of the package, so these imports cannot be relative.
from crossmask.inference.loading import load_model_and_tokenizer
from crossmask.pipelines.registration import attach_saved_masks
from crossmask.pipelines.saved_options import saved_prefix
from crossmask.seq2seq.simultaneous.policies import AlignAtt
from crossmask.streaming.text import TextStream


@entrypoint
class CrossMaskAgent(TextToTextAgent):
    """Reads a word at a time, and writes the words that the model's stream completes."""

    def __init__(self, args: Namespace):
        self.stream: TextStream | None = None
        super().__init__(args)
        self.model: Any  # whose `to` has no types
        loaded, self.tokenizer = load_model_and_tokenizer(
            args.model, attn_implementation="eager" if args.align_att is not None else None
        )
        self.model = attach_saved_masks(loaded)
        names = ("encoder_mask", "cross_mask", "max_new_tokens")
        self.options = {name: value for name in names if (value := getattr(args, name)) is not None}
        self.options["prefix"] = saved_prefix(self.model.config, "translation")
        if args.align_att is not None:
            self.options["policy"] = AlignAtt(args.align_att, args.align_att_layer)

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        parser.add_argument("--model", required=True, help="folder or Hub id of a crossmask model with its tokenizer")
        parser.add_argument("--cross-mask", help="and-ed with the model's, for example 'wait_k(3)'")
        parser.add_argument("--encoder-mask", help="and-ed with the model's, for example 'causal()'")
        parser.add_argument("--align-att", type=int, metavar="F", help="follow attention instead of the cross mask")
        parser.add_argument("--align-att-layer", type=int, help="the decoder layer to look at; all by default")
        parser.add_argument("--max-new-tokens", type=int, help="target tokens in a sentence at most")

    def reset(self) -> None:
        super().reset()
        self.stream = None

    def to(self, device: str, *args, fp16: bool = False, **kwargs) -> None:
        self.model.to(device)
        if fp16:
            self.model.half()

    def policy(self) -> Action:
        if self.stream is None:
            self.stream = TextStream(self.model, self.tokenizer, **self.options)
        new = self.states.source[len(self.stream.source[0]) :]
        words = self.stream.push([new], ended=self.states.source_finished)[0]
        finished = self.stream.finished[0]
        return WriteAction(" ".join(words), finished=finished) if words or finished else ReadAction()
