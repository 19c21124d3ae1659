import pytest
import torch

from flopbench.errors import FlopbenchError
from flopbench.results.trainings import NetworkInfo
from flopbench.training.weights import read_weights, save_weights

INFO = NetworkInfo(
    name="vit_ti16.flop",
    options={"width": 48},
    image_size=(32, 32),
    num_classes=10,
    mean=(0.5,) * 3,
    std=(0.2,) * 3,
)


def test_what_was_saved_is_read_again(tmp_path):
    state = {"a": torch.randn(3, 4).T, "b": torch.ones(2, dtype=torch.bfloat16)}
    save_weights(tmp_path / "weights.safetensors", state, INFO)
    read, info = read_weights(tmp_path / "weights.safetensors")
    assert info == INFO
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], state[name]) for name in state)


def test_other_files_of_safetensors_say_nothing_of_their_network(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    assert read_weights(tmp_path / "other.safetensors")[1] is None


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\xff" * 100])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "bad.safetensors").write_bytes(content)
    with pytest.raises(FlopbenchError, match=r"bad\.safetensors is no file of safetensors"):
        read_weights(tmp_path / "bad.safetensors")
    with pytest.raises(FlopbenchError, match="missing"):
        read_weights(tmp_path / "missing.safetensors")
