"""An environment of one's own to install plugins in, and ways to run things in it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from training.discovery import installed

ROOT = Path(__file__).resolve().parents[2]
OFFLINE = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet")
SCRIPTS = {
    "trainbus": "from training.app.cli import main",
    "pytest": "from pytest import main",
    "pip": "from pip._internal.cli.main import main",
}


@dataclass
class Environment:
    """A virtual environment that sees this one's packages and has its own beside."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(
        self, *command: str | Path, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python ...``, or one of its scripts."""
        words = [str(word) for word in command]
        if words[0] in SCRIPTS:
            words[0] = str(self.folder / "bin" / words[0])
        else:
            words.insert(0, str(self.python))
        return subprocess.run(
            words,
            cwd=cwd or self.folder,
            env=self.variables(**variables),
            capture_output=True,
            text=True,
            check=False,
        )

    def variables(self, **more: str) -> dict[str, str]:
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **more}

    def install(self, *what: str | Path) -> None:
        done = self.run("pip", "install", *OFFLINE, *what)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """Return a fresh environment; making it takes a fraction of a second."""
    folder = tmp_path / "environment"
    make = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(make, check=True)
    outside = sysconfig.get_paths()["purelib"]
    (site,) = folder.glob("lib/python*/site-packages")
    # A plain path line would leave the editable installs of the outside behind.
    (site / "outside.pth").write_text(f"import site; site.addsitedir({outside!r})\n")
    for name, line in SCRIPTS.items():
        script = folder / "bin" / name
        script.write_text(
            f"#!{folder}/bin/python\nimport sys\n{line}\nsys.exit(main())\n"
        )
        script.chmod(0o755)
    return Environment(folder)


@pytest.fixture
def wheel_of(environment: Environment, tmp_path: Path) -> Callable[[Path], Path]:
    """Return a function that builds the wheel of a project, from a copy, offline."""
    import shutil

    def build(project: Path) -> Path:
        copy = tmp_path / "source" / project.name
        skip = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
        shutil.copytree(project, copy, ignore=skip)
        target = tmp_path / "wheels" / project.name
        done = environment.run("pip", "wheel", *OFFLINE, "--wheel-dir", target, copy)
        assert done.returncode == 0, done.stderr
        (wheel,) = target.glob("*.whl")
        return wheel

    return build


CONFIG: dict[str, Any] = {
    "data": {
        "synthetic": {
            "num_train_images": 8,
            "num_validation_images": 4,
            "folder": "shapes",
        },
        "batch_size": 8,
        "max_question_length": 12,
    },
    "model": {"build": {"hidden_size": 16, "image_size": 32, "patch_size": 16}},
    "training": {"num_epochs": 2, "save_dir": "out", "device": "cpu"},
}


@pytest.fixture
def small_config(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a configuration of a run of seconds."""

    def write(**sections: Any) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(json.dumps({**CONFIG, **sections}))  # JSON is YAML
        return path

    return write


@pytest.fixture(autouse=True)
def folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test leave a folder of plugins or a choice to the next one."""
    monkeypatch.setattr(installed, "_FOLDERS", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("TRAINBUS_PLUGINS", raising=False)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that puts a distribution with a module on the path."""

    def make(name: str, entry: str, source: str | None, version: str = "1.0") -> Path:
        site = tmp_path / f"{name}-{version}"
        info = site / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(text)
        (info / "entry_points.txt").write_text(f"[trainbus]\n{entry}\n")
        if source is not None:
            module = re.split("[:= ]+", entry)[1]
            (site / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(site))
        return site

    return make
