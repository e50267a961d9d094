"""The settings are flags of `taskd serve`, and of it alone."""

import subprocess
import sys

from taskd.cli.options import settings_given, settings_options
from taskd.settings import Settings


def test_every_setting_is_a_flag_with_its_description_and_default() -> None:
    options = {option.name: option for option in settings_options()}
    assert list(options) == list(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        assert field.description
        assert str(options[name].help).startswith(field.description)
    assert "[default: 8642]" in str(options["port"].help)
    assert [options[name].metavar for name in ("ping_interval_s", "retention_days")] == ["SECONDS", "NUMBER"]


def test_only_the_flags_that_were_given_are_settings() -> None:
    options = {"port": "1", "host": None, "plugins": ("a:b", "c"), "plugin_option": ()}
    assert settings_given(options) == {"port": "1", "plugins": ["a:b", "c"]}


def test_names_may_be_separated_or_repeated() -> None:
    given = settings_given({"allowed_hosts": ("a,b", "c")})
    assert Settings(**given).allowed_hosts == ["a", "b", "c"]


def loaded_by(imports: str) -> set[str]:
    """The packages that a process has loaded after `imports`."""
    told = f"import sys; {imports}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout.split())


def test_no_other_command_loads_what_only_the_service_needs() -> None:
    """A client is there at once."""
    service = {"pydantic", "starlette", "uvicorn", "aiosqlite"}
    assert not (service | {"httpx"}) & loaded_by("import taskd.cli.main, taskd.cli.commands")
    assert service <= loaded_by("import taskd.cli.main, taskd.server.server")


def test_the_service_loads_nothing_that_only_a_client_needs() -> None:
    """An idle service is small."""
    assert not {"rich", "httpx", "re2"} & loaded_by("import taskd.cli.main, taskd.cli.options, taskd.server.server")
    assert "rich" in loaded_by("import taskd.cli.commands")
