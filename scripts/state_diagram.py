"""Write the diagram of states from the one table of transitions into docs/architecture.md (``--write``), or print it."""

import sys
from pathlib import Path

from jarvis.core.states import TERMINAL, TRANSITIONS

BEGIN, END = "<!-- states:begin -->", "<!-- states:end -->"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "architecture.md"


def diagram() -> str:
    """Mermaid text: one arrow per transition, ends marked."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> submitted"]
    for before, afters in TRANSITIONS.items():
        lines += [f"    {before} --> {after}" for after in sorted(afters)]
    lines += [f"    {state} --> [*]" for state in sorted(TERMINAL)]
    return "\n".join([*lines, "```"])


def written(page: str) -> str:
    """The page with the diagram between its markers."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{diagram()}\n{END}{tail}"


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(diagram())
