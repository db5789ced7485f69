"""Tables and values that commands write and read back."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from particle_grid.support import records

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12) | st.sampled_from(
    ["=1+1", "+1", "-2.5", "-x", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''", "-inf", "1e5", "-cmd|' /C calc'!A0"]
)


@given(st.lists(st.tuples(CELLS, CELLS), max_size=5))
def test_a_written_table_is_read_back_unchanged(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("table") / "table.csv"
    records.write_table(path, [("a", "b"), *rows])
    assert [tuple(cells.values()) for _, cells in records.read_table(path, ["a", "b"], "")] == rows


@given(CELLS)
def test_no_cell_of_a_table_is_a_formula_and_numbers_stay_numbers(text):
    cell = records.escaped(text)
    if cell != text:
        assert cell == f"'{text}"
    try:
        float(text)
    except ValueError:
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    else:
        assert cell == text


def test_values_that_are_not_text_are_written_unchanged(tmp_path):
    records.write_rows(tmp_path / "x.csv", [{"a": -1, "b": -0.5, "c": None, "=d": "=1"}])
    with (tmp_path / "x.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["a", "b", "c", "'=d"], ["-1", "-0.5", "", "'=1"]]


def test_only_one_module_writes_tables_and_it_escapes_them():
    package = Path(records.__file__).parents[1]
    assert [path.name for path in package.rglob("*.py") if "import csv" in path.read_text("utf-8")] == ["records.py"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b" " * (records.LARGEST + 1)])
def test_a_file_that_is_not_json_is_refused_in_a_sentence(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"^.*x\.json cannot be read: .*\. Remove it\.$"):
        records.read_json(tmp_path / "x.json", "Remove it.")
