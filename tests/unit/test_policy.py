"""Policies: what they say, what is wrong in them, and which rule counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcbuild.errors import SpecError
from fcbuild.publish import policy, reference
from fcbuild.publish.policy import Identity, Policy
from tests.unit.test_dsse import PUBLIC, SSH_PUBLIC, signer

KEY = f'key = "{SSH_PUBLIC.decode()} release@example.com"'
SIGNED = 'signers = ["release"]\nevidence = ["boot"]'


def read(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return policy.read(path)


WHOLE = f"""
[signer.release]
{KEY}
[signer.ci]
issuer = "https://token.example.com"
identity = "https://example.com/team/images/publish.yml@refs/heads/main"

[[artifact]]
from = "registry.example.com/team/*"
images = ["debian-web"]
signers = ["release", "ci"]
evidence = ["sbom", "boot", "provenance"]

[[artifact]]
from = "localhost:5000/*"
unsigned = true
"""


def test_a_policy_is_read_as_it_is_written(tmp_path: Path) -> None:
    first, second = read(tmp_path, WHOLE).rules
    assert first.signers == {
        "release": signer().public,
        "ci": Identity(
            "https://token.example.com",
            "https://example.com/team/images/publish.yml@refs/heads/main",
        ),
    }
    assert first.evidence == ("boot", "provenance", "sbom")
    assert (first.images, first.where) == (("debian-web",), "policy.toml: artifact[1]")
    assert (second.signers, second.evidence) == ({}, ())


def test_the_example_in_the_modules_own_words_is_a_policy(tmp_path: Path) -> None:
    assert policy.__doc__
    lines = policy.__doc__.split("\n\n", 1)[1].rpartition("\n\n")[0]
    text = lines.replace("ssh-ed25519 AAAAC3Nz...", SSH_PUBLIC.decode())
    assert len(read(tmp_path, text).rules) == 2


def test_the_example_in_the_readme_is_a_policy(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (text,) = (block for block in readme.split("```toml\n")[1:] if "[[artifact]]" in block)
    text = text.partition("```")[0].replace("ssh-ed25519 AAAAC3Nz...", SSH_PUBLIC.decode())
    assert len(read(tmp_path, text).rules) == 2


@pytest.mark.parametrize(
    ("pattern", "fits", "not_that"),
    [
        ("*", "registry.example.com/a/b:1", None),
        ("a.example.com/team/*", "a.example.com/team/a/b:1", "a.example.com/teams/a"),
        ("registry.example.com/*", "registry.example.com/a", "registry.example.com.evil.example/a"),
        ("registry.example.com/a", "registry.example.com/a:1", "registry.example.com/ab"),
        ("registry.example.com/a-?", "registry.example.com/a-1", "registry.example.com/a-12"),
        ("localhost:5000/*", "localhost:5000/a", "localhost:5001/a"),
        ("[::1]:5000/*", "[::1]:5000/a", "[::2]:5000/a"),
    ],
)  # fmt: skip
def test_a_rule_fits_what_its_pattern_says(
    tmp_path: Path, pattern: str, fits: str, not_that: str | None
) -> None:
    found = read(tmp_path, f'[signer.release]\n{KEY}\n[[artifact]]\nfrom = "{pattern}"\n{SIGNED}\n')
    assert found.rule(reference.parse(fits))
    if not_that:
        assert found.rule(reference.parse(not_that)) is None


def test_the_first_rule_that_fits_counts(tmp_path: Path) -> None:
    found = read(tmp_path, WHOLE.replace("localhost:5000/*", "*"))
    assert found.rule(reference.parse("registry.example.com/team/a")) == found.rules[0]
    assert found.rule(reference.parse("elsewhere.example.com/a")) == found.rules[1]


def test_a_key_alone_asks_for_all_there_is() -> None:
    (rule,) = policy.of_key(signer().public, "a.pub").rules
    assert rule.evidence == ("boot", "provenance", "sbom")
    assert rule.signers == {"a.pub": signer().public}
    assert rule.fits(reference.parse("registry.example.com/a"))


RULE = f'[[artifact]]\nfrom = "*"\n{SIGNED}\n'
RELEASE = f"[signer.release]\n{KEY}\n"
ANY = '[[artifact]]\nfrom = "*"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"no \[\[artifact\]\]: with it, nothing would be trusted"),
        ("[signer.release", "not valid TOML"),
        (f'[signer.release]\nkey = "ssh-rsa A"\n{RULE}', "release.key: expected a public"),
        (f"[signer.release]\nkey = 1\n{RULE}", "signer.release.key: expected a public"),
        (f"[signer.release]\n{RULE}", "signer.release.issuer is missing"),
        (f'[signer.release]\nissuer = "https://a"\n{RULE}', "signer.release.identity is missing"),
        (f'[signer.release]\nissuer = ""\nidentity = "a"\n{RULE}', "release.issuer: expected"),
        (f'{RELEASE}issuer = "a"\n{RULE}', "signer.release.issuer: unknown key"),
        (f'[signer."a b"]\n{KEY}\n{RELEASE}{RULE}', "signer.a b: expected a name"),
        (RULE, "names of .signer.NAME., got 'release'"),
        (f"[signer.releas]\n{KEY}\n{RULE}", "did you mean releas"),
        (f"{RELEASE}[[artifact]]\n{SIGNED}", "from is missing"),
        (f'{RELEASE}[[artifact]]\nfrom = "*.example.com/a"\n{SIGNED}', "from: expected"),
        (f'{RELEASE}[[artifact]]\nfrom = "a.example.com"\n{SIGNED}', "from: expected"),
        (f'{RELEASE}{ANY}signers = ["release"]', "evidence is missing"),
        (f'{ANY}evidence = ["boot"]', "signers is missing; unsigned = true"),
        (ANY, "evidence is missing; unsigned = true"),
        (f"{RELEASE}{ANY}{SIGNED}\nunsigned = true", "no signers and"),
        (f'{RELEASE}{ANY}signers = ["release"]\nevidence = ["bot"]', "mean boot.*got 'bot'"),
        (f"{RELEASE}{RULE}signer = 1", "signer: unknown key"),
        (f"artifacts = 1\n{RELEASE}{RULE}", "artifacts: unknown key"),
    ],
    ids=lambda value: value[-40:],
)
def test_what_is_wrong_in_a_policy_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        read(tmp_path, text)


def test_a_policy_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read: No such file"):
        policy.read(tmp_path / "policy.toml")


def test_the_key_in_the_tests_is_the_one_of_the_specification() -> None:
    assert signer().public.raw == PUBLIC
