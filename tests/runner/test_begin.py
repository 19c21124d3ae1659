"""What is asked of a suite, read before anything starts."""

import pytest

from flopbench.errors import FlopbenchError
from flopbench.runner.begin import Request, read_suite


def test_what_only_another_device_lacks_is_nothing_against_a_request():
    request = Request(read_suite("engines"), changes={"modes": ("onnxruntime",)})
    request.check(None)
    request.check("cpu")
    with pytest.raises(FlopbenchError, match="onnxruntime runs on cpu alone"):
        request.check("cuda")


def test_what_no_device_has_is_told_before_anybody_asks_for_one():
    request = Request(read_suite("engines"), changes={"modes": ("onnxruntime",), "dtypes": ("bf16",)})
    with pytest.raises(FlopbenchError, match="onnxruntime has no bf16 on cpu: choose --dtype fp32 or int8"):
        request.check(None)
