from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.utils import parse_quantity

from scanner.quantity import CEILING, NANO, QuantityError, parse, parse_azure_cpu, parse_azure_memory

FACTORS = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    **{suffix: Fraction(1000**i) for i, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Fraction(1024**i) for i, suffix in enumerate("KMGTPE", start=1)},
}
DIGITS = "0123456789"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0),
        ("-0", 0),
        ("1", 1),
        ("+1", 1),
        ("-1.5", Fraction(-3, 2)),
        ("1.", 1),
        (".5", Fraction(1, 2)),
        ("-.5m", Fraction(-1, 2000)),
        ("0.5", Fraction(1, 2)),
        ("500m", Fraction(1, 2)),
        ("1000m", 1),
        ("1n", Fraction(1, 10**9)),
        ("1u", Fraction(1, 10**6)),
        ("1k", 1000),
        ("129M", 129 * 10**6),
        ("1E", 10**18),
        ("1.E", 10**18),
        ("1Ki", 1024),
        ("1024Mi", 2**30),
        ("0.5Gi", 2**29),
        ("1Ei", 2**60),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E+3", 1000),
        ("1.5e-3", Fraction(15, 10**4)),
        ("129e6", 129 * 10**6),
        ("00012.50", Fraction(25, 2)),
        (2, 2),
        (-3, -3),
        (0.1, Fraction(1, 10)),
        (1e22, 10**22),
        (1e-7, Fraction(1, 10**7)),
        (-0.0, 0),
    ],
)
def test_value(value: str | int | float, expected: Fraction) -> None:
    assert parse(value) == expected * NANO


# fmt: off
INVALID = [
    "-", "+", ".", "-.", "k", ".k", "1Gib", "1e", "1e+", "1e1.5", "1K", "1ki", "1mi", "1ni", "1ui", "1i",
    "1.2.3", "1.1.M", "1+1.0M", "--1", "+-1", "1,5", "1_000", "0x10", "0.1mi", "0.1am", "-3.01e-", "1Mm",
    "1e3m", "1Gi1", "one", "inf", "nan", "Infinity",
]
# fmt: on


@pytest.mark.parametrize("value", [*INVALID, "", " ", "1 Gi", " 1", "1 ", "1\n", "\ud800", "1" * 257])
def test_invalid_text(value: str) -> None:
    with pytest.raises(QuantityError, match="not a Kubernetes quantity: "):
        parse(value)


@pytest.mark.parametrize("value", ["\u0661", "\uff11", "1\u00b5", "1\u212ai"])
def test_only_ascii_digits_and_suffixes(value: str) -> None:
    with pytest.raises(QuantityError):
        parse(value)


@pytest.mark.parametrize("value", [True, False, float("nan"), float("inf"), -float("inf"), None, [], {}, b"1"])
@pytest.mark.parametrize("parser", [parse, parse_azure_cpu, parse_azure_memory])
def test_invalid_type(parser, value: object) -> None:
    with pytest.raises(QuantityError):
        parser(value)


def test_booleans_do_not_hide_behind_equal_numbers() -> None:
    assert parse(1) == parse(1.0) == NANO
    with pytest.raises(QuantityError):
        parse(True)


@pytest.mark.parametrize(
    ("value", "nanos"),
    [("0.1n", 1), ("1.0000000001", NANO + 1), ("-0.1n", -1), ("1e-999999999", 1), ("0e999999999", 0)],
)
def test_finer_than_nano_rounds_away_from_zero_as_kubernetes_does(value: str, nanos: int) -> None:
    assert parse(value) == nanos


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7Ei", 7 * 2**60 * NANO),
        ("8Ei", (2**63 - 1) * NANO),
        ("-9999999Ei", -(2**63 - 1) * NANO),
        ("18446744073709551616", 2**64 * NANO),
        ("1000E", 10**21 * NANO),
        ("9" * 256, int("9" * 256) * NANO),
        ("1e999999999", CEILING),
        ("-1e999999999", -CEILING),
        ("1e" + "9" * 250, CEILING),
        ("1e-" + "9" * 250, 1),
        (10**500, CEILING),
        (-(10**500), -CEILING),
        (1.7976931348623157e308, 17976931348623157 * 10**292 * NANO),
    ],
)
def test_huge_values(value: str | int | float, expected: int) -> None:
    assert parse(value) == expected


def test_integers_too_long_to_print() -> None:
    assert parse(10**5000) == CEILING


# Vectors of the Azure Policy template with the maxima 32 and 64Gi.


@pytest.mark.parametrize("value", ["0.5", "500m", "1", "0.1", "32", "32000m", "0", 32, 0.5])
def test_azure_cpu_within_32(value: str | int | float) -> None:
    assert parse_azure_cpu(value) <= parse_azure_cpu("32")


@pytest.mark.parametrize("value", ["32001m", "32.1", 33])
def test_azure_cpu_above_32(value: str | int) -> None:
    assert parse_azure_cpu(value) > parse_azure_cpu("32")


@pytest.mark.parametrize("value", ["1e3", ".5", "1.", "+1", "-1", "1k", "1u", "1n", "1Gi", "", "m", "xm", " 1", "1 m"])
def test_azure_cpu_rejects(value: str) -> None:
    with pytest.raises(QuantityError, match="Azure"):
        parse_azure_cpu(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1e3m", 1), ("+500m", Fraction(1, 2)), ("-500m", Fraction(-1, 2)), ("5mm", Fraction(5, 1000))],
)
def test_azure_cpu_takes_any_number_before_m(value: str, expected: Fraction) -> None:
    assert parse_azure_cpu(value) == expected * NANO


@pytest.mark.parametrize(
    "value", ["500Mi", "129M", "0.5Gi", "65536Mi", "68719476736", "68719476736000m", "0", "1k", "64Gi", 68719476736]
)
def test_azure_memory_within_64_gi(value: str | int) -> None:
    assert parse_azure_memory(value) <= parse_azure_memory("64Gi")


@pytest.mark.parametrize("value", ["68719476737", "1E", "1Ei", "68719476736001m", 68719476737])
def test_azure_memory_above_64_gi(value: str | int) -> None:
    assert parse_azure_memory(value) > parse_azure_memory("64Gi")


@pytest.mark.parametrize(
    "value", ["100K", "1 Gi", "1Gib", "1e3", "129e6", "1n", "1u", ".5", "1.", "+1", "-1", "", "M", "Gi"]
)
def test_azure_memory_rejects(value: str) -> None:
    with pytest.raises(QuantityError, match="Azure"):
        parse_azure_memory(value)


def test_azure_memory_removes_the_suffix_wherever_it_stands() -> None:
    assert parse_azure_memory("1MiMi") == parse("1Mi")
    assert parse_azure_memory("k1k") == parse("1k")


@pytest.mark.parametrize("parser", [parse_azure_cpu, parse_azure_memory])
def test_azure_is_bounded_too(parser) -> None:
    with pytest.raises(QuantityError, match="longer than 256"):
        parser("1" * 10_000)
    assert parse_azure_cpu("1e999999999m") == CEILING


# Properties

plain_numbers = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "+", "-"]),
    st.text(DIGITS, min_size=1, max_size=30),
    st.one_of(st.just(""), st.text(DIGITS, max_size=30).map(lambda d: f".{d}")),
)
suffixes = st.sampled_from(sorted(FACTORS))
quantities = st.builds("{}{}".format, plain_numbers, st.one_of(suffixes, st.integers(-40, 40).map(lambda e: f"e{e}")))


def exact(number: str, factor: Fraction) -> Fraction:
    return Fraction(number.removesuffix(".")) * factor


@given(plain_numbers, suffixes)
def test_agrees_with_rational_arithmetic(number: str, suffix: str) -> None:
    nanos = exact(number, FACTORS[suffix]) * NANO
    rounded = ceil(abs(nanos))
    if suffix.endswith("i"):
        rounded = min(rounded, (2**63 - 1) * NANO)
    assert parse(number + suffix) == (rounded if nanos >= 0 else -rounded)


@given(plain_numbers, st.integers(-60, 60), st.sampled_from("eE"))
def test_exponents_agree_with_rational_arithmetic(number: str, exponent: int, letter: str) -> None:
    nanos = exact(number, Fraction(10) ** exponent) * NANO
    assert abs(parse(f"{number}{letter}{exponent}")) == ceil(abs(nanos))


# Left out is where the client differs from the API server: it neither rounds below nano nor caps binary suffixes.
@given(st.integers(-8000, 8000), st.integers(0, 999), st.sampled_from(sorted(set(FACTORS) - {"n", "Ei"})))
def test_agrees_with_the_kubernetes_client(whole: int, thousandths: int, suffix: str) -> None:
    text = f"{whole}.{thousandths:03}{suffix}"
    assert parse(text) == Fraction(parse_quantity(text)) * NANO


@given(st.integers(-(10**12), 10**12), st.integers(-9, 9))
def test_exponents_agree_with_the_kubernetes_client(number: int, exponent: int) -> None:
    text = f"{number}e{exponent}"
    assert parse(text) == Fraction(parse_quantity(text)) * NANO


@given(quantities, quantities)
def test_keeps_the_order(one: str, other: str) -> None:
    values = [_unrounded(one), _unrounded(other)]
    if values[0] <= values[1]:
        assert parse(one) <= parse(other) or _is_capped(one) or _is_capped(other)
    if parse(one) < parse(other):
        assert values[0] < values[1] or _is_capped(one) or _is_capped(other)


def _unrounded(text: str) -> Fraction:
    suffix = next((s for s in sorted(FACTORS, key=len, reverse=True) if s and text.endswith(s)), "")
    number, _, exponent = text.removesuffix(suffix).partition("e")
    return exact(number, FACTORS[suffix]) * Fraction(10) ** int(exponent or 0)


def _is_capped(text: str) -> bool:
    return text.endswith("i") and abs(_unrounded(text)) >= 2**63 - 1


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_its_shortest_decimal(value: float) -> None:
    assert abs(parse(value)) == ceil(abs(Fraction(repr(value)) * NANO))


@given(st.integers())
def test_integers_are_exact(value: int) -> None:
    assert parse(value) == parse(str(value)) == value * NANO


@given(st.one_of(st.text(), st.text("0123456789.+-eEinumkKMGTP ", max_size=12)))
@pytest.mark.parametrize("parser", [parse, parse_azure_cpu, parse_azure_memory])
def test_raises_nothing_but_quantity_error(parser, text: str) -> None:
    try:
        assert type(parser(text)) is int
    except QuantityError as error:
        message = str(error)
    else:
        message = ""
    assert message.isprintable()


@given(plain_numbers, st.sampled_from(["", *"mkMGTPE", "Ki", "Mi", "Gi", "Ti", "Pi"]))
def test_what_azure_reads_it_reads_right(number: str, suffix: str) -> None:
    text = number + suffix
    for parser in (parse_azure_cpu, parse_azure_memory):
        try:
            result = parser(text)
        except QuantityError:
            continue
        assert result == parse(text) or result > (2**63 - 1) * NANO
