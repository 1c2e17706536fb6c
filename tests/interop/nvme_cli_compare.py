"""Debian's nvme-cli over the kernel's host, and nvmf over ours, look at the same target: what both
print is equal. Used by kernel_host_test.py (nvmf-target) and kernel_target_test.py (nvmet)."""

import itertools
import json
import re

import cases
import nvmet
import programs

# In JSON, field by field. {c} is the controller, {1} and {2} are its namespaces. nvme-cli 2.3 needs
# --csi over fabrics: without it, it looks for the controller's registers in memory.
DOCUMENTS = (
    "id-ctrl {c}", "id-ns {1}", "id-ns {2}", "id-ns {c} -n 2", "list-ns {c}", "list-ns {c} -n 1",
    "ns-descs {1}", "ns-descs {2}", "fw-log {c}", "effects-log {c} --csi=0",
)
# Of these, fields that must differ, and why.
DIFFERING = {
    "id-ctrl": {"cntlid": "each association has a controller of its own"},
}
# As text, line by line; a line of DIFFERING is left out. Where a target refuses one, both say so.
TEXTS = (
    "id-ctrl {c} -H", "id-ns {1} -H", "id-ns {c} -n 77", "list-ns {c}", "ns-descs {2}",
    "fw-log {c}", "effects-log {c} --csi=0 -H", "supported-log-pages {c}", "nvm-id-ctrl {c}",
    "id-iocs {c}", "get-property {c} -o 0", "get-property {c} -o 8 -H",
    "get-property {c} -o 0x1c -H", "get-log {c} --log-id=3 --log-len=512",
)
# Both must fail alike: there is no such namespace, page or feature.
REFUSED = ("list-ns {c} --all", "ns-descs {c} -n 77", "get-feature {c} -f 0x7f",
           "get-log {c} --log-id=0x7e --log-len=512")
# nvme-cli 2.3 has no JSON for these: the text is compared. Not 0eh: Linux sets the clock of its own
# controller and nothing sets that of ours, and it moves.
FEATURES = ("1", "2", "4", "5 -n 1", "6", "7", "0xa", "0xb", "0xf", "0x16")
# Of these only what is named is compared, not the value: each host asks for the events that it acts
# on; and with a URI, nobody has asked for queues or for command retry delays, and keep-alives are as
# often as nvmf likes.
OWN_VALUES = ("0xb",)
OWN_VALUES_WITH_URI = ("7", "0xb", "0xf", "0x16")
# What the SMART log counts goes up meanwhile: ours is between two of theirs.
COUNTERS = ("data_units_read", "data_units_written", "host_read_commands", "host_write_commands",
            "controller_busy_time", "power_on_hours")
# Which commands failed is each controller's own, and so may be how many did.
OWN_COUNT = "num_err_log_entries"
STATUS_OF_NVME_CLI = re.compile(r"NVMe status: [^\n]*\(0x([0-9a-f]+)\)")
STATUS_OF_NVMF = re.compile(r"\(0x([0-9a-f]{3})[,)]")


def differences(theirs, ours, path=""):
    """(path, theirs, ours) of whatever is not equal, the order and the types of it included."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        if list(theirs) != list(ours):
            yield path + " (keys)", list(theirs), list(ours)
        for key in theirs.keys() & ours.keys():
            yield from differences(theirs[key], ours[key], f"{path}.{key}".lstrip("."))
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for index, pair in enumerate(zip(theirs, ours)):
            yield from differences(*pair, f"{path}[{index}]")
    elif type(theirs) is not type(ours) or theirs != ours:
        yield path, theirs, ours


def _without_values(text):
    """What is after the last colon of each line is away."""
    return re.sub(r":[^:\n]*$", "", text, flags=re.MULTILINE)


class Both:
    """The same subsystem in two eyes. `theirs(text)` runs nvme-cli, connected as /dev/nvme0, and
    gives (status, output); `ours(words)` runs nvmf, connected as `name`. `addresses`: where each of
    them finds the target, as (address, port). `host`: the NQN that both have."""

    def __init__(self, theirs, ours, name, addresses, host):
        self._theirs = theirs
        self._ours = ours
        self._addresses = addresses
        self._host = host
        uri = "nvme+tcp://{}:{}/{}".format(*addresses[1], nvmet.OPEN_NQN)
        self.targets = ((name, ()), (uri, ("-q", host, "-I", programs.HOST_ID)))

    def their_text(self, text):
        status, output = self._theirs(self._for_nvme_cli(text))
        cases.check(status == 0, f"`nvme {text}` exited {status}: {output}")
        return output

    def their_json(self, text):
        output = self.their_text(text + " -o json")
        try:
            # The name of the device is a key of fw-log.
            return json.loads(output.replace('"nvme0"', '"DEVICE"'))
        except ValueError:
            raise cases.Failed(f"`nvme {text} -o json` printed no JSON:\n{output}") from None

    @staticmethod
    def _for_nvme_cli(text):
        return text.format("", "/dev/nvme0n1", "/dev/nvme0n2", c="/dev/nvme0")

    def our_run(self, text, target, *more):
        name, options = target
        space = name + "/{}" if "://" in name else name + "n{}"
        words = text.format("", space.format(1), space.format(2), c=name).split()
        return self._ours("nvmf", *words, *options, *more)

    def our_json(self, text, target):
        told = self.our_run(text, target, "-o", "json").must_succeed()
        try:
            return json.loads(told.out.replace(json.dumps(target[0]), '"DEVICE"'))
        except ValueError:
            raise cases.Failed(f"`{told.command}` printed no JSON:\n{told.out}") from None

    def check_equal(self, text, theirs, ours, but=()):
        differing = [f"{path}: {one!r} and {other!r}"
                     for path, one, other in differences(theirs, ours) if path not in but]
        cases.check(not differing, f"`{text}` of nvme-cli and of nvmf differ in\n"
                    + "\n".join(differing))

    # The cases.

    def documents(self):
        for text in DOCUMENTS:
            theirs = self.their_json(text)
            cases.check(theirs, f"`nvme {text}` printed {theirs}")
            for target in self.targets:
                self.check_equal(text, theirs, self.our_json(text, target),
                                 DIFFERING.get(text.split()[0], ()))

    def texts(self):
        for text in TEXTS:
            status, theirs = self._theirs(self._for_nvme_cli(text))
            if status != 0:
                self._check_refused(text, theirs)
                continue
            theirs = theirs.replace("nvme0", "DEVICE").splitlines()
            left_out = DIFFERING.get(text.split()[0], ())
            for target in self.targets:
                ours = self.our_run(text, target).must_succeed().out
                ours = ours.replace(target[0], "DEVICE").splitlines()
                different = [f"{one!r} and {other!r}" for one, other
                             in itertools.zip_longest(theirs, ours)
                             if one != other and (one or "").split(" ")[0] not in left_out]
                cases.check(not different, f"`{text}` of nvme-cli and of nvmf differ in\n"
                            + "\n".join(different[:20]))

    def discovery(self):
        """By the address that each of them gets there by; the log says the same to both."""
        (their_address, their_port), (our_address, our_port) = self._addresses
        status, theirs = self._theirs(f"discover -t tcp -a {their_address} -s {their_port} "
                                      f"-q {self._host} -o json")
        cases.check(status == 0, f"`nvme discover` exited {status}: {theirs}")
        theirs = json.loads(theirs)
        cases.check(theirs["records"], "the discovery log is empty")
        for words in ((f"nvme+tcp://{our_address}:{our_port}",),
                      ("-t", "tcp", "-a", our_address, "-s", str(our_port))):
            told = self._ours("nvmf", "discover", *words, "-q", self._host, "-o", "json")
            self.check_equal("discover", theirs, json.loads(told.must_succeed().out))

    def smart_log(self):
        text = "smart-log {c}"
        for target in self.targets:
            before, ours, after = (self.their_json(text), self.our_json(text, target),
                                   self.their_json(text))
            self.check_equal(text, before, ours, (*COUNTERS, OWN_COUNT))
            for key in (*COUNTERS, OWN_COUNT):
                cases.check(type(ours[key]) is type(before[key]), f"{key} is {ours[key]!r}")
            for key in COUNTERS:
                cases.check(int(before[key]) <= int(ours[key]) <= int(after[key]),
                            f"{key} is {ours[key]}, not from {before[key]} to {after[key]}.")

    def error_log(self):
        """Each entry's keys; which commands failed is each controller's own."""
        text = "error-log {c} -e 16"
        theirs = self.their_json(text)
        for target in self.targets:
            ours = self.our_json(text, target)
            cases.check(list(ours) == list(theirs) == ["errors"], f"{list(ours)}, {list(theirs)}")
            cases.check(len(ours["errors"]) == len(theirs["errors"]), f"{len(ours['errors'])}")
            for one, other in zip(theirs["errors"], ours["errors"]):
                cases.check([(key, type(value)) for key, value in one.items()]
                            == [(key, type(value)) for key, value in other.items()],
                            f"an entry has {other}, not the keys of {one}")

    def features(self):
        for feature in FEATURES:
            text = f"get-feature {{c}} -f {feature} -H"
            status, theirs = self._theirs(self._for_nvme_cli(text))
            if status != 0:
                self._check_refused(text, theirs)
                continue
            for target in self.targets:
                ours = self.our_run(text, target).must_succeed().out
                own = OWN_VALUES_WITH_URI if "://" in target[0] else OWN_VALUES
                alike = _without_values if feature in own else str
                cases.check(alike(ours) == alike(theirs),
                            f"`nvme {text}` printed\n{theirs}`nvmf` printed\n{ours}")

    def refused(self):
        for text in REFUSED:
            status, theirs = self._theirs(self._for_nvme_cli(text))
            cases.check(status != 0, f"`nvme {text}` succeeded: {theirs}")
            self._check_refused(text, theirs)

    def _check_refused(self, text, theirs):
        said = STATUS_OF_NVME_CLI.search(theirs)
        cases.check(said, f"`nvme {text}` printed {theirs}")
        for target in self.targets:
            ours = self.our_run(text, target)
            told = STATUS_OF_NVMF.search(ours.err)
            cases.check(ours.status == 1 and told and said[0] in ours.err, f"{ours}")
            cases.check(int(told[1], 16) == int(said[1], 16) & 0x7FF,
                        f"`nvme {text}` says {said[0]}, nvmf says {ours.err}")

    CASES = {"id-ctrl, id-ns, list-ns, ns-descs, fw-log, effects-log": documents,
             "discover": discovery, "text for people": texts, "smart-log": smart_log,
             "error-log": error_log, "get-feature": features, "what is refused": refused}


def compare(counted, title, workspace, theirs, addresses, connected):
    """All of it, as cases of their own: nvmf gets a connection first. `connected`: a context in
    which nvme-cli has one, as ALLOWED_HOST, with two I/O queues and a keep-alive time of 5 s."""
    if not any(counted.wanted(f"{title}: {name}") for name in Both.CASES):
        return
    with counted.case(f"{title}: both connected"), connected:
        uri = "nvme+tcp://{}:{}/{}".format(*addresses[1], nvmet.OPEN_NQN)
        workspace.run("nvmf-connect", uri, "-q", nvmet.ALLOWED_HOST, "-I", programs.HOST_ID,
                      "-i", "2", "-k", "5", "--name", "both").must_succeed()
        after_failure, counted.after_failure = counted.after_failure, None  # the rest needs it, too
        try:
            both = Both(theirs, workspace.run, "both", addresses, nvmet.ALLOWED_HOST)
            for name, case in Both.CASES.items():
                counted.run(f"{title}: {name}", case, both)
        finally:
            counted.after_failure = after_failure
            workspace.run("nvmf", "disconnect", "both")
