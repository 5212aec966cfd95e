"""Which layers can follow a row of which shape, how often, and the choice of one."""

from __future__ import annotations

from tests.cases.layers import LAYERS as CASES
from tests.fuzzing import library_layers as library, own_layers as own

ANY, ROWS, SEQUENCE, IMAGE = (1, 2, 3), (1,), (2,), (3,)


def again(d, shape):
    """Use an earlier layer that keeps this shape once more."""
    name = d.choice([name for name, kept in d.keeping if kept == shape] or [None])
    if name is None:
        return library.dense(d, shape)
    d.used(name)
    return name, shape


BY_ROW = [case for case in CASES if case.program]


def add_row(d, name, shape):
    """Put a layer behind another one, written as its row says.

    The choices come from a generator of their own, so that a new row changes no other choice of a program.
    """
    case = d.extra.choice(BY_ROW)
    d.rng, rng = d.extra, d.rng
    try:
        made = (case.program, shape) if isinstance(case.program, str) else case.program(d, shape)
    finally:
        d.rng = rng
    return (name, shape) if made is None else (d.layer(f"nn.Sequential({name}, {made[0]})"), made[1])


# What can follow a row of a rank: function, weight, whether PyTorch has the layer

LAYERS = [
    (library.dense, ANY, 12, True),
    (library.activate, ANY, 10, True),
    (library.dropout, ANY, 4, False),
    (library.layer_norm, ANY, 3, True),
    (library.residual, ANY, 3, True),
    (own.lambda_, ANY, 3, False),
    (own.custom_op, ANY, 3, False),
    (library.batch_norm_rows, (1, 2), 4, True),
    (library.group_norm, ANY, 3, True),
    (library.channels_prelu, ANY, 2, True),
    (library.flatten, (2, 3), 3, True),
    (library.recurrent, SEQUENCE, 8, True),
    (library.attention, SEQUENCE, 6, True),
    (library.conv1d, SEQUENCE, 8, True),
    (own.unroll, SEQUENCE, 3, False),
    (own.over_time, SEQUENCE, 2, False),
    (own.swap, SEQUENCE, 2, False),
    (library.conv2d, IMAGE, 16, True),
    (library.pool, IMAGE, 10, True),
    (library.global_pool, IMAGE, 3, True),
    (library.batch_norm_image, IMAGE, 6, True),
    (own.times, ANY, 3, False),
    (own.times_item, ANY, 3, False),
    (own.times_sum, ANY, 1, False),
    (own.times_attribute, ANY, 2, False),
    (own.times_nested, ANY, 1, False),
    (own.times_config, ANY, 1, False),
    (own.times_context, ANY, 1, False),
    (own.flags, ANY, 1, False),
    (own.times_class, ANY, 1, False),
    (own.times_method, ANY, 2, False),
    (own.times_property, ANY, 1, False),
    (own.times_global, ANY, 1, False),
    (own.times_closure, ANY, 1, False),
    (own.times_default, ANY, 2, False),
    (own.apply, ANY, 2, False),
    (own.slot, ANY, 2, False),
    (own.control, ANY, 4, False),
    (own.by_value, ANY, 1, False),
    (own.by_generator, ANY, 1, False),
    (own.by_count, ANY, 1, False),
    (own.fragile, ANY, 2, False),
    (own.concat, ANY, 4, False),
    (own.add, ANY, 2, False),
    (own.tied, ROWS, 1, False),
    (own.gate, ANY, 2, False),
    (own.split, ANY, 1, False),
    (own.inside, ANY, 1, False),
    (again, ANY, 4, True),
]


def draw_layer(d, shape):
    """Write one layer that takes rows of a shape; return its name, and the shape behind it."""
    fitting = [row for row in LAYERS if len(shape) in row[1] and (row[3] or not d.peer)]
    function = d.rng.choices([row[0] for row in fitting], [row[2] for row in fitting])[0]
    name, after = function(d, shape)
    if after == shape:
        d.keeping.append((name, shape))
    if BY_ROW and not d.peer and d.extra.random() < 0.1:
        return add_row(d, name, after)
    return name, after
