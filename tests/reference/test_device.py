"""Device and number format follow from the hardware, from a name, or from the environment; never from a timing."""

import warnings

import pytest
import torch

from specdec_ref import machine
from specdec_ref.cli.shared import give_way
from specdec_ref.machine import crowded
from specdec_ref.models.device import describe_dtype, pick_device, pick_dtype
from specdec_ref.models.hub import ModelError
from specdec_ref.session import Session


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPECDEC_DTYPE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)


def has(monkeypatch: pytest.MonkeyPatch, *features: str) -> None:
    """Let the CPU have these features and no other."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(features, True), raising=False)
    for probe in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: False, raising=False)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("float32", torch.float32),
        ("fp32", torch.float32),
        ("float64", torch.float64),
        ("bfloat16", torch.bfloat16),
        ("BF16", torch.bfloat16),
        ("float16", torch.float16),
        ("torch.float32", torch.float32),
        (torch.bfloat16, torch.bfloat16),
    ],
)
def test_names_of_dtypes(name: str | torch.dtype, dtype: torch.dtype) -> None:
    assert pick_dtype(name, "cpu") == dtype


@pytest.mark.parametrize("name", ["int8", "float", "", torch.int64])
def test_other_names_are_refused(name: str | torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="use auto, float64"):
        pick_dtype(name, "cpu")
    monkeypatch.setenv("SPECDEC_DTYPE", "int8")
    with pytest.raises(ValueError, match="SPECDEC_DTYPE 'int8'"):
        pick_dtype("auto", "cpu")


@pytest.mark.parametrize("feature", ["amx_bf16", "avx512_bf16", "bf16", "sve_bf16"])
def test_cpu_with_native_bfloat16(feature: str, monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, feature, "avx2")
    assert pick_dtype("auto", "cpu") == torch.bfloat16
    assert describe_dtype("auto", "cpu") == f"bfloat16, because this CPU multiplies bfloat16 natively ({feature})."
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert pick_dtype("auto", "cpu") == torch.float32


def test_cpu_without_native_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, "avx2", "avx512_f")
    assert pick_dtype("auto", "cpu") == torch.float32
    assert describe_dtype("auto", "cpu").startswith("float32, because this CPU has no native bfloat16")


def test_torch_without_get_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch)
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert pick_dtype("auto", "cpu") == torch.float32
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert pick_dtype("auto", "cpu") == torch.bfloat16


def test_environment_beats_hardware_and_a_name_beats_both(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, "amx_bf16")
    monkeypatch.setenv("SPECDEC_DTYPE", "fp32")
    assert pick_dtype("auto", "cpu") == torch.float32
    assert describe_dtype("auto", "cpu") == "float32, because SPECDEC_DTYPE says so."
    assert pick_dtype("float64", "cpu") == torch.float64
    assert describe_dtype("float64", "cpu") == "float64, because it was asked for."


def test_choice_is_the_same_every_time() -> None:
    assert len({pick_dtype() for _ in range(20)}) == 1


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("auto") == torch.device("cpu")
    assert pick_device(torch.device("cpu")) == torch.device("cpu")
    for name in ("cuda", "cuda:1"):
        with pytest.raises(ValueError, match="not available"):
            pick_device(name)
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        pick_device("gpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match="not available"):
        pick_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("cpu")  # on request only
    assert pick_device("mps").type == "mps"
    assert pick_dtype("auto", "mps") == torch.float32


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_cuda(native: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert pick_device("auto") == torch.device("cuda")
    assert pick_dtype("auto") == dtype
    with pytest.raises(ValueError, match="not available"):
        pick_device("cuda:1")


@pytest.mark.parametrize(("together", "busy"), [([1.0, 1.1, 0.9, 1.0, 1.2], False), ([9.0, 30.0, 1.0, 7.0, 0.7], True)])
def test_threads_that_wait_for_each_other_are_noticed(
    together: list[float], busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    seconds = iter(together)
    assert crowded(lambda threads: next(seconds) if threads == 2 else 1.0) is busy


def test_one_thread_is_used_on_a_busy_machine_unless_the_number_was_chosen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    for busy, environment, wanted in ((True, "2", []), (False, None, []), (True, None, [1])):
        machine.thread_advice.cache_clear()
        monkeypatch.setattr(machine, "crowded", lambda busy=busy: busy)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if environment:
            monkeypatch.setenv("OMP_NUM_THREADS", environment)
        give_way()
        assert chosen == wanted
    assert "one thread, not 2" in capsys.readouterr().err
    machine.thread_advice.cache_clear()


def test_the_library_warns_on_a_busy_machine_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", None)  # calling it would fail
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for busy in (True, False):
        machine.thread_advice.cache_clear()
        monkeypatch.setattr(machine, "crowded", lambda busy=busy: busy)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            with pytest.raises(ModelError):
                Session.open("/nonexistent")
        assert [str(each.message) for each in seen] == [
            "other programs use this machine: one thread would be faster than 2; torch.set_num_threads(1) changes it "
            "for this process"
        ] * busy
    machine.thread_advice.cache_clear()
