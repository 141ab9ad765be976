import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from scanner.image_ref import ImageRef, in_registry, parse

SHA = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("redis", ImageRef("docker.io", "library/redis")),
        ("redis:latest", ImageRef("docker.io", "library/redis", "latest")),
        (f"redis@{SHA}", ImageRef("docker.io", "library/redis", None, SHA)),
        (f"redis:7@{SHA}", ImageRef("docker.io", "library/redis", "7", SHA)),
        ("bitnami/redis", ImageRef("docker.io", "bitnami/redis")),
        ("docker.io/redis", ImageRef("docker.io", "library/redis")),
        ("docker.io/a/b", ImageRef("docker.io", "a/b")),
        ("index.docker.io/redis:1", ImageRef("docker.io", "library/redis", "1")),
        ("registry-1.docker.io/library/redis", ImageRef("docker.io", "library/redis")),
        ("Docker.IO/redis", ImageRef("docker.io", "library/redis")),
        ("registry.io:5000/app", ImageRef("registry.io:5000", "app")),
        ("registry.io:5000/team/app:1.2", ImageRef("registry.io:5000", "team/app", "1.2")),
        (f"registry.io:5000/app@{SHA}", ImageRef("registry.io:5000", "app", None, SHA)),
        ("localhost/app", ImageRef("localhost", "app")),
        ("localhost:5000", ImageRef("docker.io", "library/localhost", "5000")),
        ("Registry/app", ImageRef("registry", "app")),
        ("registry:5000/app", ImageRef("registry:5000", "app")),
        ("[::1]:5000/app:1", ImageRef("[::1]:5000", "app", "1")),
        ("[2001:DB8::1]/app", ImageRef("[2001:db8::1]", "app")),
        ("r.io/Team/App", ImageRef("r.io", "Team/App")),
        ("<customer-registry>.azurecr.io/redis:latest", ImageRef("<customer-registry>.azurecr.io", "redis", "latest")),
        ("acr.azurecr.io", ImageRef("docker.io", "library/acr.azurecr.io")),
        ("acr.azurecr.io:443/x", ImageRef("acr.azurecr.io:443", "x")),
        ("evil.com/acr.azurecr.io/x", ImageRef("evil.com", "acr.azurecr.io/x")),
        ("user@acr.azurecr.io/x", ImageRef("user@acr.azurecr.io", "x")),
        ("https://acr.azurecr.io/x", ImageRef("https:", "/acr.azurecr.io/x")),
        ("", ImageRef("docker.io", "library/")),
        (" ", ImageRef("docker.io", "library/ ")),
        ("redis:", ImageRef("docker.io", "library/redis")),
        ("r.io/", ImageRef("r.io", "")),
        # What is no digest pins nothing.
        ("redis@sha256:abc", ImageRef("docker.io", "library/redis@sha256:abc")),
        ("redis:7@", ImageRef("docker.io", "library/redis:7@")),
        ("user@acr.azurecr.io:443", ImageRef("docker.io", "library/user@acr.azurecr.io:443")),
        (f"a/b@{SHA}/c", ImageRef("docker.io", f"a/b@{SHA}/c")),
    ],
)
def test_parts(image: str, expected: ImageRef) -> None:
    assert parse(image) == expected


def test_name_is_normalised() -> None:
    assert parse("redis:7").name == parse(f"index.docker.io/library/redis@{SHA}").name == "docker.io/library/redis"


def test_is_frozen() -> None:
    with pytest.raises(AttributeError):
        parse("redis").tag = "7"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("image", "allowed"),
    [
        ("registry.example.com/app:1", "registry.example.com"),
        ("REGISTRY.example.com/app", "Registry.Example.com"),
        ("registry.example.com/app", "registry.example.com/"),
        ("registry.example.com:8443/app", "registry.example.com:8443"),
        ("[::1]:5000/app", "[::1]:5000"),
        ("europe-docker.pkg.dev/acme-prod/repo/app", "europe-docker.pkg.dev/acme-prod"),
        (f"europe-docker.pkg.dev/acme-prod@{SHA}", "europe-docker.pkg.dev/acme-prod"),
        ("redis", "docker.io"),
        ("redis", "docker.io/library"),
        ("redis:7", "docker.io/library/redis"),
        ("docker.io/redis", "index.docker.io/library"),
        ("registry-1.docker.io/acme/app", "docker.io/acme"),
        ("acr.azurecr.io/redis:1", "*.azurecr.io"),
        ("ACR.AzureCR.io/redis:1", "*.azurecr.io"),
        ("a.b.azurecr.io/redis", "*.azurecr.io"),
        ("<customer-registry>.azurecr.io/redis:latest", "*.azurecr.io"),
        ("acr.azurecr.io:443/x", "*.azurecr.io:443"),
        ("acr.azurecr.io/team/app", "*.azurecr.io/team"),
        ("localhost/app", "localhost"),
    ],
)
def test_in_registry(image: str, allowed: str) -> None:
    assert in_registry(image, allowed)


@pytest.mark.parametrize(
    ("image", "allowed"),
    [
        ("registry.io.evil/app", "registry.io"),
        ("evil-registry.io/app", "registry.io"),
        ("sub.registry.io/app", "registry.io"),
        ("registry.io:5000/app", "registry.io"),
        ("registry.io/app", "registry.io:5000"),
        ("r.io/acme-evil/app", "r.io/acme"),
        ("r.io/ACME/app", "r.io/acme"),
        ("r.io/x/acme/app", "r.io/acme"),
        ("r.io/acme", "r.io/acme/app"),
        ("r.io/acme/../evil/app", "r.io/acme"),
        ("r.io/acme/./app", "r.io/acme"),
        ("r.io/acme//app", "r.io/acme"),
        ("r.io/..", "r.io"),
        ("r.io/", "r.io"),
        ("r.io/a b", "r.io"),
        ("r.io/a\nb", "r.io"),
        ("r.io/a%2e%2e/b", "r.io"),
        ("redis", "redis"),
        ("redis", "library"),
        ("acme/app", "docker.io/library"),
        ("redis", "*.azurecr.io"),
        ("evilazurecr.io/x", "*.azurecr.io"),
        ("azurecr.io/x", "*.azurecr.io"),
        (".azurecr.io/x", "*.azurecr.io"),
        ("a..azurecr.io/x", "*.azurecr.io"),
        ("azurecr.io.evil.com/x", "*.azurecr.io"),
        ("acr.azurecr.io.evil.com/x", "*.azurecr.io"),
        ("evil.com/acr.azurecr.io/x", "*.azurecr.io"),
        ("user@acr.azurecr.io/x", "*.azurecr.io"),
        ("user@acr.azurecr.io/x", "acr.azurecr.io"),
        ("evil.com:80@acr.azurecr.io/x", "*.azurecr.io"),
        ("evil.com\\acr.azurecr.io/x", "*.azurecr.io"),
        ("evil.com#.azurecr.io/x", "*.azurecr.io"),
        ("evil.com?.azurecr.io/x", "*.azurecr.io"),
        ("https://acr.azurecr.io/x", "*.azurecr.io"),
        ("https://acr.azurecr.io/x", "acr.azurecr.io"),
        ("acr.azurecr.io:443/x", "*.azurecr.io"),
        ("acr.azurecr.io:443/x", "acr.azurecr.io"),
        ("acr.azurecr.io./x", "acr.azurecr.io"),
        ("acr.azurecr.io./x", "*.azurecr.io"),
        ("acr.azurecr.io", "acr.azurecr.io"),
        ("acr.azurecr.io", "*.azurecr.io"),
        (" acr.azurecr.io/x", "*.azurecr.io"),
        ("\u0430cr.azurecr.io/x", "*.azurecr.io"),  # Cyrillic a
        ("acr.\u0430zurecr.io/x", "*.azurecr.io"),
        ("acr\uff0eazurecr.io/x", "*.azurecr.io"),  # full-width dot
        ("doc\u212aer.io/x", "docker.io"),  # Kelvin sign, whose lower case is k
        ("r.io/\u0430cme/x", "r.io/acme"),
        ("", "docker.io"),
        (" ", "docker.io"),
        ("", ""),
        ("redis", ""),
        ("r.io/x", "*"),
        ("r.io/x", "*."),
        ("a./x", "*."),
        ("r.io/x", "*.*"),
    ],
)
def test_not_in_registry(image: str, allowed: str) -> None:
    assert not in_registry(image, allowed)


hostile = st.one_of(st.text(), st.text("ab.A:/@*-_[]%\\ 0\u212a", max_size=30))


@given(hostile)
@example("\ud800")
@example("@" * 1000 + "/" * 1000 + ":" * 1000)
def test_parsing_never_raises_and_loses_nothing(image: str) -> None:
    ref = parse(image)
    assert ref.name == f"{ref.registry}/{ref.repository}"
    assert all(part in image for part in (ref.tag, ref.digest) if part)
    assert image.rstrip(":").endswith(ref.digest or ref.tag or ref.repository.removeprefix("library/").rstrip(":"))


@given(hostile, hostile)
def test_matching_never_raises(image: str, allowed: str) -> None:
    assert in_registry(image, allowed) in (True, False)


near_misses = st.lists(st.sampled_from([*"ab./@:R ", "r.io", "a.r.io", "..", "r.io/a"]), max_size=6).map("".join)


@given(st.one_of(hostile, near_misses), st.sampled_from(["r.io", "*.r.io", "a.r.io", "r.io/a", "*.r.io/b"]))
def test_only_the_text_before_the_first_slash_is_the_host(image: str, allowed: str) -> None:
    host, slash, path = image.partition("/")
    wanted = allowed.partition("/")[0]
    same_host = host.lower().endswith(wanted[1:]) if wanted.startswith("*") else host.lower() == wanted
    if in_registry(image, allowed):
        assert same_host
        assert slash
        assert path
        assert "@" not in host


labels = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=8)


@given(labels, labels, st.lists(labels, min_size=1, max_size=3), labels)
def test_round_trip(label: str, domain: str, path: list[str], tag: str) -> None:
    host = f"{label}.{domain}.io"
    image = f"{host}/{'/'.join(path)}:{tag}@{SHA}"
    assume(host not in {"index.docker.io", "registry-1.docker.io"})
    assert parse(image) == ImageRef(host, "/".join(path), tag, SHA)
    for allowed in (host, f"*.{domain}.io", "*.io", f"{host}/{path[0]}", f"{host}/{'/'.join(path)}"):
        assert in_registry(image, allowed)
    assert not in_registry(image, f"x{host}")
    assert not in_registry(image, f"{host}/{path[0]}x")
