"""What reading and collating cost, in CPU time: beside a step, and for each photo.

Usage: python benchmarks/collate.py [--rounds 7] [--photos 64] [--write] [--check]

- **demonstration**: a batch of ``config/demo.yaml`` on the second pass and later,
  beside a training step of its small model. ``share`` is the first over the second, of
  the same round; in turns, so that a busy machine disturbs both.
- **photos**: rows with JPEGs of 640 x 480, read, decoded, resized to 384 x 384 and
  normalised: once with nothing kept, once more with all of them kept, and once as bytes
  for a device that normalises them itself (here one without data: no card is needed).
  Beside it what Pillow alone takes to decode and resize the same files; ``x Pillow`` is
  over that.

Medians over rounds of ``time.process_time``: what other processes do is not counted.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from environment import table, write
from overhead import prepare_process

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT, SIDE = 640, 480, 384
BATCH_SIZE = 16
#: Share of a step, and milliseconds for a photo that is not kept, that is, and that
#: goes on to a device as bytes.
SHARE_LIMIT, FRESH_LIMIT, KEPT_LIMIT, SENT_LIMIT = 0.1, 9.5, 1.0, 0.3


def cpu_ms(work: Callable[[], object]) -> float:
    """Return milliseconds of CPU time that one call takes."""
    started = time.process_time()
    work()
    return (time.process_time() - started) * 1e3


def pass_over(loader: Iterable[Any]) -> None:
    """Make each batch and let it go, so that memory is used again as in training."""
    for _ in loader:
        pass


def measure_demonstration(rounds: int, folder: Path) -> dict[str, float]:
    """Return CPU milliseconds of a batch and of a step, and their ratio."""
    from training.app.building.components import build_parts
    from training.app.building.optimizer import build_optimizer
    from training.app.config.load import load_config

    changes = [f"training.save_dir={folder}", f"data.synthetic.folder={folder / 'set'}"]
    config = load_config(ROOT / "config" / "demo.yaml", changes)
    parts = build_parts(config)
    model = parts.model.train()
    optimizer = build_optimizer(model, config.training.optimizer)
    loader = parts.pipeline.get_train_dataloader()
    kept = list(loader)  # the first pass, which fills the caches

    def train(batches: Iterable[Any]) -> None:
        for batch in batches:
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    some = kept[:: max(1, len(kept) // 24)]
    train(some)
    shares, batches, steps = [], [], []
    for _ in range(rounds):
        batches.append(cpu_ms(lambda: pass_over(loader)) / len(loader))
        steps.append(cpu_ms(lambda: train(some)) / len(some))
        shares.append(batches[-1] / steps[-1])
    return {
        "batch_cpu_ms": round(statistics.median(batches), 2),
        "step_cpu_ms": round(statistics.median(steps), 2),
        "share": round(statistics.median(shares), 3),
        "batch_size": config.data.batch_size,
    }


def write_photos(folder: Path, count: int) -> Path:
    """Write JPEGs with soft shapes and some grain, and their rows; return the rows."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    rows = folder / "photos.jsonl"
    with rows.open("w") as file:
        for number in range(count):
            coarse = draw.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            soft = Image.fromarray(coarse).resize(
                (WIDTH, HEIGHT), Image.Resampling.BICUBIC
            )
            grain = draw.normal(0, 6, (HEIGHT, WIDTH, 3))
            pixels = np.clip(np.asarray(soft) + grain, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=90)
            row = {"image": f"{number}.jpg", "question": "what?", "answer": "this"}
            file.write(json.dumps(row) + "\n")
    return rows


def measure_photos(rounds: int, folder: Path, count: int) -> dict[str, float]:
    """Return CPU milliseconds a photo: not kept, kept, sent, and by Pillow alone."""
    import torch
    from PIL import Image

    from trainbus_data.data_pipeline import DataPipeline
    from trainbus_models.blip.build import build_blip

    rows = write_photos(folder, count)
    made = build_blip(["what?", "this"], image_size=SIDE, patch_size=32)

    def loader(cache_mb: int, device: str = "cpu") -> Any:
        pipeline = DataPipeline(
            {"train": str(rows), "batch_size": BATCH_SIZE, "cache_mb": cache_mb},
            processor=made["processor"],
            bos_token_id=made["model"].config.text_config.bos_token_id,
            device=torch.device(device),
        )
        pipeline.setup()
        return pipeline.get_train_dataloader()

    contents = [path.read_bytes() for path in folder.glob("*.jpg")]

    def by_pillow() -> None:
        for content in contents:
            picture = Image.open(io.BytesIO(content)).convert("RGB")
            picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)

    fresh, kept, sent = loader(0), loader(1024), loader(1024, "meta")
    pass_over(kept)
    pass_over(sent)
    work = {
        "fresh": lambda: pass_over(fresh),
        "kept": lambda: pass_over(kept),
        "sent": lambda: pass_over(sent),
        "bare": by_pillow,
    }
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, call in work.items():
            taken[name].append(cpu_ms(call) / count)
    over = [one / bare for one, bare in zip(taken["fresh"], taken["bare"], strict=True)]
    median = {name: statistics.median(each) for name, each in taken.items()}
    return {
        "fresh_cpu_ms": round(median["fresh"], 2),
        "kept_cpu_ms": round(median["kept"], 2),
        "sent_cpu_ms": round(median["sent"], 2),
        "pillow_cpu_ms": round(median["bare"], 2),
        "fresh x Pillow": round(statistics.median(over), 2),
        "photos": count,
    }


def failures(demonstration: dict[str, float], photos: dict[str, float]) -> list[str]:
    """Return a sentence for each limit that is passed."""
    limits = {
        "batch over step": (demonstration["share"], SHARE_LIMIT),
        "ms for a photo": (photos["fresh_cpu_ms"], FRESH_LIMIT),
        "ms for a photo that is kept": (photos["kept_cpu_ms"], KEPT_LIMIT),
        "ms for a photo that is sent as bytes": (photos["sent_cpu_ms"], SENT_LIMIT),
    }
    return [
        f"{name}: {value}, limit is {limit}"
        for name, (value, limit) in limits.items()
        if value > limit
    ]


def main() -> int:
    """Measure and print; return 1 when --check finds a limit passed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--photos", type=int, default=64)
    parser.add_argument("--write", action="store_true", help="keep the figures as JSON")
    parser.add_argument("--check", action="store_true", help="fail above the limits")
    args = parser.parse_args()
    prepare_process()
    with tempfile.TemporaryDirectory(prefix="trainbus-bench-") as name:
        demonstration = measure_demonstration(args.rounds, Path(name))
        photos = measure_photos(args.rounds, Path(name), args.photos)
    for title, row in (("the demonstration", demonstration), ("a photo", photos)):
        cells = [[key, str(value)] for key, value in row.items()]
        print(table([title, ""], cells), end="\n\n")
    if args.write:
        results = {"demonstration": demonstration, "photos": photos}
        print("written:", write("collate", results))
    broken = failures(demonstration, photos) if args.check else []
    for sentence in broken:
        print("failed:", sentence, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
