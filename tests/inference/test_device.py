"""Choosing a device, and stepping down when memory runs out."""

import sys

import numpy as np
import pytest
import torch

import napari_sam as ns
from napari_sam.errors import DeviceError, DeviceMemoryError, FallbackWarning
from napari_sam.inference import device as device_module
from napari_sam.inference.device import Runtime, choose_runtime, fastest_dtype, keep_heap
from napari_sam.inference.fallback import Stepper, is_out_of_memory

CPU = Runtime(torch.device("cpu"), torch.float32)
GPU = Runtime(torch.device("cuda"), torch.float32)


@pytest.mark.parametrize(("device", "dtype"), [("quantum", "auto"), ("cuda:99", "auto"), ("cpu", "float12")])
def test_what_is_not_there_is_named(device, dtype):
    with pytest.raises(DeviceError):
        choose_runtime(device, dtype)


def test_auto_without_accelerators(monkeypatch):
    monkeypatch.setattr(device_module, "_has_cuda", lambda: False)
    monkeypatch.setattr(device_module, "_has_mps", lambda: False)
    assert choose_runtime().device.type == "cpu"
    with pytest.raises(DeviceError, match="not available"):
        choose_runtime("mps")


@pytest.mark.parametrize(("has", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_half_precision_only_where_the_processor_gains(monkeypatch, has, dtype):
    monkeypatch.setattr(device_module, "_cpu_has_bf16", lambda: has)
    assert fastest_dtype(torch.device("cpu")) == dtype


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_heap_is_kept_on_linux():
    assert keep_heap() in (True, False)


class Hungry:
    """Runs out of memory unless few enough items at the right precision and place are asked."""

    def __init__(self, fits):
        self.fits, self.seen = fits, []

    def __call__(self, items, runtime):
        self.seen.append((len(items), runtime.dtype_name, runtime.device.type))
        if not self.fits(len(items), runtime):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [item * 10 for item in items]


def test_batch_then_precision_then_cpu():
    run = Hungry(lambda n, runtime: runtime.device.type == "cpu")
    stepper = Stepper(GPU, 4)
    with pytest.warns(FallbackWarning) as caught:
        assert stepper.run([1, 2, 3], run) == [10, 20, 30]
    said = [str(w.message) for w in caught]
    assert "1 images at a time" in said[0]
    assert "bfloat16" in said[1]
    assert "CPU" in said[2]
    assert stepper.runtime == CPU
    assert run.seen[:3] == [(3, "float32", "cuda"), (1, "float32", "cuda"), (1, "bfloat16", "cuda")]


def test_a_smaller_batch_is_enough_and_stays():
    run = Hungry(lambda n, runtime: n <= 2)
    stepper = Stepper(CPU, 8)
    with pytest.warns(FallbackWarning):
        assert stepper.run(list(range(7)), run) == [i * 10 for i in range(7)]
    assert stepper.batch_size <= 2
    assert stepper.run([5, 6, 7], run) == [50, 60, 70]


def test_nothing_smaller_is_left():
    with pytest.raises(DeviceMemoryError, match="smaller model"):
        Stepper(CPU, 1).run([1], Hungry(lambda n, runtime: False))


def ask_for_too_much(*_, **__):
    """Make torch's CPU allocator fail for real."""
    return torch.empty(1 << 60, dtype=torch.uint8)


def test_what_the_cpu_allocator_really_says_is_out_of_memory():
    with pytest.raises(RuntimeError) as caught:
        ask_for_too_much()
    assert is_out_of_memory(caught.value)
    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 60, np.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_real_lack_of_memory_makes_batches_smaller():
    def run(items, runtime):
        if len(items) > 2:
            ask_for_too_much()
        return [item * 10 for item in items]

    stepper = Stepper(CPU, 8)
    with pytest.warns(FallbackWarning, match="images at a time"):
        assert stepper.run(list(range(5)), run) == [0, 10, 20, 30, 40]
    with pytest.raises(DeviceMemoryError, match="smaller model"):
        Stepper(CPU, 1).run([1], ask_for_too_much)


def test_other_errors_pass():
    def broken(items, runtime):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        Stepper(CPU, 1).run([1], broken)


def test_predictor_steps_down(model_path, monkeypatch):
    model = ns.load_model(model_path, device="cpu")
    model._stepper.batch_size = 4
    plain = model._sam.encode

    def encode(batch):
        if len(batch) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return plain(batch)

    monkeypatch.setattr(model._sam, "encode", encode)
    with pytest.warns(FallbackWarning, match="1 images"):
        arrays = model.encode_tiles([np.zeros((8, 8, 3), np.uint8)] * 3)
    assert len(arrays) == 3
    assert model.batch_size == 1


def out_of_memory(*_, **__):
    raise torch.OutOfMemoryError("out of memory")


@pytest.mark.parametrize("fail", [out_of_memory, ask_for_too_much])
def test_decoding_goes_to_the_cpu_or_says_so(model_path, monkeypatch, fail):
    model = ns.load_model(model_path, device="cpu")
    embedding = model.encode(np.zeros((20, 20)))
    plain, failures = model._sam.decode, [1]

    def decode(*args, **kwargs):
        if failures:
            failures.pop()
            fail()
        return plain(*args, **kwargs)

    monkeypatch.setattr(model._sam, "decode", decode)
    with pytest.raises(DeviceMemoryError, match="fewer objects"):
        model.predict(embedding, ns.PromptSet([(3, 3)]))
    failures.append(1)
    monkeypatch.setattr(model._stepper, "runtime", GPU)
    with pytest.warns(FallbackWarning, match="CPU"):
        assert model.predict(embedding, ns.PromptSet([(3, 3)])).mask.shape == (20, 20)
    assert model.device == "cpu"
    failures += [1, 1]
    monkeypatch.setattr(model._stepper, "runtime", GPU)
    with pytest.warns(FallbackWarning, match="CPU"), pytest.raises(DeviceMemoryError, match="fewer objects"):
        model.predict(embedding, ns.PromptSet([(3, 3)]))


def test_other_errors_of_decoding_pass(model_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("shapes do not fit")

    model = ns.load_model(model_path, device="cpu")
    embedding = model.encode(np.zeros((20, 20)))
    monkeypatch.setattr(model._sam, "decode", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        model.predict(embedding, ns.PromptSet([(3, 3)]))
