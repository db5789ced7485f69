"""What a split asks of a GPU's driver, played by one that keeps count: there may be no GPU here."""

import torch

from particle_grid.learn.env_split import EnvSplit
from tests.learn.toy import Toy


class Driver:
    def __init__(self):
        self.locked = {}

    def cudaHostRegister(self, address, size, flags):
        self.locked[address] = size
        return 0

    def cudaHostUnregister(self, address):
        del self.locked[address]


def test_memory_is_page_locked_as_long_as_its_lane_lives_and_no_longer(monkeypatch):
    driver = Driver()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: driver)
    monkeypatch.setattr(torch.cuda, "check_error", lambda error: None)
    env = Toy(8)
    split = EnvSplit(env, None, 0, None, torch.device("cuda"))
    assert driver.locked == {env.observations.ctypes.data: env.observations.nbytes}
    del split
    assert not driver.locked
