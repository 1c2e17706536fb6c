"""How the kernel's own target is set up inside a test machine: subsystems, namespaces and ports as
values, and the shell text that makes them in configfs."""

import shlex
from dataclasses import dataclass, field

CONFIG = "/sys/kernel/config"


@dataclass(frozen=True)
class Namespace:
    """Backed by the machine's memory (null_blk), which is taken only by what is written."""
    nsid: int
    mebibytes: int
    block: int
    uuid: str
    nguid: str


@dataclass(frozen=True)
class Subsystem:
    nqn: str
    namespaces: tuple
    serial: str
    hosts: tuple = ()  # host NQNs that may connect; none: any may


@dataclass(frozen=True)
class Port:
    number: int  # TCP port, the same inside and outside
    subsystems: tuple = field(default=())  # their NQNs
    in_capsule: int = 0  # bytes; 0: the kernel's own choice (16384)


def _put(value, path):
    return f"echo {shlex.quote(str(value))} >{path}"


def _namespace_lines(index, subsystem, namespace):
    disk = f"{CONFIG}/nullb/disk{index}"
    return [
        f"mkdir {disk}",
        _put(namespace.mebibytes, f"{disk}/size"),
        _put(namespace.block, f"{disk}/blocksize"),
        _put(1, f"{disk}/memory_backed"),
        _put(1, f"{disk}/discard"),
        _put(1, f"{disk}/power"),
    ] + _entry_lines(index, subsystem, namespace.nsid, namespace.uuid, namespace.nguid)


def _entry_folder(subsystem, nsid):
    return f"{CONFIG}/nvmet/subsystems/{subsystem.nqn}/namespaces/{nsid}"


def _entry_lines(index, subsystem, nsid, uuid=None, nguid=None):
    """The namespace itself, whose disk is there. Without identifiers the kernel makes up new ones."""
    disk, entry = f"{CONFIG}/nullb/disk{index}", _entry_folder(subsystem, nsid)
    return [
        # Kernels up to 6.1 name the device after the index, later ones after the folder.
        f"device=/dev/disk{index}",
        f"[ -b $device ] || device=/dev/nullb$(cat {disk}/index)",
        f"mkdir {entry}",
        f"echo $device >{entry}/device_path",
        *([_put(uuid, f"{entry}/device_uuid")] if uuid else []),
        *([_put(nguid, f"{entry}/device_nguid")] if nguid else []),
        _put(1, f"{entry}/enable"),
    ]


def _subsystem_lines(subsystem):
    folder = f"{CONFIG}/nvmet/subsystems/{subsystem.nqn}"
    lines = [f"mkdir {folder}", _put(subsystem.serial, f"{folder}/attr_serial"),
             _put(0 if subsystem.hosts else 1, f"{folder}/attr_allow_any_host")]
    for host in subsystem.hosts:
        lines += [f"mkdir -p {CONFIG}/nvmet/hosts/{host}",
                  f"ln -s {CONFIG}/nvmet/hosts/{host} {folder}/allowed_hosts/{host}"]
    return lines


def _port_lines(index, port):
    folder = f"{CONFIG}/nvmet/ports/{index}"
    lines = [f"mkdir {folder}", _put("ipv4", f"{folder}/addr_adrfam"),
             _put("0.0.0.0", f"{folder}/addr_traddr"), _put(port.number, f"{folder}/addr_trsvcid"),
             _put("tcp", f"{folder}/addr_trtype")]
    if port.in_capsule:
        lines.append(_put(port.in_capsule, f"{folder}/param_inline_data_size"))
    for nqn in port.subsystems:
        lines.append(f"ln -s {CONFIG}/nvmet/subsystems/{nqn} {folder}/subsystems/{nqn}")
    return lines


def setup_commands(subsystems, ports):
    """Shell text; its exit status is that of the first step that fails."""
    lines = ["set -e"]
    index = 0
    for subsystem in subsystems:
        lines += _subsystem_lines(subsystem)
        for namespace in subsystem.namespaces:
            lines += _namespace_lines(index, subsystem, namespace)
            index += 1
    for number, port in enumerate(ports, start=1):
        lines += _port_lines(number, port)
    return "\n".join(lines) + "\n"


def _script(lines):
    return "\n".join(["set -e", *lines]) + "\n"


def unlink_commands():
    """Every port lets go of every subsystem: their controllers end, and nobody listens."""
    return _script([f"rm {CONFIG}/nvmet/ports/*/subsystems/*"])


def link_commands(nqns):
    return _script([f"for port in {CONFIG}/nvmet/ports/*; do"]
                   + [f"  ln -s {CONFIG}/nvmet/subsystems/{nqn} $port/subsystems/{nqn}"
                      for nqn in nqns] + ["done"])


def take_down_commands(subsystem):
    """Removes a subsystem with its namespaces, under whoever uses it. Its disks stay."""
    folder = f"{CONFIG}/nvmet/subsystems/{subsystem.nqn}"
    return _script([f"rm {CONFIG}/nvmet/ports/*/subsystems/{subsystem.nqn}",
                    *(f"rmdir {_entry_folder(subsystem, namespace.nsid)}"
                      for namespace in subsystem.namespaces),
                    f"rmdir {folder}"])


def bring_back_commands(subsystem, disks):
    """Makes it again as it was. `disks`: the indices of its namespaces' disks."""
    lines = _subsystem_lines(subsystem)
    for index, namespace in zip(disks, subsystem.namespaces):
        lines += _entry_lines(index, subsystem, namespace.nsid, namespace.uuid, namespace.nguid)
    return _script(lines) + link_commands((subsystem.nqn,))


def remove_namespace_commands(subsystem, nsid):
    return _script([f"rmdir {_entry_folder(subsystem, nsid)}"])


def plain_namespace_commands(subsystem, nsid, index):
    """Makes a namespace without saying who it is."""
    return _script(_entry_lines(index, subsystem, nsid))


def make_namespace_commands(subsystem, nsid, index):
    """Makes a namespace that was removed as it was."""
    uuid, nguid = next((one.uuid, one.nguid) for one in subsystem.namespaces if one.nsid == nsid)
    return _script(_entry_lines(index, subsystem, nsid, uuid, nguid))


def rename_namespace_commands(subsystem, nsid, number):
    """Gives a namespace the identifiers of `number`. It is away for a moment."""
    entry = _entry_folder(subsystem, nsid)
    return _script([_put(0, f"{entry}/enable"), _put(uuid_of(number), f"{entry}/device_uuid"),
                    _put(nguid_of(number), f"{entry}/device_nguid"), _put(1, f"{entry}/enable")])


def uuid_of(number):
    """A fixed, recognisable identifier for the namespace with this number in a test."""
    return f"6e766d66-0000-4000-8000-{number:012x}"


def nguid_of(number):
    return f"6e766d66-0000-0000-0000-{number:012x}"


def standard_layout(mebibytes=64):
    """Namespaces of both block sizes behind an open subsystem, and a subsystem for one host."""
    def namespace(nsid, block, number):
        return Namespace(nsid, mebibytes, block, uuid_of(number), nguid_of(number))
    opened = Subsystem(OPEN_NQN, (namespace(1, 512, 1), namespace(2, 4096, 2)), "NVMFOPEN")
    closed = Subsystem(CLOSED_NQN, (namespace(1, 512, 3),), "NVMFCLOSED", (ALLOWED_HOST,))
    return (opened, closed)


OPEN_NQN = "nqn.2024-05.org.example:open"
CLOSED_NQN = "nqn.2024-05.org.example:closed"
ALLOWED_HOST = "nqn.2024-05.org.example:host:allowed"
REFUSED_HOST = "nqn.2024-05.org.example:host:refused"
