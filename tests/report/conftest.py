"""Records of runs as trainbus leaves them, written in a moment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Write = Callable[..., Path]

COLOURS = ("red", "green", "blue", "white")


@pytest.fixture
def write_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return what writes the record of a run, and returns its folder."""
    monkeypatch.chdir(tmp_path)
    rows = tmp_path / "rows"
    rows.mkdir()
    lines = []
    for colour in COLOURS:
        Image.new("RGB", (40, 30), colour).save(rows / f"{colour}.png")
        row = {"image": f"{colour}.png", "question": "what color?", "answer": colour}
        lines.append(json.dumps(row) + "\n")
    (rows / "all.jsonl").write_text("".join(lines))

    def write(name: str = "demo", said: str = "red", **changes: Any) -> Path:
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        config = {
            "task": "vqa",
            "data": {"train": "rows/all.jsonl", "validation": "rows/all.jsonl"},
            "model": {"build": {}},
            "training": {"num_epochs": 3, "optimizer": {"lr": 0.1}},
            **changes.pop("config", {}),
        }
        history = changes.pop("history", None) or [
            {
                "epoch": epoch,
                "lr": 0.1,
                "train_loss": 2 / epoch,
                "val_loss": 3 / epoch,
                "accuracy": 0.25 * epoch,
                "accuracy/other": 0.25 * epoch,
            }
            for epoch in (1, 2, 3)
        ]
        best = {"monitor": "accuracy", "value": 0.75, "row": history[-1]}
        floors = {"most_frequent": {"all": 0.125, "other": 0.0625}}
        cost = {"plugin": "csv", "hook": "on_epoch_end", "calls": 3, "seconds": 0.5}
        summary = {
            "status": "finished",
            "stop_reason": "no better for 2 epochs",
            "stop_owner": "early_stopping",
            "epochs": 3,
            "steps": 12,
            "seconds": 8.0,
            "best": [best],
            "data": {"rows": {"train": 4}, "floors": floors},
            "costs": [{**cost, "syncs": 0}],
            **changes,
        }
        ended = {"time": "2026-01-02T03:04:05+00:00", "seconds": 4.0, "steps": 12}
        starts = [
            {"time": "2026-01-01T01:02:03+00:00", "from": None, "ended": None},
            {"time": "2026-01-02T01:02:03+00:00", "from": "half.pt", "ended": ended},
        ]
        predictions = [
            {
                "image": f"{colour}.png",
                "question": "what color?",
                "answer": colour,
                "prediction": said,
                "mean_log_probability": -0.5 - index,
                "accuracy": float(colour == said),
            }
            for index, colour in enumerate(COLOURS)
        ]
        for file, value in (
            ("config.yaml", config),
            ("history.json", history),
            ("summary.json", summary),
            ("starts.json", starts),
        ):
            (run / file).write_text(json.dumps(value))
        text = "".join(json.dumps(row) + "\n" for row in predictions)
        (run / "predictions.jsonl").write_text(text)
        return run

    return write
