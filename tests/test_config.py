"""Tests of settings: errors name the field and its value."""

import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from itrex_sweet.config import SweetConfig, default_exits, resolve_exits
from itrex_sweet.errors import ConfigError
from itrex_sweet.policy import Policy


@given(st.integers(1, 64))
def test_default_exits_are_valid_for_every_depth(depth):
    assert resolve_exits(None, depth) == resolve_exits(default_exits(depth), depth)


def test_default_exits_are_proportional_to_depth():
    assert [default_exits(depth) for depth in (1, 2, 3, 6, 12, 24)] == [
        (1,),
        (1, 2),
        (1, 2, 3),
        (1, 2, 4, 6),
        (2, 4, 8, 12),
        (4, 8, 16, 24),
    ]


@pytest.mark.parametrize(
    "exits, words",
    [
        ((1, 4, 14), r"exits=\(1, 4, 14\): the model has 12 layers"),
        ((0, 12), "from 1"),
        ((4, 1, 12), r"did you mean \(1, 4, 12\)"),
        ((1, 1, 12), r"did you mean \(1, 12\)"),
        ((1, 4), r"pass \(1, 4, 12\)"),
        ((), "at least one exit"),
        ((1.5, 12), "whole numbers"),
        ((True, 12), "whole numbers"),
        ((np.True_, 12), "whole numbers"),
        ((np.float32(1), 12), "whole numbers"),
        (("1", "12"), "whole numbers"),
        ((None, 12), "whole numbers"),
        (((1,), 12), "whole numbers"),
        (12, r"exits=12: .*Did you mean exits=\(12,\)"),
        (12.0, "exits=12.0"),
        ("1,12", "exits='1,12': .* not str"),
        (b"12", "not bytes"),
        ({1: 12}, "not dict"),
        (True, "exits=True"),
    ],
)
def test_invalid_exits(exits, words):
    with pytest.raises(ConfigError, match=words):
        resolve_exits(exits, 12)


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(mode="fast"), "mode='fast'"),
        (dict(gradient_scale=1.5), "gradient_scale=1.5"),
        (dict(gradient_scale=float("nan")), "gradient_scale=nan"),
        (dict(gradient_scale=(0.1, 1.5)), "gradient_scale=\\(0.1, 1.5\\)"),
        (dict(gradient_scale="rising"), "gradient_scale='rising'.*'cut_first'"),
        (dict(mode="joint", gradient_scale=0.1), "cuts no gradient"),
        (dict(mode="joint", gradient_scale="cut_first"), "cuts no gradient"),
        (dict(gradient_scale=0.1), r"gradient_scale=0\.1: .*pass mode='sweet'"),
        (dict(gradient_scale="cut_first"), "pass mode='sweet'"),
        (dict(mode="sweet", train="exits"), r"train='exits' with mode='sweet'.*mode='decoupled'"),
        (dict(mode="joint", exit_lr_multiplier=3.0), r"exit_lr_multiplier=3\.0 with mode='joint'"),
        (dict(exit_lr_multiplier=0.0), r"exit_lr_multiplier=0\.0: it is a positive"),
        (dict(train="heads"), "train='heads': choose 'all' or 'exits'"),
        (dict(train=None), "train=None"),
        (dict(mode=None), "mode=None"),
        (dict(mode=["sweet"]), "mode="),
        (dict(mode=np.array([1, 2])), "mode="),
        (dict(longest_row=0), "longest_row=0"),
        (dict(longest_row=2.5), "longest_row=2.5"),
        (dict(loss=print), "loss=.*function itself"),
        (dict(loss="focal", class_weights=(1, 2)), "leave one of them out"),
        (dict(exits=3), "exits=3"),
    ],
)
def test_invalid_training_settings(settings, words):
    with pytest.raises(ConfigError, match=words):
        SweetConfig(**settings)


_NO_NUMBERS = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.complex_numbers(),
    st.lists(st.none(), min_size=1, max_size=3),
    st.dictionaries(st.text(max_size=2), st.floats(), max_size=2),
    st.sampled_from([float("nan"), float("inf"), -0.1, 1e400, np.nan, 10**400, object(), np.ones((2, 2)), np.True_]),
)


_NUMBERS = ["gradient_scale", "distillation", "distillation_temperature", "exit_lr_multiplier"]


@given(st.sampled_from(_NUMBERS), _NO_NUMBERS)
def test_invalid_numbers(name, value):
    assume(value is not None or name in ("gradient_scale", "distillation_temperature"))
    with pytest.raises(ConfigError, match=name):
        SweetConfig(**{name: value})


@given(st.one_of(st.none(), st.integers(), st.text(max_size=4), st.floats(), st.lists(st.booleans(), max_size=2)))
def test_invalid_booleans(value):
    with pytest.raises(ConfigError, match="learn_to_exit"):
        SweetConfig(learn_to_exit=value)


@given(st.floats(0, 1, width=32), st.integers(1, 9))
def test_numbers_are_stored_as_python_types(share, exit_):
    for kind in (float, np.float32, np.float64, np.array):
        settings = dict(gradient_scale=(kind(share),), distillation=kind(share), exits=(np.int64(exit_), np.uint8(9)))
        config = SweetConfig(**settings, mode="sweet", learn_to_exit=np.True_, class_weights=np.float32([1, 2]))
        assert json.loads(json.dumps(config.to_dict())) == {
            **SweetConfig((exit_, 9), "sweet", (share,), distillation=share).to_dict(),
            "learn_to_exit": True,
            "class_weights": [1.0, 2.0],
        }
        assert SweetConfig.from_dict(config.to_dict()) == config


def test_settings_of_an_earlier_version():
    before = {
        "exits": [1, 4],
        "mode": "sweet",
        "gradient_scale": 0.0,
        "learn_to_exit": False,
        "distillation": 0.0,
        "distillation_temperature": 2.0,
    }
    config = SweetConfig.from_dict(before)
    assert config.to_dict() == before and config.longest_row is None
    recorded = SweetConfig.from_dict({**before, "longest_row": 256})
    assert recorded == config and recorded.to_dict() == {**before, "longest_row": 256}


@pytest.mark.parametrize("settings", [None, 3, "sweet", [("mode", "sweet")], [1]])
def test_settings_must_be_a_mapping(settings):
    with pytest.raises(ConfigError, match="mapping"):
        SweetConfig.from_dict(settings)


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(thresholds=(0.5,), temperatures=(1.0,)), "1 thresholds for 1 exits"),
        (dict(thresholds=(1.1,), temperatures=(1.0, 1.0)), "threshold 1.1"),
        (dict(thresholds=(float("nan"),), temperatures=(1.0, 1.0)), "threshold nan"),
        (dict(thresholds=(0.5,), temperatures=(0.0, 1.0)), "temperature 0.0"),
        (dict(thresholds=(0.5,), temperatures=(1.0, 1.0), criterion="mood"), "criterion='mood'"),
    ],
)
def test_invalid_policies(settings, words):
    with pytest.raises(ConfigError, match=words):
        Policy(**settings)


@given(st.lists(st.floats(0, 1), max_size=5))
def test_policy_round_trip_through_json(thresholds):
    policy = Policy(tuple(thresholds), (1.5,) * (len(thresholds) + 1))
    assert Policy.from_dict(policy.to_dict()) == policy


def test_cut_first_mode():
    first = SweetConfig(mode="sweet", gradient_scale="cut_first")
    scales = {count: first.resolved(count) for count in (1, 12)}
    assert scales[1].scales == () and scales[12].exits == (2, 4, 8, 12)
    assert scales[12].gradient_scale == scales[12].scales == (0.0, 1.0, 1.0)
    assert SweetConfig((2, 4), "sweet", gradient_scale="cut_first").resolved(4).scales == (0.0,)
    assert SweetConfig((1, 2, 4), "sweet", gradient_scale=0.3).resolved(4).scales == (0.3, 0.3)
    again = SweetConfig.from_dict(scales[12].to_dict())
    assert again == scales[12] and again.resolved(12) == again


def test_gradient_scale_per_exit():
    with pytest.raises(ConfigError, match=r"exits \(1, 4\) have 1, each but the last"):
        SweetConfig((1, 4), "sweet", gradient_scale=[0.1, 0.3]).resolved(4)


def test_settings_round_trip_through_json():
    config = SweetConfig(exits=(1, 4), mode="paper", gradient_scale=0.1)
    assert SweetConfig.from_dict(config.to_dict()) == config
    with pytest.warns(UserWarning, match="ignores unknown settings: colour"):
        SweetConfig.from_dict({**config.to_dict(), "colour": "red"})


def test_settings_without_mode():
    assert SweetConfig.from_dict({"exits": [1, 4]}) == SweetConfig((1, 4), "sweet")
    assert SweetConfig().mode == "decoupled"


def test_properties_derived_from_mode_and_train():
    both, alone, sweet = SweetConfig(), SweetConfig(train="exits"), SweetConfig(mode="sweet")
    assert [each.distillation for each in (both, alone, sweet)] == [0.5, 1.0, 0.0]
    assert [each.exit_lr_multiplier for each in (both, alone, sweet)] == [3.0, 3.0, 1.0]
    assert SweetConfig(train="exits", distillation=0.3).distillation == 0.3
    assert not {"train", "exit_lr_multiplier"} & sweet.to_dict().keys()
    for config in (both, alone, sweet, SweetConfig(exit_lr_multiplier=0.5)):
        assert SweetConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ConfigError, match=r"exits=\(6,\): there is no exit before the last"):
        SweetConfig((6,), train="exits").resolved(6)
