"""Which device and which file of a model: `--device auto|hailo|cpu` and `--variant` to an opened backend, and why."""

from __future__ import annotations

import logging
from functools import partial

from . import plugins
from .errors import BackendError, BackendUnavailable, InputError, MissingPackage, SettingsError
from .failover import Failover
from .hailo_checks import present
from .hailo_probe import identify
from .manifest import CPU_VARIANTS, Artifact, Manifest, verify
from .types import Backend

log = logging.getLogger(__name__)

HAILO_VARIANTS = ("hailo8", "hailo8r", "hailo8l")


def choose(manifest: Manifest, variant: str | None, device: str) -> tuple[str, str]:
    """The variant to run and, in one line, why; SettingsError or BackendUnavailable where nothing fits.

    "auto" takes the Hailo when library, driver and chip are there and the model has a HEF for it; it imports nothing of
    HailoRT for a model without one.
    """
    if variant is not None:
        if (variant in HAILO_VARIANTS and device == "cpu") or (variant not in HAILO_VARIANTS and device == "hailo"):
            raise SettingsError(f"variant {variant!r} does not run on device {device!r}; leave one of them out")
        manifest.artifact(variant)
        return variant, f"{'hailo' if variant in HAILO_VARIANTS else 'cpu'} ({variant}), as asked"
    if device == "cpu":
        return on_cpu(manifest), f"cpu ({on_cpu(manifest)}), as asked"
    found, why = _hailo(manifest)
    if found:
        return found, f"hailo ({why})"
    if device == "hailo":
        raise BackendUnavailable(f"{manifest.name}: {why}")
    return on_cpu(manifest), f"cpu ({on_cpu(manifest)}): {why}"


def on_cpu(manifest: Manifest) -> str:
    """The best variant for a CPU; SettingsError when the model has none."""
    if found := _cpu_variants(manifest):
        return found[0]
    raise SettingsError(f"{manifest.name}: has no file for a CPU, only {', '.join(manifest.artifacts)}; export one")


def _cpu_variants(manifest: Manifest) -> list[str]:
    """Those that a CPU can run, the best first; of names that are not ours any TFLite file."""
    files = [name for name, artifact in manifest.artifacts.items() if artifact.path.suffix == ".tflite"]
    return sorted(files, key=lambda name: CPU_VARIANTS.index(name) if name in CPU_VARIANTS else len(CPU_VARIANTS))


def open_backend(artifact: Artifact, *, threads: int = 1) -> Backend:
    """The engine for an artifact, by the kind of its file, after its hash was checked."""
    verify(artifact)
    if artifact.path.suffix == ".hef":
        return plugins.load("backends", "hailo").Backend(artifact)
    return plugins.load("backends", "litert").Backend(artifact, threads=threads)


def open_steady(manifest: Manifest, variant: str, *, threads: int = 1) -> Backend:
    """The backend for a run: a Hailo's falls back to the CPU and returns, where the model has a variant for it."""
    artifact = manifest.artifact(variant)
    if variant not in HAILO_VARIANTS or not _cpu_variants(manifest):
        return open_backend(artifact, threads=threads)
    other = manifest.artifact(on_cpu(manifest))
    device, cpu = partial(open_backend, artifact), partial(open_backend, other, threads=threads)
    return Failover(device, cpu, (artifact, other), probe=identify)


def open_best(manifest: Manifest, variant: str | None, device: str, *, threads: int = 1) -> tuple[Backend, str, str]:
    """Backend, variant and why, for a run. On "auto" a Hailo that cannot be opened is passed over, and why says so."""
    chosen, why = choose(manifest, variant, device)
    try:
        return open_steady(manifest, chosen, threads=threads), chosen, why
    except (BackendError, InputError) as error:
        if device != "auto" or variant is not None or chosen not in HAILO_VARIANTS:
            raise
        log.warning("%s; going on with the cpu", error)
        chosen = on_cpu(manifest)
        return open_backend(manifest.artifact(chosen), threads=threads), chosen, f"cpu ({chosen}): {error}"


def _hailo(manifest: Manifest) -> tuple[str, str]:
    if not set(HAILO_VARIANTS) & set(manifest.artifacts):
        why = "the model has no HEF; calmcam compile makes one"
        return "", why if present() else "no /dev/hailo0, and no HEF of the model"
    try:
        return plugins.load("backends", "hailo").available(manifest.artifacts)
    except MissingPackage as error:
        return "", str(error)
