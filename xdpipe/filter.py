"""tcpdump's filter language, for the XDP program: libpcap compiles, this translates to C.

libpcap compiles a filter to classic BPF (McCanne and Jacobson 1993; struct bpf_insn in
linux/filter.h), a machine of two 32-bit registers, A and X, 16 words of scratch memory M, loads
from the packet in network byte order, and jumps:

     16 bits   8    8       32 bits
    +--------+----+----+-------------+
    |  code  | jt | jf |      k      |   code: class 3 bits, then size and mode, or operation and
    +--------+----+----+-------------+         source; jt and jf count instructions to be skipped

Each instruction becomes a line of C in a function of the XDP program: registers and scratch words
are variables, jumps are gotos. The meaning is that of libpcap's own interpreter, bpf_filter() in
bpf_filter.c: arithmetic modulo 2^32; a load that is not wholly within the packet ends the filter
with 0, which is "no"; so does a division by zero; a shift by 32 or more gives 0.

Two things an XDP program does not see, so that they mean something else than in a live capture:
- What of a packet lies in its second buffer and behind (jumbo packets, XDP_HAS_FRAGS): a load there
  is as beyond the packet.
- VLAN tags that the NIC took out of the packet are gone, and `vlan` never matches. Leave them in by
  `ethtool -K DEV rxvlan off`.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from xdpipe.errors import XdpipeError
from xdpipe.libpcap import DLT_EN10MB, MAX_SNAPLEN, NETMASK_UNKNOWN, ffi, lib

# linux/bpf_common.h. The low three bits are the class.
_LD, _LDX, _ST, _STX, _ALU, _JMP, _RET, _MISC = range(8)
_SIZES: Final = {0x00: "u32", 0x08: "u16", 0x10: "u8"}
_IMM, _ABS, _IND, _MEM, _LEN, _MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0
_SOURCE_X = 0x08
_RET_A = 0x10
_TXA = 0x80
_OPERATORS: Final = {
    0x00: "+", 0x10: "-", 0x20: "*", 0x30: "/", 0x40: "|", 0x50: "&",
    0x60: "<<", 0x70: ">>", 0x90: "%", 0xA0: "^",
}  # fmt: skip
_NEG = 0x80
_JUMPS: Final = {0x10: "==", 0x20: ">", 0x30: ">=", 0x40: "&"}
_JA = 0x00
_VARIABLES = ("A", "X", *(f"M{i}" for i in range(16)), "n_loops")

# linux/filter.h, SKF_LL_OFF: loads from here on up are no bytes of the packet but what a socket's
# kernel knows of it, such as its direction.
_NOT_IN_PACKET = 0xFFE00000

_N_LOOPS = 16
"""Backward jumps of one packet that are followed. libpcap makes one for each extension header that
`ip6 protochain` looks past, and the verifier wants to see an end. Past them the answer is no."""


class FilterError(XdpipeError):
    """A filter that libpcap does not compile, or that means nothing in an XDP program."""


class Instruction(NamedTuple):
    """An instruction of classic BPF: struct bpf_insn."""

    code: int
    jt: int
    jf: int
    k: int


LONGEST = 4096
"""Characters of a filter: libpcap's optimizer takes seconds for more, and clang as long again."""
_SHOWN = 120


class Filter:
    """A tcpdump filter over Ethernet frames (pcap-filter(7)); the empty one takes everything.

    Names of hosts, networks, ports and protocols are looked up once, when it is made.

    Args:
        expression: such as `udp dst port 53`.

    Attributes:
        expression: as given.
        instructions: what libpcap made of it.

    Raises:
        FilterError: libpcap does not accept it, or it asks for what is not in a packet.
    """

    def __init__(self, expression: str) -> None:
        self.expression = expression
        self._program = _compile(expression)
        self._header = ffi.new("struct pcap_pkthdr *")
        self.instructions = tuple(
            Instruction(insn.code, insn.jt, insn.jf, insn.k)
            for insn in self._program.bf_insns[0 : self._program.bf_len]
        )
        for insn in self.instructions:
            if insn.code & 0xE7 == _LD | _ABS and insn.k >= _NOT_IN_PACKET:
                raise FilterError(
                    f'filter "{_one_line(expression)}": asks for what is not in the packet, such '
                    "as its direction; an XDP program sees the bytes of received packets only"
                )

    def __repr__(self) -> str:
        return f"Filter({self.expression!r})"

    def matches(self, packet: bytes | bytearray | memoryview) -> bool:
        """Return libpcap's own verdict on a packet; `len` is the length of these bytes."""
        self._header.caplen = self._header.len = len(packet)
        verdict = lib.pcap_offline_filter(self._program, self._header, ffi.from_buffer(packet))
        return bool(verdict != 0)

    @property
    def program(self) -> tuple[tuple[int, int, int, int], ...]:
        """The instructions as plain numbers, for who runs them by libpcap: code, jt, jf, k."""
        return tuple((i.code, i.jt, i.jf, i.k) for i in self.instructions)

    def to_c(self, function: str = "xp_filter") -> str:
        """Return the filter as a C function for an XDP program; see `translate`."""
        return translate(self.instructions, function, self.expression)


def _compile(expression: str) -> Any:
    """Return a `struct bpf_program *` that frees itself."""
    if "\0" in expression or any("\ud800" <= c <= "\udfff" for c in expression):
        raise FilterError(f"filter {expression!r}: holds a character that no filter has")
    if len(expression) > LONGEST:
        raise FilterError(
            f'filter "{_one_line(expression)}": has {len(expression)} characters, and {LONGEST} '
            "are the most; match a net or a portrange, or take more and drop it in a stage"
        )
    handle = ffi.gc(lib.pcap_open_dead(DLT_EN10MB, MAX_SNAPLEN), lib.pcap_close)
    program = ffi.new("struct bpf_program *")
    if lib.pcap_compile(handle, program, expression.encode(), 1, NETMASK_UNKNOWN) != 0:
        reason = ffi.string(lib.pcap_geterr(handle)).decode(errors="replace")
        raise FilterError(
            f'filter "{_one_line(expression)}": {reason}; man 7 pcap-filter tells the language'
        )
    return ffi.gc(program, lib.pcap_freecode)


def _one_line(text: str) -> str:
    """Return a filter for a message: on one line, and not all of a long one."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


def translate(
    instructions: Sequence[Instruction], function: str = "xp_filter", title: str = ""
) -> str:
    """Translate classic BPF to a C function of a packet's data, data_end and whole length.

    It returns what the program returns: 0 for no. It needs bpf/load.h, and is free of unused
    variables, labels and lines.

    Args:
        instructions: a valid program: jumps stay within it, it ends with a return, and no scratch
            word is read before it is written.
        function: name of the C function.
        title: put into a comment, as far as C allows.

    Raises:
        FilterError: an instruction that classic BPF does not have, or a jump out of the program.
    """
    reached, targets = _flow(instructions)
    body: list[str] = []
    for at in sorted(reached):
        if at in targets:
            body.append(f"L{at}:")
        body.extend(f"\t{line}" for line in _statement(instructions[at], at))
    text = "\n".join(body)
    words = set("".join(c if c.isalnum() or c == "_" else " " for c in text).split())
    used = [f"{name} = 0" for name in _VARIABLES if name in words]
    declaration = f"\tu32 {', '.join(used)};\n" if used else ""
    comment = "".join(c if c.isprintable() and c not in "*\\?" else " " for c in title)
    return (
        f"/* {comment or 'everything'} */\n"
        f"static __always_inline u32 {function}(void *data, void *data_end, u32 length)\n"
        f"{{\n{declaration}{text}\n}}\n"
    )


def _flow(instructions: Sequence[Instruction]) -> tuple[set[int], set[int]]:
    """Return which instructions are ever reached, and which of them by a goto."""
    reached: set[int] = set()
    targets: set[int] = set()
    pending = [0]
    while pending:
        at = pending.pop()
        if at in reached:
            continue
        if not 0 <= at < len(instructions):
            raise FilterError(f"classic BPF: instruction {at} of {len(instructions)} is run")
        reached.add(at)
        insn = instructions[at]
        kind = insn.code & 0x07
        if kind == _RET:
            continue
        if kind != _JMP:
            pending.append(at + 1)
        elif insn.code & 0xF0 == _JA:
            pending.append(_ja_target(insn, at))
            targets.add(pending[-1])
        else:
            ways = {at + 1 + insn.jt, at + 1 + insn.jf}
            pending.extend(ways)
            # as _jump writes it: no goto to the next line, unless it is the only way
            targets |= ways - {at + 1} or ways
    return reached, targets


def _statement(insn: Instruction, at: int) -> list[str]:
    """Return an instruction as lines of C."""
    code, k = insn.code, insn.k
    kind = code & 0x07
    if kind in (_LD, _LDX):
        return _load(insn, "A" if kind == _LD else "X")
    if code in (_ST, _STX):
        return [f"M{_scratch(k)} = {'A' if code == _ST else 'X'};"]
    if kind == _ALU:
        return _arithmetic(insn)
    if kind == _JMP:
        return _jump(insn, at)
    if code in (_RET, _RET | _RET_A):
        return [f"return {'A' if code & _RET_A else f'{k:#x}u'};"]
    if code in (_MISC, _MISC | _TXA):
        return ["A = X;" if code & _TXA else "X = A;"]
    raise _unknown(insn)


def _load(insn: Instruction, register: str) -> list[str]:
    code, k = insn.code, insn.k
    mode, size = code & 0xE0, _SIZES.get(code & 0x18)
    if size == "u32" and mode == _IMM:
        return [f"{register} = {k:#x}u;"]
    if size == "u32" and mode == _MEM:
        return [f"{register} = M{_scratch(k)};"]
    if size == "u32" and mode == _LEN:
        return [f"{register} = length;"]
    if size and register == "A" and mode == _ABS:
        return [f"XP_LOAD({size}, A, {k:#x}u);"]
    if size and register == "A" and mode == _IND:
        return [f"XP_LOAD_AT({size}, A, (u64)X + {k:#x}u);"]
    if size == "u8" and register == "X" and mode == _MSH:  # the length of an IPv4 header
        return [f"XP_LOAD(u8, X, {k:#x}u);", "X = (X & 0xf) << 2;"]
    raise _unknown(insn)


def _arithmetic(insn: Instruction) -> list[str]:
    operation, by_x, k = insn.code & 0xF0, insn.code & _SOURCE_X, insn.k
    if operation == _NEG:
        return ["A = -A;"]
    operator = _OPERATORS.get(operation)
    if operator is None:
        raise _unknown(insn)
    if operator in ("<<", ">>"):
        if by_x:
            return [f"A = X < 32 ? A {operator} X : 0;"]
        if k >= 32:  # undefined in libpcap's interpreter, and refused by its compiler
            raise _unknown(insn)
        return [f"A {operator}= {k};"]
    if operator in ("/", "%"):
        if by_x:
            return ["if (X == 0)", "\treturn 0;", f"A {operator}= X;"]
        if k == 0:
            raise _unknown(insn)
    return [f"A {operator}= {'X' if by_x else f'{k:#x}u'};"]


def _jump(insn: Instruction, at: int) -> list[str]:
    operation = insn.code & 0xF0
    if operation == _JA:
        target = _ja_target(insn, at)
        if target > at:
            return [f"goto L{target};"]
        return [f"if (++n_loops > {_N_LOOPS})", "\treturn 0;", f"goto L{target};"]
    comparison = _JUMPS.get(operation)
    if comparison is None:
        raise _unknown(insn)
    condition = f"A {comparison} {'X' if insn.code & _SOURCE_X else f'{insn.k:#x}u'}"
    yes, no = f"goto L{at + 1 + insn.jt};", f"goto L{at + 1 + insn.jf};"
    if insn.jt == insn.jf:
        return [yes]
    if insn.jf == 0:
        return [f"if ({condition})", f"\t{yes}"]
    if insn.jt == 0:
        return [f"if (!({condition}))", f"\t{no}"]
    return [f"if ({condition})", f"\t{yes}", no]


def _ja_target(insn: Instruction, at: int) -> int:
    """Return where an unconditional jump goes; k is signed, for libpcap's `ip6 protochain`."""
    return at + 1 + (insn.k - (1 << 32) if insn.k >> 31 else insn.k)


def _scratch(k: int) -> int:
    if k >= 16:
        raise FilterError(f"classic BPF: no scratch word {k}; there are 16")
    return k


def _unknown(insn: Instruction) -> FilterError:
    return FilterError(
        f"classic BPF: instruction {insn.code:#06x} (jt {insn.jt}, jf {insn.jf}, k {insn.k:#x}) "
        "is unknown; is libpcap newer than xdpipe?"
    )
