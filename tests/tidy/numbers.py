"""Prints the house numbers: `python -m tests.tidy.numbers`. The limits are tests (rules.py); the medians are for people to watch."""

from __future__ import annotations

import statistics

from tests.tidy import code, rules

MEDIAN_FUNCTION_LINES = 7


def measure(*folders: str) -> str:
    """One line: how many functions and modules, and how long they are."""
    modules = code.modules(*folders)
    functions = sorted(code.length(function) for module in modules for function in code.functions(module))
    lines = sorted(module.text.count("\n") for module in modules)
    return (
        f"{len(functions)} functions: median {statistics.median(functions):.0f}, p90 {functions[len(functions) * 9 // 10]},"
        f" longest {functions[-1]} lines; {len(modules)} modules: median {statistics.median(lines):.0f}, longest {lines[-1]},"
        f" together {sum(lines)}"
    )


def main() -> None:
    """The product, then the tests."""
    print(f"house numbers (median function {MEDIAN_FUNCTION_LINES}, at most {rules.FUNCTION_LINES}; modules at most {rules.MODULE_LINES}):")
    print(f"  product  {measure(*code.PRODUCT)}")
    print(f"  tests    {measure('tests')}")


if __name__ == "__main__":
    main()
