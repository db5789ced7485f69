"""The module in Wasmtime: what `engine.js` does in a browser, without a browser."""

import base64
import zlib

import numpy as np
import wasmtime

ALIGNED = 64
PAGE = 65536


class Host:
    """A module with a world's records in its memory."""

    def __init__(self, code, description):
        self.store = wasmtime.Store()
        module = wasmtime.Module(self.store.engine, code)
        assert not module.imports, [each.name for each in module.imports]
        self.exports = wasmtime.Instance(self.store, module, []).exports(self.store)
        self.memory = self.exports["memory"]
        self.end = self.exports["__heap_base"].value(self.store)
        self.result = self.take(8)
        self.description = description
        self.arrays, self.records = {}, {}
        self.add(description)

    def add(self, description):
        """Write the records of a description."""
        for name, fields in description["records"].items():
            self.records[name] = self.record(name, fields)

    def take(self, size):
        address = -(-self.end // ALIGNED) * ALIGNED
        missing = address + size - self.memory.data_len(self.store)
        if missing > 0:
            self.memory.grow(self.store, -(-missing // PAGE))
        self.end = address + size
        return address

    def record(self, record, fields):
        words = []
        for field in fields:
            if "shape" in field:
                address = self.array(f"{record}.{field['name']}", field)
                words += [address, *field["shape"]]
            else:
                words.append(int(field["word"]))
        address = self.take(8 * len(words))
        self.memory.write(self.store, np.array(words, np.int64).tobytes(), address)
        return address

    def array(self, name, field):
        dtype = np.dtype(field["dtype"])
        count = int(np.prod(field["shape"]))
        address = self.take(count * dtype.itemsize)
        self.arrays[name] = (address, dtype, tuple(field["shape"]))
        if "data" in field:
            data = np.frombuffer(zlib.decompress(base64.b64decode(field["data"])), "f2" if field.get("half") else dtype)
            self.memory.write(self.store, data.astype(dtype).tobytes(), address)
        return address

    def __getitem__(self, name):
        """Return a copy of an array."""
        address, dtype, shape = self.arrays[name]
        size = int(np.prod(shape)) * dtype.itemsize
        return np.frombuffer(bytes(self.memory.read(self.store, address, address + size)), dtype).reshape(shape)

    def __setitem__(self, name, values):
        address, dtype, shape = self.arrays[name]
        data = np.asarray(values, dtype)
        assert data.shape == shape
        self.memory.write(self.store, data.tobytes(), address)

    def call(self, name, *records):
        addresses = [self.records[record] for record in records]
        status = self.exports[name](self.store, self.result, *addresses)
        assert status == 0, f"{name} failed with {status}"
        return int(np.frombuffer(bytes(self.memory.read(self.store, self.result, self.result + 8)), np.int64)[0])

    def reset(self, seed):
        self["session.seed"] = [seed & 0xFFFFFFFF, seed >> 32]
        self.call("reset", "state", "rules", "session")
        self.call("look", "state", "rules", "session")

    def script(self):
        self.call(f"script_{self.description['task']}", "session", "layout", "task")
        self.call(f"steer_{self.description['action']}", "rules", "session", "actions")

    def step(self):
        """Make a step with the actions that are in memory."""
        return sum(self.call(*stage) for stage in self.description["stages"])
