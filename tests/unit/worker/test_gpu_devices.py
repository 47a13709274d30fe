"""GPUs as the kernel shows them."""

from pathlib import Path

from jarvis.worker.gpu_devices import amd_sample, amd_sizes


def card(root: Path, name: str, busy: str, used: str) -> None:
    device = root / name / "device"
    device.mkdir(parents=True)
    (device / "mem_info_vram_total").write_text("1000\n")
    (device / "gpu_busy_percent").write_text(busy)
    (device / "mem_info_vram_used").write_text(used)


def test_amd_from_sysfs(tmp_path: Path) -> None:
    card(tmp_path, "card0", "25\n", "600\n")
    card(tmp_path, "card1", "100\n", "1000\n")
    (tmp_path / "card2" / "device").mkdir(parents=True)
    assert amd_sizes(tmp_path) == (1000, 1000)
    assert amd_sample(tmp_path) == {
        "gpu0_ratio": 0.25, "gpu0_memory_used": 600.0, "gpu1_ratio": 1.0, "gpu1_memory_used": 1000.0,
    }  # fmt: skip


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    card(tmp_path, "card0", "busy\n", "600\n")
    assert amd_sample(tmp_path) == {}
    (tmp_path / "card0" / "device" / "mem_info_vram_total").write_text("much")
    assert amd_sizes(tmp_path) == (0,)
