"""C15: a file that is made to harm is refused from its directory and its pickle."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import python
from torch import nn

from training import CheckpointError, Trainer
from training.archive.records import ForeignRecord, rehearse
from training.checkpoint_io import FORMAT, position_of, read_checkpoint

MAGIC = {"format": FORMAT, "format_version": 1}


class Calls:
    """Asks the reader to call something."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.made = function, arguments

    def __reduce__(self) -> Any:
        return self.made


def rewritten(
    path: Path, change: Callable[[str, bytes], bytes], **options: Any
) -> None:
    """Write every record of ``path`` anew."""
    with zipfile.ZipFile(path) as archive:
        records = [(each.filename, archive.read(each)) for each in archive.infolist()]
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in records:
            archive.writestr(name, change(name, content))


def compressed(path: Path) -> None:
    torch.save(MAGIC, path)
    rewritten(path, lambda _, content: content, compression=zipfile.ZIP_DEFLATED)


def with_a_name_twice(path: Path) -> None:
    torch.save(MAGIC, path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"other")


def larger_than_its_record(path: Path) -> None:
    torch.save({**MAGIC, "x": torch.ones(4)}, path)
    rewritten(path, lambda _, content: content.replace(b"K\x04tq", b"J\0\0\x10\0tq", 1))


def of_values(make: Callable[[], Any]) -> Callable[[Path], None]:
    return lambda path: torch.save({**MAGIC, "x": make()}, path)


def laughing() -> Any:
    value: Any = [1]
    for _ in range(40):
        value = [value] * 10
    return value


def nested(depth: int = 150) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def circular() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


BOMBS: dict[str, tuple[Callable[[Path], None], str]] = {
    "compressed": (compressed, "has a compressed record"),
    "a name twice": (with_a_name_twice, "two records of one name"),
    "a tensor": (larger_than_its_record, r"1,048,576 numbers whose record '0' has 16"),
    "a terabyte": (of_values(lambda: Calls(bytearray, 10**12)), "builtins.bytearray"),
    "a storage": (
        of_values(lambda: Calls(torch.UntypedStorage, 10**12)),
        "cannot be read",
    ),
    "an empty tensor": (
        of_values(lambda: Calls(torch.Tensor, 10**6, 10**6)),
        "cannot be read",
    ),
    "lists of lists": (of_values(laughing), "stands for more than"),
    "nested": (of_values(nested), "nested deeper than 100"),
    "in itself": (of_values(circular), "nested deeper than 100"),
}


@pytest.mark.parametrize("case", BOMBS)
def test_c15_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, case: str) -> None:
    make, told = BOMBS[case]
    make(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=told):
        read_checkpoint(tmp_path / "a.pt")
    assert position_of(tmp_path / "a.pt") == (-1, -1)


def test_c15_256_megabytes_in_a_small_file_need_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(MAGIC, path)
    large = b"\x80\x02B" + (256 << 20).to_bytes(4, "little") + bytes(256 << 20) + b"."
    rewritten(
        path,
        lambda name, content: large if name.endswith("data.pkl") else content,
        compression=zipfile.ZIP_DEFLATED,
    )
    assert path.stat().st_size < 1 << 20
    code = (
        "import resource, sys\n"
        "from training import CheckpointError\n"
        "from training.checkpoint_io import read_checkpoint\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        "size = pages * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + (100 << 20), -1))\n"
        "try:\n    read_checkpoint(sys.argv[1])\n"
        "except CheckpointError as error:\n    print(error)\n"
    )
    done = python("-c", code, str(path))
    assert "has a compressed record" in done.stdout, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(b"\x80\x02Nr\xff\xff\xff\x7f.", "under the number", id="a memo"),
        pytest.param(b"\x80\x02X\xff\xff\xff\x7fa.", "cannot be read", id="a text"),
        pytest.param(b"\x80\x02cos\nmkdir\n.", "holds os.mkdir", id="a name"),
        pytest.param(b"", "cannot be read", id="nothing"),
    ],
)
def test_c15_a_pickle_of_a_few_bytes_asks_for_nothing(
    content: bytes, told: str
) -> None:
    with pytest.raises(ForeignRecord, match=told):
        rehearse(content, {})


def test_what_a_checkpoint_may_hold_passes_the_rehearsal(tmp_path: Path) -> None:
    """The control: every kind of value that is written is read."""
    marked = torch.ones(2)
    marked.note = 1  # type: ignore[attr-defined]
    values = {
        "numbers": [None, True, 2**70, 1.5, 1j, "text", b"by\xfftes", (1,), {1, 2}],
        "formats": [torch.float16, torch.Size([2])],
        "dtypes": [
            torch.ones(2).to(dtype)
            for dtype in (
                *(torch.float64, torch.float16, torch.bfloat16, torch.bool),
                *(torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32),
                *(torch.int64, torch.complex64, torch.float8_e4m3fn),
            )
        ],
        "tensors": [torch.eye(2).to_sparse(), torch.ones(()), torch.zeros(0), marked],
        "views": [torch.arange(6.0)[2:], torch.ones(1).expand(3)],
        "module": nn.Sequential(nn.BatchNorm1d(2)).state_dict(),
        "deep": nested(90),
    }
    torch.save({**MAGIC, **values}, tmp_path / "a.pt")
    assert list(read_checkpoint(tmp_path / "a.pt"))[2:] == list(values)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["a named pipe", "a folder", "a device"])
def test_what_is_no_file_is_named_for_what_it_is_and_not_waited_for(
    tmp_path: Path, kind: str
) -> None:
    path = Path("/dev/zero") if kind == "a device" else tmp_path / "a.pt"
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    with pytest.raises(CheckpointError, match=f"cannot be read .it is {kind}, not a"):
        read_checkpoint(path)
    assert position_of(path) == (-1, -1)


def make_trainer() -> Trainer:
    model = nn.Linear(2, 1)
    return Trainer(
        model,
        [torch.ones(2, 2)],
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        step_fn=lambda model, batch: model(batch).sum(),
        device="cpu",
    )


def test_weights_in_a_safetensors_file_are_taken_and_nothing_else_is(
    tmp_path: Path,
) -> None:
    from safetensors.torch import save_file

    wanted = {"weight": torch.ones(1, 2), "bias": torch.zeros(1)}
    path = tmp_path / "weights.safetensors"
    save_file(wanted, path)
    trainer = make_trainer()
    trainer.load_checkpoint(path, weights_only=True)
    assert torch.equal(trainer.model.weight, wanted["weight"])
    with pytest.raises(CheckpointError, match=r"safetensors file: weights alone.*take"):
        trainer.load_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param({"bias": torch.zeros(2)}, "bias is .2,., the model's", id="shape"),
        pytest.param({"bias": torch.zeros(1).int()}, "torch.int32", id="dtype"),
        pytest.param({"more": torch.zeros(1)}, "not in the model: more", id="name"),
        pytest.param(None, "no complete safetensors file", id="cut"),
    ],
)
def test_weights_in_a_safetensors_file_that_do_not_fit_change_nothing(
    tmp_path: Path, change: dict[str, Any] | None, told: str
) -> None:
    from safetensors.torch import save_file

    fits = {"weight": torch.ones(1, 2), "bias": torch.zeros(1)}
    path = tmp_path / "weights.safetensors"
    save_file({**fits, **(change or {})}, path)
    if change is None:
        path.write_bytes(path.read_bytes()[:-3])
    trainer = make_trainer()
    before = trainer.model.weight.detach().clone()
    with pytest.raises(CheckpointError, match=told):
        trainer.load_checkpoint(path, weights_only=True)
    assert torch.equal(trainer.model.weight, before)


def test_the_pickle_of_an_archive_is_that_of_the_reader(tmp_path: Path) -> None:
    """A second pickle could be rehearsed in place of the one that is loaded."""
    torch.save(MAGIC, tmp_path / "a.pt")
    content = io.BytesIO((tmp_path / "a.pt").read_bytes())
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr("b/data.pkl", b"\x80\x02N.")
    (tmp_path / "a.pt").write_bytes(content.getvalue())
    with pytest.raises(CheckpointError, match=r"no data\.pkl, or several"):
        read_checkpoint(tmp_path / "a.pt")
