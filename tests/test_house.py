"""The house rules: what may import what, how long functions and files may be, and how they are written."""

import ast
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "particle_grid"
SOURCES = sorted(PACKAGE.rglob("*.py"))
COMMANDS = {"train", "eval", "play", "rank", "export", "web", "study", "report", "baselines", "__main__"}
SIMULATOR = ("support", "sim", "tasks", "view", "native", "env", "adapters")  # each may import those before it
STAGES = (
    "settings",
    "runs",
    "evaluation",
    "browser",
    "exports",
    "experiments",
)  # likewise, and also all of the simulator and the learner
LONGEST_FUNCTION = 40
LONGEST_FILE = 400
LONGEST_COMMAND = 60
MOST_MODULES = 14
# What a part may import besides the standard library and this package. Parts that are not listed may import anything.
LIBRARIES = {
    "support": {"numpy", "numba", "llvmlite", "torch", "yaml", "omegaconf"},
    "sim": {"numpy", "numba", "llvmlite", "PIL"},
    "tasks": {"numpy"},
    "contrib": {"numpy"},
    "view": {"numpy", "PIL"},
    "native": {"numpy", "pufferlib", "gymnasium"},
    "env": {"numpy", "gymnasium"},
    "adapters": {"numpy", "pufferlib", "gymnasium", "torch"},
    "learn": {"numpy", "numba", "llvmlite", "torch", "gymnasium", "rich", "tensorboard"},
    "browser": {"numpy", "numba", "llvmlite", "torch", "gymnasium"},
    "evaluation": {"numpy", "rich", "torch", "PIL"},
    "exports": {"numpy", "torch", "yaml"},
    "authoring": {"numpy", "numba", "torch", "hydra", "omegaconf"},
}
LONG_KERNELS = {"particle_grid/learn/fast/kernels/lstm.py: step_back"}  # compiled as one loop


def part(path):
    """Return the part of the package that a file belongs to: a folder, or a file without its suffix."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def allowed(name):
    """Return the parts that a part may import, derived from its position in the order."""
    if name == "contrib":
        return {"tasks"}
    if name == "learn":
        return {"support", "learn"}
    if name in SIMULATOR:
        return set(SIMULATOR[: SIMULATOR.index(name) + 1])
    below = {*SIMULATOR, "learn"}
    if name in STAGES:
        return below | set(STAGES[: STAGES.index(name) + 1])
    if name == "authoring":  # two commands, above the evaluation
        return below | {"settings", "runs", "evaluation", "cli", "authoring"}
    if name == "cli":
        return below | {"settings", "runs", "__init__"}  # only the version, as another test checks
    return below | {*STAGES, "cli", "__init__", name}


@cache
def tree(path):
    return ast.parse(path.read_text("utf-8"))


def imports(path):
    """Return every name that a file imports anywhere."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in SOURCES}


def imported_modules(path):
    """Return the modules of this package that a file imports."""
    for name in imports(path):
        if name in MODULES:
            yield name
        elif name.rpartition(".")[0] in MODULES:
            yield name.rpartition(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_is_below_it(path):
    if path == PACKAGE / "__init__.py":
        return  # imports the public names on demand; nothing imports them from there, as the next test checks
    for name in imported_modules(path):
        below = name.split(".")[1] if "." in name else "__init__"
        assert below in allowed(part(path)), f"{path.relative_to(PACKAGE)} imports {name}"


def test_no_file_imports_the_public_names_except_the_version():
    for path in SOURCES:
        found = [
            name for name in imports(path) if name in ("particle_grid",) or name.split(".")[:1] == ["particle_grid"]
        ]
        public = [name for name in found if name.count(".") <= 1 and name not in MODULES]
        assert not public or set(public) <= {"particle_grid.__version__"}, (
            f"{path.relative_to(PACKAGE)} imports {public}"
        )


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if part(p) in LIBRARIES], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_each_part_imports_only_its_libraries(path):
    for name in imports(path):
        top = name.split(".")[0]
        known = sys.stdlib_module_names | LIBRARIES[part(path)] | {"particle_grid"}
        assert top in known, f"{path.relative_to(PACKAGE)} imports {name}"


def test_imports_have_no_cycles():
    graph = {name: set(imported_modules(path)) - {name} for name, path in MODULES.items()}
    while leaves := [name for name, needs in graph.items() if not needs & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert not graph, f"cycles among {sorted(graph)}"


def test_no_module_is_imported_by_half_of_the_others():
    count = Counter(name for path in SOURCES for name in set(imported_modules(path)) if ".support" not in name)
    name, most = count.most_common(1)[0]
    assert most <= len(SOURCES) / 2, f"{name} is imported by {most} of {len(SOURCES)} modules"


def test_no_folder_has_too_many_modules():
    count = Counter(path.parent for path in SOURCES if path.name not in ("__init__.py", "__main__.py"))
    assert max(count.values()) <= MOST_MODULES, count.most_common(1)


def test_only_the_command_line_accesses_the_state_of_hydra():
    assert [module_name(path) for path in SOURCES if "HydraConfig" in path.read_text("utf-8")] == ["particle_grid.cli"]


def test_the_simulator_runs_without_torch_hydra_pufferlib_and_gymnasium():
    """The package itself registers its tasks with Gymnasium, so an empty one takes its place here."""
    empty = f"package = types.ModuleType('particle_grid'); package.__path__ = [{str(PACKAGE)!r}]"
    use = "import particle_grid.sim.tasks as t; [t.load(n) for n in t.names()]; print(*sys.modules)"
    code = f"import sys, types; {empty}; sys.modules['particle_grid'] = package; {use}"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(process.stdout.split())
    assert "particle_grid.sim.tasks.group" in loaded
    assert not loaded & {"torch", "hydra", "omegaconf", "pufferlib", "gymnasium", "rich", "particle_grid.env"}


@pytest.mark.parametrize("tool", ["ruff check", "ruff format --check", pytest.param("mypy", marks=pytest.mark.slow)])
def test_lint_format_and_types_are_clean(tool):
    process = subprocess.run([sys.executable, "-m", *tool.split()], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr


def sources(*folders):
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


EVERYTHING = sources("particle_grid", "hydra_plugins", "tests", "bench", "examples")


def test_files_are_short():
    for path in EVERYTHING:
        longest = LONGEST_COMMAND if path.parent == PACKAGE and path.stem in COMMANDS - {"__main__"} else LONGEST_FILE
        lines = len(path.read_text("utf-8").splitlines())
        assert lines <= longest, f"{path.relative_to(ROOT)} has {lines} lines, more than {longest}"


def functions(path):
    return [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_functions_are_short():
    for path in EVERYTHING:
        for node in functions(path):
            name = f"{path.relative_to(ROOT)}: {node.name}"
            lines = node.end_lineno - node.lineno + 1
            assert lines <= LONGEST_FUNCTION or name in LONG_KERNELS, f"{name} has {lines} lines"


def is_kernel(node):
    names = {ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list}
    return bool(names & {"kernel", "math_kernel", "parallel_kernel", "intrinsic"})


def kernel_lines(path):
    """Return the lines of a file that are compiled, where unpacking several values is allowed."""
    spans = [range(node.lineno, node.end_lineno + 1) for node in functions(path) if is_kernel(node)]
    return {line for span in spans for line in span}


def test_a_statement_assigns_one_thing():
    """A statement does not pack unrelated values: unpacked values come from one call or one name."""
    for path in sources("particle_grid", "hydra_plugins", "tests", "bench", "examples"):
        compiled = kernel_lines(path)
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Assign) and node.lineno not in compiled and isinstance(node.value, ast.Tuple):
                count = max(len(getattr(target, "elts", [target])) for target in node.targets)
                assert count <= 2, f"{path.relative_to(ROOT)}:{node.lineno} assigns {count} values"


def test_everything_public_has_a_docstring():
    for path in SOURCES:
        assert ast.get_docstring(tree(path)), f"{path.relative_to(ROOT)} has no docstring"
        for node in tree(path).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                text = ast.get_docstring(node)
                assert text or is_protocol_stub(node), f"{path.relative_to(ROOT)}: {node.name} has no docstring"
                summary = (text or ".").split("\n\n")[0]
                assert summary.rstrip().endswith((".", ":")), f"{path.relative_to(ROOT)}: {node.name}: {summary}"


def is_protocol_stub(node):
    return isinstance(node, ast.FunctionDef) and ast.unparse(node.body[-1]) == "..."


def test_everything_except_kernels_has_type_hints():
    """mypy cannot check this in the simulator, because kernels have no type hints: Numba infers their types."""
    for path in (PACKAGE / "sim").rglob("*.py"):
        for node in functions(path):
            assert is_kernel(node) or node.returns, f"{path.name}: {node.name} has no type hints"
