import tomllib

import msgspec
import pytest

from overnight import config
from overnight.errors import UserError
from overnight.settings import (
    Preset,
    Settings,
    check_setting,
    dump_config,
    environment_layer,
    flatten,
    load_config,
    read_preset,
    read_toml,
    without_unset,
)


def test_layers_lie_over_each_other() -> None:
    settings = Settings()
    settings.add({"model.width": 8, "model.heads": 2}, "preset x")
    settings.add({"model.width": "16"}, "command line")
    resolved = settings.resolve()
    assert (resolved.model.width, resolved.model.heads) == (16, 2)
    assert settings.reasons == {"model.width": "command line", "model.heads": "preset x"}


@pytest.mark.parametrize(
    ("layer", "part"),
    [
        ({"model.widht": 8}, 'Did you mean "model.width"?'),
        ({"width": 8}, 'Did you mean "model.width"?'),
        ({"model.width": "wide"}, "model.width"),
        ({"model.width": 0}, ">= 1"),
        ({"model.width": 8.5}, "int"),
        ({"model.layers": "AXA"}, "regex"),
        ({"schedule.kind": "cosin"}, "cosin"),
        ({"model.dropout": 1.0}, "< 1.0"),
        ({"train.batch": True}, "int"),
        ({"length.steps": 3, "length.tokens": 9}, "one length"),
        ({"length.minutes": 0}, "a length is above 0"),
        ({"length.passes": "inf"}, "finite"),
        ({"length.tokens": float("inf")}, "int"),
        ({"optimizer.lr": "nan"}, ">= 0"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(layer: dict, part: str) -> None:
    with pytest.raises(UserError) as error:
        Settings().add(layer, "here")
    assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("here")


def test_only_what_the_user_gave_and_nobody_has_by_default_is_given() -> None:
    settings = Settings()
    settings.add({"model.width": 8, "model.heads": 2}, "preset x")
    settings.from_preset |= {"model.width", "model.heads"}
    settings.add({"model.heads": "1", "train.seed": 1, "eval.every": 5}, "command line")
    settings.choose("eval.every", 7, "chosen")
    assert settings.given() == {"model.heads": "model.heads = 1 (command line)"}


def test_settings_without_effect_exist_and_depend_on_others() -> None:
    names = config.without_effect(config.Config())
    assert names.keys() <= config.all_settings().keys()
    other = config.Config().having(
        data={"val": ["b.txt"]}, tokenizer={"kind": "file"}, model={"layers": "S", "mlp": "none"},
        optimizer={"kind": "muon"}, schedule={"kind": "wsd"}, sample={"tokens": 0},
    )  # fmt: skip
    assert config.without_effect(other).keys() <= config.all_settings().keys()
    assert "optimizer.muon_lr" in names
    assert "optimizer.muon_lr" not in config.without_effect(other)


def test_a_runs_own_settings_can_be_given_again(tmp_path) -> None:
    resolved = config.Config().having(length={"steps": 400}, model={"width": 32})
    path = tmp_path / "config.toml"
    path.write_text(dump_config(resolved, {}))
    settings = Settings()
    settings.add(without_unset(flatten(read_toml(path), str(path))), str(path))
    assert settings.resolve() == resolved == load_config(path)
    assert without_unset({"length.steps": 0}) == {"length.steps": 0}  # which is refused


def test_what_is_given_is_not_free() -> None:
    settings = Settings()
    assert settings.program_chooses("train.threads")  # left open by its default
    settings.choose("train.threads", 2, "cores")
    assert settings.program_chooses("train.threads")
    settings.add({"train.threads": 2}, "command line")
    assert not settings.program_chooses("train.threads")
    assert not settings.program_chooses("train.batch")


def test_a_whole_number_may_be_written_as_a_power_of_ten() -> None:
    settings = Settings()
    settings.add({"length.tokens": 1e6, "optimizer.lr": 1.0}, "file")
    assert (settings.get("length.tokens"), settings.get("optimizer.lr")) == (1_000_000, 1.0)
    assert isinstance(settings.get("length.tokens"), int)
    assert isinstance(settings.resolve().optimizer.lr, float)


def test_a_later_length_replaces_the_earlier_one() -> None:
    settings = Settings()
    settings.add({"length.minutes": 3}, "preset")
    settings.add({"length.steps": 7}, "command line")
    assert settings.resolve().length == config.Length(steps=7)


def test_text_of_flags_is_parsed() -> None:
    settings = Settings()
    settings.add(
        {"model.ngrams": "2,3", "model.bias": "true", "sample.prompts": "a, b"}, "command line"
    )
    resolved = settings.resolve()
    assert resolved.model.ngrams == [2, 3]
    assert check_setting("model.ngrams", ["2", "4"], "command line") == [2, 4]  # given twice
    assert check_setting("model.ngrams", "[2, 3]", "command line") == [2, 3]  # as in a file
    assert check_setting("model.ngrams", "[]", "command line") == []
    assert resolved.model.bias is True
    assert resolved.sample.prompts == ["a, b"]
    settings.add({"optimizer.lr": "1e-3"}, "command line")
    assert settings.resolve().optimizer.lr == 1e-3


def test_config_file_reads_back_and_carries_reasons(tmp_path) -> None:
    settings = Settings()
    prompts = ['say "x"\\', "line\nbreak\ttab \x7f \x01", "naïve 🙂", "# no comment"]
    settings.add({"sample.prompts": prompts, "length.steps": 5}, "command line")
    settings.choose("train.threads", 2, "2 physical\ncores")
    text = dump_config(settings.resolve(), settings.reasons)
    (tmp_path / "config.toml").write_text(text, encoding="utf-8")
    assert load_config(tmp_path / "config.toml") == settings.resolve()
    assert "threads = 2 # 2 physical cores" in text
    assert tomllib.loads(text)["sample"]["prompts"] == prompts


def test_environment_is_a_layer() -> None:
    environment = {"OVERNIGHT_MODEL__WIDTH": "8", "OVERNIGHT_CACHE_GB": "1", "HOME": "/x"}
    assert environment_layer(environment) == {"model.width": "8"}


@pytest.mark.parametrize("text", ["x = 1", "[model]\nwidth = ", "[model.deep]\nx = 1", "\xff"])
def test_a_broken_settings_file_names_itself(text: str, tmp_path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"mine\.toml"):
        Settings().add(flatten(read_toml(path), str(path)), str(path))


def test_every_setting_says_what_it_is() -> None:
    for setting in config.all_settings().values():
        assert setting.description, setting.name
    tree = msgspec.to_builtins(config.Config())
    leaves = {f"{section}.{leaf}" for section, table in tree.items() for leaf in table}
    assert leaves == set(config.all_settings())


def test_unknown_preset_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match='Did you mean "nexus-bytes"'):
        read_preset("nexus-byte")


def test_a_presets_value_is_open_until_somebody_else_gives_it() -> None:
    settings = Settings()
    settings.add_preset(Preset("mine", "", "", {"model.width": 64, "model.heads": 4}))
    assert settings.not_given("model.width")
    assert settings.not_given("model.layers")
    settings.choose("model.width", 128, "by trying")
    settings.add({"model.heads": 4}, "command line")
    assert not settings.not_given("model.width")
    assert not settings.not_given("model.heads")


def test_a_length_that_is_replaced_leaves_no_reason() -> None:
    settings = Settings()
    settings.add({"length.minutes": 3.0}, "preset fast")
    settings.add({"length.steps": 7}, "command line")
    assert settings.reasons == {"length.steps": "command line"}
