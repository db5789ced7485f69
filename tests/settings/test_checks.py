"""Single values of the command line that cannot be used are refused in one sentence."""

import pytest

from particle_grid import train


@pytest.mark.parametrize("value", ["{a:1}", "", "null", "true", "5", "[csv,[a]]", "[null]", "[csv,5]"])
def test_what_does_not_name_loggers_is_refused_in_a_sentence(invoke, value):
    code, out, err = invoke(train.main, f"logger={value}")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: logger")
    assert "as in logger=[" in err
