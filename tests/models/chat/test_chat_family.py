"""Chat models conform, load, and learn from nothing."""

from __future__ import annotations

import copy
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from chats import chat
from drawn import captions, questions
from processes import printed_by

from trainbus_models.chat.family import Chat
from trainbus_models.chat.tokens import prompt_of
from training.errors import ConfigError
from training.testing import FAMILY_CHECKS, assert_family_conforms

TASKS = ["vqa", "captioning"]


def task_and_rows(name: str) -> tuple[Any, list[dict[str, Any]]]:
    if name == "vqa":
        from trainbus_data.vqa.task import VQA

        return VQA(), questions(4)
    from trainbus_data.captioning.task import Captioning

    return Captioning(), captions(6)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_the_family_conforms(name: str) -> None:
    assert_family_conforms(Chat(), *task_and_rows(name))


class PadsOnTheRight(Chat):
    def predict(self, model: Any, processor: Any, batch: Any) -> list[str]:
        prompts = prompt_of(batch)
        order = prompts["attention_mask"].argsort(dim=1, descending=True, stable=True)
        for name in ("input_ids", "attention_mask"):
            prompts[name] = prompts[name].gather(1, order)
        return super().predict(model, processor, prompts)


class MasksPaddingOnly(Chat):
    def collate(self, processor: Any, rows: Any) -> Any:
        batch = super().collate(processor, rows)
        if "labels" in batch:
            is_padding = batch["attention_mask"] == 0
            batch["labels"] = batch["input_ids"].masked_fill(is_padding, -100)
            batch.loss_weight = int((batch["labels"][:, 1:] != -100).sum())
        return batch


class CountsRows(Chat):
    def collate(self, processor: Any, rows: Any) -> Any:
        batch = super().collate(processor, rows)
        batch.loss_weight = len(rows) if batch.loss_weight else 0
        return batch


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "check", "message"),
    [
        pytest.param(PadsOnTheRight, "predictions", "in a batch of their own"),
        pytest.param(MasksPaddingOnly, "prompt", "the prompt is learnt, too"),
        pytest.param(CountsRows, "weight", "loss_weight must be the number"),
    ],
)
def test_the_kit_finds_the_usual_mistakes(family, check, message) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_family_conforms(
            family(), *task_and_rows("vqa"), skip=set(FAMILY_CHECKS) - {check}
        )


def test_several_batches_are_one_batch_to_a_millionth(tiny) -> None:
    family, model = chat(), tiny[0]
    rows = questions(8)

    def loss_of(cut: list[list[dict[str, Any]]]) -> float:
        batches = [family.collate(tiny[1], part) for part in cut]
        with torch.no_grad():
            sums = [float(model(**b).loss.double()) * b.loss_weight for b in batches]
        return sum(sums) / sum(batch.loss_weight for batch in batches)

    whole = loss_of([rows])
    for cut in ([rows[:3], rows[3:]], [[row] for row in rows]):
        assert loss_of(cut) == pytest.approx(whole, rel=1e-6)


def test_a_model_is_built_the_same_from_the_same_rows(tiny) -> None:
    torch.manual_seed(1)
    again, processor = chat().build(questions(8), initializer_range=0.3)
    pairs = zip(tiny[0].state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert processor.tokenizer.get_vocab() == tiny[1].tokenizer.get_vocab()


def test_a_saved_folder_loads_in_float32_and_eval_mode(tiny, tmp_path: Path) -> None:
    model, processor = tiny
    chat().export(model.to(torch.bfloat16), processor, tmp_path)
    model.to(torch.float32)
    loaded, again = chat().load(os.fspath(tmp_path), [])
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    assert not loaded.training
    assert again.chat_template == processor.chat_template


@pytest.mark.parametrize("own", [2, [2, 5], None])
def test_a_folder_answers_in_plain_transformers_as_the_family_does(
    tmp_path: Path, own: Any
) -> None:
    """What was learnt ends by the template's end of a turn, which no model names.

    ``own`` is what the model's configuration names instead.
    """
    rows = captions(2)
    family = chat(task_and_rows("captioning")[0])
    model, processor = family.build(rows)
    model.generation_config.eos_token_id = own
    train(family, (model, processor), rows, steps=32)
    expected = family.predict(model.eval(), processor, family.collate(processor, rows))
    before = model.generation_config.to_dict()
    family.export(model, processor, tmp_path)
    assert model.generation_config.to_dict() == before
    told = json.loads((tmp_path / "generation_config.json").read_text())
    assert set([own] if isinstance(own, int) else own or []) <= {*told["eos_token_id"]}
    plain = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    reader = transformers.AutoProcessor.from_pretrained(tmp_path)
    said = [{"type": "image"}, {"type": "text", "text": "Describe the picture."}]
    asked = reader.apply_chat_template(
        [{"role": "user", "content": said}], add_generation_prompt=True
    )
    pictures = [[row["image"].open()] for row in rows]
    given = reader(text=[asked] * 2, images=pictures, return_tensors="pt")
    made = plain.generate(**given, max_new_tokens=16, do_sample=False)
    texts = reader.batch_decode(
        made[:, given["input_ids"].shape[1] :], skip_special_tokens=True
    )
    assert [text.strip() for text in texts] == expected
    assert expected == [row["caption"] for row in rows]


def test_a_base_exports_whose_generation_is_told_what_it_does_not_use(
    tiny, tmp_path: Path
) -> None:
    """As many published ones are, which the library reads and would not write."""
    sets = {"temperature": 0.2, "top_p": 0.9}
    base, out = tmp_path / "base", tmp_path / "out"
    chat().export(*tiny, base)
    path = base / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": 2, **sets}))
    model, processor = chat().load(os.fspath(base), [])
    chat().export(model, processor, out)
    told = json.loads((out / path.name).read_text())
    assert {name: told[name] for name in sets} == sets
    again = transformers.AutoModelForImageTextToText.from_pretrained(out)
    assert again.generation_config.eos_token_id == told["eos_token_id"]


def test_settings_of_generation_that_a_run_changed_are_exported(tiny, tmp_path: Path):
    """The library reads them, and would not write them."""
    model, processor = tiny
    own = model.generation_config = copy.deepcopy(model.generation_config)
    own.temperature = 0.2
    chat().export(model, processor, tmp_path)
    assert model.generation_config is own
    again = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert again.generation_config.temperature == own.temperature


def test_a_folder_without_a_chat_template_is_refused(tiny, tmp_path: Path) -> None:
    chat().export(*tiny, tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="has no chat template"):
        chat().load(os.fspath(tmp_path), [])


@pytest.mark.parametrize(
    ("processor", "told"),
    [
        pytest.param(None, "has no chat template", id="of no processor"),
        pytest.param("Idefics3Processor", "cannot be loaded", id="of a processor"),
    ],
)
def test_a_folder_of_texts_alone_is_refused(
    tiny, tmp_path: Path, processor: str | None, told: str
) -> None:
    tiny[1].tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    # An export before has told the tokenizer of a processor.
    settings = {**json.loads(path.read_text()), "processor_class": processor}
    path.write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match=told):
        chat().load(os.fspath(tmp_path), [])


def test_weights_that_are_missing_are_named(tiny, tmp_path: Path) -> None:
    chat().export(*tiny, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="missing or of another shape: "):
        chat().load(os.fspath(tmp_path), [])


def test_a_package_that_a_processor_needs_is_named(tiny, tmp_path: Path) -> None:
    """Processors with a part for videos need torchvision."""
    try:
        import torchvision  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("torchvision is installed, so nothing is missing")
    tiny[1].tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    parts = {
        "processor_class": "Qwen2_5_VLProcessor",
        "image_processor": {"image_processor_type": "Qwen2VLImageProcessor"},
        "video_processor": {"video_processor_type": "Qwen2VLVideoProcessor"},
    }
    (tmp_path / "processor_config.json").write_text(json.dumps(parts))
    with pytest.raises(ConfigError, match="needs the package torchvision, which is"):
        chat().load(os.fspath(tmp_path), [])


def test_looking_at_the_class_imports_no_transformers() -> None:
    code = (
        "import sys; from trainbus_models.chat.family import Chat\n"
        "print('transformers' in sys.modules)"
    )
    assert printed_by(code) == "False"


def right(family: Chat, parts: tuple[Any, Any], rows: list[dict[str, Any]]) -> float:
    """Return the share of rows that the model answers to the letter."""
    count = 0
    for start in range(0, len(rows), 64):
        batch = family.collate(parts[1], rows[start : start + 64])
        with torch.no_grad():
            said = family.predict(parts[0].eval(), parts[1], batch)
        target = family.task.target
        count += sum(a == r[target] for a, r in zip(said, batch.rows, strict=True))
    return count / len(rows)


def train(
    family: Chat, parts: tuple[Any, Any], rows: list[dict[str, Any]], steps: int
) -> None:
    model, size = parts[0].train(), 32
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    draws = torch.Generator().manual_seed(0)
    order: list[int] = []
    for _ in range(steps):
        while len(order) < size:
            order += torch.randperm(len(rows), generator=draws).tolist()
        batch = family.collate(parts[1], [rows[order.pop()] for _ in range(size)])
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


@pytest.mark.slow
def test_it_answers_its_32_training_rows_without_a_mistake() -> None:
    rows, family, begun = questions(16), chat(), time.process_time()
    parts = family.build(rows)
    train(family, parts, rows, steps=80)
    assert right(family, parts, rows) == 1.0
    assert time.process_time() - begun < 30


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_it_learns_what_it_says_of_pictures_that_it_has_not_seen(name: str) -> None:
    task, _ = task_and_rows(name)
    rows = questions(400) if name == "vqa" else captions(400)
    cut = len(rows) * 3 // 4
    family, begun = chat(task), time.process_time()
    parts = family.build(rows[:cut])
    train(family, parts, rows[:cut], steps=180)
    assert right(family, parts, rows[cut:]) >= 0.6
    assert time.process_time() - begun < 60
