"""Predicted rows, settings and layout in TensorBoard, read back with its reader."""

import io
import types

import pytest
from PIL import Image

from trainbus_logging import TensorBoardCallback
from trainbus_logging.shown_rows import ShownRows
from training import Callback

reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
hparams = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
layout = pytest.importorskip("tensorboard.plugins.custom_scalar.layout_pb2")

NUMBER = 20


def load(folder):
    accumulator = reader.EventAccumulator(str(folder), {"images": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def texts(log, tag):
    events = log.Tensors(f"{tag}/text_summary")
    return [event.tensor_proto.string_val[0].decode() for event in events]


def shown(log):
    return sorted(log.Tags()["images"])


class Shade(str):
    """The name of a picture, which opens as one of a single grey."""

    def open(self):
        if self == "7.png":
            raise OSError("7.png is torn")
        return Image.new("RGB", (8, 4), (int(self.removesuffix(".png")),) * 3)


def recipe(*, has_pictures):
    fields = {"number": "id", "text": "text", "answer": "text", "kind": "text?"}
    if has_pictures:
        fields = {"image": "picture", **fields}
    task = types.SimpleNamespace(fields=fields, target="answer", metrics=("hit", "f1"))
    return types.SimpleNamespace(task=task, confidence="probability", settings={})


class Predicts(Callback):
    """Says what an evaluation would of rows that it predicted."""

    def __init__(self, recipe, **changes):
        self.changes = changes
        self.recipe = recipe

    def on_setup(self, trainer):
        trainer.recipe = self.recipe

    def metric_names(self):
        return ["val_loss", "hit"]

    def evaluate(self, trainer):
        trainer.bus.on_predictions(trainer, [self.row(i) for i in range(NUMBER)])
        return {"val_loss": 1.0, "hit": 0.5}

    def row(self, index):
        is_right = index not in (3, 7, 11)
        return {
            "image": Shade(f"{index}.png"),
            "number": index,
            "text": f"what is {index}",
            "answer": "yes",
            "kind": "a",
            "prediction": "yes" if is_right else f"no{index}",
            "hit": float(is_right),
            "f1": 0.0,
            "probability": index / NUMBER,
            **self.changes,
        }


def folder_of_run(make_trainer, tmp_path, *, has_pictures=True, changes=(), **options):
    plugin = Predicts(recipe(has_pictures=has_pictures), **dict(changes))
    make_trainer(TensorBoardCallback(**options), plugin).train()
    return tmp_path / "run" / "tensorboard" / "run"


def test_each_evaluation_shows_the_same_rows_and_the_end_those_that_are_worst(
    make_trainer, tmp_path
):
    log = load(folder_of_run(make_trainer, tmp_path, rows=4))
    fixed, worst = texts(log, "rows"), texts(log, "worst")
    assert len(fixed) == 2  # one an evaluation
    assert fixed[0] == fixed[1]
    numbers = [line.split(" | ")[1] for line in fixed[0].split("\n")[2:]]
    assert numbers == ["what is 0", "what is 4", "what is 12", "what is 17"]
    # Wrong ones first, those that it is surest of at their head.
    said = [line.split(" | ")[3] for line in worst[0].split("\n")[2:]]
    assert (len(worst), said) == (1, ["no11", "no7", "no3", "yes"])


def test_rows_that_come_in_turns_are_shown_of_each_kind():
    shown = ShownRows(None).fixed([{"kind": index % 4} for index in range(320)], 8)
    assert {row["kind"] for row in shown} == {0, 1, 2, 3}
    assert ShownRows(None).fixed([{"kind": 1}], 8) == [{"kind": 1}]


def test_rows_with_pictures_are_pictures_with_their_words(make_trainer, tmp_path):
    log = load(folder_of_run(make_trainer, tmp_path, rows=4))
    assert shown(log) == [f"rows/{i}" for i in (1, 2, 3, 4)] + [
        f"worst/{i}" for i in (1, 3, 4)
    ]
    assert [event.step for event in log.Images("rows/1")] == [4, 8]
    event = log.Images("rows/2")[0]
    picture = Image.open(io.BytesIO(event.encoded_image_string))
    assert picture.getpixel((picture.width // 2, 60)) == (4, 4, 4)
    # Below it stands text: letters on white.
    below = picture.crop((0, 150, picture.width, picture.height)).convert("L")
    assert below.getextrema() == (pytest.approx(31, abs=60), 255)


def test_a_picture_that_cannot_be_opened_is_a_note(make_trainer, tmp_path):
    log = load(folder_of_run(make_trainer, tmp_path, rows=4))
    assert texts(log, "notes") == ["step 8: worst/2 is not shown: 7.png is torn"]


def test_rows_without_pictures_are_text_alone(make_trainer, tmp_path):
    log = load(folder_of_run(make_trainer, tmp_path, has_pictures=False))
    assert shown(log) == []
    assert texts(log, "rows")[0].split("\n")[0] == "| text | true | predicted | hit |"
    assert len(texts(log, "rows")[0].split("\n")) == 2 + 8


def test_words_that_a_page_would_obey_are_spelt_out(make_trainer, tmp_path):
    changes = {"text": "<b>|`#\n\0", "answer": "\ud800", "prediction": ["a", 1]}
    log = load(folder_of_run(make_trainer, tmp_path, changes=changes, rows=1))
    line = texts(log, "rows")[0].split("\n")[2]
    spelt = "&#60;b&#62;&#124;&#96;&#35;"
    assert line.split(" | ") == ["| 0&#46;png", spelt, "", "&#91;'a', 1&#93;", "1 |"]


def test_no_rows_are_shown_where_none_are_asked_for(make_trainer, tmp_path):
    log = load(folder_of_run(make_trainer, tmp_path, rows=0))
    assert (shown(log), "rows/text_summary" in log.Tags()["tensors"]) == ([], False)


def test_losses_share_a_chart_and_settings_are_compared(make_trainer, tmp_path):
    log = load(folder_of_run(make_trainer, tmp_path))
    (event,) = log.Tensors("custom_scalars__config__")
    found = layout.Layout.FromString(event.tensor_proto.string_val[0])
    charts = {
        chart.title: list(chart.multiline.tag) for chart in found.category[0].chart
    }
    assert charts["loss"] == ["^loss/"]
    data = log.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    start = hparams.HParamsPluginData.FromString(data).session_start_info
    assert start.hparams["num_epochs"].number_value == 2
    data = log.summary_metadata["_hparams_/experiment"].plugin_data.content
    experiment = hparams.HParamsPluginData.FromString(data).experiment
    assert [info.name.tag for info in experiment.metric_infos] == [
        "loss/val",
        "metric/hit",
    ]


def test_a_configuration_is_compared_by_each_of_its_values(make_trainer, tmp_path):
    config = {
        "data": {"batch_size": 2, "root": "here"},
        "training": {"optimizer": {"lr": 0.1, "betas": [0.9, 0.98], "eps": None}},
        "plugins": ["csv", {"checkpointing": {"mode": "max"}}],
    }
    make_trainer(TensorBoardCallback(), metadata={"config": config}).train()
    log = load(tmp_path / "run" / "tensorboard" / "run")
    data = log.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    start = hparams.HParamsPluginData.FromString(data).session_start_info
    assert sorted(start.hparams) == [
        "data.batch_size",
        "plugins.checkpointing.mode",
        "plugins.csv",
        "training.optimizer.betas",
        "training.optimizer.lr",
    ]


@pytest.mark.parametrize("name", ["", "run-2"])
def test_a_run_of_an_earlier_release_goes_on_in_its_folder(
    make_trainer, tmp_path, name
):
    logs = tmp_path / "logs"
    (logs / name).mkdir(parents=True)
    (logs / name / "events.out.tfevents.0000000001.test.0").touch()
    saved = tmp_path / "half.pt"
    save = make_trainer.save_at(6, saved)
    first = TensorBoardCallback(tmp_path / "elsewhere")
    make_trainer(first, save).train()
    resumed = TensorBoardCallback(logs)
    trainer = make_trainer(resumed)
    trainer.load_checkpoint(saved)
    trainer.bus.register(Renames(resumed, name))
    trainer.train()
    assert resumed.log_dir == logs / name


class Renames(Callback):
    """Lets the state that is restored name a run."""

    before = ("tensorboard",)

    def __init__(self, board, name):
        self.board, self.name_of_run = board, name

    def on_train_begin(self):
        self.board.load_state_dict({"run_name": self.name_of_run})


def test_a_run_is_named_like_its_folder(make_trainer, tmp_path):
    trainer = make_trainer(TensorBoardCallback(tmp_path / "logs"), num_epochs=1)
    trainer.save_dir = tmp_path / "a run: no. 1"
    trainer.train()
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["a-run-no.-1"]
