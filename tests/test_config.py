"""Config dataclasses: overrides as typed, checks with one-line errors, and the forms they are written in."""

import json
import subprocess
import sys
from dataclasses import dataclass

import pytest

from parsec.config import (
    amend,
    changed_settings,
    check,
    describe,
    flatten,
    from_config_dict,
    option,
    override,
    renamed_settings,
    to_config_dict,
    to_json,
)
from parsec.data.augment import AUGMENTATIONS
from parsec.errors import UserError
from parsec.settings.search import AUGMENTATION_NAMES


@dataclass(frozen=True)
class Optimizer:
    learning_rate: float = option(0.1, "step size", minimum=0)
    name: str = option("sgd", "update rule", choices=("sgd", "adam"))


@dataclass(frozen=True)
class Settings:
    seed: int = option(0, "random seed", minimum=0)
    children: int = option(16, "K", minimum=2, maximum=64)
    clip: float | None = option(None, "largest gradient norm")
    strategies: tuple[str, ...] = option(("random",), "which", choices=("random", "parsec", "alphax"))
    widths: tuple[int, ...] = option((8, 16), "channels", minimum=1)
    verbose: bool = option(True, "say more")
    folder: str = option("", "where the data is", affects_results=False)
    optimizer: Optimizer = option(Optimizer(learning_rate=0.5), "the weights' optimizer")


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("seed", "3", 3),
        ("optimizer.learning_rate", "1", 1.0),
        ("optimizer.learning_rate", "5e-2", 0.05),
        ("clip", "none", None),
        # JSON has no infinity, so a number without a bound is none.
        ("clip", "inf", None),
        ("clip", "2", 2.0),
        ("strategies", "random,parsec", ("random", "parsec")),
        ("strategies", "('random', 'alphax')", ("random", "alphax")),
        ("widths", "4", (4,)),
        ("widths", "", ()),
        ("verbose", "false", False),
        ("verbose", "1", True),
        ("folder", "a=b,c", "a=b,c"),
    ],
)
def test_text_becomes_the_declared_type(key: str, text: str, value: object):
    found = dict(flatten(override(Settings(), {key: text})))[key]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "text", "named"),
    [
        ("sead", "3", ["'sead'", "did you mean 'seed'", "config has seed, children", "optimizer.*"]),
        ("learning_rate", "3", ["config has seed", "did you mean 'optimizer.learning_rate'"]),
        ("optimiser.learning_rate", "3", ["config has seed", "did you mean 'optimizer.learning_rate'"]),
        ("optimiser.learning_rte", "3", ["config has seed", "did you mean 'optimizer.learning_rate'"]),
        ("optimizer.learning_rte", "3", ["config.optimizer has learning_rate, name", "'optimizer.learning_rate'?"]),
        ("optimizer.zzz", "3", ["config.optimizer has learning_rate, name"]),
        ("optimizer", "adam", ["config.optimizer is a group", "config.optimizer.name"]),
        ("seed", "3.5", ["config.seed='3.5'", "an integer"]),
        ("seed", "-1", ["config.seed=-1", "at least 0"]),
        ("children", "1", ["config.children=1", "at least 2 and at most 64"]),
        ("verbose", "maybe", ["config.verbose='maybe'", "true or false"]),
        ("clip", "wide", ["config.clip='wide'", "a number or none"]),
        ("clip", "-inf", ["config.clip=-inf", "finite"]),
        ("optimizer.learning_rate", "nan", ["config.optimizer.learning_rate=nan", "finite"]),
        ("optimizer.learning_rate", "inf", ["config.optimizer.learning_rate=inf", "finite"]),
        ("seed", "1" * 30, ["config.seed=1111", "at least 0"]),
        ("seed", "1" * 5000, ["config.seed='1111", "5,002 characters"]),
        ("x" * 5000, "1", ["unknown config key 'xxxx", "5,002 characters"]),
        ("folders", "1", ["config has seed", "'folder'"]),
        ("widths", str(2**31), ["config.widths=2147483648", "out of range"]),
        ("optimizer.name", "adm", ["'adm'", "adam, sgd", "did you mean 'adam'"]),
        ("strategies", "random,parsecs", ["'parsecs'", "did you mean 'parsec'"]),
        ("widths", "4,0", ["config.widths=0", "at least 1"]),
        ("widths", "4,x", ["config.widths='x'", "an integer"]),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(key: str, text: str, named: list[str]):
    with pytest.raises(UserError) as refused:
        override(Settings(), {key: text})
    message = str(refused.value)
    assert "\n" not in message
    assert len(message) < 500
    for part in named:
        assert part in message


def test_errors_name_the_flag_that_was_given():
    for settings in ({"sead": "1"}, {"seed": "x"}, {"seed": "-1"}, {"optimizer": "sgd"}, {"optimizer.name": "adm"}):
        with pytest.raises(UserError, match=r"target[. ]"):
            override(Settings(), settings, "target")
    with pytest.raises(UserError, match=r"target\.optimizer is a group"):
        from_config_dict(Settings, {"optimizer": 3}, "target")
    assert "--target.seed=0" in describe(Settings, "--target.")


def test_config_dict_round_trip_and_partial_groups_keep_their_defaults():
    changed = override(Settings(), {"optimizer.name": "adam", "widths": "1,2,3"})
    assert from_config_dict(Settings, to_config_dict(changed)) == changed
    # The default of a group is the instance given to `option`, not the group class's own defaults.
    partial = from_config_dict(Settings, {"optimizer": {"name": "adam"}})
    assert partial.optimizer == Optimizer(learning_rate=0.5, name="adam")


@pytest.mark.parametrize(
    "given",
    [{"optimizer": {"rate": 1.0}}, {"optimizer": 3}, {"seed": True}, {"seed": 1.0}, {"widths": 3}, {"folder": None}],
)
def test_from_config_dict_refuses_what_the_fields_do_not_allow(given: dict[str, object]):
    with pytest.raises(UserError):
        from_config_dict(Settings, given)


def test_check_finds_a_bad_value_that_code_put_in():
    assert check(Settings()) == Settings()
    with pytest.raises(UserError, match=r"config\.optimizer\.learning_rate=-1"):
        check(Settings(optimizer=Optimizer(learning_rate=-1.0)))


def test_a_registry_of_choices_is_read_when_a_value_is_checked():
    registry = {"random": 1}

    @dataclass(frozen=True)
    class Chosen:
        name: str = option("random", "which", choices=registry)

    with pytest.raises(UserError, match=r"unknown value of config\.name 'mine'; choose one of random"):
        check(Chosen("mine"))
    registry["mine"] = 2
    assert check(Chosen("mine")).name == override(Chosen(), {"name": "mine"}).name == "mine"
    assert "random, mine" in describe(Chosen)


def test_amend_takes_values_and_text_alike_and_names_the_key_as_asked():
    base = Settings(seed=4)
    for children in (8, "8"):
        assert amend(base, {"children": children, "clip": None, "widths": (3,)}) == Settings(
            seed=4, children=8, widths=(3,)
        )
    assert amend(base, {"clip": 2, "folder": "8"}) == Settings(seed=4, clip=2.0, folder="8")
    for wrong, said in (
        ({"children": 4.5}, r"^of\.children=4\.5 does not fit; it must be an integer$"),
        ({"children": "4.5"}, r"^of\.children='4\.5' does not fit; it must be an integer$"),
        ({"children": 1}, r"^of\.children=1 is out of range; it must be at least 2 and at most 64$"),
        ({"strategies": "randum"}, r"^unknown value of of\.strategies 'randum'.*did you mean 'random'"),
    ):
        with pytest.raises(UserError, match=said):
            amend(base, wrong, "of.")


def test_json_and_what_changes_results():
    stored = json.loads(to_json(Settings()))
    assert changed_settings(stored, Settings()) == {}
    changed = override(Settings(), {"optimizer.learning_rate": "0.25", "widths": "8"})
    assert changed_settings(stored, changed) == {"widths": ([8, 16], [8]), "optimizer.learning_rate": (0.5, 0.25)}
    assert changed_settings(stored, override(Settings(), {"folder": "elsewhere"})) == {}


def test_a_setting_that_did_not_exist_then_had_its_default():
    stored = json.loads(to_json(Settings()))
    del stored["seed"], stored["optimizer"]["learning_rate"]
    assert changed_settings(stored, Settings()) == {}
    later = override(Settings(), {"seed": "1", "optimizer.learning_rate": "0.1"})
    assert changed_settings(stored, later) == {"seed": (0, 1), "optimizer.learning_rate": (0.5, 0.1)}
    del stored["optimizer"]
    assert changed_settings(stored, Settings()) == {}
    # A setting that is gone, or a group that was none, cannot have meant the same.
    assert changed_settings({**stored, "gone": 3, "optimizer": 4}, Settings()) == {"gone": (3, "absent")}
    assert changed_settings({"optimizer": {"rate": 1}}, Settings()) == {"optimizer.rate": (1, "absent")}


def test_describe_lists_every_setting_with_its_default_help_and_range():
    text = describe(Settings)
    assert describe(Settings()) == text
    assert len(text.splitlines()) == len(list(flatten(Settings())))
    assert "--config.optimizer.learning_rate=0.5" in text
    assert "K (int, at least 2 and at most 64)" in text
    assert "update rule (str: sgd, adam)" in text


def test_options_are_read_without_jax_and_name_every_augmentation():
    code = "import sys, parsec.settings.search, parsec.settings.table; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert set(AUGMENTATION_NAMES) == set(AUGMENTATIONS)


def test_settings_in_errors_are_renamed_and_nothing_else():
    said = "runs/a/config.json: config.seed=3, --config.optimizer.name, config.optimizer and config.data.size"
    with pytest.raises(UserError) as raised, renamed_settings(Settings(), "target.{}".format):
        raise UserError(said)
    assert str(raised.value) == (
        "runs/a/config.json: target.seed=3, --target.optimizer.name, target.optimizer and config.data.size"
    )
