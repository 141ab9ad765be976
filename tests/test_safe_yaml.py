"""YAML of our own users that nobody should write: one clear error each, which quotes nothing of the file."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest
import yaml
from cli import kubeposture
from hypothesis import given
from hypothesis import strategies as st

from providers.kubernetes.credentials import address, resolve
from providers.kubernetes.errors import ConfigError
from providers.kubernetes.kubeconfig import contexts
from scanner import safe_yaml

WRONG_TYPE = "a value is not of the type that its form or its tag gives it"
FOREIGN_TAG = "a tag that is not one of YAML's own"


@pytest.mark.parametrize(
    "value",
    [
        "!!timestamp hush",
        "!!timestamp ''",
        "2026-99-99",
        "2026-01-01 00:00:00 +99:99",
        "!!int hush",
        "!!int ''",
        "!!int 0b",
        "!<tag:yaml.org,2002:int> hush",
        "9" * 5000,
        "0x" + "f" * 5000,
        "!!float hush",
        "!!float 1:hush",
        "!!bool hush",
    ],
)
def test_a_value_that_is_not_what_its_tag_says(value: str) -> None:
    with pytest.raises(ValueError, match="line 2") as error:
        safe_yaml.load(f"token: a\nb: [{value}]")
    assert str(error.value) == f"{WRONG_TYPE} (line 2)"


@pytest.mark.parametrize("tag", ["!hush", "!!hush", "!!python/object:os.hush", "!!merge", "!<hush>", "!<tag:hush:x>"])
@pytest.mark.parametrize("value", ["x", "[x]", "{x: x}"])
def test_tags_that_are_not_yamls_own(tag: str, value: str) -> None:
    with pytest.raises(ValueError, match="tag") as error:
        safe_yaml.load(f"a: b\nc: {tag} {value}")
    assert str(error.value) == f"{FOREIGN_TAG} (line 2)"


@pytest.mark.parametrize(
    "value", ["!!binary é", "!!set [hush]", "!!omap {hush: 1}", "!!omap [hush]", "!!pairs x", "!!map hush", "!!str []"]
)
@pytest.mark.parametrize("place", ["a: {}", "? {}\n: hush", "- {}"])
def test_a_collection_that_is_not_what_its_tag_says(value: str, place: str) -> None:
    with pytest.raises(ValueError, match="line 1") as error:
        safe_yaml.load(place.replace("{}", value, 1))
    assert "hush" not in str(error.value)
    assert "\\" not in str(error.value)


@pytest.mark.parametrize(
    "value", ["[*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]", "{<<: [*a, *a, *a, *a, *a, *a, *a, *a]}"]
)
def test_aliases_and_merges_that_stand_for_billions(value: str) -> None:
    lines = ["v0: &v0 {k: v}", *(f"v{n}: &v{n} {value.replace('*a', f'*v{n - 1}')}" for n in range(1, 15))]
    started = time.monotonic()
    with pytest.raises(ValueError, match="more than 1,000,000 values"):
        safe_yaml.load("\n".join(lines))
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("text", ["&a [*a]", "&a {b: *a}", "&a {<<: *a}", "&a [b, &c {d: [*a]}]"])
def test_a_value_that_contains_itself(text: str) -> None:
    with pytest.raises(ValueError, match="contains itself"):
        safe_yaml.load(text)


@pytest.mark.parametrize(("deep", "chain"), [(101, 0), (0, 101), (51, 50)])
def test_levels_are_counted_through_aliases(deep: int, chain: int) -> None:
    links = [f"- &v{n} [*v{n - 1}]" for n in range(1, chain + 1)]
    with pytest.raises(ValueError, match="more than 100 levels of nesting"):
        safe_yaml.load("\n".join([f"- &v0 {'[' * deep}{']' * deep}", *links]))


def test_what_people_do_write() -> None:
    text = "base: &base {a: 1, b: 2}\nown: {<<: *base, b: 3}\nsame: [*base, *base]\nday: 2026-01-31\nhex: 0xff\n"
    found = safe_yaml.load(text)
    assert found["own"] == {"a": 1, "b": 3}
    assert found["same"] == [{"a": 1, "b": 2}] * 2
    assert (found["day"].isoformat(), found["hex"]) == ("2026-01-31", 255)
    assert safe_yaml.load("") is None


def test_a_kubeconfig_with_a_false_date_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("users: []\ncurrent-context: !!timestamp hush")
    result = kubeposture("scan", "kubeconfig", "--kubeconfig", str(path))
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        f"kubeposture: kubeconfig {path} is not valid YAML: {WRONG_TYPE} (line 2)",
    ]


TAGS = ("", "!!int ", "!!float ", "!!bool ", "!!null ", "!!str ", "!!timestamp ", "!!binary ", "!!set ", "!!omap ")
TAGS += ("!!pairs ", "!!map ", "!!seq ", "!!merge ", "!!value ", "!own ", "&a ", "&b ")
TEXTS = st.one_of(
    st.sampled_from(["", "x", "*a", "*b", "<<", "=", "~", "1", "0x1f", "-.inf", "1e9", "2026-02-30", "12:61", "yes"]),
    st.text(max_size=8).map(lambda text: yaml.safe_dump(text, allow_unicode=True).partition("\n")[0]),
    st.sampled_from(["https://h", "https://[", "https://u:p@h", "http://h:99999", "a\\0b", "/no/file"]).map(
        '"{}"'.format
    ),
)
TAGGED = st.builds("{}{}".format, st.sampled_from(TAGS), TEXTS)
VALUES = st.recursive(
    TAGGED,
    lambda inner: st.builds(
        "{}{}".format,
        st.sampled_from(TAGS),
        st.one_of(
            st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
            st.lists(st.tuples(TAGGED, inner), max_size=3).map(
                lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
            ),
        ),
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(
    [
        *(
            "server",
            "certificate-authority",
            "certificate-authority-data",
            "tls-server-name",
            "proxy-url",
            "extensions",
        ),
        *("client-certificate", "client-key-data", "tokenFile", "token", "exec", "auth-provider", "username", "as"),
        *("as-groups", "as-user-extra", "extensions", "<<", "insecure-skip-tls-verify"),
    ]
)
ENTRIES = st.lists(st.tuples(KEYS, VALUES), max_size=4).map(
    lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
)


@given(VALUES)
def test_any_yaml_is_read_or_refused(text: str) -> None:
    refused = ""
    try:
        safe_yaml.load(text)
    except ValueError as error:
        refused = str(error)
    assert refused.isprintable()


@given(ENTRIES, ENTRIES, VALUES, VALUES)
def test_any_kubeconfig_is_read_or_refused(cluster: str, user: str, namespace: str, top: str) -> None:
    lines = [
        f"contexts: [{{name: c, context: {{cluster: c, user: u, namespace: {namespace}}}}}]",
        f"clusters: [{{name: c, cluster: {cluster}}}]",
        f"users: [{{name: u, user: {user}}}]",
        f"preferences: {top}",
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config"
        path.write_text("\n".join(lines), encoding="utf-8")
        refused = ""
        try:
            [context] = contexts(str(path), ["*"])
            server, _ = address(context)
            assert server == "" or server.startswith(("http://", "https://"))
            resolve(context, None)
        except ConfigError as error:
            refused = str(error)
        assert refused.isprintable()
