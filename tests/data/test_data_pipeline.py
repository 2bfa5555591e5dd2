"""From a configuration to batches that are what the model needs."""

import copy
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from trainbus_data.config import DataConfig
from trainbus_data.data_pipeline import DataPipeline
from trainbus_data.rows.reading import Row
from trainbus_data.vqa.task import VQA
from training.errors import ConfigError, DataError
from training.recipes.batch import Batch
from training.recipes.family import ModelFamily

BOS = 5  # [DEC] in the tiny vocabulary


@pytest.fixture
def make(tiny, rows_file):
    """Return a maker of a pipeline over a few rows, set up with the tiny processor."""

    def build(rows=None, **settings) -> DataPipeline:
        path = rows_file(rows)
        config = {"train": str(path), "max_question_length": 8, **settings}
        return DataPipeline(config, processor=tiny["processor"], bos_token_id=BOS)

    return build


def row(image="red.png", question="is it red?", answer="yes", **more):
    return {"image": image, "question": question, "answer": answer, **more}


def only_batch(pipeline: DataPipeline) -> Batch:
    pipeline.setup()
    (batch,) = pipeline.get_train_dataloader()
    return batch


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "task_type: vqa\ndata_paths: {{train: {0}, validation: {0}, test: null}}\n",
            id="the guide's form",
        ),
        pytest.param(
            "task: vqa\ndata: {{train: {0}, validation: {0}}}\ntraining: {{}}\n",
            id="a full configuration",
        ),
        pytest.param("train: {0}\nvalidation: {0}\n", id="the data section alone"),
    ],
)
def test_a_yaml_file_in_any_form_gives_loaders(tmp_path, rows_file, tiny, text):
    config = tmp_path / "c.yaml"
    config.write_text(text.format(rows_file()))
    pipeline = DataPipeline(str(config), processor=tiny["processor"])
    pipeline.setup()
    assert len(pipeline.get_train_dataloader()) == 1
    assert len(pipeline.get_val_dataloader()) == 1
    assert pipeline.get_test_dataloader() is None


def test_a_mistake_in_a_yaml_file_is_named_with_its_line(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("task: vqa\ndata:\n  train: x\n  bach_size: 3\n")
    with pytest.raises(ConfigError, match=rf"{config}:4: data\.bach_size is not"):
        DataPipeline(config)


def test_a_batch_is_what_the_processor_makes_of_its_rows(make, tiny):
    rows = [row(), row("blue.png", "what color is this?", "blue"), row("green.png")]
    batch = only_batch(make(rows, shuffle=False))
    processor = tiny["processor"]
    images = [Image.open(f"{make().config.train.parent}/{r['image']}") for r in rows]
    expected = processor(
        images=images,
        text=[r["question"] for r in rows],
        padding="max_length",
        max_length=8,
        truncation=True,
        return_tensors="pt",
    )
    answers = processor.tokenizer(
        [r["answer"] for r in rows], padding=True, return_tensors="pt"
    )
    decoder_ids = answers["input_ids"].clone()
    decoder_ids[:, 0] = BOS
    expected["decoder_input_ids"] = decoder_ids
    expected["decoder_attention_mask"] = answers["attention_mask"]
    expected["labels"] = decoder_ids.masked_fill(answers["attention_mask"] == 0, -100)
    assert set(batch) == set(expected)
    for key, value in expected.items():
        assert torch.equal(batch[key], value), key
        assert batch[key].dtype == value.dtype, key


def test_a_batch_knows_its_rows_and_how_many_tokens_its_loss_is_a_mean_of(make):
    rows = [row(answer="yes"), row(answer="is it red", kind="k", question_id="q")]
    batch = only_batch(make(rows, shuffle=False))
    assert batch.loss_weight == int((batch["labels"][:, 1:] != -100).sum()) == 6
    assert [r["kind"] for r in batch.rows] == ["yes_no", "k"]
    assert batch.rows[1]["question_id"] == "q"
    assert batch.rows[1]["answers"] == ["is it red"]


@pytest.mark.parametrize(
    "change", [lambda batch: batch.to("cpu"), copy.copy, copy.deepcopy]
)
def test_rows_and_weight_follow_a_batch_that_moves(make, change):
    batch = only_batch(make())
    moved = change(batch)
    assert isinstance(moved, Batch)
    assert moved.rows == batch.rows
    assert moved.loss_weight == batch.loss_weight


def test_workers_give_the_same_batches(make):
    settings = {"shuffle": False, "batch_size": 2}
    rows = [row(), row("blue.png"), row("green.png", answer="no")]
    here, there = make(rows, **settings), make(rows, num_workers=2, **settings)
    here.setup()
    there.setup()
    for one, other in zip(
        here.get_train_dataloader(), there.get_train_dataloader(), strict=True
    ):
        assert other.rows == one.rows
        assert other.loss_weight == one.loss_weight
        assert all(torch.equal(other[key], one[key]) for key in one)


@pytest.mark.parametrize(
    ("settings", "timeout"),
    [
        ({"num_workers": 2}, 600),
        ({"num_workers": 2, "worker_timeout": 5.0}, 5),
        ({"num_workers": 2, "worker_timeout": 0.0}, 0),
        ({"num_workers": 0, "worker_timeout": 5.0}, 0),
    ],
)
def test_a_worker_has_a_time_limit(make, settings, timeout):
    pipeline = make([row()], **settings)
    pipeline.setup()
    assert pipeline.get_train_dataloader().timeout == timeout


def test_every_row_comes_once_an_epoch_and_never_in_file_order_twice(make):
    rows = [row(question_id=number) for number in range(50)]
    pipeline = make(rows, batch_size=8)
    pipeline.setup()
    loader = pipeline.get_train_dataloader()
    orders = [[r["question_id"] for b in loader for r in b.rows] for _ in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(50))
    assert orders[0] != orders[1]


def test_a_loader_before_set_up_says_what_to_do(make):
    with pytest.raises(ConfigError, match=r"call setup\(\) first"):
        make().get_train_dataloader()


def test_rows_are_there_without_a_processor(rows_file):
    pipeline = DataPipeline({"train": str(rows_file())})
    assert pipeline.rows("validation") == []
    answers = [row["answer"] for row in pipeline.training_rows()]
    assert answers == ["red", "green", "blue"]
    with pytest.raises(ConfigError, match="did you mean 'train'"):
        pipeline.rows("trian")


def test_a_processor_may_be_built_from_the_rows_before_set_up(rows_file, tiny):
    pipeline = DataPipeline({"train": str(rows_file())})
    assert pipeline.training_rows()
    pipeline.use_processor(tiny["processor"], BOS)
    assert only_batch(pipeline)["decoder_input_ids"][0, 0] == BOS
    with pytest.raises(ConfigError, match="already set up"):
        pipeline.use_processor(tiny["processor"])


def test_the_processor_and_start_token_come_from_the_named_folder(
    rows_file, tiny, tmp_path
):
    folder = tmp_path / "model"
    tiny["model"].save_pretrained(folder)
    tiny["processor"].save_pretrained(folder)
    pipeline = DataPipeline({"train": rows_file(), "processor": str(folder)})
    batch = only_batch(pipeline)
    assert batch["decoder_input_ids"][:, 0].tolist() == [BOS] * 3


def test_a_processor_that_is_nowhere_is_a_clear_error(rows_file, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    missing = str(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"model.processor is .*neither a folder"):
        DataPipeline({"train": str(rows_file()), "processor": missing}).setup()


def test_a_missing_file_is_an_error_that_says_how_to_get_it(tmp_path):
    with pytest.raises(DataError, match=r"data\.train is .* is not a file"):
        DataPipeline({"train": "no.jsonl"}).rows("train")
    root = tmp_path / "easy_vqa"
    with pytest.raises(DataError, match=rf"data convert easy-vqa CLONE {root}"):
        DataPipeline({"root": str(root), "train": "train.jsonl"}).rows("train")


def test_a_missing_file_below_the_root_is_told_as_it_is_written():
    words = r"data\.train is 'no\.csv' \(relative to data\.root '\.\.'\), which is not"
    with pytest.raises(DataError, match=words):
        DataPipeline({"root": "..", "train": "no.csv"}).rows("train")


def break_image(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def test_a_missing_image_is_named_with_its_row_at_set_up(make):
    pipeline = make([row(), row("missing.png")])
    with pytest.raises(
        DataError, match=r"train\.jsonl:2: image 'missing\.png' does not exist"
    ):
        pipeline.setup()


def test_an_image_that_is_a_folder_is_called_one(make, tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match="'pictures' is a folder"):
        make([row(), row("pictures")]).setup()


@pytest.mark.parametrize("cache_mb", [1, 0], ids=["at set-up", "at its first batch"])
def test_a_broken_image_is_named_with_its_row(make, tmp_path, cache_mb):
    pipeline = make([row(), row("blue.png")], cache_mb=cache_mb)
    break_image(tmp_path / "blue.png")
    with pytest.raises(DataError, match=r"train\.jsonl:2: image 'blue\.png' cannot be"):
        only_batch(pipeline)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_picture_cut_short_that_no_training_needs_is_found_before_it(
    make, tmp_path, rows_file, split
):
    pipeline = make([row()], cache_mb=0, **{split: str(tmp_path / "train.jsonl")})
    break_image(tmp_path / "red.png")
    assert pipeline.rows("train")
    with pytest.raises(DataError, match=r"train\.jsonl:1: image 'red\.png' cannot be"):
        pipeline.rows(split)  # as a plan does; nothing is set up


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_worker_tells_of_a_bad_picture_in_the_same_sentence(
    make, tmp_path, split, caplog
):
    caplog.set_level("DEBUG")

    def told(num_workers: int) -> str:
        more = {"validation": str(tmp_path / "train.jsonl"), "cache_mb": 0}
        pipeline = make([row("a.bmp")], num_workers=num_workers, **more)
        pipeline.setup()
        with pytest.raises(DataError) as caught:
            next(iter(getattr(pipeline, f"get_{split}_dataloader")()))
        return str(caught.value)

    Image.new("RGB", (40, 30)).save(tmp_path / "a.bmp")  # has no mark at its end
    (tmp_path / "a.bmp").write_bytes((tmp_path / "a.bmp").read_bytes()[:999])
    sentence = (
        r"train\.jsonl:1: image 'a\.bmp' cannot be decoded.*; mend the picture, or"
    )
    assert told(1) == told(0)
    assert re.search(sentence, told(1))
    assert "in _worker_loop" in caplog.text


class Refuses(ModelFamily):
    def collate(self, processor, rows):
        for each in rows:
            if each["question"] == "bad":
                raise DataError("the text 'bad' is refused")
        if len(rows) == 1 and rows[0]["question"] == "lone":
            raise ValueError("one row cannot be normalised")
        return Batch({}, [*rows], 0)


@pytest.mark.parametrize("question", ["is it red?", "bad", "lone"])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_a_family_refuses_is_told_with_the_place_of_its_row(
    rows_file, num_workers, question
):
    rows = [row(), row("blue.png", question), row(question="bad")]
    config = {"train": str(rows_file(rows)), "num_workers": num_workers}
    pipeline = DataPipeline(config, task=VQA(), family=Refuses())
    line = 2 if question == "bad" else 3  # found in setup, or in a batch
    with pytest.raises(DataError, match=rf"train\.jsonl:{line}: the text 'bad' is"):
        only_batch(pipeline)


@pytest.mark.parametrize("cache_mb", [1, 0])
def test_skip_leaves_out_every_kind_of_bad_row_and_counts_them(
    make, tmp_path, cache_mb, caplog
):
    rows = [row(), row("blue.png"), row("missing.png"), row(answer=""), row()]
    pipeline = make(
        rows, on_bad_row="skip", max_bad_fraction=0.8, cache_mb=cache_mb, shuffle=False
    )
    break_image(tmp_path / "blue.png")
    batch = only_batch(pipeline)
    assert [r["question_id"] for r in batch.rows] == ["train-1", "train-5"]
    assert [r["question_id"] for r in pipeline.rows("train")] == ["train-1", "train-5"]
    assert "2 of 5 rows" in caplog.text
    assert "train.jsonl:2: image 'blue.png' cannot be decoded" in caplog.text


def test_skip_bears_no_more_than_its_share(make):
    pipeline = make([row(), row(answer="")], on_bad_row="skip", max_bad_fraction=0.4)
    with pytest.raises(DataError, match=r"share of 0\.500"):
        pipeline.setup()


def test_a_row_that_mixes_turns_and_a_question_is_told_of_both(make):
    mixed = {"image": "red.png", "question": "what?", "messages": []}
    with pytest.raises(DataError, match="it has 'question' and 'messages', which is"):
        make([row(), mixed]).setup()


@pytest.mark.parametrize("most", [0.4, 0.3])
def test_the_share_is_that_of_all_rows_that_are_left_out(make, tmp_path, most, caplog):
    rows = [*[row()] * 6, row(answer=""), row("no.png"), *[row("blue.png")] * 2]
    pipeline = make(rows, on_bad_row="skip", max_bad_fraction=most)
    break_image(tmp_path / "blue.png")
    told = "2 of 10 rows of .*, beside 2 left out before"
    if most == 0.4:
        pipeline.setup()
        assert re.search(f"{told} and are left out", caplog.text)
        assert len(pipeline.rows("train")) == 6
    else:
        with pytest.raises(DataError, match=rf"{told}, a share of 0\.400"):
            pipeline.setup()


def test_no_row_that_is_left_is_an_error_whatever_the_share(make, tmp_path):
    rows = [row("no.png"), row("blue.png")]
    pipeline = make(rows, on_bad_row="skip", max_bad_fraction=1.0)
    break_image(tmp_path / "blue.png")
    with pytest.raises(DataError, match=r"1 of 2 rows .* out before; mend them:"):
        pipeline.setup()


def test_a_question_that_is_cut_is_told_once(make, caplog):
    only_batch(make([row(question="is it red? " * 5)]))
    told = "max_question_length is 8 tokens, which cuts 1 of 1 distinct question of"
    assert f"{told} train; the longest has" in caplog.text


def test_text_that_the_vocabulary_lacks_is_told_once_with_an_example(make, caplog):
    answers = ["yes", "😀", "😀", "dark 红"]
    pipeline = make([row(answer=answer) for answer in answers], batch_size=4)
    only_batch(pipeline)
    assert list(pipeline.get_train_dataloader())
    (told,) = caplog.messages
    assert re.search(
        r"text in 2 of 3 distinct answers of train, .*'😀': it .*UNK", told
    )


def test_the_rows_of_easy_vqa_become_batches(shared_folder, tiny):
    root = shared_folder / "data" / "easy_vqa"
    if not root.is_dir():
        pytest.skip(f"needs {root}")
    config = DataConfig(root=root, validation="val.jsonl", batch_size=64)
    pipeline = DataPipeline(config, processor=tiny["processor"])
    pipeline.setup()
    batches = list(pipeline.get_val_dataloader())
    assert sum(len(batch.rows) for batch in batches) == 1000
    assert {r["kind"] for batch in batches for r in batch.rows} == {"yes_no", "other"}


def test_rows_are_asked_for_without_copying_any(rows_file, monkeypatch):
    pipeline = DataPipeline({"train": str(rows_file()), "batch_size": 2})
    rows = pipeline.rows("train")
    rows[0]["answer"] = "changed"
    assert [row["answer"] for row in rows] == ["red", "green", "blue"]
    assert [row["answer"] for row in rows[1:]] == ["green", "blue"]

    def never(row: Row) -> None:
        raise AssertionError("a row is copied")

    monkeypatch.setattr(Row, "as_dict", never)
    assert len(pipeline.rows("train")) == 3
    assert pipeline.num_batches("train") == 2
    with pytest.raises(AssertionError, match="is copied"):
        pipeline.training_rows()
