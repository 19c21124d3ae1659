"""Records, run folders and the DataFrame over them."""

from flopbench.results.files import write_atomically
from flopbench.results.frame import to_frame
from flopbench.results.records import (
    OURS,
    SCHEMA,
    TORCHS,
    Bound,
    Calibration,
    CellRecord,
    Check,
    Environment,
    Flag,
    FrontierRecord,
    Group,
    Interval,
    ModelProfile,
    ModelResult,
    OperatorTime,
    Peaks,
    ProfileRecord,
    RunInfo,
    Samples,
    Status,
)
from flopbench.results.run import Run, merge_runs

__all__ = [
    "OURS",
    "SCHEMA",
    "TORCHS",
    "Bound",
    "Calibration",
    "CellRecord",
    "Check",
    "Environment",
    "Flag",
    "FrontierRecord",
    "Group",
    "Interval",
    "ModelProfile",
    "ModelResult",
    "OperatorTime",
    "Peaks",
    "ProfileRecord",
    "Run",
    "RunInfo",
    "Samples",
    "Status",
    "merge_runs",
    "to_frame",
    "write_atomically",
]
