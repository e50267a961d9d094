"""The process of the `taskd` command: ready to be stopped before anything else is loaded."""

import sys

from taskd.system.signals import leave_while_loading


def main() -> None:
    """The entry point."""
    serving = "serve" in sys.argv
    # Most of the time of a start is that of imports.
    leave_while_loading(serving=serving)
    if serving:
        from taskd.system.pid1 import become_init

        become_init()
    from taskd.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
