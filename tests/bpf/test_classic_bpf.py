"""Every instruction of classic BPF, translated, gives what libpcap's interpreter gives.

Programs are written by hand or made by chance, and compiled as many functions of one file. Each
returns its 32-bit result as the XDP action, which BPF_PROG_TEST_RUN hands out whole, so that all 32
bits are compared with those of libpcap's bpf_filter().
"""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from xdpipe.bpf_compile import compile_source
from xdpipe.bpf_module import Module
from xdpipe.filter import Instruction, translate
from xdpipe.libpcap import ffi, lib
from xdpipe.resources import program_source

# linux/bpf_common.h
LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)
W, H, B = 0x00, 0x08, 0x10
IMM, ABS, IND, MEM, LEN, MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR = range(0x00, 0xB0, 0x10)
JA, JEQ, JGT, JGE, JSET = 0x00, 0x10, 0x20, 0x30, 0x40
K, X, A = 0x00, 0x08, 0x10
TAX, TXA = 0x00, 0x80

RET_A = Instruction(RET | A, 0, 0, 0)


def i(code: int, k: int = 0, jt: int = 0, jf: int = 0) -> Instruction:
    return Instruction(code, jt, jf, k)


def ret(k: int) -> Instruction:
    return i(RET | K, k)


LOAD_A, LOAD_X = i(LD | W | ABS, 14), [i(LD | W | ABS, 18), i(MISC | TAX)]
SMALL_X = [i(LD | B | ABS, 18), i(ALU | AND | K, 0x3F), i(MISC | TAX)]

PROGRAMS: dict[str, list[Instruction]] = {
    "ret k": [ret(0xDEADBEEF)],
    "ret 0": [ret(0)],
    "ld imm": [i(LD | IMM, 0x80000001), RET_A],
    "ld len": [i(LD | LEN), RET_A],
    "ldx imm": [i(LDX | IMM, 0xFFFFFFFF), i(MISC | TXA), RET_A],
    "ldx len": [i(LDX | LEN), i(MISC | TXA), RET_A],
    **{
        f"ld {name} abs {k:#x}": [i(LD | size | ABS, k), RET_A]
        for name, size, n in (("w", W, 4), ("h", H, 2), ("b", B, 1))
        for k in (0, 13, 64 - n, 65 - n, 64, 3520 - n, 3521 - n, 0xFFFF, 0x10000, 0x7FFFFFFF,
                  0xFFDFFFFF)
    },
    **{
        f"ld {name} ind {k:#x} by {by}": [*load_x, i(LD | size | IND, k), RET_A]
        for name, size in (("w", W), ("h", H), ("b", B))
        for k in (0, 1, 40, 63, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFC0)
        for by, load_x in (("small", SMALL_X), ("any", LOAD_X))
    },
    **{
        f"ldx msh {k}": [i(LDX | B | MSH, k), i(MISC | TXA), RET_A]
        for k in (14, 63, 64, 4000, 0x80000000)
    },
    "msh, then ind": [i(LDX | B | MSH, 14), i(LD | H | IND, 16), RET_A],
    **{
        f"st and ld mem {k}": [LOAD_A, i(ST, k), i(LD | IMM, 7), i(LD | MEM, k), RET_A]
        for k in (0, 15)
    },
    "stx and ldx mem": [*LOAD_X, i(STX, 3), i(LDX | IMM, 7), i(LDX | MEM, 3), i(MISC | TXA), RET_A],
    "all of memory": [
        LOAD_A,
        *(step for k in range(16) for step in (i(ALU | ADD | K, k * 3 + 1), i(ST, k))),
        i(LD | IMM, 0),
        *(
            step
            for k in range(16)
            for step in (i(LDX | MEM, k), i(ALU | XOR | X), i(ALU | MUL | K, 5))
        ),
        RET_A,
    ],
    **{
        f"alu {name} k {k:#x}": [LOAD_A, i(ALU | op | K, k), RET_A]
        for name, op in (("add", ADD), ("sub", SUB), ("mul", MUL), ("div", DIV), ("or", OR),
                         ("and", AND), ("mod", MOD), ("xor", XOR))
        for k in (1, 3, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
    },
    **{
        f"alu {name} k {k}": [LOAD_A, i(ALU | op | K, k), RET_A]
        for name, op in (("lsh", LSH), ("rsh", RSH))
        for k in (0, 1, 31)
    },
    **{
        f"alu {name} x, {by}": [*load_x, LOAD_A, i(ALU | op | X), RET_A]
        for name, op in (("add", ADD), ("sub", SUB), ("mul", MUL), ("div", DIV), ("or", OR),
                         ("and", AND), ("lsh", LSH), ("rsh", RSH), ("mod", MOD), ("xor", XOR))
        for by, load_x in (("small", SMALL_X), ("any", LOAD_X))
    },
    "alu div x, zero": [LOAD_A, i(LDX | IMM, 0), i(ALU | DIV | X), ret(9)],
    "alu mod x, zero": [LOAD_A, i(LDX | IMM, 0), i(ALU | MOD | X), ret(9)],
    "alu neg": [LOAD_A, i(ALU | NEG), RET_A],
    "ja": [LOAD_A, i(JMP | JA, 1), ret(1), ret(2)],
    "ja to the next": [LOAD_A, i(JMP | JA, 0), RET_A],
    "ja back": [  # count the bytes up to the first below 0x80, as `ip6 protochain` loops
        i(LDX | IMM, 14), i(LD | B | IND, 0), i(JMP | JGE | K, 0x80, 0, 4), i(MISC | TXA),
        i(ALU | ADD | K, 1), i(MISC | TAX), i(JMP | JA, 0xFFFFFFFA), i(MISC | TXA), RET_A,
    ],
    **{
        f"jump {name} {source} {jt} {jf}": [
            *LOAD_X, LOAD_A, i(JMP | op | by, 0x80FF, jt, jf), ret(1), ret(2), ret(3)
        ]
        for name, op in (("jeq", JEQ), ("jgt", JGT), ("jge", JGE), ("jset", JSET))
        for source, by in (("k", K), ("x", X))
        for jt, jf in ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (0, 2), (2, 2))
    },
    "jeq k that holds": [i(LD | H | ABS, 12), i(JMP | JEQ | K, 0x0800, 1, 0), ret(1), ret(2)],
    "tax, txa": [LOAD_A, i(MISC | TAX), i(LD | IMM, 1), i(MISC | TXA), RET_A],
}  # fmt: skip


def by_chance(chance: random.Random) -> list[Instruction]:
    """Return a valid program of 4 to 24 instructions that writes all of M before it reads it."""
    n = chance.randint(4, 24)
    memory = [i(LD | W | ABS, 14), *(i(ST, k) for k in range(3)), *LOAD_X]
    body: list[Instruction] = []
    for at in range(n):
        left = n - at  # the return comes after the last
        k = chance.choice((0, 1, 14, 20, 31, 60, chance.getrandbits(8), chance.getrandbits(32)))
        source = chance.choice((K, X))
        kind = chance.randrange(10)
        if kind < 3:
            operation = chance.choice((ADD, SUB, MUL, OR, AND, LSH, RSH, XOR, DIV, MOD, NEG))
            if operation in (DIV, MOD):
                k = k or 1
            elif operation in (LSH, RSH):
                k &= 31
            body.append(i(ALU | operation | (K if operation == NEG else source), k))
        elif kind < 5:
            jumps = (
                chance.choice((JEQ, JGT, JGE, JSET)),
                chance.randrange(left),
                chance.randrange(left),
            )
            body.append(i(JMP | jumps[0] | source, k, jumps[1], jumps[2]))
        elif kind == 5:
            body.append(i(JMP | JA, chance.randrange(left)))
        elif kind < 8:
            size = chance.choice((W, H, B))
            body.append(i(LD | size | chance.choice((ABS, IND)), chance.choice((k & 0x3F, k))))
        elif kind == 8:
            body.append(chance.choice((i(MISC | TAX), i(MISC | TXA), i(LDX | B | MSH, k & 0x3F))))
        else:
            body.append(i(chance.choice((ST, STX, LD | MEM, LDX | MEM)), chance.randrange(3)))
    return [*memory, *body, RET_A]


def packets(chance: random.Random) -> list[bytes]:
    start = bytes(12) + b"\x08\x00"
    made = [
        start + chance.randbytes(chance.choice((0, 3, 4, 20, 49, 50, 51, 100))) for _ in range(30)
    ]
    made += [
        start + bytes(50),
        start + b"\xff" * 50,
        start + b"\0\0\x80\xff" * 12,
        start + b"\x80" * 9,
    ]
    made += [start + (0x80FF).to_bytes(4, "big") + value + bytes(42)
             for value in (b"\0\0\x80\xff", b"\0\0\x81\0", b"\0\0\x80\0")]  # fmt: skip
    return [*made, start + chance.randbytes(3506)]


def by_libpcap(program: Sequence[Instruction], packet: bytes) -> int:
    code = ffi.new("struct bpf_insn[]", [(insn.code, insn.jt, insn.jf, insn.k) for insn in program])
    return int(lib.bpf_filter(code, packet, len(packet), len(packet)))


def load_header() -> Path:
    return Path(program_source("load.h")).parent


def source(programs: Sequence[Sequence[Instruction]]) -> str:
    lines = ['#include "load.h"']
    for n, program in enumerate(programs):
        lines.append(translate(program, f"classic_{n}"))
        lines.append(
            f"int xdp_{n}(struct xdp_md *ctx)\n{{\n\treturn classic_{n}((void *)(long)ctx->data, "
            "(void *)(long)ctx->data_end, ctx->data_end - ctx->data);\n}\n"
        )
    return "\n".join(lines)


def disagreements(programs: Sequence[Sequence[Instruction]], names: Sequence[str]) -> list[str]:
    wrong = []
    sample = packets(random.Random(2))
    with Module(compile_source(source(programs), load_header())) as module:
        for n, (name, program) in enumerate(zip(names, programs, strict=True)):
            with module.load(f"xdp_{n}") as loaded:
                for packet in sample:
                    ours, theirs = loaded.test_run(packet).action, by_libpcap(program, packet)
                    if ours != theirs:
                        wrong.append(f"{name}: {ours:#x}, not {theirs:#x}, on {packet.hex()}")
    return wrong


def test_each_instruction_gives_what_libpcap_gives() -> None:
    assert disagreements(list(PROGRAMS.values()), list(PROGRAMS)) == []


def test_samples_take_both_ways_of_each_jump() -> None:
    sample = packets(random.Random(2))
    for name, program in PROGRAMS.items():
        if name.startswith("jump ") and name[-3:] not in ("0 0", "1 1", "2 2"):
            assert len({by_libpcap(program, packet) for packet in sample} - {0}) == 2, name


@pytest.mark.parametrize("seed", range(4))
def test_programs_by_chance_give_what_libpcap_gives(seed: int) -> None:
    chance = random.Random(seed)
    programs = [by_chance(chance) for _ in range(60)]
    assert disagreements(programs, [f"{n}: {program}" for n, program in enumerate(programs)]) == []
