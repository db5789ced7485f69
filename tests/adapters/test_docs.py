"""The page on adapters works as printed."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "adapters.md"
BLOCKS = re.findall(
    r"^## ([^\n]+)\n(?:(?!^## ).)*?```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
)


@pytest.mark.parametrize(("section", "block"), BLOCKS, ids=[section for section, _ in BLOCKS])
def test_a_block_runs_as_printed(section, block):
    names: dict = {}
    exec(block, names)
    if "rewards" in names:
        assert len(names["rewards"]) > 0


def test_every_library_has_a_block_and_links_lead_somewhere():
    text = PAGE.read_text("utf-8")
    assert [section for section, _ in BLOCKS] == ["PufferLib", "Gymnasium", "PettingZoo", "Stable-Baselines3"]
    assert text.count("```python") == len(BLOCKS)
    for target in re.findall(r"(?<=\]\()[^)#]+", text):
        assert (PAGE.parent / target).is_file(), target
