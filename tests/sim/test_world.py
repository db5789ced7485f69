"""Invalid layouts of a task are refused before a kernel uses them."""

import numpy as np
import pytest

from particle_grid.sim.state import make_rules
from particle_grid.sim.world import Layout, World

SIDE = 32


def colours_from_0(layout):
    layout.colour[:] = np.arange(8) % 4


def colours_of_another_type(layout):
    layout.colour = np.full(8, 3)


def too_few_colours(layout):
    layout.colour = layout.colour[:4]


def area_beyond_the_field(layout):
    layout.spawn[2] = SIDE // 2, 0, SIDE, SIDE


def area_before_the_field(layout):
    layout.spawn[2] = 0, -1, SIDE, SIDE


def area_of_nothing(layout):
    layout.spawn[2] = 0, 0, SIDE, 0


def area_with_a_sum_that_wraps(layout):
    layout.spawn[2] = np.iinfo(np.int64).max, 0, 1, 1


def areas_as_a_list(layout):
    layout.spawn = layout.spawn.tolist()


def walls_of_another_shape(layout):
    layout.walls = np.zeros((SIDE, SIDE - 1), bool)


def targets_of_another_type(layout):
    layout.targets = np.zeros((SIDE, SIDE), np.uint8)


def food_below_nothing(layout):
    layout.food = -0.1


def food_that_is_no_number(layout):
    layout.food = np.nan


def food_that_is_a_text(layout):
    layout.food = "a"


FAULTS = {
    colours_from_0: r"layout.colour holds \[0, 1, 2, 3\]: use AGENT_1 to AGENT_4",
    colours_of_another_type: r"layout.colour is int64\[8\], but must be uint8\[8\]",
    too_few_colours: r"layout.colour is uint8\[4\]",
    area_beyond_the_field: r"layout.spawn\[2\] is \[16, 0, 32, 32\], which is not an area of the 32 x 32 field",
    area_before_the_field: r"layout.spawn\[2\] is \[0, -1, 32, 32\]",
    area_of_nothing: r"layout.spawn\[2\] is \[0, 0, 32, 0\]",
    area_with_a_sum_that_wraps: r"layout.spawn\[2\]",
    areas_as_a_list: r"layout.spawn is a list",
    walls_of_another_shape: r"layout.walls is bool\[32, 31\], but must be bool\[32, 32\]",
    targets_of_another_type: r"layout.targets is uint8",
    food_below_nothing: r"layout.food=-0.1 is out of range",
    food_that_is_no_number: r"layout.food=nan is out of range",
    food_that_is_a_text: r"layout.food is a str: give a number",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_invalid_layouts_are_refused(fault):
    layout = Layout(World(agents=8, height=SIDE, width=SIDE))
    make_rules(layout, discrete=True)
    fault(layout)
    with pytest.raises((ValueError, TypeError), match=FAULTS[fault]) as caught:
        make_rules(layout, discrete=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("colours", ["a", 2.5, None, 0, 5])
def test_invalid_numbers_of_colours_are_refused(colours):
    with pytest.raises(
        (ValueError, TypeError), match=r"is out of range: agents have 1 to 4 colours|is not a whole number"
    ):
        Layout(World(agents=8, height=SIDE, width=SIDE)).mix_colours(colours)


def test_a_blob_lies_in_the_field_or_is_refused():
    layout = Layout(World(agents=8, height=SIDE, width=SIDE))
    layout.blob(5e-324)
    assert (layout.spawn == (0, 0, SIDE, SIDE)).all()
    for place in (np.nan, np.inf):
        with pytest.raises(ValueError, match="is not a finite number"):
            layout.blob(0.5, row=place)


@pytest.mark.parametrize(
    ("world", "chosen", "size"),
    [
        ((1, 4096, 512, 512), set(), (1, 256, 128, 128)),
        ((4, 1024, 256, 256), set(), (1, 256, 128, 128)),
        ((4, 1024, 128, 128), set(), (1, 1024, 128, 128)),
        ((1, 4096, 512, 64), set(), (1, 1024, 128, 64)),
        ((1, 20, 512, 512), {"agents"}, (1, 20, 128, 128)),
        ((1, 4096, 512, 512), {"height", "width"}, (1, 4096, 512, 512)),
        ((3, 4096, 512, 512), {"worlds"}, (3, 256, 128, 128)),
        ((1, 1, 512, 512), set(), (1, 1, 128, 128)),
    ],
)
def test_a_smaller_world_is_as_dense_unless_its_size_is_chosen(world, chosen, size):
    assert World(*world, vision=6).within(128, 128, chosen) == World(*size, vision=6)
