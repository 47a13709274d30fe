"""Random workflows: every kind of step, conditions, fan-outs and loops within each other. The same seed gives the same document."""

from random import Random
from typing import Any

TRIGGERS = ("all", "all", "all", "all", "any", "none_failed", "always")
CONDITIONS = ("success", "success", "success", "success", "failure", "any")


class Documents:
    """Draws one document. What its tasks do is drawn by path, so that it does not depend on the order in which they run."""

    def __init__(self, seed: int, steps: int = 12, racing: bool = False) -> None:
        """``racing``: with races and fail-fast, whose ends depend on who comes first."""
        self.seed, self.racing = seed, racing
        self.random = Random(seed)
        self._steps = self._left = steps
        self._count = 0

    def document(self) -> dict[str, Any]:
        """Another one each time."""
        self._left, self._count = self._steps, 0
        made = self.block(0, [], set())
        made |= {"name": f"random {self.seed}", "params": {"n": 3, "word": {"type": "string", "default": "b"}}}
        if self.random.random() < 0.4:
            made["concurrency"] = self.random.choice((1, 1, 2, 5))
        if any_uses("sub", made):
            made["workflows"] = {"sub": self.sub()}
        return made

    def sub(self) -> dict[str, Any]:
        tail = {"id": "sub_b", "depends_on": ["sub_a"], "command": ["t", "${{ params.x }}"]}
        return {
            "params": {"x": {"type": "integer", "default": 1}, "y": 2},
            "steps": [{"id": "sub_a", "command": ["t", "${{ params.y }}"], "when": "params.x != 7"}, tail],
            "output": {"v": "${{ params.x }}"},
        }

    def outcomes(self, path: str) -> list[tuple[int, Any]]:
        """Of each try of the task at a path."""
        draw = Random(f"{self.seed}/{path}")
        fails = draw.choice((0, 0, 0, 0, 0, 1, 1, 2, 9))
        output = draw.choice(
            (None, {"v": draw.randrange(6), "list": [draw.randrange(4) for _ in range(draw.randrange(4))]}, 5)
        )
        return [(1, None)] * fails + [(0, output)] * (10 - fails)

    def seconds(self, path: str, attempt: int) -> float:
        return Random(f"{self.seed}/{path}/{attempt}").choice((0.01, 0.3, 1.0, 4.0))

    # ------------------------------------------------------------ blocks

    def block(self, depth: int, readable: list[str], inside: set[str]) -> dict[str, Any]:
        draw = self.random
        count = draw.randint(1, 6 if depth == 0 else 3)
        steps = self.steps(count, depth, readable, inside)
        ids = [step["id"] for step in steps]
        made: dict[str, Any] = {"steps": steps}
        if draw.random() < 0.25:
            made["on_failure"] = self.steps(1, 3, readable + ids, inside)
        if draw.random() < 0.25:
            made["finally"] = self.steps(draw.randint(1, 2), 3, readable + ids, inside)
        if draw.random() < 0.4:
            made["output"] = draw.choice(
                ({"v": 2, "list": [1]}, {"v": "${{ " + self.number(readable + ids, inside) + " }}"})
            )
        if self.racing and draw.random() < 0.3:
            made["fail_fast"] = True
        return made

    def steps(self, count: int, depth: int, readable: list[str], inside: set[str]) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        for _ in range(count):
            self._left -= 1
            self._count += 1
            earlier = self.random.sample([s["id"] for s in made], min(len(made), self.random.choice((0, 1, 1, 2, 3))))
            made.append(self.step(f"s{self._count}", depth, earlier, readable, inside))
        self.random.shuffle(made)
        return made

    def step(self, ident: str, depth: int, earlier: list[str], readable: list[str], inside: set[str]) -> dict[str, Any]:
        draw = self.random
        step: dict[str, Any] = {"id": ident}
        if earlier:
            conditions = [{"step": other, "on": draw.choice(CONDITIONS)} for other in earlier]
            step["depends_on"] = [e["step"] if e["on"] == "success" and draw.random() < 0.5 else e for e in conditions]
            step["trigger"] = draw.choice(TRIGGERS)
        # What a step with trigger any reads may not have ended: then the end would depend on the order.
        seen = readable + (earlier if step.get("trigger") != "any" else [])
        if draw.random() < 0.2:
            step["when"] = self.condition(seen, inside)
        if draw.random() < 0.15:
            step["allow_failure"] = True
        inner = set(inside)
        wrap = draw.random()
        if wrap < 0.15:
            step["for_each"] = self.items(seen, inside)
            inner |= {"item", "index"}
            if draw.random() < 0.5:
                step["concurrency"] = draw.randint(1, 3)
            if self.racing and draw.random() < 0.4:
                step["fail_fast"] = True
        elif wrap < 0.28:
            step |= draw.choice(
                (
                    {"until": "last != null"},
                    {"while": "iteration < 3"},
                    {"until": "iteration > 1", "while": "last != 5"},
                )
            )
            step["max_iterations"] = draw.randint(1, 4)
            inner |= {"iteration", "last"}
            if draw.random() < 0.3:
                step["delay"] = 0.5
        return step | self.kind(depth, seen, inner)

    def kind(self, depth: int, seen: list[str], inside: set[str]) -> dict[str, Any]:
        draw = self.random
        what = draw.random()
        if what < 0.55 or depth >= 3 or self._left <= 0:
            step: dict[str, Any] = {"command": ["t", "${{ " + self.number(seen, inside) + " }}"]}
            if draw.random() < 0.3:
                step["retry"] = {"max_attempts": draw.randint(2, 3), "backoff_base": 0.1}
            return step
        if what < 0.7:
            return self.block(depth + 1, seen, inside)
        if what < 0.78:
            return {"workflow": "sub", "with": {"x": "${{ " + self.number(seen, inside) + " }}"}}
        if what < 0.88:
            cases = {value: self.block(depth + 1, seen, inside) for value in draw.sample(("1", "2", "5", "b"), 2)}
            made: dict[str, Any] = {"switch": self.number(seen, inside), "cases": cases}
            if draw.random() < 0.5:
                made["default"] = self.block(depth + 1, seen, inside)
            return made
        if what < 0.94 and self.racing:
            return {"race": self.steps(draw.randint(2, 3), depth + 1, seen, inside)}
        return {"sleep": draw.choice((0, 0.5, 2))}

    # ------------------------------------------------------------ expressions

    def number(self, seen: list[str], inside: set[str]) -> str:
        """Usually a number; now and then there is none, and the step fails."""
        choices = ["params.n", "2", "1 + 1", "params.word"]
        if seen:
            choices += [f"steps.{self.random.choice(seen)}.output.v"] * 2
        if "item" in inside:
            choices += ["item", "index"] * 2
        if "iteration" in inside:
            choices += ["iteration"] * 2
        return self.random.choice(choices)

    def condition(self, seen: list[str], inside: set[str]) -> str:
        choices = ["params.n == 3", "params.n > 5 or params.word == 'b'", f"{self.number(seen, inside)} != 1"]
        if seen:
            ident = self.random.choice(seen)
            choices += [f"steps.{ident}.state == 'succeeded'", f"steps.{ident}.output != null"] * 2
        return self.random.choice(choices)

    def items(self, seen: list[str], inside: set[str]) -> Any:
        choices: list[Any] = [[1, 2, 5], [], ["a", {"v": 3}], "range(4)", "range(params.n)"]
        if seen:
            choices += [f"steps.{self.random.choice(seen)}.output.list"] * 3
        return self.random.choice(choices)


def any_uses(name: str, block: dict[str, Any]) -> bool:
    return f"'workflow': '{name}'" in repr(block)
