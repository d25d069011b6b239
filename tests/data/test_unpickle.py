import os
import pickle
import warnings

import numpy as np
import pytest

from parsec.data.unpickle import unpickle


def _python2_batch(data: np.ndarray, labels: list[int]) -> bytes:
    """A batch as Python 2 and the numpy of 2009 wrote it: protocol 2, byte strings, old module names."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    def dtype() -> bytes:
        made = b"cnumpy\ndtype\n(" + text(b"u1") + number(0) + number(1) + b"tR"
        fields = b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"t"
        return made + fields + b"b"

    content = data.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + number(0) + b"t" + text(b"b") + b"tR"
    shape = b"(" + b"".join(number(size) for size in data.shape) + b"t"
    state = b"(" + number(1) + shape + dtype() + b"\x89" + b"T" + len(content).to_bytes(4, "little") + content + b"t"
    listed = b"](" + b"".join(number(label) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + state + b"b" + text(b"labels") + listed + b"u."


def test_a_batch_of_python_2_is_read():
    data = np.random.default_rng(0).integers(0, 256, (3, 8), np.uint8)
    content = _python2_batch(data, [3, 1, 2])
    found = unpickle(content)
    np.testing.assert_array_equal(found[b"data"], data)
    assert found[b"data"].dtype == np.uint8 and found[b"labels"] == [3, 1, 2]
    # The hand-written pickle is one that the trusting reader reads alike, so the test does not test itself.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trusted = pickle.loads(content, encoding="bytes")
    np.testing.assert_array_equal(trusted[b"data"], data)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_batch_of_todays_numpy_is_read(protocol: int, transposed: bool):
    data = np.random.default_rng(1).integers(0, 256, (4, 6), np.uint8)
    data = data.T if transposed else data
    found = unpickle(pickle.dumps({b"data": data, b"labels": [1], b"": b"", b"name": b"\xff\x00a"}, protocol))
    np.testing.assert_array_equal(found[b"data"], data)
    assert (found[b"labels"], found[b""], found[b"name"]) == ([1], b"", b"\xff\x00a")


class _Payload:
    """Makes a pickle that would run a command when loaded."""

    def __init__(self, call: tuple):
        self.call = call

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize(
    "call",
    [
        (os.system, ("touch {place}",)),
        (eval, ("open({place!r}, 'w')",)),
        (getattr, ("", "upper")),
        (np.load, ("{place}",)),
    ],
)
def test_nothing_in_a_pickle_is_run(call: tuple, tmp_path):
    place = tmp_path / "run"
    function, arguments = call
    content = pickle.dumps({b"data": _Payload((function, tuple(a.format(place=str(place)) for a in arguments)))}, 4)
    with pytest.raises(pickle.UnpicklingError, match="only uint8 arrays are read"):
        unpickle(content)
    assert not place.exists()


@pytest.mark.parametrize("array", [np.array([1.5, 2.0]), np.array([{}, None], object), np.array([1, 2])])
def test_other_arrays_are_refused(array: np.ndarray):
    with pytest.raises(pickle.UnpicklingError, match="only uint8 arrays are read"):
        unpickle(pickle.dumps({b"data": array}, 4))


def test_damaged_pickles_are_refused():
    content = _python2_batch(np.zeros((3, 8), np.uint8), [0, 1, 2])
    for size in range(len(content)):
        with pytest.raises(pickle.UnpicklingError):
            unpickle(content[:size])
    with pytest.raises(pickle.UnpicklingError, match="not a dictionary"):
        unpickle(pickle.dumps([1, 2]))
    short = content.replace(
        b"T" + (24).to_bytes(4, "little") + bytes(24), b"T" + (23).to_bytes(4, "little") + bytes(23)
    )
    with pytest.raises(pickle.UnpicklingError, match="reshape"):
        unpickle(short)
