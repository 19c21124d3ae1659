from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from flopbench.errors import FlopbenchError
from flopbench.inputs import Inputs, make_inputs
from flopbench.models import foreign
from flopbench.pairs import Pair

IMAGES = (8, 8)


class Two(NamedTuple):
    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Batch:
    tokens: Tensor
    name: str = "a"


def pair(inputs: str | None = None) -> Pair:
    return Pair(baseline="nets:a", candidate="nets:b", inputs=inputs)


def make(given: object, batch_size: int = 2, **options: object) -> Inputs:
    foreign.put({"inputs": given})
    settings = {"device": "cpu", "dtype": torch.float64, **options}
    return make_inputs(pair("python:inputs"), batch_size, IMAGES, **settings)  # pyright: ignore[reportArgumentType]


def test_what_a_user_gives_are_arguments_by_position_by_name_or_one() -> None:
    x, y = torch.zeros(2), torch.ones(2)
    seen = lambda *args, **kwargs: (args, kwargs)  # noqa: E731
    assert Inputs.of(x).call(seen) == ((x,), {})
    assert Inputs.of((x, y)).call(seen) == ((x, y), {})
    assert Inputs.of({"x": x, "y": y}).call(seen) == ((), {"x": x, "y": y})
    assert Inputs.of([x, y]).call(seen) == (([x, y],), {})
    assert Inputs.of(Two(x, y)).call(seen) == ((Two(x, y),), {})
    assert Inputs.of(Inputs(x, y=y)).call(seen) == ((x,), {"y": y})


def test_floating_point_is_cast_wherever_it_lies_and_tokens_are_not() -> None:
    tokens, x = torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3)
    given = Inputs([x], OrderedDict(x=x), Batch(tokens), Two(x, tokens), 3, mask=x > 0)
    cast = given.to("cpu", torch.bfloat16)
    assert [one.dtype for one in cast.tensors] == [
        torch.bfloat16, torch.bfloat16, torch.int64, torch.bfloat16, torch.int64, torch.bool,
    ]  # fmt: skip
    assert isinstance(cast.args[1], OrderedDict)
    assert cast.args[2].name == "a"
    assert cast.args[4] == 3
    assert given.tensors[0].dtype is torch.float32


PACKED = pack_padded_sequence(torch.zeros(3, 5, 4), torch.tensor([3, 5, 2]), True, enforce_sorted=False)


def test_a_packed_sequence_keeps_its_batch_sizes_on_the_cpu() -> None:
    (packed,) = Inputs(PACKED).to("meta", torch.float16).args
    assert (packed.data.device.type, packed.data.dtype) == ("meta", torch.float16)
    assert packed.sorted_indices.device.type == "meta"
    assert packed.batch_sizes.device.type == "cpu"


def test_what_they_are_is_said_without_their_values() -> None:
    given = Inputs(torch.zeros(4, 16, dtype=torch.int64), [torch.zeros(2)] * 2, 3, mask=torch.ones(4) > 0)
    assert str(given) == "int64 [4, 16], list of 2 tensors, int, mask: bool [4]"


@pytest.mark.parametrize(
    ("given", "size"),
    [
        (torch.zeros(5, 2), 5),
        ([torch.zeros(3, 8, 8)] * 4, 4),
        ({"scale": 1.0, "x": torch.zeros(6)}, 6),
        (torch.zeros(()), 1),
        (PACKED, 3),
        (Inputs((torch.zeros(5, 2), torch.zeros(5, 2))), 5),
    ],
)
def test_the_batch_size_is_that_of_the_first_argument(given: object, size: int) -> None:
    assert Inputs.of(given).batch_size == size


def test_a_function_makes_inputs_of_a_batch_size_and_the_same_every_time() -> None:
    def tokens(batch_size: int) -> tuple[Tensor, Tensor]:
        return torch.randint(9, (batch_size, 4)), torch.rand(batch_size)

    one, two = make(tokens, 3), make(tokens, 3)
    assert [x.shape for x in one.tensors] == [(3, 4), (3,)]
    assert all(map(torch.equal, one.tensors, two.tensors))
    assert not torch.equal(one.tensors[1], make(tokens, 3, seed=1).tensors[1])
    assert one.tensors[1].dtype is torch.float64


def test_a_function_that_asks_for_it_is_told_the_image_size() -> None:
    (images,) = make(lambda batch_size, image_size: torch.zeros(batch_size, *image_size)).args
    assert images.shape == (2, *IMAGES)


def test_without_own_inputs_a_pair_takes_images() -> None:
    (images,) = make_inputs(pair(), 2, IMAGES, device="cpu", dtype=torch.bfloat16).args
    assert images.shape == (2, 3, *IMAGES)
    assert images.dtype is torch.bfloat16
    (flat,) = make_inputs(pair(), 2, IMAGES, device="meta", dtype=None, channels=1).args
    assert flat.is_meta
    assert flat.shape == (2, 1, *IMAGES)


def test_inputs_that_cannot_be_made_are_one_line() -> None:
    def broken(batch_size: int) -> None:
        raise KeyError("tokens")

    with pytest.raises(FlopbenchError, match=r"cannot make the inputs of .*KeyError: 'tokens' \(test_inputs"):
        make(broken)
    with pytest.raises(FlopbenchError, match="hold no tensor"):
        make(lambda batch_size: "tokens")


def test_what_was_given_from_python_is_found_by_its_name_alone() -> None:
    foreign.put({"a": 1})
    assert foreign.load("python:a") == 1
    foreign.put({"b": 2})
    with pytest.raises(FlopbenchError, match="python:a was given from Python, and is gone"):
        foreign.load("python:a")
