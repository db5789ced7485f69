"""The module that ships is the one that the sources give."""

import json

import pytest

from particle_grid.browser import build
from particle_grid.browser.compiler import build as compile_functions
from particle_grid.browser.entries import shipped_tasks
from particle_grid.sim import tasks
from particle_grid.support.errors import UserError
from tests.cases import needs_jit


@pytest.mark.release
def test_the_shipped_module_is_what_its_sources_compile_to(tmp_path):
    """It holds for the versions in kernels.json: others give other bytes, which the remaining tests do not compare."""
    known = json.loads(build.VERSIONS.read_text("utf-8"))
    here = build.versions()
    if known != here:
        pytest.skip(f"the module was built with {known}, not with {here}")
    again = tmp_path / "kernels.wasm"
    build.build(again)
    assert again.read_bytes() == build.MODULE.read_bytes(), "build it again: python -m particle_grid.browser.build"


def test_the_module_names_the_versions_that_it_was_built_with():
    known = json.loads(build.VERSIONS.read_text("utf-8"))
    assert {"python", "machine", *build.TOOLS} == set(known)


@needs_jit("compiles")
def test_a_function_that_numba_does_not_know_is_refused_in_one_sentence():
    def reward(state: int) -> int:
        return sorted({state: open})

    with pytest.raises(UserError, match=r"reward_chess cannot be compiled \("):
        compile_functions({"reward_chess": reward})


def test_tasks_of_other_packages_do_not_change_the_module():
    assert {"group", "herd", "optimize"} <= set(shipped_tasks())
    assert all(tasks.load(name).__module__.startswith("particle_grid.") for name in shipped_tasks())
