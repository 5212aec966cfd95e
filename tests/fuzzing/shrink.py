"""Makes a failing program smaller: what it does not need to fail is left out."""

from __future__ import annotations

from dataclasses import replace

from tests.fuzzing.runner import examine


def fails(program, ways):
    """Whether a program still fails, and not by an error of its own."""
    try:
        result = examine(program, ways)
    except Exception:
        return None
    text = result.difference or (
        result.faults[0] if result.faults else result.reasons[0] if result.reasons and program.free else ""
    )
    return text if "error of a change" not in text else None


def candidates(program):
    """Yield programs that are smaller in one place."""
    for k in range(len(program.steps) - 1, 2, -1):
        if k < len(program.steps) - 1:
            yield replace(program, steps=program.steps[: k + 1])
    for k, step in enumerate(program.steps):
        if step.context or step.fault:
            yield replace(
                program, steps=[*program.steps[:k], replace(step, context="", fault=""), *program.steps[k + 1 :]]
            )
        for j in range(len(step.changes)):
            less = replace(
                step, changes=step.changes[:j] + step.changes[j + 1 :], kinds=step.kinds[:j] + step.kinds[j + 1 :]
            )
            yield replace(program, steps=[*program.steps[:k], less, *program.steps[k + 1 :]])
    if len({s.rows for s in program.steps}) > 1:
        yield replace(program, steps=[replace(s, rows=program.steps[0].rows) for s in program.steps])
    lines = program.setup.splitlines()
    for k, line in enumerate(lines):
        name, _, text = line.partition(" = ")
        others = []
        if name.startswith("a") and name[1:].isdigit() and text != "nn.Identity()":
            others = [f"{name} = nn.Identity()"]
        elif name == "optimizer" and "optim.SGD(" not in text:
            others = ["optimizer = optim.SGD(model.parameters(), lr=0.01)"]
        elif line.startswith("f = ") and "lambda" not in line:
            others = ["f = lambda X, y: criterion(model(X), y)"]
        elif line.endswith("requires_grad_(False)"):
            others = ["pass"]
        elif name == "criterion" and program.target == "floats" and text != "squares":
            others = ["criterion = squares"]
        elif name == "dtype" and "float64" not in text:
            continue
        for other in others:
            yield replace(program, setup="\n".join([*lines[:k], other, *lines[k + 1 :]]) + "\n")


def shrink(program, ways=("steps", "trainer"), most=200):
    """Return a smaller program that fails too, and how."""
    text = fails(program, ways)
    if not text:
        return program, ""
    tries, going = 0, True
    while going and tries < most:
        going = False
        for smaller in candidates(program):
            tries += 1
            found = fails(smaller, ways)
            if found:
                program, text, going = smaller, found, True
                break
            if tries >= most:
                break
    return program, text
