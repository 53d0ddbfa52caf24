"""The picture of the rule table, drawn from the table itself: Markdown for agent/README.md. Pure: text in, text out.

`python -m tests.tidy.test_picture agent/README.md` writes it anew; a test there says when it is out of date.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import CodeType, ModuleType

from agent.decision.command import Command
from agent.decision.rules import TABLE, Concern, Rule
from agent.decision.situation import Situation

BEGIN = "<!-- rules:begin -->"
END = "<!-- rules:end -->"


def draw() -> str:
    """The whole picture: how a turn goes, then one table a concern. Ends with a line break."""
    parts = [_flow(), *(_section(concern) for concern in Concern)]
    return "\n\n".join(parts) + "\n"


def redraw(page: str) -> str:
    """The page with the current picture between its two marks. Raises ValueError when it has not exactly one pair of them."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"the page must have one {BEGIN} and then one {END}")
    before, after = page[: page.index(BEGIN)], page[page.index(END) :]
    return f"{before}{BEGIN}\n{draw()}{after}"


def _flow() -> str:
    concerns = "\n".join(f'    name --> {c.value}["{c.value}: first of {len(_rows(c))} rows that holds"] --> commands' for c in Concern)
    return f"""```mermaid
flowchart LR
    view["view, memory, now"] --> name["one of {len(Situation)} situations gets its name"]
{concerns}
    commands["commands, at most one a resource"] --> wake["wake_up: the next moment that changes anything"]
```"""


def _section(concern: Concern) -> str:
    rows = [f"| {n} | `{r.name}` | {r.sentence} | {_names(r)} |" for n, r in enumerate(_rows(concern), start=1)]
    return "\n".join(
        [f"**{concern.value}**", "", "| | rule | what is the case, and what is done | commands |", "| --- | --- | --- | --- |", *rows]
    )


def _rows(concern: Concern) -> list[Rule]:
    return [rule for rule in TABLE if rule.concern is concern]


def _names(rule: Rule) -> str:
    return ", ".join(f"`{name}`" for name in sorted(orders(rule)))


def orders(rule: Rule) -> set[str]:
    """The names of the commands that a row can order, as its code names them."""
    return {kind.__name__ for kind in _kinds(rule.commands, set())}


def _kinds(function: Callable[..., object], seen: set[CodeType]) -> Iterator[type[Command]]:
    """Walk a function, what is defined inside it and the functions of this package that it calls."""
    code: CodeType = function.__code__
    scope: dict[str, object] = function.__globals__
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    for value in (*_named(code, scope, seen), *cells):
        if isinstance(value, type) and issubclass(value, Command) and value is not Command:
            yield value
        elif _is_ours(value):
            yield from _kinds(value, seen)


def _is_ours(value: object) -> bool:
    """A function of orders.py: conditions only ask which commands are in flight."""
    return hasattr(value, "__code__") and getattr(value, "__module__", "") == "agent.decision.orders"


def _named(code: CodeType, scope: dict[str, object], seen: set[CodeType]) -> Iterator[object]:
    """What the names in a piece of code, and in the pieces inside it, stand for."""
    if code in seen:
        return
    seen.add(code)
    known = [scope[name] for name in code.co_names if name in scope]
    yield from known
    for module in known:
        if isinstance(module, ModuleType):
            yield from (vars(module)[name] for name in code.co_names if name in vars(module))
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _named(inner, scope, seen)
