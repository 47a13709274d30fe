"""``python -m jarvis.cli``: the same as ``jarvis``."""

from jarvis.cli.main import main

main()
