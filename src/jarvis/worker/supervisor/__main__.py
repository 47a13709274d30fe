"""Start a supervisor: as `python -m jarvis.worker.supervisor`, or as a file with `python -I -S`, which is faster."""

import os
import sys

if not __package__:  # run as a file: give the relative imports a package, without touching sys.path
    __package__ = "jarvis_supervisor"
    package = type(sys)(__package__)
    package.__path__ = [os.path.dirname(os.path.abspath(__file__))]
    sys.modules[__package__] = package

from .command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.path.abspath(__file__)))
