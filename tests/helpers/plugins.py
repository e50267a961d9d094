"""Plugins that succeed, wait, refuse to be cancelled and raise."""

PLUGINS = """
class Talker(Plugin):
    name = "talker"
    class Params(BaseModel):
        lines: int = 3
        secret: SecretStr = SecretStr("unsaid")
    async def execute(self, params, context):
        for number in range(params.lines):
            context.logger.info(f"line {number}, {params.secret.get_secret_value()}", n=number)
            await asyncio.sleep(0)
        return {"lines": params.lines, "secret": params.secret.get_secret_value()}

class Sleeper(Plugin):
    name = "sleeper"
    async def execute(self, params, context):
        context.logger.info("asleep")
        await asyncio.Event().wait()

class Patient(Plugin):
    name = "patient"
    async def execute(self, params, context):
        context.logger.info("at work")
        while not context.settings.data_dir.joinpath("go").exists():
            await asyncio.sleep(0.001)

class Stubborn(Plugin):
    name = "stubborn"
    async def execute(self, params, context):
        for _ in range(params.get("times", 10**9)):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                context.logger.warning("no")

class Raiser(Plugin):
    name = "raiser"
    async def execute(self, params, context):
        kinds = {"exit": SystemExit(3), "key": KeyboardInterrupt(), "cancel": asyncio.CancelledError()}
        raise kinds.get(params.get("kind"), ValueError("what it says"))

class Odd(Plugin):
    name = "odd"
    async def execute(self, params, context):
        return {"set": {1}, "path": object, 5: float("nan"), "text": "\\udcff"}

class Big(Plugin):
    name = "big"
    async def execute(self, params, context):
        return "x" * 2_000_000

class Old:
    name = "old"
    def execute(self, params):
        for number in range(50):
            print("printed", number)
            logging.getLogger("library").warning("logged %d", number)
        return threading.current_thread().name
"""
