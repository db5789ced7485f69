"""Compiled code that is kept is only ever used for the types it was compiled for."""

import numba.core.caching

from particle_grid import jit


def cache(folder, stamp):
    """Numba's cache of a function, in a folder, whose source has a stamp: its time and size."""
    return numba.core.caching.IndexDataCacheFile(str(folder), "function", stamp)


def test_who_looks_while_another_process_saves_finds_nothing_or_the_right_code(tmp_path, monkeypatch):
    assert jit  # which changes how Numba names the files
    cache(tmp_path, "old").save("integers", "code for integers")
    writer, reader, found = cache(tmp_path, "new"), cache(tmp_path, "new"), []
    save = writer._save_data

    def look_first(name, data):
        found.append(reader.load("floats"))
        save(name, data)

    monkeypatch.setattr(writer, "_save_data", look_first)
    writer.save("floats", "code for floats")
    assert found == [None]
    assert reader.load("floats") == "code for floats"


def test_two_that_save_at_the_same_time_do_not_write_over_each_other(tmp_path, monkeypatch):
    one, two = cache(tmp_path, "new"), cache(tmp_path, "new")
    save = one._save_data

    def save_between(name, data):
        monkeypatch.setattr(two, "_load_index", dict)  # it had looked before the first one wrote
        two.save("floats", "code for floats")
        save(name, data)

    monkeypatch.setattr(one, "_save_data", save_between)
    one.save("integers", "code for integers")
    reader = cache(tmp_path, "new")
    assert reader.load("floats") == "code for floats"
    assert reader.load("integers") in (None, "code for integers")
