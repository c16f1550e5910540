"""image.toml and kernel.toml: what they may say, and how a mistake in one is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcbuild import spec
from fcbuild.errors import SpecError
from fcbuild.network import NetworkSpec
from fcbuild.series import KernelSpec
from fcbuild.spec import HttpCheck, LogCheck, TcpCheck
from fcbuild.tables import GIB, MIB

SHA = "1" * 64
KERNEL = f"""
fragments = ["base"]
[[source]]
url = "https://example.org/linux.tar.xz"
version = "6.12.2"
sha256 = "{SHA}"
"""


def with_image(checkout: Path, text: str, name: str = "web") -> Path:
    path = checkout / "images" / name
    path.mkdir(exist_ok=True)
    (path / "image.toml").write_text(text)
    (path / "Dockerfile").write_text("FROM scratch\n")
    return checkout


def with_kernel(checkout: Path, text: str) -> Path:
    (checkout / "kernels/6.12/kernel.toml").write_text(text)
    return checkout


def problems(root: Path) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        spec.load(root)
    return caught.value.problems


def test_an_empty_image_toml_has_the_defaults(checkout: Path) -> None:
    image = spec.load(with_image(checkout, "")).images["web"]
    assert (image.kernel, image.hostname, image.size, image.free) == ("6.12", "web", None, 32 * MIB)
    assert (image.vcpus, image.memory, image.stop_grace) == (1, 128 * MIB, 10_000)
    assert (image.deadline, image.expect_exit, image.init, image.ready) == (None, None, None, False)
    assert (image.readonly, image.overlay, image.overlay_size) == (False, False, None)
    assert (image.writable, image.network) == ((), NetworkSpec())
    assert (image.bootstrap, dict(image.build_args), image.build_target) == (None, {}, None)
    assert image.checks == ()


def test_every_key_is_read(checkout: Path) -> None:
    image = spec.load(
        with_image(
            checkout,
            """
            description = "d"
            kernel = "tiny"
            hostname = "Host-1"
            init = "/lib/systemd/systemd"
            [build]
            args = { A = "1" }
            target = "final"
            [rootfs]
            size = "2GiB"
            free = "512KiB"
            readonly = true
            writable = ["/var/lib/x", "/srv"]
            [machine]
            vcpus = 32
            memory = "1GiB"
            [boot]
            deadline = "1500ms"
            stop_grace = "2min"
            expect_exit = 3
            ready = "notify"
            kernel_arguments = ["hugepages=8", 'own="a b"']
            [network]
            address = ["10.0.0.2/24", "FD00:0::2/64"]
            gateway = "10.0.0.1"
            dns = ["10.0.0.1", "fd00::1"]
            search = "example.org"
            hosts = { db = "10.0.0.3", "db.example.org" = "fd00:0::3" }
            mtu = 1400
            mmds = true
            [[check]]
            http = { port = 8080, path = "/x?y", status = 404, contains = "no" }
            [[check]]
            log = "^ready"
            [[check]]
            tcp = { port = 22, starts_with = "SSH-2.0" }
            """,
        )
    ).images["web"]
    assert (image.description, image.kernel, image.hostname) == ("d", "tiny", "Host-1")
    assert (dict(image.build_args), image.build_target) == ({"A": "1"}, "final")
    assert (image.size, image.free) == (2 * GIB, 512 * 1024)
    assert (image.vcpus, image.memory) == (32, GIB)
    assert (image.deadline, image.stop_grace, image.expect_exit) == (1500, 120_000, 3)
    assert image.kernel_arguments == ("hugepages=8", 'own="a b"')
    assert image.checks == (
        HttpCheck(port=8080, path="/x?y", status=404, contains="no"),
        LogCheck(pattern="^ready"),
        TcpCheck(port=22, starts_with="SSH-2.0"),
    )
    assert (image.init, image.ready) == ("/lib/systemd/systemd", True)
    assert (image.readonly, image.overlay) == (True, False)
    assert image.writable == ("/var/lib/x", "/srv")
    assert list(image.network.records()) == [
        ("address", "10.0.0.2/24"),
        ("address", "fd00::2/64"),
        ("gateway", "10.0.0.1"),
        ("dns", "10.0.0.1"),
        ("dns", "fd00::1"),
        ("search", "example.org"),
        ("host", "10.0.0.3 db"),
        ("host", "fd00::3 db.example.org"),
        ("mtu", "1400"),
        ("mmds", ""),
    ]


@pytest.mark.parametrize(
    ("text", "overlay", "size"),
    [
        ("true", True, None),
        ("false", False, None),
        ("'16MiB'", True, 16 * MIB),
        ("'1GiB'", True, GIB),
    ],
)
def test_an_overlay_is_in_ram_or_on_a_drive(
    checkout: Path, text: str, overlay: bool, size: int | None
) -> None:
    image = spec.load(with_image(checkout, f"[rootfs]\noverlay = {text}")).images["web"]
    assert (image.overlay, image.overlay_size, image.readonly) == (overlay, size, False)


@pytest.mark.parametrize(("given", "kept"), [("0", 0), ("7", 7)])
def test_an_expected_status_is_kept_as_given(checkout: Path, given: str, kept: int) -> None:
    image = spec.load(with_image(checkout, f"[boot]\nexpect_exit = {given}")).images["web"]
    assert image.expect_exit == kept


def test_kernels_keep_the_order_of_fragments_and_sources(checkout: Path) -> None:
    kernel = spec.load(checkout).kernels["6.12"]
    assert isinstance(kernel, KernelSpec)
    assert [path.name for path in kernel.fragments] == ["base.config", "net.config"]
    assert [str(source) for source in kernel.sources] == [
        "package linux-source-6.12 6.12.1-1",
        "https://example.org/linux.tar.xz",
    ]


def test_a_name_with_dots_gets_a_valid_host_name(checkout: Path) -> None:
    image = spec.load(with_image(checkout, "", "a.b_c-1")).images["a.b_c-1"]
    assert image.hostname == "a-b-c-1"
    assert spec.HOSTNAME.fullmatch(image.hostname)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = ", ["not valid TOML"]),
        ("kernell = '6.12'", ["kernell: unknown key (did you mean kernel?)"]),
        ("zzz = 1", ["zzz: unknown key; known: ", "kernel"]),
        ("[machine]\nvcpu = 1", ["machine.vcpu: unknown key (did you mean vcpus?)"]),
        ("[machine]\nvcpus = '1'", ["machine.vcpus", "a whole number from 1 to 32", "got '1'"]),
        ("[machine]\nvcpus = true", ["machine.vcpus", "got True"]),
        ("[machine]\nvcpus = 0", ["machine.vcpus", "got 0"]),
        ("[machine]\nvcpus = 33", ["machine.vcpus", "got 33"]),
        ("[machine]\nmemory = '128MB'", ["machine.memory", "a size like", "got '128MB'"]),
        ("[machine]\nmemory = 128", ["machine.memory", "got 128"]),
        ("[machine]\nmemory = '-1MiB'", ["machine.memory", "got '-1MiB'"]),
        ("[machine]\nmemory = '100KiB'", ["machine.memory", "a whole number of MiB"]),
        ("machine = 1", ["machine: expected a table, got 1"]),
        ("[rootfs]\nsize = 'big'", ["rootfs.size", '"auto" or a size', "got 'big'"]),
        ("[rootfs]\nfree = 'auto'", ["rootfs.free", "got 'auto'"]),
        ("[boot]\ndeadline = '1h'", ["boot.deadline", 'a time like "60s"', "got '1h'"]),
        ("[boot]\ndeadline = 60", ["boot.deadline", "got 60"]),
        ("[boot]\nkernel_arguments = 'a'", ["boot.kernel_arguments", "a list of strings"]),
        (
            "[boot]\nkernel_arguments = ['a', 'init=/bin/sh', 'panic=1']",
            ["boot.kernel_arguments: 'panic=1': the launcher says panic=-1"],
        ),
        ("[boot]\nexpect_exit = 256", ["boot.expect_exit", "from 0 to 255", "got 256"]),
        ("[boot]\nexpect_exit = -1", ["boot.expect_exit", "got -1"]),
        ("hostname = 'a_b'", ["hostname", "got 'a_b'"]),
        ("hostname = '-a'", ["hostname", "got '-a'"]),
        ("description = 1", ["description: expected a string, got 1"]),
        ('description = "a\\u0000b"', ["description: expected a string"]),
        ("[build]\nargs = { A = 1 }", ["build.args: expected a table of strings"]),
        ("kernel = '6.13'", ["kernel: no kernel '6.13' (did you mean 6.12?)"]),
        ("kernel = 'zzz'", ["kernel: no kernel 'zzz'; known: 6.12, tiny"]),
        ("[[check]]\nlog = '('", ["check[1].log: expected a regular expression"]),
        ("[[check]]\nlog = 1", ["check[1].log: expected a string, got 1"]),
        ("[[check]]\n[[check]]\nlog = 'a'\nhttp = {}", ["check[2]", "got log, http"]),
        ("[[check]]\nhttps = {}", ["check[1]", "got https"]),
        ("[[check]]", ["check[1]", "got nothing"]),
        ("check = 'x'", ["check: expected [[check]] tables, got 'x'"]),
        ("[[check]]\nhttp = {}", ["check[1].http.port is missing"]),
        ("[[check]]\nhttp = { port = 0 }", ["check[1].http.port", "got 0"]),
        ("[[check]]\nhttp = { port = 65536 }", ["check[1].http.port", "got 65536"]),
        ("[[check]]\nhttp = { port = 80, path = 'x' }", ["check[1].http.path", "got 'x'"]),
        ("[[check]]\nhttp = { port = 80, path = '/a b' }", ["check[1].http.path"]),
        ("[[check]]\nhttp = { port = 80, status = 99 }", ["check[1].http.status"]),
        ("[[check]]\nhttp = { port = 80, statu = 1 }", ["check[1].http.statu: unknown key"]),
        ("[[check]]\ntcp = {}", ["check[1].tcp.port is missing"]),
        ("[[check]]\ntcp = { port = 22, start = 'x' }", ["check[1].tcp.start: unknown key"]),
        ("init = 'sbin/init'", ["init: expected", "got 'sbin/init'"]),
        ("init = '/sbin/../init'", ["init: expected", "got '/sbin/../init'"]),
        ("[boot]\nready = 'notify'", ["boot.ready", "an init of its own", "got 'notify'"]),
        ("init = '/init'\n[boot]\nready = 'yes'", ["boot.ready", "got 'yes'"]),
        ("[rootfs]\nreadonly = 1", ["rootfs.readonly: expected true or false, got 1"]),
        ("[rootfs]\noverlay = 1", ["rootfs.overlay: expected true or a size", "got 1"]),
        ("[rootfs]\noverlay = '8MiB'", ["rootfs.overlay", "16 at least", "got '8MiB'"]),
        ("[rootfs]\noverlay = '16385KiB'", ["rootfs.overlay", "a whole number of MiB"]),
        ("[rootfs]\nreadonly = true\noverlay = true", ["rootfs.overlay", "either readonly or"]),
        ("[rootfs]\nwritable = ['/x']", ["rootfs.writable", "readonly = true", "got ['/x']"]),
        ("[rootfs]\nreadonly = true\nwritable = ['x']", ["rootfs.writable", "got 'x'"]),
        ("[rootfs]\nreadonly = true\nwritable = ['/']", ["rootfs.writable", "got '/'"]),
        ("[rootfs]\nreadonly = true\nwritable = ['/a/../b']", ["rootfs.writable"]),
        ("[network]\naddress = '10.0.0.2'", ["network.address", "10.0.0.2/24", "got '10.0.0.2'"]),
        ("[network]\naddress = '10.0.0.2/33'", ["network.address", "got '10.0.0.2/33'"]),
        ("[network]\naddress = '10.0.0.2/255.0.0.0'", ["network.address", "255.0.0.0'"]),
        ("[network]\naddress = ''", ["network.address", "got ''"]),
        ("[network]\naddress = 'fe80::1%eth0/64'", ["network.address", "got 'fe80"]),
        ("[network]\naddress = [1]", ["network.address: expected a list of strings"]),
        ("[network]\ngateway = 'gw'", ["network.gateway", "got 'gw'"]),
        ("[network]\ndns = ['1.1.1.1', '1.1.1']", ["network.dns", "got '1.1.1'"]),
        (f"[network]\ndns = {['1.1.1.1'] * 17}", ["network.dns: expected at most 16, got 17"]),
        ("[network]\nsearch = 'a b'", ["network.search", "got 'a b'"]),
        ("[network]\nhosts = { 'a b' = '1.1.1.1' }", ["network.hosts", "{'a b': '1.1.1.1'}"]),
        ("[network]\nhosts = { a = 'b' }", ["network.hosts", "got {'a': 'b'}"]),
        ("[network]\nhosts = ['a']", ["network.hosts: expected a table of strings"]),
        ("[network]\nmtu = 67", ["network.mtu", "from 68 to 65535", "got 67"]),
        ("[network]\nmmds = 'yes'", ["network.mmds: expected true or false"]),
        ("[network]\nadress = 'x'", ["network.adress: unknown key (did you mean address?)"]),
        ("[bootstrap]\nsuite = 'trixie'", ["Dockerfile or a [bootstrap]", "not both"]),
        ("[bootstrap]\npackages = []", ["bootstrap.suite is missing"]),
        ("[bootstrap]\nsuite = '--x'", ["bootstrap.suite", "got '--x'"]),
        (
            "[bootstrap]\nsuite = 'trixie'\npackages = ['--y']",
            ["bootstrap.packages: expected names of packages, got '--y'"],
        ),
        ("[bootstrap]\nsuite = 'x'\npackages = 'y'", ["bootstrap.packages: expected a list"]),
    ],
)
def test_a_mistake_in_image_toml_is_named_with_file_and_key(
    checkout: Path, text: str, words: list[str]
) -> None:
    found = [line for line in problems(with_image(checkout, text)) if line.startswith("images/web")]
    assert any(all(word in line for word in words) for line in found), found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["fragments is missing"]),
        ("fragments = []", ["source is missing"]),
        ("fragments = 'base'", ["fragments: expected a list of strings, got 'base'"]),
        ("fragments = ['bas']", ["no kernels/fragments/bas.config (did you mean base?)"]),
        ("fragments = ['zzzzz']", ["zzzzz.config; known: base, net"]),
        ("fragments = ['../x']", ["fragments: no kernels/fragments/../x.config"]),
        (KERNEL.replace("[[", "arch = 'arm64'\n[["), ["arch", "x86_64", "got 'arm64'"]),
        (KERNEL.replace(SHA, "1" * 63), ["source[1].sha256", "got '111"]),
        (KERNEL.replace(SHA, "A" * 64), ["source[1].sha256", "got 'AAA"]),
        (KERNEL.replace("https", "http"), ["source[1].url", "got 'http:"]),
        (KERNEL.replace("6.12.2", "$(x)"), ["source[1].version", "got '$(x)'"]),
        (KERNEL.replace("version", "versoin"), ["source[1].versoin: unknown key"]),
        (KERNEL.replace("version", "versoin"), ["source[1].version is missing"]),
        (KERNEL + "debian = 'linux-source-6.12'", ["source[1]: expected either debian"]),
        (KERNEL.replace("url", "#"), ["source[1]: expected either debian"]),
        (KERNEL + "debian = 'evil'", ["source[1].debian", "got 'evil'"]),
    ],
)
def test_a_mistake_in_kernel_toml_is_named_with_file_and_key(
    checkout: Path, text: str, words: list[str]
) -> None:
    found = problems(with_kernel(checkout, text))
    assert any(
        line.startswith("kernels/6.12/kernel.toml: ") and all(word in line for word in words)
        for line in found
    ), found


def test_all_mistakes_of_all_files_are_reported_at_once(checkout: Path) -> None:
    with_image(checkout, "a = 1\n[machine]\nvcpus = 99\n[boot]\ndeadline = 'soon'")
    with_image(checkout, "kernel = ", "tool")
    with_kernel(checkout, KERNEL + "b = 1")
    found = problems(checkout)
    for where in [
        "images/web/image.toml: a: ",
        "images/web/image.toml: machine.vcpus: ",
        "images/web/image.toml: boot.deadline: ",
        "images/tool/image.toml: not valid TOML",
        "kernels/6.12/kernel.toml: source[1].b: ",
    ]:
        assert any(line.startswith(where) for line in found), (where, found)


@pytest.mark.parametrize("name", ["Web", "-web", "web-", "a b", "a=b", "a:b", "a" * 64])
def test_a_directory_that_cannot_be_a_task_and_a_tag_is_refused(checkout: Path, name: str) -> None:
    assert any(
        line.startswith(f"images/{name}/image.toml: the directory's name")
        for line in problems(with_image(checkout, "", name))
    )


def test_an_image_needs_a_dockerfile_or_a_bootstrap(checkout: Path) -> None:
    (checkout / "images/web/Dockerfile").unlink()
    assert any("images/web: needs a Dockerfile" in line for line in problems(checkout))


def test_a_file_that_is_not_utf_8_is_reported(checkout: Path) -> None:
    (checkout / "images/web/image.toml").write_bytes(b'description = "\xff"')
    assert any("images/web/image.toml: not valid TOML" in line for line in problems(checkout))


def test_a_bootstrap_file_holds_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "toolchain.toml"
    path.write_text("[bootstrap]\nsuite = 'trixie'\n")
    assert spec.bootstrap(path).suite == "trixie"
    path.write_text("x = 1\n[bootstrap]\nsuite = 'trixie'\n")
    with pytest.raises(SpecError, match=r"toolchain.toml: x: unknown key"):
        spec.bootstrap(path)
    path.write_text("")
    with pytest.raises(SpecError, match=r"no \[bootstrap\] table"):
        spec.bootstrap(path)


NAMES = ["alpine-web", "debian-base", "debian-web"]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (None, NAMES),
        ("debian-web", ["debian-web"]),
        ("debian-*", ["debian-base", "debian-web"]),
        ("debian-web,alpine-web", ["debian-web", "alpine-web"]),
        ("debian-web, *-web", ["debian-web", "alpine-web"]),
        ("*", NAMES),
    ],
)
def test_select_takes_commas_and_globs(wanted: str | None, chosen: list[str]) -> None:
    assert spec.select(wanted, reversed(NAMES), what="image") == chosen


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("debian-wbe", "no image 'debian-wbe' (did you mean debian-web?); known: alpine-web, "),
        ("debian-web,zzz", "no image 'zzz'; known: "),
        ("x*", "no image 'x*'"),
        ("", "no image ''"),
    ],
)
def test_select_names_what_it_does_not_know(wanted: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec.select(wanted, NAMES, what="image")
    assert message in str(caught.value)
