"""Genotype texts: published texts, round trips over every space, and one-line errors for anything malformed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsec.cells import DARTS, NASBENCH201, SPACES, Cell, Choice, Edge, Space
from parsec.cells.genotypes import from_json, from_text, text_format, to_json, to_text
from parsec.cells.space import CellLayout, Slot
from parsec.errors import UserError

# The second-order cell of the DARTS paper, as its authors print it.
DARTS_V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], "
    "normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
    "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], "
    "reduce_concat=[2, 3, 4, 5])"
)
DIL = "('dil_conv_3x3', 2)"
BEST_201 = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def _mixed_space() -> Space:
    """A space of neither known form: one fixed source that skips a node, one searched source."""
    operations = ("skip_connect", "nor_conv_1x1")
    choices = (Choice("first", operations), Choice("source", ("0", "1")), Choice("second", operations))
    layout = CellLayout(1, 2, (Slot(1, 0, source=0), Slot(2, 2, source_choice=1)))
    return Space("mixed", choices, operations, {"cell": layout}, NASBENCH201.network)


SPACES_HERE = {**SPACES, "mixed": _mixed_space()}


@st.composite
def _architectures(draw: st.DrawFn) -> tuple[Space, np.ndarray]:
    space = SPACES_HERE[draw(st.sampled_from(sorted(SPACES_HERE)))]
    options = [draw(st.integers(0, int(size) - 1)) for size in space.sizes]
    return space, np.array(options, np.int32)


@given(_architectures())
@settings(max_examples=150, deadline=None)
def test_every_text_reads_back_as_the_architecture_it_was_written_for(drawn: tuple[Space, np.ndarray]) -> None:
    space, architecture = drawn
    np.testing.assert_array_equal(from_text(space, to_text(space, architecture)), architecture)
    as_json = to_json(space.decode(architecture))
    assert "\n" not in as_json
    assert from_json(as_json) == space.decode(architecture)
    np.testing.assert_array_equal(from_text(space, as_json), architecture)


def test_each_space_has_the_form_its_field_uses() -> None:
    forms = {name: text_format(space).name for name, space in SPACES_HERE.items()}
    assert forms["darts"] == "DARTS genotype"
    assert forms["nasbench201"] == "NAS-Bench-201 string"
    assert forms["mixed"] == "JSON"


def test_published_darts_cell() -> None:
    architecture = from_text(DARTS, DARTS_V2)
    genotype = DARTS.decode(architecture)
    assert genotype["normal"].edges[-1] == Edge(2, 5, "dil_conv_3x3")
    assert genotype["reduce"].edges[2] == Edge(2, 3, "skip_connect")
    assert to_text(DARTS, architecture) == DARTS_V2.replace("[2, 3, 4, 5]", "range(2, 6)")


@pytest.mark.parametrize(
    "text",
    [
        DARTS_V2.replace("[2, 3, 4, 5]", "range(2, 6)"),
        DARTS_V2.replace("[2, 3, 4, 5]", "(2, 3, 4, 5)"),
        "  DARTS_V2 = " + DARTS_V2.replace(", ", " ,\n  ").replace("'", '"') + "\n",
        DARTS_V2.replace("('skip_connect', 0)", "['skip_connect', 0]").replace("=[('s", "=[ ('s"),
    ],
)
def test_darts_text_is_read_in_every_form_in_use(text: str) -> None:
    np.testing.assert_array_equal(from_text(DARTS, text), from_text(DARTS, DARTS_V2))


def test_published_nasbench201_string() -> None:
    architecture = from_text(NASBENCH201, BEST_201)
    assert [NASBENCH201.operations[at] for at in architecture] == [
        "nor_conv_3x3", "nor_conv_3x3", "nor_conv_3x3", "skip_connect", "nor_conv_3x3", "nor_conv_3x3",
    ]  # fmt: skip
    assert to_text(NASBENCH201, architecture) == BEST_201
    np.testing.assert_array_equal(from_text(NASBENCH201, BEST_201.replace("+", " +\n ")), architecture)


@pytest.mark.shared_data
def test_nasbench201_strings_match_the_benchmark(shared_data) -> None:
    with np.load(shared_data / "nasbench201.npz", allow_pickle=False) as table:
        names, codes = table["op_names"].astype(str), table["ops"]
    for row in codes[:: len(codes) // 50]:
        ops = names[row]
        text = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*ops)
        assert [NASBENCH201.operations[at] for at in from_text(NASBENCH201, text)] == ops.tolist()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (DARTS_V2.replace("dil_conv_3x3", "dil_conv_3"), ["'dil_conv_3'", "did you mean 'dil_conv_3x3'"]),
        (DARTS_V2.replace("('skip_connect', 0)", "('skip_connect', 0", 1), ["line 1 column"]),
        (
            DARTS_V2.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', 5)"),
            [f"line 1 column {DARTS_V2.index(DIL) + 1}:", "0 to 4, not 5"],
        ),
        (DARTS_V2.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', -1)"), ["expected the number of a node"]),
        (DARTS_V2.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', 2.0)"), ["expected the number of a node"]),
        (DARTS_V2.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3',)"), ["pair"]),
        (DARTS_V2.replace(", ('dil_conv_3x3', 2)", ""), ["7 pairs", "needs 8"]),
        (DARTS_V2.replace("normal_concat=[2, 3, 4, 5], ", ""), ["normal_concat is missing"]),
        (DARTS_V2.replace("[2, 3, 4, 5]", "range(2, 5)", 1), ["concatenates [2, 3, 4]"]),
        (DARTS_V2.replace("[2, 3, 4, 5]", f"range({10**30})", 1), ["number of a node"]),
        (DARTS_V2.replace("normal=", "normale="), ["'normale'", "did you mean 'normal'"]),
        (DARTS_V2.replace("normal=[", "normal=__import__('os').listdir() or ["), ["list of (operation, source)"]),
        (DARTS_V2.replace("Genotype(", "Genotype([], "), ["by name"]),
        ("open('/etc/passwd')", ["expected Genotype"]),
        ("", ["expected Genotype"]),
        ("(" * 5000, ["DARTS genotype"]),
        ("Genotype(\0)", ["DARTS genotype"]),
        (BEST_201, ["DARTS genotype"]),
        ("x" * 30_000, ["30,000 characters"]),
    ],
)
def test_malformed_darts_text_says_where(text: str, says: list[str]) -> None:
    _assert_one_line(DARTS, text, says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BEST_201.replace("nor_conv_3x3~2", "nor_conv3x3~2"), ["'nor_conv3x3'", "did you mean 'nor_conv_3x3'"]),
        (BEST_201.replace("nor_conv_3x3~2", "nor_conv_3x3~1"), ["node 3, edge 3", "operation~2", "'nor_conv_3x3~1'"]),
        (BEST_201.replace("skip_connect~0|", ""), ["node 3", "operation~0|operation~1|operation~2"]),
        (BEST_201.replace("|+|skip", "|skip"), ["2 nodes", "has 3"]),
        (BEST_201[:-1], ["node 3"]),
        ("", ["0 nodes"]),
        (DARTS_V2, ["NAS-Bench-201 string"]),
    ],
)
def test_malformed_cell_string_says_where(text: str, says: list[str]) -> None:
    _assert_one_line(NASBENCH201, text, says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("}}", "}"), ["line 1 column"]),
        (('"num_nodes": 3', '"num_nodes": 4'), ["1 inputs and 4 nodes", "has 1 and 3"]),
        (('"num_nodes": 3', '"nodes": 3'), ["expected an object with num_inputs, num_nodes, edges, concat"]),
        (('"num_nodes": 3', '"num_nodes": "3"'), ["whole numbers"]),
        (('"cell"', '"sell"'), ["'sell'", "did you mean 'cell'"]),
        (('"nor_conv_3x3", 0, 1', '"nor_conv_3x3", 1, 0'), ["edge 0"]),
        (('"nor_conv_3x3", 0, 1', '"nor_conv_3x3", 0, 2'), ["writes node 2"]),
        (('"nor_conv_3x3", 0, 1', "3, 0, 1"), ["edge 0"]),
        (('"concat": []', '"concat": [3]'), ["concatenates [3]"]),
        (('"concat": []', '"concat": [9]'), ["concat is a list of nodes below 4"]),
        (('"concat": []', '"concat": {}'), ["concat is a list"]),
    ],
)
def test_malformed_json_says_where(change: tuple[str, str], says: list[str]) -> None:
    text = to_json(NASBENCH201.decode(from_text(NASBENCH201, BEST_201)))
    assert change[0] in text
    _assert_one_line(NASBENCH201, text.replace(*change, 1), says)


def test_json_needs_every_kind_of_cell() -> None:
    genotype = DARTS.decode(from_text(DARTS, DARTS_V2))
    _assert_one_line(DARTS, to_json({"normal": genotype["normal"]}), ["no 'reduce' cell"])
    with pytest.raises(UserError, match="one entry for each kind"):
        from_json("[]")


def test_an_architecture_outside_the_space_is_refused() -> None:
    with pytest.raises(UserError, match=r"outside 0\.\.4"):
        to_text(NASBENCH201, [0, 0, 0, 0, 0, 5])


@given(st.text(max_size=60), st.sampled_from(sorted(SPACES_HERE)), st.integers(0, 400))
@settings(max_examples=200, deadline=None)
def test_any_damage_gives_one_line_or_an_architecture(piece: str, name: str, at: int) -> None:
    space = SPACES_HERE[name]
    whole = to_text(space, np.zeros(len(space.sizes), np.int32))
    for text in (piece, "{" + piece, whole[:at] + piece + whole[at + 1 :]):
        try:
            architecture = from_text(space, text)
        except UserError as error:
            assert len(str(error).splitlines()) == 1
            assert len(str(error)) < 400
        else:
            space.check(architecture)


def test_a_concat_with_a_gap_is_written_as_a_list() -> None:
    layout = DARTS.cells["normal"]
    gap = CellLayout(layout.num_inputs, layout.num_nodes, layout.slots, concat=(2, 5))
    space = Space("gap", DARTS.choices, DARTS.operations, {"normal": gap}, DARTS.network)
    architecture = np.zeros(len(DARTS.choices), np.int32)
    assert "normal_concat=[2, 5]" in to_text(space, architecture)
    cell = space.decode(architecture)["normal"]
    assert isinstance(cell, Cell)
    assert cell.concat == (2, 5)
    np.testing.assert_array_equal(from_text(space, to_text(space, architecture)), architecture)


def _assert_one_line(space: Space, text: str, says: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        from_text(space, text)
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    for part in says:
        assert part in message
