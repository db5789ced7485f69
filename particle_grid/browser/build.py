"""Build the module that ships with the package: python -m particle_grid.browser.build

Building takes minutes, and needs the extra `web`. The bytes depend on the versions in `kernels.json` only.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

MODULE = Path(__file__).with_name("kernels.wasm")
VERSIONS = Path(__file__).with_name("kernels.json")  # of what the module was built with
TOOLS = ("numba", "llvmlite", "ziglang")
# No instructions of this machine, no code that was optimised for it, and nothing from a cache of machine code.
SETTINGS = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_OPT": "0"}


def versions() -> dict[str, str]:
    """Return the versions of everything that decides the bytes of the module."""
    tools = {name: metadata.version(name) for name in TOOLS if _installed(name)}
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, "machine": f"{sys.platform} {platform.machine()}", **tools}


def _installed(name: str) -> bool:
    return any(True for _ in metadata.distributions(name=name))


def build(path: Path) -> None:
    """Write the module to a file, in a process of its own, because Numba reads its settings when it is imported."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | SETTINGS | {"NUMBA_CACHE_DIR": cache}
        command = [sys.executable, "-W", "ignore", "-m", "particle_grid.browser.build", str(path)]
        subprocess.run(command, env=environment, check=True)


def main() -> None:
    """Write the module to the file that is named, or, without one, to the package."""
    if len(sys.argv) > 1:
        from particle_grid.browser.compiler import build as compiled
        from particle_grid.browser.entries import entries, shipped_tasks
        from particle_grid.browser.networks import network_entries

        Path(sys.argv[1]).write_bytes(compiled(entries(shipped_tasks()) | network_entries()))
        return
    build(MODULE)
    VERSIONS.write_text(json.dumps(versions(), indent=1) + "\n", "utf-8")
    print(f"{MODULE.name}: {MODULE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
