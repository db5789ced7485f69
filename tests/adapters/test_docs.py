"""The page on adapters covers every library. tests/test_printed.py checks the commands that it prints."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "adapters.md"
BLOCKS = re.findall(
    r"^## ([^\n]+)\n(?:(?!^## ).)*?```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
)


def test_every_library_has_a_code_block_and_links_lead_to_headings():
    text = PAGE.read_text("utf-8")
    assert [section for section, _ in BLOCKS] == [
        *("PufferLib", "Gymnasium", "PettingZoo", "Stable-Baselines3", "TorchRL")
    ]
    assert text.count("```python") == len(BLOCKS)
    for target in re.findall(r"(?<=\]\()[^)#]+", text):
        assert (PAGE.parent / target).is_file(), target
