"""What a plugin may ask of its context."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretBytes, SecretStr

from taskd.log.logger import TaskLogger
from taskd.log.queue import LogQueue
from taskd.runtime.context import TaskContext
from taskd.settings import Settings
from taskd.text.masking import Masker


class Asked:
    """A context, and the log behind it."""

    def __init__(self, tmp_path: Path, **settings: Any) -> None:
        self.queue = LogQueue(Settings(), lambda source, progress: None, Masker())
        self.context = TaskContext(
            task_id="a-task",
            plugin="mine",
            params={},
            logger=TaskLogger(self.queue, "mine"),
            masker=self.queue.masker,
            settings=Settings(data_dir=tmp_path, **settings),
        )

    def said(self) -> list[str]:
        return [entry.message for entry in self.queue.take_rest()]


async def test_options_are_the_operators_for_this_plugin(tmp_path: Path) -> None:
    """As text, and not to be changed; what other plugins are given is not among them."""
    options = Asked(tmp_path, plugin_option=["mine.root=/srv/a=b", "other.root=/x"]).context.options
    assert dict(options) == {"root": "/srv/a=b"}
    with pytest.raises(TypeError):
        options["root"] = "/"  # type: ignore[index]


@pytest.fixture
async def asked(tmp_path: Path) -> Asked:
    return Asked(tmp_path)


@pytest.mark.parametrize("secret", ["hunter22", b"hunter22", SecretStr("hunter22"), SecretBytes(b"hunter22")])
async def test_a_secret_may_be_text_bytes_or_pydantics(asked: Asked, secret: Any) -> None:
    """From then on it is hidden."""
    asked.context.add_secret(secret)
    asked.context.logger.info("it is hunter22")
    assert asked.said() == ["it is ***"]


@pytest.mark.parametrize("secret", [None, 12345, ["hunter22"], object])
async def test_what_is_no_secret_is_refused(asked: Asked, secret: Any) -> None:
    """Nobody is to believe that it is hidden."""
    with pytest.raises(TypeError, match="add_secret expects a text, and was given"):
        asked.context.add_secret(secret)


async def test_a_secret_too_short_to_hide_is_told(asked: Asked) -> None:
    """Without the secret itself."""
    asked.context.add_secret("abc")
    [said] = asked.said()
    assert said == "a secret under 4 characters is not hidden"


async def test_a_data_dir_is_made_when_it_is_asked_for(asked: Asked, tmp_path: Path) -> None:
    """And not before."""
    assert not (tmp_path / "tasks").exists()
    assert asked.context.data_dir == (tmp_path / "tasks" / "a-task").resolve()
    assert asked.context.data_dir.is_dir()
