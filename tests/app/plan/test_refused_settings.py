"""What a run refuses before its first step, a plan tells in the same words."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., tuple[int, str, str]]

RECORDS = "which records CUDA graphs itself; drop cuda_graphs, or use mode 'default'"
ON, BY_MODE = "training.cuda_graphs=true", "training.compile={mode: reduce-overhead}"
BY_OPTION = "training.compile={options: {triton.cudagraphs: true}}"


def set_to(*settings: str) -> list[str]:
    return [word for each in settings for word in ("--set", each)]


def conflicts(told: str) -> str:
    return told.partition("\nconflicts\n")[2]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(
            set_to(ON, BY_MODE), RECORDS, id="two recorders, by the option and a mode"
        ),
        pytest.param(
            set_to(ON, BY_OPTION), RECORDS, id="by the option of the compiler's backend"
        ),
        pytest.param(
            ["-p", "cuda_graphs", *set_to(BY_MODE)], RECORDS, id="by the plugin"
        ),
        pytest.param(
            set_to("plugins=[cuda_graphs: {id: graphs}]", BY_MODE),
            RECORDS,
            id="by the plugin under another name",
        ),
        pytest.param(
            set_to("training.compile={mode: fast}"),
            "compile is {'mode': 'fast'}, which torch.compile refuses",
            id="a mode of the compiler that there is not",
        ),
        pytest.param(
            set_to("training.compile={speed: 3}"),
            "compile is {'speed': 3}, which torch.compile refuses",
            id="an argument that it does not take",
        ),
        pytest.param(
            set_to("plugins=[]", "training.save_dir=run.yaml"),
            "training.save_dir is 'run.yaml', but ",
            id="a file for a folder",
        ),
        pytest.param(
            set_to("plugins=[]", "training.save_dir=run.yaml/out"),
            "run.yaml' is no folder that can be written; choose another one",
            id="a folder below a file",
        ),
        pytest.param(
            set_to("plugins=[csv: {filename: rows}]"),
            "rows', which is a folder",
            id="a folder for a file",
        ),
        pytest.param(
            set_to("plugins=[csv: {filename: /dev/null}]"),
            "csv.filename is '/dev/null', which is a device; name a file",
            id="a device for a file",
        ),
        pytest.param(
            set_to("plugins=[lr_scheduling: {type: cosine, min_lr: 7}]"),
            "lr_scheduling.min_lr is 7, above the optimizer's rate of ",
            id="a floor above the rate",
        ),
    ],
)
def test_what_a_run_refuses_a_plan_tells(
    workplace: Path, command: Command, arguments: list[str], told: str
) -> None:
    code, out, err = command("plan", "run.yaml", *arguments)
    assert (code, err) == (0, "")
    assert told in conflicts(out)
    code, _, err = command("run", "run.yaml", *arguments)
    assert code == 2
    assert told in err


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(set_to(ON), id="a recorder alone"),
        pytest.param(set_to(BY_MODE), id="a compiler that records, alone"),
        pytest.param(
            set_to(ON, "training.compile={mode: max-autotune-no-cudagraphs}"),
            id="a compiler that does not",
        ),
        pytest.param(
            set_to("plugins=[evaluation, csv: {filename: new/deep/log.csv}]"),
            id="folders that are still to be made",
        ),
        pytest.param(set_to("training.device=cuda"), id="a device of another machine"),
    ],
)
def test_what_goes_together_is_no_conflict(
    workplace: Path, command: Command, arguments: list[str]
) -> None:
    code, out, err = command("plan", "run.yaml", *arguments)
    assert (code, err, conflicts(out)) == (0, "", "")
    assert not (workplace / "new").exists()


OWN = """from training import Callback
class One(Callback):
    hook_api = ">=1.1,<2"
    produces = ("noise",)
    def metric_names(self):
        return self.produces
    def evaluate(self):
        return dict.fromkeys(self.produces, 1.0)
class Other(One):
    pass
class Apart(One):
    produces = ("calm",)
class Means(One):
    produces = ("train_loss",)
class Silent(One):
    metric_names = evaluate = None
"""


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Other", "metric 'noise' comes from both 'One' and 'Other'; rename or"),
        ("Means", "metric 'train_loss' comes from both 'trainer' and 'Means'; rename"),
        ("Apart", ""),
        ("Silent", ""),
    ],
)
def test_a_metric_that_two_plugins_declare_is_a_conflict(
    workplace: Path, command: Command, name: str, told: str
) -> None:
    (workplace / "own.py").write_text(OWN)
    both = set_to(f"plugins=[evaluation, ./own.py:One, ./own.py:{name}]")
    code, out, _ = command("plan", "run.yaml", *both)
    assert (code, told in conflicts(out), bool(conflicts(out))) == (0, True, bool(told))
    code, _, err = command("run", "run.yaml", *both)
    assert (code != 0, told in err) == (bool(told), True)


def test_a_place_outside_of_the_runs_folder_is_looked_at_as_well(
    workplace: Path, command: Command
) -> None:
    change = set_to("plugins=[tensorboard: {log_dir: run.yaml/events}]")
    code, out, _ = command("plan", "run.yaml", *change)
    assert code == 0
    assert "nothing can be written to 'run.yaml', for " in conflicts(out)
    assert command("run", "run.yaml", *change)[0] == 2


def test_a_switch_whose_plugin_is_missing_is_a_conflict(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trainbus_cuda_graphs", None)
    says = "cuda_graphs is on, but "
    code, out, _ = command("plan", "run.yaml", *set_to(ON))
    assert (code, says in conflicts(out)) == (0, True)
    code, _, err = command("run", "run.yaml", *set_to(ON))
    assert (code, says in err) == (2, True)
