"""A setting is read from a flag or a variable, checked, and refused with one clear line."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from taskd.entries import Level
from taskd.errors import SettingsError
from taskd.settings import KIB, MIB, Settings, is_loopback, load_settings, unknown_variables


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data_dir", Path("taskd-data")),
        ("host", "127.0.0.1"),
        ("port", 8642),
        ("token", None),
        ("flush_interval_s", 2.0),
        ("queue_max", 100_000),
        ("queue_bytes_max", 64 * MIB),
        ("capture_level", Level.INFO),
        ("git_file_roots", []),
        ("message_bytes_max", 65_536),
        ("metadata_bytes_max", 65_536),
        ("shutdown_grace_s", 2.0),
        ("shutdown_deadline_s", 4.0),
        ("synchronous", "FULL"),
    ],
)
def test_a_default_is_the_contracts(name: str, value: object) -> None:
    """What the contract promises without any setting is what there is."""
    assert getattr(load_settings(), name) == value


def test_the_database_lies_in_the_data_directory_by_default() -> None:
    """Without `database`, the URL names a file below `data_dir`; with it, it is taken as it is."""
    assert load_settings(data_dir="/var/lib/x").database_url == "sqlite:////var/lib/x/taskd.db"
    assert load_settings(database="sqlite:////y.db").database_url == "sqlite:////y.db"


def test_a_flag_comes_before_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment sets what no flag sets."""
    monkeypatch.setenv("TASKD_PORT", "1000")
    monkeypatch.setenv("TASKD_BATCH_MAX", "5")
    settings = load_settings(port=2000)
    assert (settings.port, settings.batch_max) == (2000, 5)


def test_a_variable_may_hold_several_paths_or_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are separated by ':', host names by ','; empty ones are none."""
    monkeypatch.setenv("TASKD_PLUGINS", "/a:/b:")
    monkeypatch.setenv("TASKD_ALLOWED_HOSTS", "one, two,")
    settings = load_settings()
    assert (settings.plugins, settings.allowed_hosts) == ([Path("/a"), Path("/b")], ["one", "two"])


def test_a_choice_may_be_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """`normal` and `debug` are understood."""
    monkeypatch.setenv("TASKD_CAPTURE_LEVEL", "debug")
    settings = load_settings(synchronous="normal")
    assert (settings.synchronous, settings.capture_level) == ("NORMAL", Level.DEBUG)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "many"),
        ("port", 65_536),
        ("flush_interval_s", 0),
        ("flush_interval_s", float("nan")),
        ("batch_max", -1),
        ("message_bytes_max", 63),
        ("synchronous", "OFF"),
        ("capture_level", "LOUD"),
        ("frame_interval_s", 1),
    ],
)
def test_a_bad_value_is_one_line_that_names_setting_variable_and_value(name: str, value: object) -> None:
    """The operator reads what to change and where, without a traceback."""
    with pytest.raises(SettingsError) as caught:
        load_settings(**{name: value})
    told = str(caught.value)
    assert f"setting {name} (TASKD_{name.upper()})" in told
    assert str(value) in told
    assert "\n" not in told


def test_every_bad_setting_is_named_at_once() -> None:
    """Two mistakes need one start to be found, not two."""
    with pytest.raises(SettingsError, match=r"setting port .*; setting batch_max "):
        load_settings(port=-1, batch_max=0)


def test_an_unknown_setting_is_refused() -> None:
    """A misspelt flag does not pass in silence."""
    with pytest.raises(SettingsError, match="flush_intervall_s"):
        load_settings(flush_intervall_s=2)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"batch_max": 11, "queue_max": 10}, "batch_max must not exceed queue_max"),
        ({"queue_bytes_max": 64 * KIB}, "queue_bytes_max must hold one largest entry"),
        ({"retry_delay_s": 6}, "retry_delay_s must not exceed retry_delay_max_s"),
        ({"viewers_max": 4_000, "connections_max": 4_000}, "viewers_max must be below connections_max"),
        ({"frame_interval_s": 0.02, "ping_interval_s": 0.01}, "frame_interval_s must be below ping_interval_s"),
    ],
)
def test_limits_that_cannot_work_together_are_refused(settings: dict[str, Any], told: str) -> None:
    """A combination that breaks a rule of the design stops the start, not a task."""
    with pytest.raises(SettingsError, match=told):
        load_settings(**settings)


def test_the_largest_entry_that_the_limits_allow_is_accepted_by_them() -> None:
    """The smallest queue that can hold one largest entry is a legal setting, one byte less is not."""
    smallest = 6 * 16 * KIB + 64 * KIB + KIB
    assert load_settings(message_bytes_max=16 * KIB, queue_bytes_max=smallest).queue_bytes_max == smallest
    with pytest.raises(SettingsError):
        load_settings(message_bytes_max=16 * KIB, queue_bytes_max=smallest - 1)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "taskd.example", ""])
def test_an_address_that_others_reach_needs_a_token(host: str) -> None:
    """Nobody serves the world by mistake: without a token, or with an empty one, it does not start."""
    for token in (None, ""):
        with pytest.raises(SettingsError, match="needs a token"):
            load_settings(host=host, token=token)
    assert load_settings(host=host, token="secret").host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    """On this machine alone, no token is asked for."""
    assert is_loopback(host)
    assert load_settings(host=host).token is None


def test_a_token_is_not_shown() -> None:
    """Neither the settings as text nor an error about a token tells what it is."""
    assert "hunter22" not in repr(load_settings(token="hunter22"))
    with pytest.raises(SettingsError) as caught:
        load_settings(token=["hunter22"])
    assert "hunter22" not in str(caught.value)


def test_a_token_is_read_from_its_file(tmp_path: Path) -> None:
    """The file's text without the newline at its end is the token."""
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    path.chmod(0o600)
    token = load_settings(token_file=path).token
    assert token is not None
    assert token.get_secret_value() == "s3cret"


@pytest.mark.parametrize(
    ("content", "mode", "told"),
    [(b"x", 0o644, "chmod 600"), (b" \n", 0o600, "empty"), (b"\xff", 0o600, "cannot be read")],
)
def test_a_token_file_that_is_not_safe_or_not_usable_is_refused(
    tmp_path: Path, content: bytes, mode: int, told: str
) -> None:
    """A token that others can read is none, and neither is an empty or a binary file."""
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(SettingsError, match=told):
        load_settings(token_file=path)


def test_a_token_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A misspelt path does not start a service without a token."""
    with pytest.raises(SettingsError, match="No such file"):
        load_settings(token_file=tmp_path / "none")


def test_a_path_means_what_it_means_at_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A plugin that changes the working directory moves neither the data nor what git may read."""
    monkeypatch.chdir(tmp_path)
    settings = load_settings(plugins="mine", git_file_roots="roots").rooted()
    named = load_settings(data_dir="data", database="sqlite:///some.db").rooted()
    assert settings.database_url == f"sqlite:///{tmp_path}/taskd-data/taskd.db"
    assert (settings.plugins, settings.git_file_roots) == ([tmp_path / "mine"], [tmp_path / "roots"])
    assert (named.data_dir, named.database_url) == (tmp_path / "data", f"sqlite:///{tmp_path}/some.db")


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_setting_has_a_sentence_and_its_unit(name: str) -> None:
    """What `serve --help` prints ends as a sentence and says seconds or bytes where it counts them."""
    description = Settings.model_fields[name].description or ""
    assert description.endswith(".")
    assert not name.endswith("_s") or "(s)" in description
    assert "bytes" not in name or "bytes" in description.lower()


def test_a_variable_that_is_no_setting_is_told_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A retention that was misspelt keeps everything, for ever."""
    for name in [name for name in os.environ if name.startswith("TASKD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TASKD_RETENTION_DAYS", "3")
    monkeypatch.setenv("TASKD_SERVER", "http://127.0.0.1:1")
    assert unknown_variables() == []
    monkeypatch.setenv("TASKD_RETENTION_DAY", "3")
    monkeypatch.setenv("TASKD_QQQ", "3")
    assert unknown_variables() == [
        "TASKD_QQQ is no setting and is ignored; taskd serve --help lists them",
        "TASKD_RETENTION_DAY is no setting and is ignored; TASKD_RETENTION_DAYS is one",
    ]


def test_options_of_plugins_are_repeated_or_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag for each, or one variable for all."""
    monkeypatch.setenv("TASKD_PLUGIN_OPTION", "words.root=/a; git.file_roots=/b:/c")
    assert load_settings().options_of("git") == {"file_roots": "/b:/c"}
    assert load_settings(plugin_option=["words.root=;"]).options_of("words") == {"root": ";"}


def test_git_file_roots_is_another_spelling_of_an_option() -> None:
    assert load_settings(git_file_roots="/b:/c").options_of("git") == {"file_roots": "/b:/c"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"plugin_option": ["root=/a"]}, "'root=/a' is no option: expected PLUGIN.KEY=VALUE"),
        ({"plugin_option": ["words.root"]}, "'words.root' is no option"),
        ({"plugin_option": ["words.root=1", "words.root=2"]}, "words.root is given twice: give it once"),
        ({"plugin_option": ["git.file_roots=/a"], "git_file_roots": ["/b"]}, "are the same setting: give one of them"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(told)):
        load_settings(**given)
