"""Words: counts the words of the text files in a directory. The example of a plugin."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from taskd import Plugin, PluginError, TaskContext


class WordsParams(BaseModel):
    """Where to count."""

    model_config = ConfigDict(extra="forbid")

    directory: Path = Field(description="The directory of the text files (*.txt).")


class Words(Plugin):
    """Counts the words of the text files in a directory."""

    name = "words"
    title = "Count words"
    Params = WordsParams

    async def execute(self, params: WordsParams, context: TaskContext) -> object:
        log = context.logger
        files = sorted(params.directory.glob("*.txt"))
        if not files:
            raise PluginError(f"{params.directory} has no .txt files.", "Give another directory.")
        words = 0
        with log.group("count"), log.progress("files", total=len(files)) as bar:
            for file in files:
                text = await context.run_in_thread(file.read_text, "utf-8", "replace")
                words += len(text.split())
                log.debug("counted", file=file.name)
                bar.advance()
        await context.run_process(["du", "-sh", params.directory])
        return {"files": len(files), "words": words}
