"""To which container a control group belongs, by the names that engines give it."""

from __future__ import annotations

from pathlib import Path

import pytest

from memory_tracer.record.cgroups import container_label

ID = "4f66ad9a0b2e" + "0123456789abcdef" * 3 + "0123"
POD = "0ee0ed3b-a3ef-4b2a-9a36-0f7b0f0f6a11"
UNIT = f"kubepods-burstable-pod{POD.replace('-', '_')}.slice"


@pytest.mark.parametrize(
    "path",
    [
        f"system.slice/docker-{ID}.scope",
        f"docker/{ID}",
        f"machine.slice/libpod-{ID}.scope",
        f"kubepods.slice/{UNIT}/cri-containerd-{ID}.scope",
        f"kubepods/besteffort/pod{POD}/{ID}",
        f"machine.slice/crio-{ID}",
        f"default/{ID}",
    ],
)
@pytest.mark.parametrize("length", [4, 12, 64])
def test_group_named_by_an_id_is_found_by_the_id_and_its_beginning(path: str, length: int) -> None:
    assert container_label(Path(path), ID[:length]) == ID
    assert container_label(Path(path), ID[1:length]) is None


@pytest.mark.parametrize("wanted", ["", "4", "4f6", ID + "0", ID.upper()])
def test_what_is_no_id_stands_for_no_container(wanted: str) -> None:
    assert container_label(Path(f"docker-{ID}.scope"), wanted) is None


@pytest.mark.parametrize("helper", [f"machine.slice/libpod-conmon-{ID}.scope", f"crio-conmon-{ID}.scope"])
def test_group_of_an_engines_helper_is_not_the_containers(helper: str) -> None:
    assert container_label(Path(helper), ID) is None


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("lxc.payload.web", "web"),
        ("machine.slice/machine-web.scope", "web"),
        ("machine.slice/machine-web\\x2d1.scope", "web-1"),
        ("machine.slice/systemd-nspawn@web.service", "web"),
        ("default/web", "web"),
        ("system.slice:cri-containerd:web", "web"),
    ],
)
def test_group_named_by_a_name_is_found_by_that_name_only(path: str, name: str) -> None:
    assert container_label(Path(path), name) == name
    assert container_label(Path(path), name[:-1]) is None


@pytest.mark.parametrize("path", [f"kubepods.slice/{UNIT}", f"kubepods/burstable/pod{POD}"])
def test_pod_is_found_by_its_uid(path: str) -> None:
    assert container_label(Path(path), POD) == POD
    assert container_label(Path(path), POD[:8]) is None
