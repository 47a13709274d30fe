"""The GPUs of this machine: NVIDIA's by NVML where the extra ``gpu`` is installed, AMD's from sysfs."""

from contextlib import suppress
from pathlib import Path
from typing import Any

DRM = Path("/sys/class/drm")


def names() -> list[str]:
    """One name a GPU, in the order of their indices."""
    return [str(_nvml().nvmlDeviceGetName(handle)) for handle in _nvidia()] or [card.name for card in _amd(DRM)]


def sizes() -> tuple[int, ...]:
    """Bytes of memory of each GPU, in the order of their indices; 0 where that cannot be read."""
    return tuple(_nvidia_size(handle) for handle in _nvidia()) or amd_sizes(DRM)


def _nvidia_size(handle: Any) -> int:
    nvml = _nvml()
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError:
        return 0


def amd_sizes(root: Path) -> tuple[int, ...]:
    """As :func:`sizes`, from the files of the kernel's ``amdgpu`` driver."""
    return tuple(_amd_size(card) for card in _amd(root))


def _amd_size(card: Path) -> int:
    try:
        return int((card / "device" / "mem_info_vram_total").read_text())
    except (OSError, ValueError):
        return 0


def sample() -> dict[str, float]:
    """``gpu<index>_ratio`` (busy, of one) and ``gpu<index>_memory_used`` (bytes) of each; what cannot be read is left out."""
    out: dict[str, float] = {}
    for index, handle in enumerate(_nvidia()):
        nvml = _nvml()
        with suppress(nvml.NVMLError):
            out[f"gpu{index}_ratio"] = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100.0
            out[f"gpu{index}_memory_used"] = float(nvml.nvmlDeviceGetMemoryInfo(handle).used)
    return out or amd_sample(DRM)


def amd_sample(root: Path) -> dict[str, float]:
    """As :func:`sample`, from the files of the kernel's ``amdgpu`` driver."""
    out: dict[str, float] = {}
    for index, card in enumerate(_amd(root)):
        with suppress(OSError, ValueError):
            out[f"gpu{index}_ratio"] = int((card / "device" / "gpu_busy_percent").read_text()) / 100.0
            out[f"gpu{index}_memory_used"] = float((card / "device" / "mem_info_vram_used").read_text())
    return out


def _amd(root: Path) -> list[Path]:
    return [path.parents[1] for path in sorted(root.glob("card*/device/mem_info_vram_total"))]


def _nvml() -> Any:
    import pynvml

    return pynvml


def _nvidia() -> list[Any]:
    """Handles; none where the library or the driver is missing."""
    try:
        nvml = _nvml()
    except ImportError:
        return []
    try:
        nvml.nvmlInit()
        return [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError:
        return []
