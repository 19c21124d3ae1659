"""What there is to run: suites and models, as tables."""

import torch
from rich.table import Table

from flopbench.models import label_of, list_models
from flopbench.models.factory import create_model, num_parameters
from flopbench.suites import available_suites, load_suite


def suites_table() -> Table:
    """Every suite that ships with flopbench: its title, its devices, and its pairs."""
    table = Table(title="Suites", title_justify="left")
    for column in ("suite", "what it compares", "profiles", "pairs"):
        table.add_column(column, overflow="fold")
    for name in available_suites():
        suite = load_suite(name)
        pairs = dict.fromkeys(pair.labels[1] for profile in suite.profiles.values() for pair in profile.pairs)
        profiles = [f"{device} (quick too)" if device in suite.quick else device for device in suite.profiles]
        table.add_row(name, suite.title, ", ".join(profiles), ", ".join(pairs))
    return table


def models_table() -> Table:
    """Every model of the catalogue with its trainable parameters, counted on the built network."""
    table = Table(title="Models", title_justify="left")
    table.add_column("name", no_wrap=True)
    table.add_column("label", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    family = ""
    for name in list_models():
        with torch.device("meta"):
            model = create_model(name)
        if family not in ("", type(model).__name__):
            table.add_section()
        family = type(model).__name__
        table.add_row(name, label_of(name), f"{num_parameters(model):,}")
    return table
