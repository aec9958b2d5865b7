"""The built wheel works outside the repository, and the package keeps its own rules."""

import ast
import graphlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "segtrain").rglob("*.py"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A clean environment that has the built wheel, and the dependencies of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "-o",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    # Dependencies only: the editable install of this repository must not be found.
    dependencies = folder / "dependencies"
    dependencies.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "segtrain" not in entry.name:
            (dependencies / entry.name).symlink_to(entry)
    (site / "dependencies.pth").write_text(str(dependencies))
    return folder / "env" / "bin" / "python"


def run_installed(python: Path, *arguments: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL"))}
    command = [str(python), "-m", "segtrain", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_finds_its_configuration(installed):
    where = subprocess.run(
        [str(installed), "-c", "import segtrain; print(segtrain.__file__)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert str(ROOT) not in where.stdout
    assert "quickstart" in run_installed(installed, "--help")
    assert "max_steps" in run_installed(installed, "--cfg", "job")


def test_wheel_finds_its_sweeper(installed):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL"))}
    arguments = ["-m", "trainer.max_steps=0", "seed=1,2", "hydra.sweep.dir=sweep"]
    command = [str(installed), "-m", "segtrain", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2, done.stderr
    assert len(json.loads(Path("sweep/sweep.json").read_text())["jobs"]) == 2


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from segtrain.cli.main import main; main(['--help']); "
        "print(sorted({'torch', 'hydra', 'cv2', 'numpy', 'pytorch_lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert len(done.stdout.splitlines()) <= 70


def imports_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    found = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    return found | {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_parts_do_not_know_one_another(path):
    """Data, networks, losses, metrics and inference meet in task, build and cli only."""
    parts = ("dataset", "architecture", "loss", "metric", "optimizer", "inference")
    part = path.relative_to(ROOT / "segtrain").parts[0]
    imported = imports_of(path)
    if part in parts:
        others = {name.split(".")[1] for name in imported if name.startswith("segtrain.")}
        assert others <= {part, "configuration", "contracts", "errors", "foreign", "masks",
                          "suppression", "lifetime", "terminal", "text", "values",
                          "hardware", "label_set", "planes", "sampling", "segments",
                          "writing"}  # fmt: skip
    if part not in ("cli", "configuration", "assembly.py", "sweep"):
        assert not any(name.split(".")[0] in ("hydra", "omegaconf") for name in imported)


def test_imports_go_one_way():
    """No room of the package needs itself through others, and none needs the command line."""
    needs: dict[str, set[str]] = {}
    for path in SOURCES:
        if path.parent == ROOT / "segtrain" and path.name.startswith("__"):
            continue
        room = path.relative_to(ROOT / "segtrain").parts[0].removesuffix(".py")
        others = {n.split(".")[1] for n in imports_of(path) if n.startswith("segtrain.")}
        needs.setdefault(room, set()).update(others - {room})
    assert not [room for room in needs if "cli" in needs[room]]
    list(graphlib.TopologicalSorter(needs).static_order())  # raises CycleError


def test_names_follow_the_style():
    for path in SOURCES:
        assert not re.search(r"(^|_)(utils?|helpers?|misc|common)$", path.stem)
        assert len(path.read_text().splitlines()) <= 350, path


def test_public_definitions_have_docstrings():
    missing = []
    for path in SOURCES:
        for node in ast.parse(path.read_text()).body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"
            if public and not ast.get_docstring(node):
                missing.append(f"{path.name}:{node.name}")
    assert not missing
