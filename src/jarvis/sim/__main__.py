"""``python -m jarvis.sim``."""

from jarvis.sim.run import main

main()
