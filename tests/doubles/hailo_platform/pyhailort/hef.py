"""Stand-in for the Python layer's HEF (1.4)."""

from __future__ import annotations

from dataclasses import dataclass

from hailo_world import world

from . import _pyhailort
from ._pyhailort import status
from .errors import ExceptionWrapper, HailoRTException


@dataclass
class NetworkGroupInfo:
    name: str
    is_multi_context: bool


class HEF:
    """A parsed file; needs no device (1.4)."""

    def __init__(self, hef_source: str | bytes) -> None:
        if not isinstance(hef_source, (str, bytes)):
            raise ValueError("HEF can only be created from a str path or bytes")
        with ExceptionWrapper():
            self._hef = _pyhailort.read_hef(hef_source)
        self._path = hef_source if isinstance(hef_source, str) else None

    @property
    def path(self) -> str | None:
        return self._path

    def get_network_group_names(self) -> list[str]:
        return [self._hef.name]

    def get_network_groups_infos(self) -> list[NetworkGroupInfo]:
        return [NetworkGroupInfo(self._hef.name, world.contexts > 1)]

    def get_networks_names(self, network_group_name: str | None = None) -> list[str]:
        self._known(network_group_name)
        return list(self._hef.networks)

    def get_input_vstream_infos(self, name: str | None = None) -> list[_pyhailort.VStreamInfo]:
        return self._raw(name, self._hef.inputs)

    def get_output_vstream_infos(self, name: str | None = None) -> list[_pyhailort.VStreamInfo]:
        return self._raw(name, self._hef.outputs)

    def get_all_vstream_infos(self, name: str | None = None) -> list[_pyhailort.VStreamInfo]:
        return self._raw(name, self._hef.inputs + self._hef.outputs)

    def get_sorted_output_names(self, network_group_name: str | None = None) -> list[str]:
        self._known(network_group_name)
        return [info.name for info in self._hef.outputs]

    def bottleneck_fps(self, network_group_name: str | None = None) -> float:
        self._known(network_group_name)
        if not self._hef.fps:
            raise HailoRTException("bottleneck_fps is zero")
        return self._hef.fps

    def get_vstream_name_from_original_name(self, original_name: str, network_group_name: str | None = None) -> str:
        with ExceptionWrapper():
            for stream, tensor in self._hef.tensors.items():
                if tensor == original_name:
                    return stream
            raise status(61)

    def get_original_names_from_vstream_name(
        self, vstream_name: str, network_group_name: str | None = None
    ) -> list[str]:
        with ExceptionWrapper():
            if vstream_name not in self._hef.tensors:
                raise status(61)
        return [self._hef.tensors[vstream_name]]

    def _known(self, name: str | None) -> None:
        with ExceptionWrapper():
            if name not in (None, "", self._hef.name):
                raise status(61)

    def _raw(self, name: str | None, infos: list[_pyhailort.VStreamInfo]) -> list[_pyhailort.VStreamInfo]:
        if name not in (None, "", self._hef.name, *self._hef.networks):
            raise status(61)  # not wrapped in the real package either (1.2)
        return list(infos)
