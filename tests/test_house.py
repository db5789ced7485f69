"""The house rules."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "particle_grid"
SOURCES = sorted(PACKAGE.rglob("*.py"))
# What the files of a part may import, beside the standard library and the part itself. A name allows what is inside it.
ALLOWED = {
    "__init__.py": {"particle_grid.env", "particle_grid.support.lifeline", "particle_grid.support.startup"},
    "lifeline.py": set(),
    "jit.py": {"numba"},
    "plugins.py": set(),
    "contrib": {"particle_grid.support.jit", "particle_grid.sim", "numpy"},
    "sim": {"particle_grid.support.jit", "particle_grid.support.registry", "numpy", "numba", "llvmlite", "PIL"},
    "env.py": {
        "particle_grid.support.jit",
        "particle_grid.sim",
        "particle_grid.view",
        "numpy",
        "pufferlib",
        "gymnasium",
    },
    "adapters": {
        "particle_grid.env",
        "particle_grid.support.optional",
        "particle_grid.sim.rng",
        "particle_grid.sim.tasks",
        "numpy",
        "gymnasium",
        "pufferlib",
    },
    "scores.py": {"particle_grid.env", "numpy"},
    "stats.py": {"numpy"},
    "opponents.py": {"particle_grid.env", "particle_grid.learn", "numpy"},
    "view": {
        "particle_grid.sim.state",
        "particle_grid.sim.world",
        "particle_grid.support.optional",
        "particle_grid.support.atomic",
        "numpy",
        "PIL",
    },
    "extras.py": set(),
    "files.py": set(),
    "learn": {
        "particle_grid.support.atomic",
        "particle_grid.support.jit",
        "particle_grid.support.registry",
        "numpy",
        "numba",
        "llvmlite",
        "torch",
        "gymnasium",
        "rich",
        "tensorboard",
    },
    "run.py": {
        "particle_grid.env",
        "particle_grid.learn",
        "particle_grid.runs.opponents",
        "particle_grid.support.registry",
        "particle_grid.runs.schema",
        "particle_grid.evaluation.scores",
        "numpy",
        "torch",
    },
    "saved.py": {"particle_grid.env", "particle_grid.learn", "particle_grid.sim.world", "torch"},
    "game.py": {
        "particle_grid.env",
        "particle_grid.evaluation.scores",
        "particle_grid.sim",
        "particle_grid.view",
        "numpy",
    },
    "results.py": {"particle_grid", "numpy", "rich"},
}


def part(path):
    """The part of the package a file belongs to: a folder or a file of it."""
    return path.relative_to(PACKAGE).parts[0]


def imports(path):
    """Every name that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", [p for p in SOURCES if part(p) in ALLOWED], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    allowed = ALLOWED[part(path)] | sys.stdlib_module_names | {f"particle_grid.{part(path)}"}
    for name in imports(path):
        assert any(f"{name}.".startswith(f"{prefix}.") for prefix in allowed), f"{path.name} imports {name}"


def test_every_part_but_the_commands_has_its_rule():
    commands = {path.name for path in PACKAGE.glob("*.py")} - ALLOWED.keys()
    assert {part(path) for path in SOURCES} - commands == ALLOWED.keys()


def test_the_simulator_runs_without_torch_hydra_pufferlib_and_gymnasium():
    code = "import sys, particle_grid.sim.tasks as t; [t.load(n) for n in t.names()]; print(*sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(process.stdout.split())
    assert "particle_grid.sim.tasks.group" in loaded
    assert not loaded & {"torch", "hydra", "omegaconf", "pufferlib", "gymnasium", "rich", "particle_grid.env"}


@pytest.mark.parametrize("tool", ["ruff check", "ruff format --check", "mypy"])
def test_lint_layout_and_types_are_clean(tool):
    process = subprocess.run([sys.executable, "-m", *tool.split()], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr


def test_files_are_short():
    for folder in ("particle_grid", "hydra_plugins", "tests", "bench", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            lines = len(path.read_text("utf-8").splitlines())
            assert lines < 450, f"{path.relative_to(ROOT)} has {lines} lines"


def test_whatever_is_no_kernel_has_type_hints():
    """mypy cannot hold the simulator to this, since kernels have none: Numba infers their types."""
    for path in (PACKAGE / "sim").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                names = {ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list}
                kernel = names & {"kernel", "parallel_kernel", "intrinsic"}
                assert kernel or node.returns, f"{path.name}: {node.name} has no type hints"
