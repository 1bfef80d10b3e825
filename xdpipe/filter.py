"""A tcpdump filter, compiled by libpcap to classic BPF and translated to C for the XDP program.

Classic BPF (bpf(4); McCanne and Jacobson 1993) has an accumulator A, an index register X, 16 words
of scratch memory, and jumps that only go forward. So a program is a C function with labels, which
clang turns into eBPF that the verifier can follow.

Where a load goes beyond the packet the filter does not match: that is what libpcap does, too. `len`
is what the packet has in the XDP program, data_end - data, which is the length on the wire.
"""

from __future__ import annotations

from typing import NamedTuple

from xdpipe.errors import XdpipeError
from xdpipe.libpcap import DLT_EN10MB, MAX_SNAPLEN, ffi, lib

_NETMASK_UNKNOWN = 0xFFFFFFFF

# pcap/bpf.h: the instruction's class, then what else its code holds
_LD, _LDX, _ST, _STX, _ALU, _JMP, _RET, _MISC = range(8)
_SIZES = {0x00: 4, 0x08: 2, 0x10: 1}
_IMM, _ABS, _IND, _MEM, _LEN, _MSH = range(0x00, 0xC0, 0x20)
_X, _A, _TXA = 0x08, 0x10, 0x80
_ARITHMETIC = {0x00: "+", 0x10: "-", 0x20: "*", 0x40: "|", 0x50: "&", 0xA0: "^"}
_DIVISION = {0x30: "/", 0x90: "%"}
_SHIFTS = {0x60: "<<", 0x70: ">>"}
_NEG = 0x80
_JA = 0x00
_VARIABLES = ("A", "X", *(f"M{i}" for i in range(16)), "n_loops")
_N_LOOPS = 16
_CONDITIONS = {0x10: "A == {}", 0x20: "A > {}", 0x30: "A >= {}", 0x40: "A & {}"}

_FARTHEST = 0x7FFF
"""No packet that XDP sees is longer, and the verifier follows no offset above 0xffff."""


class FilterError(XdpipeError):
    """A filter that does not compile, or means nothing to an XDP program."""


class Instruction(NamedTuple):
    """An instruction of classic BPF (struct bpf_insn)."""

    code: int
    jt: int
    jf: int
    k: int


class Filter:
    """A tcpdump filter over Ethernet packets (pcap-filter(7)).

    Args:
        expression: the filter; empty matches every packet.

    Raises:
        FilterError: it has a syntax error, or asks what an XDP program cannot know (`inbound`).
    """

    def __init__(self, expression: str) -> None:
        self.expression = expression
        handle = lib.pcap_open_dead(DLT_EN10MB, MAX_SNAPLEN)
        program = ffi.new("struct bpf_program *")
        try:
            if lib.pcap_compile(handle, program, expression.encode(), 1, _NETMASK_UNKNOWN):
                text = ffi.string(lib.pcap_geterr(handle)).decode(errors="replace")
                raise FilterError(f'filter "{expression}": {text}; see: man pcap-filter')
        finally:
            lib.pcap_close(handle)
        self._program = ffi.gc(program, lib.pcap_freecode)
        self.instructions = tuple(
            Instruction(i.code, i.jt, i.jf, i.k) for i in program.bf_insns[0 : program.bf_len]
        )
        self._body = translate(self.instructions, expression)

    def matches(self, packet: bytes) -> bool:
        """Return libpcap's own verdict on a packet (pcap_offline_filter)."""
        header = ffi.new("struct pcap_pkthdr *", {"caplen": len(packet), "len": len(packet)})
        return bool(lib.pcap_offline_filter(self._program, header, packet))

    def to_c(self, function: str = "xp_filter") -> str:
        """Return the filter as `static u32 function(const u8 *data, const u8 *end)`; 0: no match.

        The text stands on its own in a program that bcc compiles.
        """
        return function_in_c(function, self._body)


_PROLOGUE = """\
/* Load `size` bytes, big-endian, at a constant offset / at an offset that is computed. The barrier
 * keeps clang from taking the mask for needless, which the verifier needs to see. */
#define XP_LOAD(to, at, size, value) do { \\
    const u8 *p = data + (at); \\
    if (p + (size) > end) return 0; \\
    to = value; \\
} while (0)
#define XP_LOAD_AT(to, at, size, value) do { \\
    u64 offset = (at); \\
    if (offset > %d) return 0; \\
    asm volatile("" : "+r"(offset)); \\
    offset &= %d; \\
    XP_LOAD(to, offset, size, value); \\
} while (0)
#define XP_VALUE_1 (u32)p[0]
#define XP_VALUE_2 (u32)__builtin_bswap16(*(const u16 *)p)
#define XP_VALUE_4 __builtin_bswap32(*(const u32 *)p)
""" % (_FARTHEST, _FARTHEST)  # noqa: UP031


def function_in_c(function: str, body: str) -> str:
    """Return a translated program as a C function with all that it needs."""
    return (
        f"{_PROLOGUE}static __always_inline u32 {function}(const u8 *data, const u8 *end)\n"
        f"{{\n    u32 A = 0, X = 0;\n{body}}}\n"
    )


def translate(instructions: tuple[Instruction, ...], expression: str = "") -> str:
    """Translate a program to the statements of a C function over A, X, data and end.

    Raises:
        FilterError: it uses what XDP does not have: the kernel's own fields of a packet.
    """
    targets: set[int] = set()
    lines: list[tuple[int, str]] = []
    memory: set[int] = set()
    for at, i in enumerate(instructions):
        if i.code & 0x07 == _JMP:
            lines.append((at, _jump(at, i, targets)))
        else:
            lines.append((at, _statement(i, memory, expression)))
    declared = "".join(f"    u32 M{k} = 0;\n" for k in sorted(memory))
    return declared + "".join(
        (f"L{at}:\n" if at in targets else "") + f"    {line}\n" for at, line in lines
    )


def _jump(at: int, i: Instruction, targets: set[int]) -> str:
    operation = i.code & 0xF0
    if operation == _JA:
        targets.add(at + 1 + i.k)
        return f"goto L{at + 1 + i.k};"
    condition = _CONDITIONS[operation].format("X" if i.code & _X else f"{i.k:#x}u")
    yes, no = at + 1 + i.jt, at + 1 + i.jf
    targets |= {yes, no}
    return f"if ({condition}) goto L{yes}; else goto L{no};"


def _statement(i: Instruction, memory: set[int], expression: str) -> str:
    kind, mode, operand = i.code & 0x07, i.code & 0xE0, "X" if i.code & _X else f"{i.k:#x}u"
    register = "X" if kind in (_LDX, _STX) else "A"
    if kind in (_ST, _STX):
        memory.add(i.k)
        return f"M{i.k} = {register};"
    if kind in (_LD, _LDX):
        if mode == _MEM:
            memory.add(i.k)
        return _load(i, register, mode, expression)
    if kind == _ALU:
        return _arithmetic(i.code & 0xF0, operand)
    if kind == _RET:
        return "return A;" if i.code & 0x18 == _A else f"return {i.k:#x}u;"
    return "A = X;" if i.code & _TXA else "X = A;"


def _load(i: Instruction, register: str, mode: int, expression: str) -> str:
    if mode == _IMM:
        return f"{register} = {i.k:#x}u;"
    if mode == _MEM:
        return f"{register} = M{i.k};"
    if mode == _LEN:
        return f"{register} = (u32)(end - data);"
    size = _SIZES[i.code & 0x18]
    if mode == _MSH:  # the length of an IPv4 header: 4 * (byte & 15)
        size = 1
    elif mode == _ABS and i.k > _FARTHEST:
        if i.k >= 0xFFFFF000:  # SKF_AD_OFF and below: linux/filter.h
            raise FilterError(
                f'filter "{expression}": asks what is not in the packet, and an XDP program has '
                "nothing but the packet"
            )
        return "return 0;"
    value = f"XP_VALUE_{size}"
    if mode == _MSH:
        value = f"4 * ({value} & 15)"
    if mode == _IND:
        return f"XP_LOAD_AT({register}, (u64)X + {i.k:#x}u, {size}, {value});"
    if i.k > _FARTHEST:
        return "return 0;"
    return f"XP_LOAD({register}, {i.k}, {size}, {value});"


def _arithmetic(operation: int, operand: str) -> str:
    if operation == _NEG:
        return "A = -A;"
    if operation in _DIVISION:
        check = "if (X == 0) return 0; " if operand == "X" else ""
        return f"{check}A = A {_DIVISION[operation]} {operand};"
    if operation in _SHIFTS:  # by 32 and more: nothing is left, as in libpcap's bpf_filter.c
        return f"A = {operand} < 32 ? A {_SHIFTS[operation]} ({operand} & 31) : 0;"
    return f"A = A {_ARITHMETIC[operation]} {operand};"
