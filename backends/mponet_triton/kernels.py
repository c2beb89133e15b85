"""Triton kernels.

A sweep of two or three groups without a state between the steps ever leaving the chip.

A program takes a few rows of the batch (two groups) or one (three), reads them once and writes
their results once; the states, ``D`` times as large as the rows, stay in registers.  Sizes are
padded to powers of two of at least 16, what a matrix unit takes.  Products add up in float32,
states between them have the dtype of the inputs.

The cores of the groups come as `mponet_triton.layout` gives them: ``A (D_1, J_1, I_1)`` of the
first, ``C (D, J_n, I_n)`` of the last, ``B (D_1, D_2, J_2, I_2)`` between.
"""

import triton
import triton.language as tl


@triton.jit
def sweep_two(  # type: ignore[no-untyped-def]
    x, a, c, bias, y, rows,
    a_d, a_j, a_i, c_d, c_j, c_i,
    D, I1: tl.constexpr, I2: tl.constexpr, J1: tl.constexpr, J2: tl.constexpr,
    I1P: tl.constexpr, I2P: tl.constexpr, J1P: tl.constexpr, J2P: tl.constexpr,
    TILE: tl.constexpr, BIASED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``y[b] = sum_d A_d x[b] C_d + bias``.

    Shapes are ``x[b] (I1, I2)``, ``A_d (J1, I1)`` and ``C_d (I2, J2)``.
    """
    first = tl.program_id(0).to(tl.int64) * TILE
    i1, j1, j2 = tl.arange(0, I1P), tl.arange(0, J1P), tl.arange(0, J2P)
    i2 = tl.arange(0, I2P)
    column = tl.arange(0, TILE * I2P)  # (row of the tile, i2)
    row, within = column // I2P, column % I2P
    there = (first + row < rows) & (within < I2)
    block = tl.load(
        x + (first + row)[None, :] * (I1 * I2) + i1[:, None] * I2 + within[None, :],
        mask=there[None, :] & (i1[:, None] < I1), other=0.0,
    )  # fmt: skip
    total = tl.zeros((TILE * J1P, J2P), tl.float32)
    for d in range(D):
        left = tl.load(
            a + d * a_d + j1[:, None] * a_j + i1[None, :] * a_i,
            mask=(j1[:, None] < J1) & (i1[None, :] < I1), other=0.0,
        )  # fmt: skip
        right = tl.load(
            c + d * c_d + i2[:, None] * c_i + j2[None, :] * c_j,
            mask=(i2[:, None] < I2) & (j2[None, :] < J2), other=0.0,
        )  # fmt: skip
        state = tl.dot(left, block, input_precision=PRECISION).to(x.dtype.element_ty)
        if TILE > 1:  # (J1, (row, I2)) to ((row, J1), I2)
            state = tl.reshape(tl.permute(tl.reshape(state, (J1P, TILE, I2P)), (1, 0, 2)), (TILE * J1P, I2P))
        total = tl.dot(state, right, total, input_precision=PRECISION)
    line = tl.arange(0, TILE * J1P)  # (row of the tile, j1)
    row, within = line // J1P, line % J1P
    place = within[:, None] * J2 + j2[None, :]
    inside = (within[:, None] < J1) & (j2[None, :] < J2)
    if BIASED:
        total += tl.load(bias + place, mask=inside, other=0.0).to(tl.float32)
    there = (first + row < rows)[:, None] & inside
    tl.store(y + (first + row)[:, None] * (J1 * J2) + place, total.to(y.dtype.element_ty), mask=there)


@triton.jit
def weight_gradients_two(  # type: ignore[no-untyped-def]
    x, g, a, c, sums, rows, share,
    a_d, a_j, a_i, c_d, c_j, c_i,
    D, I1: tl.constexpr, I2: tl.constexpr, J1: tl.constexpr, J2: tl.constexpr,
    I1P: tl.constexpr, I2P: tl.constexpr, J1P: tl.constexpr, J2P: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Sums over ``share`` rows, float32, for one ``d``.

    A part of the results is ``(I1, J1, D)`` followed by ``(D, I2, J2)``: ``x[b] C_d g[b]^T`` goes
    to ``(I1, J1, d)``, ``(A_d x[b])^T g[b]`` to ``(d, I2, J2)``.
    """
    d, part = tl.program_id(0), tl.program_id(1)
    i1, i2, j1, j2 = tl.arange(0, I1P), tl.arange(0, I2P), tl.arange(0, J1P), tl.arange(0, J2P)
    in_x = (i1[:, None] < I1) & (i2[None, :] < I2)
    in_g = (j1[:, None] < J1) & (j2[None, :] < J2)
    in_a = (j1[:, None] < J1) & (i1[None, :] < I1)
    in_c = (i2[:, None] < I2) & (j2[None, :] < J2)
    left = tl.load(a + d * a_d + j1[:, None] * a_j + i1[None, :] * a_i, mask=in_a, other=0.0)
    right = tl.load(c + d * c_d + i2[:, None] * c_i + j2[None, :] * c_j, mask=in_c, other=0.0)
    total_a = tl.zeros((J1P, I1P), tl.float32)
    total_c = tl.zeros((I2P, J2P), tl.float32)
    begin = part.to(tl.int64) * share
    for row in range(tl.minimum(share, rows - part * share)):
        at = begin + row
        block = tl.load(x + at * (I1 * I2) + i1[:, None] * I2 + i2[None, :], mask=in_x, other=0.0)
        gradient = tl.load(g + at * (J1 * J2) + j1[:, None] * J2 + j2[None, :], mask=in_g, other=0.0)
        back = tl.dot(gradient, tl.trans(right), input_precision=PRECISION).to(x.dtype.element_ty)  # (J1, I2)
        total_a = tl.dot(back, tl.trans(block), total_a, input_precision=PRECISION)
        ahead = tl.dot(left, block, input_precision=PRECISION).to(x.dtype.element_ty)  # (J1, I2)
        total_c = tl.dot(tl.trans(ahead), gradient, total_c, input_precision=PRECISION)
    place = sums + part.to(tl.int64) * (D * (I1 * J1 + I2 * J2))
    tl.store(place + (i1[None, :] * J1 + j1[:, None]) * D + d, total_a, mask=in_a)
    place += D * (I1 * J1) + d * (I2 * J2)
    tl.store(place + i2[:, None] * J2 + j2[None, :], total_c, mask=in_c)


@triton.jit
def sweep_three(  # type: ignore[no-untyped-def]
    x, a, b, c, bias, y,
    a_d, a_j, a_i, b_l, b_r, b_j, b_i, c_d, c_j, c_i,
    D1, D2,
    I1: tl.constexpr, I2: tl.constexpr, I3: tl.constexpr, J1: tl.constexpr, J2: tl.constexpr, J3: tl.constexpr,
    I1P: tl.constexpr, I2P: tl.constexpr, I3P: tl.constexpr, J1P: tl.constexpr, J2P: tl.constexpr, J3P: tl.constexpr,
    BONDS: tl.constexpr, BIASED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``y = sum_{d e} A_d B_{d e} C_e x + bias`` for one row.

    Each factor acts on its own axis of ``x (I1, I2, I3)``.

    ``BONDS`` values of ``d`` are done at a time.
    """
    at = tl.program_id(0).to(tl.int64)
    i2, i3 = tl.arange(0, I2P), tl.arange(0, I3P)
    j1, j3 = tl.arange(0, J1P), tl.arange(0, J3P)
    line = tl.arange(0, I1P * I2P)  # (i1, i2)
    in_line = (line // I2P < I1) & (line % I2P < I2)
    block = tl.load(
        x + at * (I1 * I2 * I3) + ((line // I2P) * I2 + line % I2P)[:, None] * I3 + i3[None, :],
        mask=in_line[:, None] & (i3[None, :] < I3), other=0.0,
    )  # fmt: skip
    total = tl.zeros((J1P, J2P * J3P), tl.float32)
    beside = tl.arange(0, BONDS * J2P)  # (d, j2)
    inner = tl.arange(0, BONDS * I1P)  # (d, i1)
    for start in range(0, D1, BONDS):
        bond = start + beside // J2P
        middle = tl.zeros((BONDS * J2P, I1P * J3P), tl.float32)
        for e in range(D2):
            last = tl.load(
                c + e * c_d + i3[:, None] * c_i + j3[None, :] * c_j,
                mask=(i3[:, None] < I3) & (j3[None, :] < J3), other=0.0,
            )  # fmt: skip
            state = tl.dot(block, last, input_precision=PRECISION).to(x.dtype.element_ty)  # ((I1, I2), J3)
            state = tl.reshape(tl.permute(tl.reshape(state, (I1P, I2P, J3P)), (1, 0, 2)), (I2P, I1P * J3P))
            weight = tl.load(
                b + bond[:, None] * b_l + e * b_r + (beside % J2P)[:, None] * b_j + i2[None, :] * b_i,
                mask=((bond < D1) & (beside % J2P < J2))[:, None] & (i2[None, :] < I2), other=0.0,
            )  # fmt: skip
            middle = tl.dot(weight, state, middle, input_precision=PRECISION)
        state = tl.reshape(middle.to(x.dtype.element_ty), (BONDS, J2P, I1P, J3P))
        state = tl.reshape(tl.permute(state, (0, 2, 1, 3)), (BONDS * I1P, J2P * J3P))
        bond = start + inner // I1P
        first = tl.load(
            a + bond[None, :] * a_d + j1[:, None] * a_j + (inner % I1P)[None, :] * a_i,
            mask=(j1[:, None] < J1) & ((bond < D1) & (inner % I1P < I1))[None, :], other=0.0,
        )  # fmt: skip
        total = tl.dot(first, state, total, input_precision=PRECISION)
    column = tl.arange(0, J2P * J3P)  # (j2, j3)
    place = j1[:, None] * (J2 * J3) + ((column // J3P) * J3 + column % J3P)[None, :]
    inside = (j1[:, None] < J1) & ((column // J3P < J2) & (column % J3P < J3))[None, :]
    if BIASED:
        total += tl.load(bias + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + at * (J1 * J2 * J3) + place, total.to(y.dtype.element_ty), mask=inside)
