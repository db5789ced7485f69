"""Classes of other packages are imported only if they are trusted."""

import pytest

from particle_grid.support import registry
from particle_grid.support.errors import UserError


def test_all_places_that_may_not_be_imported_are_named_at_once():
    with registry.only(["trusted:Class"]), pytest.raises(UserError, match=r"allow=\[mine:Task,mine:Head\]"):
        registry.check_allowed(["mine:Task", "trusted:Class", "particle_grid.contrib.herd:Herd", "mine:Head"])


def test_without_restrictions_any_place_may_be_imported():
    registry.check_allowed(["mine:Task"])
