#!/usr/bin/env python3
"""The house keeps its order: includes point one way, heavy libraries stay in their room.

usage: includes_test.py REPOSITORY
"""
import pathlib
import re
import sys

# What each room may include, besides itself. Order of the house:
# nvme <- transport <- transport/tcp <- host, controller <- frontends, control <- tools.
ROOMS = {
    "nvme": set(),
    "transport": {"nvme"},
    "transport/tcp": {"nvme", "transport"},
    "io": {"nvme", "transport"},
    "host": {"nvme", "transport", "transport/tcp"},
    "controller": {"nvme", "transport", "transport/tcp"},
    "frontends": {"nvme", "transport"},
    "frontends/nbd": {"nvme", "transport", "frontends"},
    "frontends/fuse": {"nvme", "transport", "frontends"},
    "control": {"nvme", "transport", "host"},
}
# Single headers of other rooms. A frontend sees one of the host's; the runtime directory and the
# kernel's devices own descriptors.
HEADERS = {
    "frontends": {"host/block_device.h"},
    "frontends/nbd": {"host/block_device.h", "io/unique_fd.h"},
    "frontends/fuse": {"host/block_device.h"},
    "control": {"io/unique_fd.h"},
}
# Rooms that hold common values which every room may use, by header.
EVERYWHERE = {"nvme/result.h", "nvme/check.h", "nvme/endian.h"}
# Who may include which library.
LIBRARIES = {
    r"liburing": {"io"},
    r"CLI/": {"tools"},
    r"isa-l|isal": {"transport/tcp"},
    r"fuse": {"frontends/fuse"},
    r"libnbd": {"controller", "tests"},
    r"systemd/": {"tools"},
    r"netlink/|linux/nbd": {"frontends/nbd"},
    r"sys/socket\.h|netinet/|sys/epoll\.h|sys/un\.h": {"io", "tools", "tests"},
}
HEAVY_NOT_IN_HEADERS = re.compile(r"nlohmann/json\.hpp|spdlog|gmock")


def room_of(path: str) -> str | None:
    for room in sorted(ROOMS, key=len, reverse=True):
        if path.startswith(room + "/"):
            return room
    return None


def main() -> int:
    root = pathlib.Path(sys.argv[1])
    wrong = []
    files = 0
    for top in ("src", "tools"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix not in (".h", ".cpp"):
                continue
            files += 1
            name = str(path.relative_to(root))
            room = room_of(str(path.relative_to(root / "src"))) if top == "src" else "tools"
            if room is None:
                wrong.append(f"{name}: in no room of the house")
                continue
            for number, line in enumerate(path.read_text().splitlines(), 1):
                m = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
                if not m:
                    continue
                header = m.group(2)
                where = f"{name}:{number}"
                if m.group(1) == '"':
                    target = room_of(header)
                    if room == "tools" or header in EVERYWHERE or target is None or target == room:
                        pass
                    elif header in HEADERS.get(room, set()):
                        pass
                    elif target not in ROOMS[room]:
                        wrong.append(f"{where}: {room}/ must not include {header}")
                for pattern, rooms in LIBRARIES.items():
                    if re.match(pattern, header) and room not in rooms:
                        wrong.append(f"{where}: only {', '.join(sorted(rooms))} may include {header}")
                if path.suffix == ".h" and HEAVY_NOT_IN_HEADERS.search(header):
                    wrong.append(f"{where}: {header} is too heavy for a header")
    print("\n".join(wrong))
    print(f"{files} files, {len(wrong)} includes against the order of the house")
    return 1 if wrong or files == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
