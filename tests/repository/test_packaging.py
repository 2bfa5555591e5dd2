"""What is installed is what the repository holds: metadata, wheels, imports."""

import ast
import configparser
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from lowest import lowest_versions

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = [
    *("checkpointing", "cuda_graphs", "distributed", "early_stopping"),
    *("evaluation", "logging", "lr_scheduling"),
]
#: Folders whose ``src`` holds a package of the distribution itself.
SOURCES = ("data", "models", "report")
ENTRY_POINTS = {
    "checkpointing": "trainbus_checkpointing:ModelCheckpointCallback",
    "csv": "trainbus_logging:CSVLoggerCallback",
    "cuda_graphs": "trainbus_cuda_graphs:CUDAGraphsCallback",
    "distributed": "trainbus_distributed:DistributedCallback",
    "early_stopping": "trainbus_early_stopping:EarlyStoppingCallback",
    "evaluation": "trainbus_evaluation:EvaluationCallback",
    "lr_scheduling": "trainbus_lr_scheduling:LearningRateSchedulerCallback",
    "progress": "trainbus_logging:ProgressBarCallback",
    "tensorboard": "trainbus_logging:TensorBoardCallback",
}
# Distribution -> what it is called in an import statement, where that differs.
IMPORT_NAMES = {"trainbus": "training", "pyyaml": "yaml", "pillow": "PIL"}


def read_setup(project: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    assert parser.read(project / "setup.cfg"), f"{project} has no setup.cfg"
    return parser


def lines_of(value: str) -> list[str]:
    stripped = (line.strip() for line in value.splitlines())
    return [line for line in stripped if line and not line.startswith("#")]


def required_modules(setup: configparser.ConfigParser) -> set[str]:
    lines = lines_of(setup["options"]["install_requires"])
    names = [re.split(r"[\s<>=!~\[]", line, maxsplit=1)[0] for line in lines]
    return {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names}


def imported_modules(folder: Path) -> dict[str, str]:
    """Map each top-level module that files under ``folder`` import to one such file."""
    found = {}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            found |= {name.partition(".")[0]: str(path) for name in names}
    return found


def source_packages(folder: Path, prefix: str) -> set[str]:
    """Return ``prefix`` and the dotted names of the packages below ``folder``."""
    inits = folder.rglob("__init__.py")
    parts = [(prefix, *init.parent.relative_to(folder).parts) for init in inits]
    return {".".join(part) for part in parts}


def test_the_root_ships_every_package_under_core_data_and_models():
    setup = read_setup(ROOT)
    expected = (
        source_packages(ROOT / "core" / "training", "training")
        | source_packages(ROOT / "data/src/trainbus_data", "trainbus_data")
        | source_packages(ROOT / "models/src/trainbus_models", "trainbus_models")
        | source_packages(ROOT / "report/src/trainbus_report", "trainbus_report")
        | {"data", "data.rows", "data.images", "models"}  # the doors
        | {"training.configs"}  # config/, which holds no Python
    )
    assert set(lines_of(setup["options"]["packages"])) == expected
    assert set(setup["options.package_data"]) == expected


def test_every_shipped_package_is_marked_as_typed():
    roots = [ROOT / "core" / "training", ROOT / "data", ROOT / "models"]
    roots += [ROOT / f"{name}/src/trainbus_{name}" for name in SOURCES]
    roots += [ROOT / "plugins" / name / "src" / f"trainbus_{name}" for name in PLUGINS]
    assert [str(root) for root in roots if not (root / "py.typed").exists()] == []


def test_requirements_pin_torch_and_name_every_project():
    lines = lines_of((ROOT / "requirements.txt").read_text())
    assert any(re.fullmatch(r"torch==[\d.]+", line) for line in lines)
    projects = sorted(path.parent.name for path in ROOT.glob("plugins/*/setup.cfg"))
    assert projects == PLUGINS
    assert {f"-e plugins/{name}" for name in projects} < set(lines)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_plugin_is_a_complete_project(plugin):
    project = ROOT / "plugins" / plugin
    setup = read_setup(project)
    dashed = plugin.replace("_", "-")
    assert setup["metadata"]["name"] == f"trainbus-{dashed}"
    assert len((project / "pyproject.toml").read_text().splitlines()) == 3
    assert (project / "README.md").exists()
    assert list((project / "tests").glob("test_*.py"))


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_plugin_requires_whatever_it_imports(plugin):
    project = ROOT / "plugins" / plugin
    allowed = required_modules(read_setup(project)) | {f"trainbus_{plugin}"}
    imported = imported_modules(project / "src")
    if "training" in allowed:  # one distribution has both
        allowed.add("trainbus_data")
    undeclared = imported.keys() - allowed - sys.stdlib_module_names
    assert {name: imported[name] for name in undeclared} == {}


@pytest.mark.parametrize("plugin", PLUGINS)
def test_the_tests_of_a_plugin_need_only_the_kernel(plugin):
    imported = imported_modules(ROOT / "plugins" / plugin / "tests")
    others = {f"trainbus_{name}" for name in PLUGINS if name != plugin}
    foreign = imported.keys() & (others | {"data", "models"})
    assert {name: imported[name] for name in foreign} == {}


def test_the_root_requires_whatever_it_imports():
    allowed = required_modules(read_setup(ROOT))
    plugins = {f"trainbus_{name}" for name in PLUGINS}  # resolved late, with a hint
    allowed |= (
        {"training", "trainbus_data", "trainbus_models", "trainbus_report"}
        | plugins
        | sys.stdlib_module_names
    )
    allowed.add("pytest")  # training.testing.fixtures, which only pytest loads
    allowed.add("datasets")  # of the reader hf, which says how to install it
    allowed |= {"jinja2", "markupsafe", "matplotlib"}  # of `trainbus report`, likewise
    allowed.add("shtab")  # of `trainbus completion`, which says how to install it
    allowed.add("pydantic_core")  # pydantic requires one version of it
    allowed.add("typing_extensions")  # so does it one that has TypeAliasType
    imported: dict[str, str] = {}
    for folder in ("core/training", "data", "models", "report"):
        imported |= imported_modules(ROOT / folder)
    assert {name: imported[name] for name in imported.keys() - allowed} == {}


@pytest.mark.parametrize("project", [".", *(f"plugins/{name}" for name in PLUGINS)])
def test_every_dependency_has_an_oldest_version_that_is_tested(project):
    setup = read_setup(ROOT / project)
    wanted = lines_of(setup["options"]["install_requires"])
    names = {re.split(r"[\s<>=]", line, maxsplit=1)[0] for line in wanted}
    assert {n for n in names if not n.startswith("trainbus")} <= set(lowest_versions())


def test_entry_points_are_the_documented_ones():
    found = importlib.metadata.entry_points(group="trainbus")
    ours = {e.name: e.value for e in found if e.value.startswith("trainbus_")}
    assert ours == ENTRY_POINTS


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_a_shipped_callback_is_named_like_its_entry_point(name):
    (entry_point,) = {
        e for e in importlib.metadata.entry_points(group="trainbus") if e.name == name
    }
    assert entry_point.load().name == name


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> list[Path]:
    """Build the wheels from a copy, offline."""
    pytest.importorskip("setuptools", reason="builds wheels; pip install -e '.[test]'")
    copy = tmp_path_factory.mktemp("source")
    skip = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", ".*")
    for name in ("config", "core", "data", "models", "plugins", "report"):
        shutil.copytree(ROOT / name, copy / name, ignore=skip)
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    target = tmp_path_factory.mktemp("wheels")
    projects = [".", *(f"./plugins/{name}" for name in PLUGINS)]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    pip = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(target)]
    subprocess.run([*pip, *projects], cwd=copy, check=True)
    return sorted(target.glob("*.whl"))


@pytest.mark.slow
def test_the_wheels_hold_every_module_and_nothing_else(wheels):
    shipped = set()
    for wheel in wheels:
        names = zipfile.ZipFile(wheel).namelist()
        shipped |= {name for name in names if ".dist-info/" not in name}
    expected = set()
    sources = [ROOT / "core", *(ROOT / name / "src" for name in SOURCES)]
    sources += [ROOT / "plugins" / name / "src" for name in PLUGINS]
    for source in sources:
        expected |= {str(p.relative_to(source)) for p in source.rglob("*.py")}
        expected |= {str(p.relative_to(source)) for p in source.rglob("py.typed")}
        expected |= {str(p.relative_to(source)) for p in source.rglob("*.template")}
    for name in ("data", "models"):
        door = {p.relative_to(ROOT) for p in (ROOT / name).rglob("*.py")}
        expected |= {str(path) for path in door if path.parts[1] != "src"}
        expected.add(f"{name}/py.typed")
    expected.add("trainbus_report/templates/report.html.j2")
    for path in (ROOT / "config").glob("*.yaml"):
        expected.add(f"training/configs/{path.name}")
    assert shipped == expected


@pytest.mark.slow
def test_the_wheels_work_in_a_folder_with_a_bare_data_folder(wheels, tmp_path):
    site, work = tmp_path / "site", tmp_path / "work"
    (work / "data").mkdir(parents=True)
    for wheel in wheels:
        zipfile.ZipFile(wheel).extractall(site)
    program = (
        "import data, models, training, training.app.cli as cli, sys\n"
        "from trainbus_data.data_pipeline import DataPipeline\n"
        "from trainbus_models.model_loader import load_model\n"
        "print(data.__file__, models.__file__, training.__file__, sep='\\n')\n"
        "from training.app.config.load import load_config\n"
        "assert load_config('demo').data.synthetic\n"
        "sys.argv = ['trainbus', 'plugins', 'list']\n"
        "sys.exit(cli.main())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    *files, listing = result.stdout.split("\n", maxsplit=3)
    assert all(file.startswith(str(site)) for file in files)
    assert all(name in listing for name in ENTRY_POINTS)


def test_an_editable_install_is_not_hidden_by_a_bare_data_folder(tmp_path):
    (tmp_path / "data").mkdir()
    program = "from trainbus_data.data_pipeline import DataPipeline"
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_make_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.+)$", text, flags=re.MULTILINE).group(1).split()
    described = re.findall(r"^([a-z-]+):.*## \S", text, flags=re.MULTILINE)
    assert sorted(described) == sorted(targets)
