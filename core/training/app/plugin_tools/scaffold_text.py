"""The files of a new plugin's project; ``$name`` and the like are filled in."""

SETUP = """\
[metadata]
name = $distribution
version = 0.1.0
description = A plugin for trainbus runs
long_description = file: README.md
long_description_content_type = text/markdown
license = MIT
classifiers =
    Programming Language :: Python :: 3
    Typing :: Typed

[options]
python_requires = >=3.11
packages = $package
package_dir =
    = src
install_requires =
    trainbus >=0.1,<0.2
    annotated-types >=0.6,<1

[options.package_data]
$package = py.typed

[options.extras_require]
test =
    pytest >=8.4

# This announces the plugin; it takes part only in runs that choose it.
[options.entry_points]
trainbus =
    $name = $package:$class_name
"""

PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
"""

README = """\
# $distribution

Counts steps whose loss is above `limit`, and warns of every `warn_every`-th.

    pip install $distribution
    trainbus run config.yaml -p $name

In a configuration:

```yaml
plugins:
  - $name: {limit: 10.0, warn_every: 100}
```

| Option | Default | Meaning |
|---|---|---|
| `limit` | 10.0 | a step's loss above it is counted |
| `every_n_steps` | 10 | steps between looks; each look waits for the device |
| `warn_every` | 100 | counted steps between warnings |

Hooks: `on_setup`, `on_step_end`. State: the count. `trainbus plugins show $name` prints
the options, `trainbus plugins check $name` what is wrong with the installation.

To work on it: `pip install -e '.[test]'`, then `pytest`.
"""

GITIGNORE = """\
*.egg-info/
__pycache__/
build/
dist/
"""

WORKFLOW = """\
name: test
on: [push, pull_request]
jobs:
  test:
    runs-on: ubuntu-latest
    strategy:
      matrix:
        python: ["3.11", "3.13"]
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: $${{ matrix.python }}
      - run: pip install -e '.[test]'
      - run: trainbus plugins check $name
      - run: pytest
"""

INIT = '''\
"""The plugin ``$name`` for trainbus."""

from $package.callback import $class_name

__all__ = ["$class_name"]
'''

CALLBACK = '''\
"""Count steps with a high loss."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge
from training import Callback, checked_options

if TYPE_CHECKING:
    from training import Trainer

log = logging.getLogger(__name__)


class $class_name(Callback):
    """Count steps whose loss is above a limit.

    Args:
        limit: a step's loss above it is counted.
        every_n_steps: steps between looks; each look waits for the device.
        warn_every: counted steps between warnings.
    Raises:
        ConfigError: an option is out of range.
    """

    name = "$name"
    hook_api = "$api"
    failure = "isolate"  # an observer: when it fails, the run goes on
    ranks = "main"  # of a run on many processes the main one alone calls it

    @checked_options
    def __init__(
        self,
        limit: float = 10.0,
        every_n_steps: Annotated[int, Ge(1)] = 10,
        warn_every: Annotated[int, Ge(1)] = 100,
    ) -> None:
        self.limit = limit
        self.every_n_steps = every_n_steps
        self.warn_every = warn_every
        #: Steps above the limit so far.
        self.count = 0

    def on_setup(self) -> None:
        """Forget an earlier run; restored state arrives later."""
        self.count = 0

    def on_step_end(self, trainer: Trainer, logs: Mapping[str, float]) -> None:
        """Look at the loss, if it is time."""
        if trainer.step % self.every_n_steps:
            return
        if logs["loss"] > self.limit:  # waits for the device
            self.count += 1
            if self.count % self.warn_every == 0:
                log.warning("%d steps had a loss above %g", self.count, self.limit)

    def state_dict(self) -> dict[str, Any]:
        """Return the count: progress, never settings."""
        return {"count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the count of a checkpoint."""
        self.count = int(state["count"])
'''

TEST = '''\
"""What the plugin does, and that it does nothing else."""

import pytest

from $package import $class_name


def test_it_conforms(assert_plugin_conforms):
    assert_plugin_conforms($class_name)


def test_steps_above_the_limit_are_counted(tiny_trainer):
    plugin = $class_name(limit=-1.0, every_n_steps=2)
    tiny_trainer(plugin, num_epochs=2, num_batches=4).train()
    assert plugin.count == 4


def test_it_hears_every_step(run_events):
    heard = run_events($class_name(), num_epochs=1, num_batches=2)
    assert heard.hooks == ["on_setup", "on_step_end", "on_step_end"]


@pytest.mark.parametrize("option", ["every_n_steps", "warn_every"])
def test_a_bad_option_is_refused(option):
    with pytest.raises(ValueError, match=f"$name.{option} is 0, but must be"):
        $class_name(**{option: 0})
'''
