"""Who gets accumulation, tail windows, skipped steps and NaN right.

Usage: python benchmarks/semantics.py [--write] [--check]

Every trainer that is installed runs every case on the CPU, with its own loop and its
defaults; what it does is measured, not read. A case has one right answer, that of plain
arithmetic: the gradient of one large batch, the rate after as many updates as were
applied, the lowest number. `--check` fails if trainbus misses one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from environment import RESULTS, describe, table, write
from semantics_peers import Job, Peer, installed
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

import training

#: Relative difference of gradients that fp32 rounding explains.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Outcome:
    """What a peer did in a case.

    Attributes:
        is_right: whether it is the right answer.
        measured: what was measured, for a reader.
    """

    is_right: bool
    measured: str


@dataclass(frozen=True)
class Case:
    """A question to every peer.

    Attributes:
        name: short and unique.
        question: what is done, and what is right.
        ask: puts it to a peer.
    """

    name: str
    question: str
    ask: Callable[[Peer], Outcome]


class Watch:
    """Notes gradients and rates whenever the optimizer steps."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.gradients: list[Tensor] = []
        self.rates: list[float] = []
        # After the step: one trainer computes gradients inside of it.
        optimizer.register_step_post_hook(self._note)

    def _note(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        group = optimizer.param_groups[0]
        grads = [p.grad.detach().ravel() for p in group["params"] if p.grad is not None]
        self.gradients.append(torch.cat(grads))
        self.rates.append(float(group["lr"]))


class Masked(nn.Module):
    """Linear regression, its loss a mean over the rows whose label counts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 1)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the mean loss of rows (B, 4) over labels (B,) that are not -100."""
        keep = labels != -100
        error = self.layer(x).squeeze(1)[keep] - labels[keep].float()
        return {"loss": error.square().mean()}


def first_gradient(
    peer: Peer, model: nn.Module, batches: list[dict[str, Tensor]]
) -> Tensor:
    """Return the gradient of one window over ``batches``."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    watch = Watch(optimizer)
    peer.fit(Job(model, batches, optimizer, accumulation=len(batches)))
    return watch.gradients[0]


def compare(gradient: Tensor, true: Tensor) -> Outcome:
    """Return how a gradient differs from the true one."""
    difference = float((gradient - true).norm() / true.norm())
    ratio = float(gradient.norm() / true.norm())
    right = difference < ROUNDING
    return Outcome(right, "exact" if right else f"{difference:.0%} off, x{ratio:.2f}")


def ask_ragged(peer: Peer) -> Outcome:
    """Accumulate 3 + 5 rows of which 2 and 5 count."""
    torch.manual_seed(1)
    x, labels = torch.randn(8, 4), torch.tensor([3, -100, 1, 2, 7, 5, 4, 9])
    whole = {"x": x, "labels": labels}
    parts = [{key: value[:3] for key, value in whole.items()}]
    parts.append({key: value[3:] for key, value in whole.items()})
    model = Masked()
    model(**whole)["loss"].backward()
    true = torch.cat([p.grad.ravel() for p in model.parameters() if p.grad is not None])
    return compare(first_gradient(peer, Masked(), parts), true)


def tiny_blip() -> nn.Module:
    """Return transformers' own BLIP for questions, tiny, random, without dropout."""
    from transformers import BlipConfig, BlipForQuestionAnswering

    torch.manual_seed(0)
    text = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 64,
        "projection_dim": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "sep_token_id": 2,
        "pad_token_id": 0,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
        "initializer_range": 0.08,
    }
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=32)
    return BlipForQuestionAnswering(config)


def blip_rows() -> dict[str, Tensor]:
    """Return 8 questions whose answers are 1 to 5 tokens long."""
    torch.manual_seed(1)
    lengths = torch.tensor([1, 5, 2, 4, 3, 1, 5, 2]) + 1  # and an end
    ids = torch.randint(3, 64, (8, 7))
    ids[:, 0] = 1
    real = torch.arange(7) <= lengths[:, None]
    return {
        "pixel_values": torch.randn(8, 3, 16, 16),
        "input_ids": torch.randint(3, 64, (8, 6)),
        "attention_mask": torch.ones(8, 6, dtype=torch.long),
        "decoder_input_ids": ids * real,
        "decoder_attention_mask": real.long(),
        "labels": ids.masked_fill(~real, -100),
    }


def ask_blip(peer: Peer) -> Outcome:
    """Accumulate 8 rows as 4 x 2."""
    rows = blip_rows()
    model = tiny_blip().eval()
    model(**rows)["loss"].backward()
    true = torch.cat([p.grad.ravel() for p in model.parameters() if p.grad is not None])
    parts = [
        {key: value[i : i + 2] for key, value in rows.items()} for i in (0, 2, 4, 6)
    ]
    return compare(first_gradient(peer, tiny_blip(), parts), true)


class Slope(nn.Module):
    """Its loss is its parameter times the mean input: the gradient is that mean."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the loss of inputs (B,)."""
        return {"loss": (self.p * x).mean()}


def ask_tail(peer: Peer) -> Outcome:
    """Train two epochs of 5 batches, 4 a window; every true gradient is 1."""
    model = Slope()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(optimizer)
    batches = [{"x": torch.ones(2)}] * 5
    peer.fit(Job(model, batches, optimizer, accumulation=4, num_epochs=2))
    steps = [round(float(gradient), 4) for gradient in watch.gradients]
    return Outcome(steps == [1.0] * 4, " ".join(f"{step:g}" for step in steps))


def ask_skip(peer: Peer, is_fused: bool) -> Outcome:
    """Make 4 attempts of which the second overflows; the last uses the third rate."""
    model = Slope()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=is_fused)
    watch = Watch(optimizer)
    scheduler = LambdaLR(optimizer, lambda advances: 1 - advances / 10)
    batches = [{"x": torch.full((1,), size)} for size in (1.0, 1e38, 1.0, 1.0)]
    peer.fit(Job(model, batches, optimizer, scheduler=scheduler, is_scaled=True))
    used = 10 - round(watch.rates[-1] * 100)
    finite = bool(torch.isfinite(model.p).all())
    words = f"{used} advances"
    return Outcome(used == 2 and finite, words if finite else "weights are NaN")


def ask_nan(peer: Peer) -> Outcome:
    """Train on 4 batches of which the second gives NaN; the weights stay finite."""
    model = Slope()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = [{"x": torch.full((1,), size)} for size in (1.0, math.nan, 1.0, 1.0)]
    watch = Watch(optimizer)
    try:
        peer.fit(Job(model, batches, optimizer))
    except Exception:
        if not watch.rates:  # before the first update: not because of the NaN
            raise
    finite = bool(torch.isfinite(model.p).all())
    return Outcome(finite, f"weights are {'finite' if finite else 'NaN'}")


def ask_best(peer: Peer) -> Outcome:
    """Let early stopping see 1, NaN, 3, 2; the lowest is 1."""
    best = peer.best_of([1.0, math.nan, 3.0, 2.0])
    return Outcome(best == 1.0, f"best is {best:g}")


CASES = (
    Case(
        "ragged window",
        "3 + 5 rows, 2 and 5 counted: gradient of one batch",
        ask_ragged,
    ),
    Case("BLIP 4 x 2", "8 answers of 1 to 5 tokens: gradient of one batch", ask_blip),
    Case("tail window", "5 batches, 4 a window, 2 epochs: 4 steps of 1", ask_tail),
    Case(
        "skipped step",
        "2nd of 4 fp16 steps overflows: 2 advances before the 3rd update",
        lambda peer: ask_skip(peer, is_fused=False),
    ),
    Case(
        "skipped, fused",
        "the same with a fused optimizer",
        lambda peer: ask_skip(peer, is_fused=True),
    ),
    Case("NaN loss", "2nd of 4 batches gives NaN: weights stay finite", ask_nan),
    Case("NaN metric", "early stopping sees 1, NaN, 3, 2: best is 1", ask_best),
)


def run(peers: dict[str, Peer]) -> dict[str, dict[str, Outcome]]:
    """Return case -> peer -> outcome; one that cannot be asked is not right."""
    outcomes: dict[str, dict[str, Outcome]] = {}
    for case in CASES:
        outcomes[case.name] = {}
        for name, peer in peers.items():
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    outcome = case.ask(peer)
            except Exception as error:
                outcome = Outcome(False, f"raised {type(error).__name__}")
                print(f"{case.name}: {name}: {error!r:.300}", file=sys.stderr)
            outcomes[case.name][name] = outcome
            print(f"{case.name}: {name} done", file=sys.stderr, flush=True)
    return outcomes


def show(outcomes: dict[str, dict[str, Outcome]]) -> str:
    """Return the table: cases down, peers across, and what each case asks."""
    names = list(next(iter(outcomes.values())))
    rows = [
        [case, *(_cell(by_peer[name]) for name in names)]
        for case, by_peer in outcomes.items()
    ]
    right = [
        sum(by_peer[name].is_right for by_peer in outcomes.values()) for name in names
    ]
    rows.append(["right", *(f"{n} of {len(outcomes)}" for n in right)])
    questions = [f"{case.name}: {case.question}" for case in CASES]
    return "\n".join([table(["case", *names], rows), "", *questions])


def _cell(outcome: Outcome) -> str:
    return f"{'yes' if outcome.is_right else 'NO'} ({outcome.measured})"


def keep(outcomes: dict[str, dict[str, Outcome]]) -> None:
    """Write the outcomes as JSON, and the table with its circumstances as text."""
    results = {
        case: {
            name: {"right": outcome.is_right, "measured": outcome.measured}
            for name, outcome in by_peer.items()
        }
        for case, by_peer in outcomes.items()
    }
    facts = describe()
    # Also where trainbus is on the path without being installed.
    facts["versions"]["trainbus"] = training.__version__
    kept = {"versions": facts["versions"], "cases": results}
    print("written:", write("semantics", kept))
    versions = ", ".join(f"{name} {v}" for name, v in facts["versions"].items())
    head = f"{facts['date']}, {facts['cpu']}, Python {facts['python']}\n{versions}\n\n"
    path = RESULTS / "semantics.txt"
    path.write_text(head + show(outcomes) + "\n")
    print("written:", path)


def main() -> int:
    """Run all cases; return 1 when --check finds trainbus wrong in one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="keep table and JSON")
    parser.add_argument("--check", action="store_true", help="fail if trainbus fails")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    outcomes = run(installed())
    print(show(outcomes))
    if args.write:
        keep(outcomes)
    wrong = [
        case
        for case, by_peer in outcomes.items()
        if "trainbus" not in by_peer or not by_peer["trainbus"].is_right
    ]
    for case in wrong if args.check else []:
        print(f"failed: trainbus is not right in {case!r}", file=sys.stderr)
    return 1 if args.check and wrong else 0


if __name__ == "__main__":
    sys.exit(main())
