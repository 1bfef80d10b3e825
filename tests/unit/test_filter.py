"""tcpdump filters: libpcap's verdict, and what is told of filters that are none."""

import pytest

from xdpipe.errors import XdpipeError
from xdpipe.filter import Filter, FilterError, Instruction, translate

DNS = bytes.fromhex(
    "020000000002 020000000001 0800"
    "4500001e 00010000 4011f96a c0000201 c0000202"
    "9c400035 000a0000 7878"
)
ARP = bytes.fromhex("ffffffffffff 020000000001 0806") + bytes(28)


@pytest.mark.parametrize(
    ("expression", "dns", "arp"),
    [
        ("", True, True),
        ("udp dst port 53", True, False),
        ("udp src port 53", False, False),
        ("arp", False, True),
        ("less 42", False, True),
        ("greater 44", True, False),
        ("len == 44", True, False),
        ("ip[100] = 0", False, False),
        ("not ip[100] = 0", False, True),
    ],
)
def test_matches_is_libpcaps_verdict(expression: str, dns: bool, arp: bool) -> None:
    assert Filter(expression).matches(DNS) is dns
    assert Filter(expression).matches(bytearray(ARP)) is arp
    assert Filter(expression).matches(memoryview(ARP)) is arp


def test_instructions_are_those_of_tcpdump_d() -> None:
    assert Filter("ip").instructions == (
        Instruction(0x28, 0, 0, 12),
        Instruction(0x15, 0, 1, 0x800),
        Instruction(0x06, 0, 0, 262144),
        Instruction(0x06, 0, 0, 0),
    )


def test_empty_filter_is_one_return() -> None:
    assert Filter("").to_c() == (
        "/* everything */\n"
        "static __always_inline u32 xp_filter(void *data, void *data_end, u32 length)\n"
        "{\n\treturn 0x40000u;\n}\n"
    )


def test_filter_becomes_c_without_a_needless_line() -> None:
    assert Filter("ip[0] & 0xf != 5").to_c("options") == (
        "/* ip[0] & 0xf != 5 */\n"
        "static __always_inline u32 options(void *data, void *data_end, u32 length)\n"
        "{\n"
        "\tu32 A = 0;\n"
        "\tXP_LOAD(u16, A, 0xcu);\n"
        "\tif (!(A == 0x800u))\n"
        "\t\tgoto L6;\n"
        "\tXP_LOAD(u8, A, 0xeu);\n"
        "\tA &= 0xfu;\n"
        "\tif (A == 0x5u)\n"
        "\t\tgoto L6;\n"
        "\treturn 0x40000u;\n"
        "L6:\n"
        "\treturn 0x0u;\n"
        "}\n"
    )


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("udp and", "syntax error"),
        ("port 70000", "70000"),
        ("ip[0] / 0 = 1", "division by zero"),
        ("ip broadcast", "netmask not known"),
        ("wlan type mgt", "802.11"),
        ("inbound", "what is not in the packet"),
        ("ip and outbound", "what is not in the packet"),
        ("ifname eth0", "ifname"),
        ("udp\nand", 'filter "udp and"'),
        ("udp \0", "a character that no filter has"),
        ("udp \udcff", "a character that no filter has"),
    ],
)
def test_filter_that_is_none_is_told_in_one_line(expression: str, message: str) -> None:
    with pytest.raises(FilterError) as error:
        Filter(expression)
    assert isinstance(error.value, XdpipeError)
    assert str(error.value).startswith("filter ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_comment_cannot_be_ended_by_the_filter() -> None:
    text = translate([Instruction(0x06, 0, 0, 1)], title="ip */ } evil \\\n??/ /*")
    assert text.splitlines()[0] == "/* ip  / } evil     / /  */"


def test_unreachable_instructions_are_left_out() -> None:
    text = translate(
        [
            Instruction(0x05, 0, 0, 1),  # ja +1
            Instruction(0x00, 0, 0, 7),  # ld #7, never reached
            Instruction(0x06, 0, 0, 1),  # ret #1
        ]
    )
    assert "A" not in text.replace("__always_inline", "")
    assert text.count("L2:") == text.count("goto L2;") == 1


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        (Instruction(0xFFFF, 0, 0, 0), "instruction 0xffff .* is unknown"),
        (Instruction(0x60, 0, 0, 16), "no scratch word 16; there are 16"),
        (Instruction(0x05, 0, 0, 9), "instruction 10 of 2 is run"),
        (Instruction(0x05, 0, 0, 0xFFFFFFFE), "instruction -1 of 2 is run"),
        (Instruction(0xE4, 0, 0, 0), "instruction 0x00e4 .* is unknown"),
        (Instruction(0x85, 0, 0, 0), "instruction 0x0085 .* is unknown"),
        (Instruction(0x64, 0, 0, 32), "instruction 0x0064 .* k 0x20.* is unknown"),
        (Instruction(0x34, 0, 0, 0), "instruction 0x0034 .* k 0x0.* is unknown"),
    ],
)
def test_what_is_no_classic_bpf_is_refused(instruction: Instruction, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        translate([instruction, Instruction(0x06, 0, 0, 0)])
