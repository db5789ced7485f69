"""A second simulator, slow and plain: Python integers, lists and float32 scalars, one agent at a time.

It shares no code with the kernels. Given the same rules and seed, it must hold the same bytes as they do at any time.
"""

import math

import numpy as np

EMPTY = 0
FOOD = 1
WALL = 2
AGENT_1 = 3
f32 = np.float32
ALL_64 = 2**64 - 1


class Generator:
    """splitmix64 with Python integers."""

    def __init__(self, state):
        self.state = int(state)

    def bits(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & ALL_64
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & ALL_64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & ALL_64
        return z ^ (z >> 31)

    def below(self, n):
        return (self.bits() >> 32) * n >> 32

    def lifetime(self, lifespan):
        if lifespan == 0:
            return 2**62
        share = (self.bits() >> 11) / 2**53
        return 1 if lifespan <= 1 else 1 + int(math.log1p(-share) / math.log1p(-1 / lifespan))


class Agent:
    def __init__(self, colour):
        self.colour = colour
        self.row = f32(0)
        self.column = f32(0)
        self.moved_row = self.moved_column = f32(0)
        self.under = EMPTY
        self.eaten = 0
        self.born = 0
        self.expiry = 0
        self.total = f32(0)

    @property
    def cell(self):
        return int(self.row), int(self.column)


class WorldOracle:
    """One world under the rules r."""

    def __init__(self, r, lifespan, colours, seed, tick=0):
        self.lifespan = lifespan
        self.r = r
        self.generator = Generator(seed)
        self.agents = [Agent(int(colour)) for colour in colours]
        self.finished = [0.0, 0.0, 0.0]
        self.start(tick)

    def start(self, tick=0):
        r, self.origin = self.r, self.generator.state
        self.grid = [[int(cell) for cell in row] for row in r.ground]
        self.tick = tick
        self.place(WALL, r.walls)
        self.order = []
        for number, agent in enumerate(self.agents):
            other = self.generator.below(number + 1)
            self.order.append(number)
            self.order[other], self.order[number] = number, self.order[other]
            self.spawn(agent)
        self.debt = self.place(FOOD, r.food)

    def field(self):
        return self.r.vision, self.r.vision, self.r.height, self.r.width

    def empty_cell(self, top, left, height, width):
        for _ in range(32):
            row, column = top + self.generator.below(height), left + self.generator.below(width)
            if self.grid[row][column] == EMPTY:
                return row, column
        cells = [(top + k // width, left + k % width) for k in range(height * width)]
        first = self.generator.below(height * width)
        return next(((r, c) for r, c in cells[first:] + cells[:first] if self.grid[r][c] == EMPTY), None)

    def place(self, code, count):
        for k in range(count):
            cell = self.empty_cell(*self.field())
            if cell is None:
                return count - k
            self.grid[cell[0]][cell[1]] = code
        return 0

    def spawn(self, agent):
        top, left, height, width = (int(x) for x in self.r.spawn[agent.colour - AGENT_1])
        cell = self.empty_cell(self.r.vision + top, self.r.vision + left, height, width) or self.empty_cell(
            *self.field()
        )
        self.grid[cell[0]][cell[1]] = agent.colour
        agent.row, agent.column = f32(cell[0] + 0.5), f32(cell[1] + 0.5)
        agent.moved_row = agent.moved_column = agent.total = f32(0)
        agent.under = EMPTY
        agent.eaten = 0
        agent.born = self.tick
        agent.expiry = self.tick + self.generator.lifetime(self.lifespan)

    def step(self, actions):
        """Play actions [agents][2] and return which agents respawned."""
        self.tick += 1
        agents = len(self.agents)
        for _ in range(1 + agents // 32):
            i, j = (self.generator.below(agents) for _ in range(2))
            self.order[i], self.order[j] = self.order[j], self.order[i]
        start, forwards = self.generator.below(agents), self.generator.below(2)
        restarted = 0 < self.r.max_episode_steps <= self.tick
        truncated = [restarted or agent.expiry <= self.tick for agent in self.agents]
        for agent, gone in zip(self.agents, truncated, strict=True):
            if gone:
                self.finished[0] += 1
                self.finished[1] += float(agent.total)
                self.finished[2] += self.tick - agent.born
                if not restarted:
                    self.grid[agent.cell[0]][agent.cell[1]] = agent.under
                    self.spawn(agent)
        if restarted:
            self.start()
        places = (
            [*range(start, agents), *range(start)]
            if forwards
            else [*range(start, -1, -1), *range(agents - 1, start, -1)]
        )
        moves = [
            None if gone else self.desired_move(agent, action)
            for agent, action, gone in zip(self.agents, actions, truncated, strict=True)
        ]
        for agent in self.agents:
            agent.eaten = 0
            agent.moved_row = f32(0)
            agent.moved_column = f32(0)
        for _ in range(self.r.substeps):
            for number in (self.order[place] for place in places):
                if moves[number] and not self.substep(self.agents[number], *moves[number]):
                    moves[number] = None
        if self.r.edible:
            self.debt = self.place(FOOD, self.debt + sum(agent.eaten for agent in self.agents))
        return truncated

    def desired_move(self, agent, action):
        """Return the cells to move in each substep."""
        push = [min(max(f32(a) - self.r.centre, f32(-1)), f32(1)) for a in action]
        if not all(math.isfinite(f32(a) - self.r.centre) for a in action):
            push = [f32(0), f32(0)]
        velocity = [
            self.r.momentum * v + self.r.gain * a
            for v, a in zip((agent.moved_row, agent.moved_column), push, strict=True)
        ]
        return [min(max(v, -self.r.speed), self.r.speed) * self.r.substep_share for v in velocity]

    def substep(self, agent, d_row, d_column):
        """Move by one substep. Return False if rounding would move the agent by two cells, which ends its step."""
        row, column = agent.row + d_row, agent.column + d_column
        old, new = agent.cell, (int(row), int(column))
        if abs(new[0] - old[0]) > 1 or abs(new[1] - old[1]) > 1:
            return False
        if new != old:
            cell = self.grid[new[0]][new[1]]
            if cell not in (EMPTY, FOOD):
                return True  # the agent there may have left by the next substep
            self.grid[old[0]][old[1]] = agent.under
            self.grid[new[0]][new[1]] = agent.colour
            eats = cell == FOOD and self.r.edible
            agent.eaten += eats
            agent.under = EMPTY if eats else cell
        agent.moved_row += row - agent.row
        agent.moved_column += column - agent.column
        agent.row, agent.column = row, column
        return True

    def sight(self, agent):
        """Return the window, row by row, and how many other agents of the same and of other colours are in it."""
        v, (row, column) = self.r.vision, agent.cell
        window = [self.grid[r][c] for r in range(row - v, row + v + 1) for c in range(column - v, column + v + 1)]
        own = sum(cell == agent.colour for cell in window) - 1
        return window, own, sum(cell >= AGENT_1 for cell in window) - own - 1

    def features(self, agent, reward):
        r, v = self.r, f32(self.r.vision)
        shares = [(agent.row - v) * r.row_share, (agent.column - v) * r.column_share]
        shares = [min(share, f32(255)) for share in shares]
        shares += [(agent.row - f32(agent.cell[0])) * f32(256), (agent.column - f32(agent.cell[1])) * f32(256)]
        signed = [min(max(x * r.speed_share, f32(-1)), f32(1)) for x in (agent.moved_row, agent.moved_column)]
        return [int(x) for x in shares] + [int(f32(128.5) + f32(127) * x) for x in [*signed, f32(reward)]]
