"""Files of representations for tests: stored, taken apart and written back, refused."""

import json
import struct
import zlib

import numpy as np
import pytest

from lgsirens.errors import FileFormatError
from lgsirens.representation.file import load, save
from lgsirens.system.schema import canonical_json
from tests.small import contents, representation


def store(inr, path):
    save(inr, path, overwrite=True)
    return path


class Parts:
    """The parts of a file, to be changed and written back with checksums that match."""

    def __init__(self, path):
        self.path = path
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        self.header = json.loads(content[8 : 8 + length])
        self.metadata = self.header.pop("__metadata__")
        self.header = dict(sorted(self.header.items(), key=lambda entry: entry[1]["data_offsets"]))
        self.manifest = json.loads(self.metadata["lgsirens"])
        types = {"F32": np.float32, "I32": np.int32, "U32": np.uint32}
        self.tensors = {}
        for name, entry in self.header.items():
            low, high = (8 + length + offset for offset in entry["data_offsets"])
            values = np.frombuffer(content[low:high], types[entry["dtype"]]).reshape(entry["shape"])
            self.tensors[name] = values.copy()

    def checksum(self):
        """Make all checksums match the tensors."""
        local = self.tensors["local"]
        self.tensors["row_crc32"] = np.array([zlib.crc32(row.tobytes()) for row in local], np.uint32)
        self.manifest["crc32"] = {n: zlib.crc32(t.tobytes()) for n, t in self.tensors.items() if n != "local"}

    def write(self, manifest_text=None, header_text=None):
        """Write the file, its manifest and header text put through the given functions."""
        text = canonical_json(self.manifest)
        text = manifest_text(text) if manifest_text else text
        self.metadata |= {"lgsirens": text, "lgsirens_crc32": str(zlib.crc32(text.encode()))}
        header = canonical_json({"__metadata__": self.metadata, **self.header})
        header = header_text(header) if header_text else header
        data = header.encode()
        checksums = [self.metadata["lgsirens_crc32"], *map(str, self.manifest.get("crc32", {}).values())]
        data += b" " * sum(10 - len(checksum) for checksum in checksums)
        data += b" " * (-len(data) % 8)
        tensors = b"".join(t.tobytes() for t in self.tensors.values())
        self.path.write_bytes(struct.pack("<Q", len(data)) + data + tensors)


def check_message(error, path):
    assert str(error).startswith(str(path))
    assert len(str(error).splitlines()) == 1


def refused(path, reason=""):
    """Assert that loading and reading all of a file is refused in one line that names it."""
    with pytest.raises(FileFormatError) as caught:
        contents(load(path))
    check_message(caught.value, path)
    assert reason in str(caught.value)


def refused_or_the_same(path, expected, values):
    try:
        loaded = load(path)
        found, decoded = contents(loaded), loaded.decode(full=True).values
    except FileFormatError as error:
        check_message(error, path)
        return
    assert found == expected
    assert np.array_equal(decoded, values)


def tiny(mode="lc"):
    return representation((4,), 1, mode, None if mode == "mlp" else (2,), local_width=1, global_width=1)


def at(*keys, value):
    """A function that sets one value in nested JSON."""

    def change(plain):
        for key in keys[:-1]:
            plain = plain[key]
        plain[keys[-1]] = value

    return change


def drop(*keys):
    def change(plain):
        for key in keys[:-1]:
            plain = plain[key]
        del plain[keys[-1]]

    return change
