"""Read a checkpoint of the published code without running any code that it names.

Enters: a torch zip file, which holds a pickle. Leaves: tensors, arrays, numbers, containers, and
`StandIn`s for objects of classes that aren't ours to run. Whatever else the pickle names is
refused. Nothing that it can reach is shared with the program: functions and classes are made anew
for each file.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bm.core.messages import DataError

FOREIGN = ("bm", "omegaconf", "dora", "typing", "pathlib", "collections.defaultdict")
"""Packages (or classes) whose objects are replaced by stand-ins."""
STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in STORAGES.values()}
CONTAINERS: dict[str, Any] = {
    **{kind.__name__: kind for kind in (dict, list, tuple, set, frozenset)},
    **{kind.__name__: kind for kind in (int, float, bool, str, complex)},
    "long": int,
}
"""Of Python's own, those that a pickle may call: they can't be changed and have no side effects."""
NUMBERS = "biufc"
"""Kinds of NumPy arrays that are read: truth values and numbers."""


class StandIn:
    """What was pickled of an object whose class isn't run.

    Attributes
    ----------
    args : arguments that its class would have been made with.
    state : its attributes by name.
    items : what it holds, if it is a mapping.
    """

    args: tuple[Any, ...]
    state: dict[str, Any]
    items: dict[Any, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> "StandIn":
        """Keep the arguments: a pickle may not call `__init__` at all."""
        self = super().__new__(cls)
        self.args, self.state, self.items = args, dict(kwargs), {}
        return self

    def __init__(self, *args: Any, **kwargs: Any):
        """Arguments are no error: `__new__` has kept them."""

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):  # (attributes, slots)
            if part is not None:
                self.state.update(part)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value


class _Dtype(StandIn):
    """A data type of NumPy, on its way."""

    def __setstate__(self, state: Any) -> None:
        self.state["byteorder"] = state[1]

    def to_numpy(self) -> np.dtype:
        """The type, if it is one of plain numbers."""
        dtype = np.dtype(self.args[0]) if isinstance(self.args[0], str) else None
        if dtype is None or dtype.kind not in NUMBERS:
            raise DataError(f"unexpected data type {self.args[0]!r} of an array.")
        return dtype.newbyteorder(self.state.get("byteorder", "="))


class _Array(StandIn):
    """An array of NumPy, on its way."""

    def __setstate__(self, state: Any) -> None:
        names = ("version", "shape", "dtype", "is_fortran", "data")
        self.state.update(zip(names, state, strict=True))

    def to_numpy(self) -> np.ndarray:
        """The array."""
        state = self.state
        flat = np.frombuffer(state["data"], state["dtype"].to_numpy())
        return flat.reshape(state["shape"], order="F" if state["is_fortran"] else "C").copy()


def read_published(path: Path) -> dict[str, Any]:
    """Read the tensors, numbers and containers of a published checkpoint.

    Raises
    ------
    DataError : it isn't a torch zip file, is damaged, or names code that isn't known to be inert.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = _plain(_Reader(archive, *_find_pickle(archive)).load(), set())
    except Exception as error:  # a crafted or damaged pickle raises whatever it likes
        raise DataError(f"{path} can't be read as a published checkpoint: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds {type(content).__name__}, not the parts of a checkpoint.")
    return content


class _Reader(pickle.Unpickler):
    """Unpickler that knows a short list of names and nothing else."""

    def __init__(self, archive: zipfile.ZipFile, root: str, file: Any):
        super().__init__(file)
        self.archive = archive
        self.root = root
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for ``module.name`` in the pickle.

        Raises
        ------
        pickle.UnpicklingError : it isn't on the list.
        """
        if module in ("builtins", "__builtin__") and name in CONTAINERS:
            return CONTAINERS[name]
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if (module, name) in FUNCTIONS:
            return _anew(FUNCTIONS[module, name])
        if (module, name) in CLASSES:
            return type(name, (CLASSES[module, name],), {})
        full = f"{module}.{name}"
        if any(f"{full}.".startswith(f"{known}.") for known in FOREIGN):
            return type(name, (StandIn,), {"__module__": module})
        raise pickle.UnpicklingError(
            f"it names {full}, which a checkpoint has no need of and which could run code. Don't "
            "load this file by other means either, unless you know who made it."
        )

    def persistent_load(self, pid: Any) -> Tensor:
        """Numbers of a storage, as one flat tensor.

        Parameters
        ----------
        pid : ("storage", data type, name of the file, device, number of elements).
        """
        kind, dtype, key, _, n_elements = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"unknown storage {kind!r} of {dtype!r}.")
        if key not in self.storages:
            entry = self.archive.getinfo(f"{self.root}/data/{key}")
            if entry.file_size != n_elements * dtype.itemsize:
                raise pickle.UnpicklingError(
                    f"storage {key} should have {n_elements} elements of {dtype}, not "
                    f"{entry.file_size} bytes."
                )
            data = bytearray(_read(self.archive, entry))
            empty = torch.empty(0, dtype=dtype)
            self.storages[key] = torch.frombuffer(data, dtype=dtype) if data else empty
        return self.storages[key]


def _find_pickle(archive: zipfile.ZipFile) -> tuple[str, Any]:
    """Name of the archive's folder, and its pickle opened."""
    pickles = [entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise DataError(f"it has {len(pickles)} data.pkl; one is expected.")
    (entry,) = pickles
    root = entry.filename.removesuffix("/data.pkl")
    names = set(archive.namelist())
    if f"{root}/byteorder" in names and archive.read(f"{root}/byteorder") != b"little":
        raise DataError("it was written on a big-endian machine.")
    if entry.compress_type != zipfile.ZIP_STORED:
        raise DataError("it is compressed, which torch never does.")
    return root, archive.open(entry)


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    if entry.compress_type != zipfile.ZIP_STORED:  # a small file could fill the memory
        raise DataError(f"{entry.filename} is compressed, which torch never does.")
    return archive.read(entry)


def _anew(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of its own to be called, so that the pickle can't set attributes of ours."""

    def call(*args: Any) -> Any:
        return function(*args)

    return call


def _rebuild_tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    return storage.as_strided(tuple(size), tuple(stride), offset).clone()


def _rebuild_parameter(data: Tensor, *_: Any) -> Tensor:
    return data


def _encode(text: str, encoding: str) -> bytes:
    """Bytes, as Python 3 writes them in the pickle format of Python 2."""
    if encoding != "latin1":
        raise DataError(f"unexpected encoding {encoding!r}.")
    return text.encode("latin1")


def _scalar(dtype: _Dtype, data: bytes) -> bool | int | float | complex:
    return np.frombuffer(data, dtype.to_numpy(), count=1)[0].item()


FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): tuple,
    ("torch", "device"): lambda *names: ":".join(map(str, names)),
    ("_codecs", "encode"): _encode,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}
CLASSES: dict[tuple[str, str], type[StandIn]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): StandIn,
    ("numpy", "dtype"): _Dtype,
}


def _plain(value: Any, seen: set[int]) -> Any:
    """The same with NumPy's arrays in place of what stands for them.

    Parameters
    ----------
    value : of the pickle.
    seen : stand-ins that are done; a node of OmegaConf knows its parent, which knows the node.
    """
    if isinstance(value, _Array):
        return value.to_numpy()
    if isinstance(value, StandIn) and id(value) not in seen:
        seen.add(id(value))
        value.state, value.items = _plain(value.state, seen), _plain(value.items, seen)
    if isinstance(value, dict):
        return {key: _plain(item, seen) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item, seen) for item in value)
    return value
